"""One training from its job to its end: assemble, restore, take the steps, record how it ended."""

import math
import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from dualdistill.data.collate import pack
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.images import ImageCache
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import DivergedError, UserError
from dualdistill.evaluate.ground_truth import ground_truth_of_samples
from dualdistill.evaluate.metrics import detection_metrics
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import from_plain, to_plain, with_method
from dualdistill.files import read_bytes, write_json
from dualdistill.report.progress import progress
from dualdistill.report.timing import profiled_steps
from dualdistill.train.assemble import assemble, open_dataset, split_names
from dualdistill.train.data import StepSampler, default_workers, training_loader
from dualdistill.train.launch import StopSignals, configure, on_leader
from dualdistill.train.loaded_detector import detect_together
from dualdistill.train.loop import Validate, fit
from dualdistill.train.metrics import MetricsLogger, Sink, read_metrics
from dualdistill.train.run_folder import DataRecord, RunFolder
from dualdistill.train.state import Checkpoints, TrainingState
from dualdistill.train.step import Training
from dualdistill.train.teacher_cache import CachedTeacher, WithTeacher, open_cache
from dualdistill.train.trained_weights import TrainedWeights

_PLAIN, _WEIGHTS = ("recipe", "overrides", "seed", "data"), ("teacher", "label_encoder")


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
            **{name: getattr(self, name) for name in _PLAIN},
            **{name: held.identity if (held := getattr(self, name)) else None for name in _WEIGHTS},
            "teacher_cache": str(self.teacher_cache) if self.teacher_cache else None,
            "log": list(self.log),
            "experiment": to_plain(self.experiment),
        }

    @classmethod
    def of(cls, run: RunFolder, *, trust: bool = False) -> "Job":
        """The job a run folder records. `trust`: run code outside this package that the run names. Raises UserError if
        weights that it needs are gone or have changed, or it names code that is not trusted."""
        plain = run.experiment
        weights: dict[str, Any] = {
            name: TrainedWeights.recall(plain[name]) if plain[name] else None for name in _WEIGHTS
        }
        return cls(
            **{name: plain[name] for name in _PLAIN},
            **weights,
            experiment=with_method(from_plain(plain["experiment"]), trust=trust),
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
        """Take the steps that are left; returns the signal that stopped them, 0 at the end of the training. Raises
        UserError for a checkpoint that cannot be restored or written, DivergedError for numbers that are not finite."""
        job, fabric, run, config = self.job, self.fabric, self.run, self.job.experiment.training
        lead, on_gpu = fabric.is_global_zero, fabric.device.type == "cuda"
        workers = default_workers(self.devices) if self.workers is None else self.workers
        resuming = on_leader(fabric, lambda: run.newest() is not None)
        training = self._assemble(workers, pretrained=not resuming)
        dataset = self._dataset()
        length = len(dataset)
        total, every = config.total_steps(length), config.validation_interval(length)
        state = TrainingState.initial(training.to(fabric.device), config)
        configure(training, config)
        facts = {name: value for name, value in job.plain().items() if name not in ("overrides", "log")}
        checkpoints = Checkpoints(run, role=job.experiment.role, facts=facts, keep_last=config.keep_last, lead=lead)
        on_leader(fabric, lambda: checkpoints.require_room(state, total))
        if resuming:
            self._restore(checkpoints, state)
            self.console.print(f"going on at step {state.step} of {total}")
        source = training.teacher
        samples = WithTeacher(dataset, source.cache) if isinstance(source, CachedTeacher) else dataset
        first, last = state.step * config.accumulate, total * config.accumulate
        rank, world = fabric.global_rank, fabric.world_size
        order = StepSampler(length, config.batch_size, first=first, last=last, seed=job.seed, rank=rank, world=world)
        loader = training_loader(samples, pack, order, workers=workers, pin=on_gpu)
        validate = self._validator(workers) if every is not None else None
        self.console.print(
            f"{world // self.devices} nodes x {self.devices} devices x {config.batch_of_one(world)} samples x "
            f"{config.accumulate} batches = {config.batch_size * config.accumulate} samples a step, {total} steps, "
            f"{workers} loader processes a device"
        )
        if lead:
            run.log(f"steps {state.step} to {total}, {length} training samples")
        with (
            progress(self.console, f"training {job.recipe}", before=state.step) as report,
            StopSignals() as signals,
            profiled_steps(self.profile if lead else None, fabric.device.type) as after_step,
        ):
            metrics = MetricsLogger(self.sinks if lead else (), report)
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
                    after_step=after_step,
                )
            except DivergedError as error:
                run.log(str(error))
                raise
            finally:
                metrics.close()
        if lead:
            run.log(f"stopped by signal {stopped} at step {state.step}" if stopped else "finished")
            if not stopped:
                write_json(run.path / "finished.json", {"steps": total})
        return stopped

    def _assemble(self, workers: int, *, pretrained: bool) -> Training:
        """The parts of the training, from the job's seed."""
        job, experiment, cached = self.job, self.job.experiment, None
        random.seed(job.seed)
        np.random.seed(job.seed)  # noqa: NPY002 (libraries may draw from it; this package's draws have generators)
        torch.manual_seed(job.seed)
        if job.teacher_cache is not None and job.teacher is not None:
            place, data = (self.console, self.fabric, job.teacher_cache), (self.index, job.data["split"])
            cached = partial(open_cache, *place, experiment, *data, job.teacher.identity["sha256"], workers)
        weights = {"teacher": job.teacher, "label_encoder": job.label_encoder}
        training = assemble(experiment, **weights, source=cached, pretrained=pretrained)
        return nn.SyncBatchNorm.convert_sync_batchnorm(training) if experiment.training.sync_batch_norm else training

    def _dataset(self) -> NuscenesDataset:
        """The training samples, their images from the cache that was asked for."""
        job, live = self.job, self.job.teacher_cache is None
        split = job.data["split"]
        dataset = open_dataset(job.experiment, self.index, split=split, training=True, seed=job.seed, for_teacher=live)
        if self.image_cache is not None:
            cache = dataset.image_cache = ImageCache.under(self.image_cache, self.index)
            read = np.unique(dataset.positions).tolist()
            self.console.print(on_leader(self.fabric, lambda: cache.require_room(self.index, read, dataset.config)))
        return dataset

    def _validator(self, workers: int) -> Validate:
        """A function from a detector, whose mode it leaves as it was, to its mAP and NDS on the validation split or
        `validate_samples` of it. All processes must call it together. Raises UserError for a split without samples or
        annotations."""
        job, index, split = self.job, self.index, split_names(self.index.version)[1]
        positions = samples_of_split(index, split)
        count = job.experiment.training.validate_samples
        if count is not None and count < len(positions):  # spread evenly: neighbours show the same scene
            positions = positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]
        ground_truth = ground_truth_of_samples(index, positions)
        if len(ground_truth.boxes) == 0:
            raise UserError(
                f"Split {split!r} of {index.root} has no annotations to validate against: set training.validate_steps "
                "and training.validate_epochs to none."
            )
        dataset = NuscenesDataset(index, job.experiment.evaluation_data, positions, training=False, seed=job.seed)

        def validate(detector: nn.Module) -> dict[str, float]:
            modes = [(module, module.training) for module in detector.modules()]
            found = detect_together(detector, dataset, workers=workers)
            for module, training in modes:
                module.training = training
            metrics = detection_metrics(ground_truth, found)
            return {"mAP": float(metrics.mean_ap), "NDS": float(metrics.nd_score)}

        return validate

    def _restore(self, checkpoints: Checkpoints, state: TrainingState) -> None:
        """Restore in all processes the checkpoint that the leading one can."""
        warn = partial(self.console.print, style="yellow")

        def restore() -> Path:
            folder, problems = checkpoints.restore_newest(state)
            for problem in problems:
                warn(f"left out {problem}")
            if folder != self.run.pointed("last"):
                self.console.print(f"checkpoints/last names no complete checkpoint; the newest one is {folder.name}")
            return folder

        folder = on_leader(self.fabric, restore)
        if not self.fabric.is_global_zero:
            checkpoints.restore(folder, state)
        if (path := self.run.metrics).exists():
            records = read_metrics(path)
            lost = read_bytes(path).count(b"\n") - len(records)  # a line without an end is not one yet
            if lost > 0:
                warn(f"{path}: {lost} lines after {len(records)} good ones cannot be read, and are left out")
            scores = [record.get("validation/NDS", math.nan) for record in records if record["step"] <= state.step]
            checkpoints.best_score = max((score for score in scores if math.isfinite(score)), default=float("-inf"))
