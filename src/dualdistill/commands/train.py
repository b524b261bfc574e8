"""`train` and `resume`: check everything first, then spend the time."""

import random
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.markup import escape

from dualdistill.commands.data import check_files, refuse_problems
from dualdistill.data.collate import collate
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import DivergedError, UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.overrides import override
from dualdistill.experiment.plain import differences, from_plain, to_plain, with_method
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import Recipe, find
from dualdistill.report.progress import progress
from dualdistill.train.assemble import assemble, open_dataset, split_names
from dualdistill.train.checkpoint import Checkpoints
from dualdistill.train.data import default_workers, training_loader
from dualdistill.train.fill_cache import open_cache, refuse_uncacheable
from dualdistill.train.launch import launch, on_leader
from dualdistill.train.loop import fit
from dualdistill.train.metrics import MetricsLogger, Sink, make_sinks, read_metrics
from dualdistill.train.run_folder import RunFolder, environment
from dualdistill.train.signals import StopSignals
from dualdistill.train.state import TrainingState
from dualdistill.train.teacher_source import TeacherSource
from dualdistill.train.trained_weights import TrainedWeights, find_label_encoder, find_teacher
from dualdistill.train.validate import validator


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
    log: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "overrides": self.overrides,
            "seed": self.seed,
            "data": {"root": str(self.data), "version": self.version, "split": self.split},
            "teacher": self.teacher.identity if self.teacher else None,
            "label_encoder": self.label_encoder.identity if self.label_encoder else None,
            "teacher_cache": str(self.teacher_cache) if self.teacher_cache else None,
            "log": list(self.log),
            "experiment": to_plain(self.experiment),
        }

    @classmethod
    def of(cls, run: RunFolder) -> "_Job":
        """The job a run folder records.

        Raises:
            UserError: if weights that it needs are gone or have changed.
        """
        plain = run.experiment
        teacher, label_encoder = (
            TrainedWeights.recall(plain[name]) if plain.get(name) else None for name in ("teacher", "label_encoder")
        )
        return cls(
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
            log=tuple(plain.get("log", ())),
        )


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
    nodes: int = 1,
    log: Sequence[str] = (),
    check: bool = True,
) -> Path:
    """Train a recipe; returns its run folder.

    Args:
        devices: Processes on each machine.
        nodes: Machines.
        log: Sinks of the metrics beside metrics.jsonl: "tensorboard", "wandb", "mlflow".

    Raises:
        UserError: if something is missing, before any time is spent; and if the training diverges.
        SystemExit: with 128 + its number after a stop signal; a checkpoint is saved.
    """
    chosen = find(recipe)
    experiment = override(chosen.build(), overrides)
    if experiment.teacher is not None and experiment.teacher.voxel is not None:
        experiment.teacher.voxel.check_backend()
    if teacher is not None and experiment.teacher_recipe is None:
        raise UserError(f"--teacher has no effect: {recipe} learns from none.")
    if teacher_cache is not None:
        refuse_uncacheable(experiment)
    experiment.training.batch_of_one(devices * nodes)  # raises where they cannot share a batch
    sinks = make_sinks(log)
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
        log=tuple(log),
    )
    fabric = launch(devices, nodes, unused_parameters=experiment.training.distill_fraction < 1)
    console = console if fabric.is_global_zero else Console(quiet=True)

    def create() -> Path:
        if check:
            refuse_problems(check_files(console, data, job.version, job.split, experiment.data))
        run = RunFolder.create(out, chosen.name, seed)
        run.write_json("experiment.json", job.plain())
        run.write_json("environment.json", environment())
        (run.path / "card.md").write_text(_card(job, chosen))
        console.print(f"[bold]{escape(chosen.name)}[/], seed {seed} -> {escape(str(run.path))}")
        for weights in (taught_by, told_by):
            if weights is not None:
                console.print(f"distilled from {escape(str(weights.path))}")
        return run.path

    run = RunFolder(on_leader(fabric, create))
    _train(console, fabric, run, job, index, workers, devices, sinks)
    return run.path


def resume_training(
    console: Console,
    path: Path,
    *,
    workers: int | None = None,
    devices: int = 1,
    nodes: int = 1,
    log: Sequence[str] | None = None,
) -> Path:
    """Go on from the newest complete checkpoint of a run; returns its folder. Arguments as in `start_training`.

    Args:
        log: As the run began with, if not given.

    Raises:
        UserError, SystemExit: as `start_training`; and for a run without a checkpoint that can be restored, or one that
            another process trains.
    """
    run = RunFolder.open(path)
    if (run.path / "finished.json").is_file():
        console.print(f"{escape(str(run.path))} is finished; nothing is left to do.")
        return run.path
    job = _Job.of(run)
    job.experiment.training.batch_of_one(devices * nodes)
    sinks = make_sinks(job.log if log is None else log)
    index = NuscenesIndex.open(job.data, job.version)
    fabric = launch(devices, nodes, unused_parameters=job.experiment.training.distill_fraction < 1)
    console = console if fabric.is_global_zero else Console(quiet=True)
    _train(console, fabric, run, job, index, workers, devices, sinks)
    return run.path


def _train(
    console: Console,
    fabric: Fabric,
    run: RunFolder,
    job: _Job,
    index: NuscenesIndex,
    workers: int | None,
    devices: int,
    sinks: Sequence[Sink],
) -> None:
    with ExitStack() as held:
        on_leader(fabric, lambda: held.enter_context(run.lock()))
        stopped = _take_steps(console, fabric, run, job, index, workers, devices, sinks)
    if not fabric.is_global_zero:
        if stopped:
            raise SystemExit(0)  # the leader's exit code counts; another one here would make the launcher kill it
        return
    if stopped:
        console.print(f"Interrupted, saved. Go on with:\n  dualdistill resume {escape(str(run.path))}")
        raise SystemExit(128 + stopped)


def _take_steps(
    console: Console,
    fabric: Fabric,
    run: RunFolder,
    job: _Job,
    index: NuscenesIndex,
    workers: int | None,
    devices: int,
    sinks: Sequence[Sink],
) -> int:
    """Assemble, restore, train; returns the signal that stopped it, or 0."""
    experiment, config, lead = job.experiment, job.experiment.training, fabric.is_global_zero
    if config.sync_batch_norm and fabric.device.type != "cuda":
        raise UserError("training.sync_batch_norm=true needs GPUs (PyTorch has it for them alone): set it to false.")
    workers = default_workers(devices) if workers is None else workers
    resuming = on_leader(fabric, lambda: run.newest() is not None)
    random.seed(job.seed)
    np.random.seed(job.seed)  # noqa: NPY002 (libraries below us may draw from it; our own draws have generators)
    torch.manual_seed(job.seed)

    def cached(teacher: CenterPoint) -> TeacherSource:
        assert job.teacher_cache is not None
        assert job.teacher is not None
        fingerprint = job.teacher.identity["sha256"]
        return open_cache(
            console, job.teacher_cache, experiment, index, job.split, teacher, fingerprint, workers=workers
        )

    training = assemble(
        experiment,
        teacher=job.teacher,
        label_encoder=job.label_encoder,
        source=cached if job.teacher_cache is not None else None,
        pretrained=not resuming,
    )
    if config.sync_batch_norm:
        training = torch.nn.SyncBatchNorm.convert_sync_batchnorm(training)
    dataset = open_dataset(
        experiment, index, split=job.split, training=True, seed=job.seed, for_teacher=job.teacher_cache is None
    )
    total, every = config.total_steps(len(dataset)), config.validation_interval(len(dataset))
    state = TrainingState.initial(training.to(fabric.device), config)
    facts = {name: value for name, value in job.plain().items() if name not in ("overrides", "log")}
    checkpoints = Checkpoints(run, role=experiment.role, facts=facts, keep_last=config.keep_last, lead=lead)
    if resuming:
        _restore(console, fabric, checkpoints, state)
        console.print(f"going on at step {state.step} of {total}")
    loader = training_loader(
        dataset,
        collate,
        length=len(dataset),
        batch_size=config.batch_size,
        first=state.step * config.accumulate,
        last=total * config.accumulate,
        seed=job.seed,
        workers=workers,
        rank=fabric.global_rank,
        world=fabric.world_size,
        pin_memory=fabric.device.type == "cuda",
    )
    validate = None
    if every is not None:
        split = split_names(job.version)[1]
        validate = validator(fabric, experiment, index, split, seed=job.seed, workers=workers)
    each = config.batch_of_one(fabric.world_size)
    console.print(
        f"{fabric.world_size // devices} nodes x {devices} devices x {each} samples x {config.accumulate} batches = "
        f"{config.batch_size * config.accumulate} samples a step, {total} steps, {workers} loader processes a device"
    )
    if lead:
        run.log(f"steps {state.step} to {total}, {len(dataset)} training samples")
    with progress(console, f"training {job.recipe}", before=state.step) as say, StopSignals() as signals:
        metrics = MetricsLogger(sinks if lead else (), say)
        metrics.start(run, facts, state.step)
        try:
            stopped = fit(
                fabric,
                state,
                loader,
                total_steps=total,
                seed=job.seed,
                metrics=metrics,
                checkpoints=checkpoints,
                signals=signals,
                validate=validate,
                validate_every=every or 0,
            )
        except DivergedError as error:
            run.log(str(error))
            raise
        finally:
            metrics.close()
    if lead:
        run.log(f"stopped by signal {stopped} at step {state.step}" if stopped else "finished")
        if not stopped:
            run.write_json("finished.json", {"steps": total})
    return stopped


def _restore(console: Console, fabric: Fabric, checkpoints: Checkpoints, state: TrainingState) -> None:
    """Restore the newest checkpoint that the leading process can, in all processes."""

    def restore() -> Path:
        folder, problems = checkpoints.restore_newest(state)
        for problem in problems:
            console.print(f"[bold yellow]left out[/] {escape(problem)}")
        if folder != checkpoints.run.pointed("last"):
            console.print(
                f"checkpoints/last names no complete checkpoint; the newest one that is complete is {folder.name}"
            )
        return folder

    folder = on_leader(fabric, restore)
    if not fabric.is_global_zero:
        checkpoints.restore(folder, state)
    if checkpoints.run.metrics.exists():
        records = [record for record in read_metrics(checkpoints.run.metrics) if record["step"] <= state.step]
        checkpoints.best_score = max((r["validation/NDS"] for r in records if "validation/NDS" in r), default=-np.inf)


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
    options = [f"--data {shlex.quote(str(job.data))}", f"--version {job.version}", f"--split {job.split}"]
    options += [f"--seed {job.seed}", *(f"--set {shlex.quote(assignment)}" for assignment in job.overrides)]
    for name, path in (
        ("teacher", job.teacher and job.teacher.path),
        ("label-encoder", job.label_encoder and job.label_encoder.path),
        ("teacher-cache", job.teacher_cache),
    ):
        options += [f"--{name} {shlex.quote(str(path))}"] if path else []
    lines += [
        "",
        "Repeat with:",
        "",
        f"    dualdistill train {recipe.typed} {' '.join(options)}",
        "",
    ]
    return "\n".join(lines)
