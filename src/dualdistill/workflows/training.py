"""`train` and `resume`: check everything first, then spend the time."""

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from dualdistill.data.collate import collate
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.checkpoints import read_facts
from dualdistill.recipes.catalogue import find
from dualdistill.recipes.experiment import Experiment, differences, from_plain, override, to_plain
from dualdistill.train.data import training_loader
from dualdistill.train.fit import fit, restore, step_of
from dualdistill.train.module import TrainingModule
from dualdistill.train.run_folder import RunFolder, environment
from dualdistill.workflows.build import (
    TeacherWeights,
    build_detector,
    build_distillation,
    find_teacher,
    load_teacher,
    open_dataset,
    split_names,
)
from dualdistill.workflows.data import look_at_files, refuse_problems
from dualdistill.workflows.progress import progress


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Everything a run folder's experiment.json holds, resolved."""

    recipe: str
    overrides: list[str]
    experiment: Experiment
    seed: int
    data: Path
    version: str
    split: str
    teacher: TeacherWeights | None

    def plain(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "overrides": self.overrides,
            "seed": self.seed,
            "data": {"root": str(self.data), "version": self.version, "split": self.split},
            "teacher": self.teacher.identity if self.teacher else None,
            "experiment": to_plain(self.experiment),
        }


def start_training(
    console: Console,
    recipe: str,
    *,
    data: Path,
    out: Path,
    overrides: list[str],
    seed: int,
    teacher: Path | None = None,
    version: str | None = None,
    split: str | None = None,
    workers: int | None = None,
    devices: int = 1,
    check: bool = True,
) -> Path:
    """Train a recipe; returns its run folder. Raises UserError before any time is spent if something is missing."""
    experiment = override(find(recipe).build(), overrides)
    if teacher is not None and experiment.distiller is None:
        raise UserError(f"--teacher has no effect: {recipe} does not distil.")
    weights = find_teacher(experiment, teacher, out) if experiment.distiller is not None else None
    index = NuscenesIndex.open(data, version)
    job = _Job(
        recipe=recipe,
        overrides=overrides,
        experiment=experiment,
        seed=seed,
        data=data.resolve(),
        version=index.version,
        split=split or split_names(index.version)[0],
        teacher=weights,
    )
    if check:
        refuse_problems(look_at_files(console, data, job.version, job.split, experiment.data))
    run = RunFolder.create(out, recipe, seed)
    run.write_json("experiment.json", job.plain())
    run.write_json("environment.json", environment())
    (run.path / "card.md").write_text(_card(job))
    console.print(f"[bold]{recipe}[/], seed {seed} -> {run.path}")
    if weights is not None:
        console.print(f"taught by {weights.path}")
    _train(console, run, job, index, workers, devices)
    return run.path


def resume_training(console: Console, path: Path, *, workers: int | None = None, devices: int = 1) -> Path:
    """Go on where the last checkpoint of a run left it."""
    run = RunFolder.open(path)
    plain = run.experiment
    teacher = None
    if plain["teacher"] is not None:
        weights = Path(plain["teacher"]["path"])
        teacher = TeacherWeights(weights, read_facts(weights))
        if teacher.identity["sha256"] != plain["teacher"]["sha256"]:
            raise UserError(f"The teacher {weights} is not the one this run began with: its weights have changed.")
    job = _Job(
        recipe=plain["recipe"],
        overrides=plain["overrides"],
        experiment=from_plain(plain["experiment"]),
        seed=plain["seed"],
        data=Path(plain["data"]["root"]),
        version=plain["data"]["version"],
        split=plain["data"]["split"],
        teacher=teacher,
    )
    if (run.path / "finished.json").is_file():
        console.print(f"{run.path} is finished; nothing is left to do.")
        return run.path
    _train(console, run, job, NuscenesIndex.open(job.data, job.version), workers, devices)
    return run.path


def _train(
    console: Console, run: RunFolder, job: _Job, index: NuscenesIndex, workers: int | None, devices: int
) -> None:
    experiment, config = job.experiment, job.experiment.training
    random.seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002 (libraries below us may draw from it; our own draws have generators)
    torch.manual_seed(job.seed)
    dataset = open_dataset(experiment, index, split=job.split, training=True, seed=job.seed)
    detector = build_detector(experiment)
    last = run.checkpoints / "last"
    start = step_of(last) if last.exists() else 0
    if start == 0 and isinstance(detector, BevDepth):
        detector.load_pretrained()
    distillation = None
    if job.teacher is not None and isinstance(detector, BevDepth):
        example = collate([dataset[0, 0]])
        distillation = build_distillation(experiment, detector, load_teacher(experiment, job.teacher), example)
    total = config.total_steps(len(dataset), devices)
    module = TrainingModule(detector, distillation, config, total_steps=total, start_step=start, seed=job.seed)
    if start:
        restore(module, last.resolve(), experiment.role)
        console.print(f"going on at step {start} of {total}")
    loader = training_loader(
        dataset,
        collate,
        length=len(dataset),
        batch_size=config.batch_size,
        first=start * config.accumulate,
        last=total * config.accumulate,
        seed=job.seed,
        workers=max(0, (os.cpu_count() or 1) - 1) if workers is None else workers,
        rank=int(os.environ.get("LOCAL_RANK", 0)),
        world=devices,
    )
    facts = {name: value for name, value in job.plain().items() if name != "overrides"}
    run.log(f"steps {start} to {total}, {len(dataset)} training samples")
    with progress(console, f"training {job.recipe}") as say:
        finished = fit(module, loader, run, role=experiment.role, facts=facts, say=say, devices=devices)
    if not finished:
        run.log(f"interrupted at step {module.step}")
        console.print(
            f"Interrupted at step {module.step} of {total}, saved. Go on with:\n  dualdistill resume {run.path}"
        )
        raise SystemExit(130)
    run.write_json("finished.json", {"steps": total})
    run.log("finished")


def _card(job: _Job) -> str:
    """A page for whoever finds the run: what it is and how to repeat it."""
    changed = differences(to_plain(find(job.recipe).build()), to_plain(job.experiment))
    lines = [f"# {job.recipe}, seed {job.seed}", "", find(job.recipe).summary, ""]
    lines += [f"- data: {job.data} ({job.version}, split {job.split})"]
    if job.teacher is not None:
        identity = job.teacher.identity
        score = identity["score"]
        scored = f"mAP {score['mAP']:.4f}, NDS {score['NDS']:.4f}" if score else "not evaluated beside its weights"
        lines += [
            f"- teacher: {identity['recipe']}, step {identity['step']}, sha256 {identity['sha256'][:16]}…, {scored}"
        ]
    lines += [f"- changed: `{key}` from `{before}` to `{after}`" for key, before, after in changed]
    sets = "".join(f" --set {assignment}" for assignment in job.overrides)
    lines += [
        "",
        "Repeat with:",
        "",
        f"    dualdistill train {job.recipe} --data {job.data} --seed {job.seed}{sets}",
        "",
    ]
    return "\n".join(lines)
