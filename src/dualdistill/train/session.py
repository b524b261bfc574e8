"""One training from its job to its end: assemble, restore, take the steps, record how it ended."""

import math
import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from dualdistill.data.collate import pack
from dualdistill.data.image_cache import ImageCache
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import DivergedError, UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import from_plain, to_plain, with_method
from dualdistill.files import read_bytes
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.report.progress import progress
from dualdistill.report.timing import profiled_steps
from dualdistill.train.assemble import assemble, open_dataset, split_names
from dualdistill.train.checkpoint import Checkpoints
from dualdistill.train.data import StepSampler, default_workers, training_loader
from dualdistill.train.fill_cache import open_cache
from dualdistill.train.launch import StopSignals, configure, on_leader
from dualdistill.train.loop import fit
from dualdistill.train.metrics import MetricsLogger, Sink, read_metrics
from dualdistill.train.run_folder import DataRecord, RunFolder
from dualdistill.train.state import TrainingState
from dualdistill.train.step import Training
from dualdistill.train.teacher_source import CachedTeacher, TeacherSource, WithTeacher
from dualdistill.train.trained_weights import TrainedWeights
from dualdistill.train.validate import validator


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run trains, from which weights, on which data: the content of its experiment.json, resolved."""

    recipe: str
    overrides: list[str]
    experiment: Experiment
    seed: int
    data: DataRecord
    teacher: TrainedWeights | None
    label_encoder: TrainedWeights | None
    teacher_cache: Path | None = None
    log: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "overrides": self.overrides,
            "seed": self.seed,
            "data": self.data,
            "teacher": self.teacher.identity if self.teacher else None,
            "label_encoder": self.label_encoder.identity if self.label_encoder else None,
            "teacher_cache": str(self.teacher_cache) if self.teacher_cache else None,
            "log": list(self.log),
            "experiment": to_plain(self.experiment),
        }

    @classmethod
    def of(cls, run: RunFolder, *, trust: bool = False) -> "Job":
        """The job a run folder records. `trust`: run code outside this package that the run names. Raises UserError if
        weights that it needs are gone or have changed, or it names code that is not trusted."""
        plain = run.experiment
        teacher, label_encoder = (
            TrainedWeights.recall(plain[name]) if plain[name] else None for name in ("teacher", "label_encoder")
        )
        return cls(
            **{name: plain[name] for name in ("recipe", "overrides", "seed", "data")},
            experiment=with_method(from_plain(plain["experiment"]), trust=trust),
            teacher=teacher,
            label_encoder=label_encoder,
            teacher_cache=Path(plain["teacher_cache"]) if plain["teacher_cache"] else None,
            log=tuple(plain["log"]),
        )

    def open_index(self) -> NuscenesIndex:
        """The index of the data. Raises UserError if they changed since the run began."""
        root, version, tables = self.data["root"], self.data["version"], self.data.get("tables", {})
        index = NuscenesIndex.open(Path(root), version)
        changed = [name for name, digest in index.digests.items() if tables.get(name, digest) != digest]
        if changed:
            raise UserError(
                f"The tables of {root} ({version}) changed since this run began: its {', '.join(changed)} "
                "are others. Put the old tables back, or begin a new run with `dualdistill train`."
            )
        return index


@dataclass
class Session:
    """The part of a training that happens in this process, between its start (or resumption) and its end."""

    console: Console
    """Quiet in processes that do not lead."""
    fabric: Fabric
    run: RunFolder
    job: Job
    index: NuscenesIndex
    _: KW_ONLY
    devices: int
    """Processes on each machine."""
    workers: int | None
    """Loader processes of this process; None: its share of the cores."""
    sinks: Sequence[Sink]
    image_cache: Path | None = None
    """Folder for decoded images."""
    profile: Path | None = None
    """Folder for a profile of the leading process's first steps."""

    def train(self) -> int:
        """Take the steps that are left; returns the signal that stopped them, 0 at the end of the training.

        Raises:
            UserError: for a checkpoint that cannot be restored or written.
            DivergedError: for numbers that are not finite.
        """
        job, config, lead = self.job, self.job.experiment.training, self.fabric.is_global_zero
        workers = default_workers(self.devices) if self.workers is None else self.workers
        resuming = on_leader(self.fabric, lambda: self.run.newest() is not None)
        training = self._assemble(workers, pretrained=not resuming)
        split, own_teacher = job.data["split"], job.teacher_cache is None
        dataset = open_dataset(
            job.experiment, self.index, split=split, training=True, seed=job.seed, for_teacher=own_teacher
        )
        if self.image_cache is not None:
            cache = dataset.image_cache = ImageCache.under(self.image_cache, self.index)
            read = np.unique(dataset.positions).tolist()
            room = on_leader(self.fabric, lambda: cache.require_room(self.index, read, dataset.config))
            self.console.print(room)
        length = len(dataset)
        total, every = config.total_steps(length), config.validation_interval(length)
        state = TrainingState.initial(training.to(self.fabric.device), config)
        configure(training, config)
        facts = {name: value for name, value in job.plain().items() if name not in ("overrides", "log")}
        checkpoints = Checkpoints(
            self.run, role=job.experiment.role, facts=facts, keep_last=config.keep_last, lead=lead
        )
        on_leader(self.fabric, lambda: checkpoints.require_room(state, total))
        if resuming:
            self._restore(checkpoints, state)
            self.console.print(f"going on at step {state.step} of {total}")
        source = training.teacher
        samples = WithTeacher(dataset, source.cache) if isinstance(source, CachedTeacher) else dataset
        first, last = state.step * config.accumulate, total * config.accumulate
        rank, world = self.fabric.global_rank, self.fabric.world_size
        order = StepSampler(length, config.batch_size, first=first, last=last, seed=job.seed, rank=rank, world=world)
        loader = training_loader(samples, pack, order, workers=workers, pin_memory=self.fabric.device.type == "cuda")
        validate = None
        if every is not None:
            split = split_names(self.index.version)[1]
            validate = validator(self.fabric, job.experiment, self.index, split, seed=job.seed, workers=workers)
        self._announce(total, workers)
        if lead:
            self.run.log(f"steps {state.step} to {total}, {length} training samples")
        with (
            progress(self.console, f"training {job.recipe}", before=state.step) as report,
            StopSignals() as signals,
            profiled_steps(self.profile if lead else None, self.fabric.device.type) as after_step,
        ):
            metrics = MetricsLogger(self.sinks if lead else (), report)
            metrics.start(self.run, facts, state.step)
            try:
                stopped = fit(
                    self.fabric,
                    state,
                    loader,
                    total_steps=total,
                    seed=job.seed,
                    metrics=metrics,
                    checkpoints=checkpoints,
                    signals=signals,
                    validate=validate,
                    validate_every=every or 0,
                    after_step=after_step,
                )
            except DivergedError as error:
                self.run.log(str(error))
                raise
            finally:
                metrics.close()
        if lead:
            self.run.log(f"stopped by signal {stopped} at step {state.step}" if stopped else "finished")
            if not stopped:
                self.run.write_json("finished.json", {"steps": total})
        return stopped

    def _assemble(self, workers: int, *, pretrained: bool) -> Training:
        """The parts of the training, from the job's seed."""
        job = self.job
        random.seed(job.seed)
        np.random.seed(job.seed)  # noqa: NPY002 (libraries may draw from it; this package's draws have generators)
        torch.manual_seed(job.seed)

        def cached(teacher: CenterPoint) -> TeacherSource:
            assert job.teacher_cache is not None
            assert job.teacher is not None
            split, sha256 = job.data["split"], job.teacher.identity["sha256"]
            place = (self.console, self.fabric, job.teacher_cache)
            return open_cache(*place, job.experiment, self.index, split, teacher, sha256, workers=workers)

        training = assemble(
            job.experiment,
            teacher=job.teacher,
            label_encoder=job.label_encoder,
            source=cached if job.teacher_cache is not None else None,
            pretrained=pretrained,
        )
        if job.experiment.training.sync_batch_norm:
            training = nn.SyncBatchNorm.convert_sync_batchnorm(training)
        return training

    def _restore(self, checkpoints: Checkpoints, state: TrainingState) -> None:
        """Restore in all processes the checkpoint that the leading one can."""

        def restore() -> Path:
            folder, problems = checkpoints.restore_newest(state)
            for problem in problems:
                self.console.print(f"left out {problem}", style="yellow")
            if folder != self.run.pointed("last"):
                self.console.print(
                    f"checkpoints/last names no complete checkpoint; the newest complete one is {folder.name}"
                )
            return folder

        folder = on_leader(self.fabric, restore)
        if not self.fabric.is_global_zero:
            checkpoints.restore(folder, state)
        if self.run.metrics.exists():
            records = read_metrics(self.run.metrics)
            lost = read_bytes(self.run.metrics).count(b"\n") - len(records)  # a line without an end is not one yet
            if lost > 0:
                self.console.print(
                    f"{self.run.metrics}: {lost} lines after {len(records)} good ones cannot be read, and are left out",
                    style="yellow",
                )
            scores = [record.get("validation/NDS", math.nan) for record in records if record["step"] <= state.step]
            checkpoints.best_score = max((score for score in scores if math.isfinite(score)), default=float("-inf"))

    def _announce(self, total: int, workers: int) -> None:
        config, world = self.job.experiment.training, self.fabric.world_size
        self.console.print(
            f"{world // self.devices} nodes x {self.devices} devices x {config.batch_of_one(world)} samples x "
            f"{config.accumulate} batches = {config.batch_size * config.accumulate} samples a step, {total} steps, "
            f"{workers} loader processes a device"
        )
