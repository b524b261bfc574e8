"""`train` and `resume`: check everything first, then spend the time."""

import os
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from dualdistill.commands.data import look_at_files, refuse_problems
from dualdistill.data.collate import collate
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.overrides import override
from dualdistill.experiment.plain import differences, from_plain, to_plain, with_method
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import Recipe, find
from dualdistill.report.progress import progress
from dualdistill.train.assemble import assemble, open_dataset, split_names
from dualdistill.train.data import training_loader
from dualdistill.train.fill_cache import open_cache, refuse_uncacheable
from dualdistill.train.fit import fit, rank, restore, step_of
from dualdistill.train.module import TrainingModule
from dualdistill.train.run_folder import RunFolder, environment
from dualdistill.train.teacher_source import TeacherSource
from dualdistill.train.trained_weights import TrainedWeights, find_label_encoder, find_teacher


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
    teacher: TrainedWeights | None
    label_encoder: TrainedWeights | None
    teacher_cache: Path | None = None

    def plain(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "overrides": self.overrides,
            "seed": self.seed,
            "data": {"root": str(self.data), "version": self.version, "split": self.split},
            "teacher": self.teacher.identity if self.teacher else None,
            "label_encoder": self.label_encoder.identity if self.label_encoder else None,
            "teacher_cache": str(self.teacher_cache) if self.teacher_cache else None,
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
    label_encoder: Path | None = None,
    teacher_cache: Path | None = None,
    version: str | None = None,
    split: str | None = None,
    workers: int | None = None,
    devices: int = 1,
    check: bool = True,
) -> Path:
    """Train a recipe; returns its run folder. Raises UserError before any time is spent if something is missing."""
    chosen = find(recipe)
    experiment = override(chosen.build(), overrides)
    if experiment.teacher is not None and experiment.teacher.voxel is not None:
        experiment.teacher.voxel.check_backend()
    if teacher is not None and experiment.teacher_recipe is None:
        raise UserError(f"--teacher has no effect: {recipe} learns from none.")
    if teacher_cache is not None:
        refuse_uncacheable(experiment)
    experiment.training.batch_of_one(devices)  # raises where they cannot share a batch
    if label_encoder is not None and experiment.label_encoder_recipe is None:
        raise UserError(f"--label-encoder has no effect: {recipe} learns from none.")
    taught_by = find_teacher(experiment, teacher, out) if experiment.teacher_recipe is not None else None
    told_by = None
    if taught_by is not None and experiment.label_encoder_recipe is not None:
        told_by = find_label_encoder(experiment, label_encoder, out, taught_by)
    index = NuscenesIndex.open(data, version)
    job = _Job(
        recipe=chosen.name,
        overrides=overrides,
        experiment=experiment,
        seed=seed,
        data=data.resolve(),
        version=index.version,
        split=split or split_names(index.version)[0],
        teacher=taught_by,
        label_encoder=told_by,
        teacher_cache=teacher_cache.resolve() if teacher_cache else None,
    )
    if rank():  # another process leads; this one keeps nothing and says nothing
        with tempfile.TemporaryDirectory() as folder:
            _train(Console(quiet=True), RunFolder(Path(folder)), job, index, workers, devices)
            return Path(folder)
    if check:
        refuse_problems(look_at_files(console, data, job.version, job.split, experiment.data))
    run = RunFolder.create(out, chosen.name, seed)
    run.write_json("experiment.json", job.plain())
    run.write_json("environment.json", environment())
    (run.path / "card.md").write_text(_card(job, chosen))
    console.print(f"[bold]{chosen.name}[/], seed {seed} -> {run.path}")
    for weights in (taught_by, told_by):
        if weights is not None:
            console.print(f"taught by {weights.path}")
    _train(console, run, job, index, workers, devices)
    return run.path


def resume_training(console: Console, path: Path, *, workers: int | None = None, devices: int = 1) -> Path:
    """Go on where the last checkpoint of a run left it."""
    run = RunFolder.open(path)
    plain = run.experiment
    teacher, label_encoder = (
        TrainedWeights.recall(plain[name]) if plain.get(name) else None for name in ("teacher", "label_encoder")
    )
    job = _Job(
        recipe=plain["recipe"],
        overrides=plain["overrides"],
        experiment=with_method(from_plain(plain["experiment"])),
        seed=plain["seed"],
        data=Path(plain["data"]["root"]),
        version=plain["data"]["version"],
        split=plain["data"]["split"],
        teacher=teacher,
        label_encoder=label_encoder,
        teacher_cache=Path(plain["teacher_cache"]) if plain.get("teacher_cache") else None,
    )
    if rank():
        console = Console(quiet=True)
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
    last = run.checkpoints / "last"
    start = step_of(last) if last.exists() else 0
    workers = max(0, (os.cpu_count() or 1) - 1) if workers is None else workers

    def cached(teacher: CenterPoint) -> TeacherSource:
        assert job.teacher is not None
        assert job.teacher_cache is not None
        sha256 = job.teacher.identity["sha256"]
        return open_cache(
            console, job.teacher_cache, experiment, index, job.split, teacher, sha256, workers=workers or 0
        )

    parts = assemble(
        experiment,
        teacher=job.teacher,
        label_encoder=job.label_encoder,
        source=cached if job.teacher_cache is not None else None,
        pretrained=start == 0,
    )
    dataset = open_dataset(
        experiment, index, split=job.split, training=True, seed=job.seed, for_teacher=job.teacher_cache is None
    )
    total = config.total_steps(len(dataset))
    module = TrainingModule(parts, config, total_steps=total, start_step=start, seed=job.seed)
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
        workers=workers,
        rank=rank(),
        world=devices,
    )
    facts = {name: value for name, value in job.plain().items() if name != "overrides"}
    if not rank():
        run.log(f"steps {start} to {total}, {len(dataset)} training samples")
    with progress(console, f"training {job.recipe}", before=start) as say:
        # A run that was killed after its last checkpoint has only to be called finished.
        finished = start == total or fit(
            module, loader, run, role=experiment.role, facts=facts, say=say, devices=devices
        )
    if rank():
        return
    if not finished:
        run.log(f"interrupted at step {module.step}")
        console.print(
            f"Interrupted at step {module.step} of {total}, saved. Go on with:\n  dualdistill resume {run.path}"
        )
        raise SystemExit(130)
    run.write_json("finished.json", {"steps": total})
    run.log("finished")


def _card(job: _Job, recipe: Recipe) -> str:
    """A page for whoever finds the run: what it is and how to repeat it."""
    changed = differences(to_plain(recipe.build()), to_plain(job.experiment))
    lines = [f"# {recipe.name}, seed {job.seed}", "", recipe.summary, ""]
    lines += [f"- data: {job.data} ({job.version}, split {job.split})"]
    for title, weights in (("teacher", job.teacher), ("label encoder", job.label_encoder)):
        if weights is None:
            continue
        identity = weights.identity
        score = identity["score"]
        scored = f"mAP {score['mAP']:.4f}, NDS {score['NDS']:.4f}" if score else "not evaluated beside its weights"
        lines += [
            f"- {title}: {identity['recipe']}, step {identity['step']}, sha256 {identity['sha256'][:16]}…, {scored}"
        ]
    lines += [f"- changed: `{key}` from `{before}` to `{after}`" for key, before, after in changed]
    sets = "".join(f" --set {assignment}" for assignment in job.overrides)
    lines += [
        "",
        "Repeat with:",
        "",
        f"    dualdistill train {recipe.typed} --data {job.data} --seed {job.seed}{sets}",
        "",
    ]
    return "\n".join(lines)
