"""Detectors restored from their weights files, and what a detector finds in a data set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int
from torch import nn
from torch.utils.data import DataLoader

from dualdistill import hub
from dualdistill.data.collate import pack
from dualdistill.data.dataset import NEUTRAL_EPOCH, NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.deploy.calibration import Images, Rig
from dualdistill.errors import DivergedError, UserError
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.to_global import detect, detections_to_global
from dualdistill.experiment.experiment import Experiment, Role
from dualdistill.experiment.plain import from_plain
from dualdistill.models.checkpoints import load_weights, read_facts
from dualdistill.ops.processes import number_of_processes
from dualdistill.settings import Share, require
from dualdistill.structures import CLASSES, Boxes, Detector
from dualdistill.train.assemble import Network, build_detector, split_names
from dualdistill.train.run_folder import RunFolder, WeightsFacts
from dualdistill.train.trained_weights import TrainedWeights

BATCH = 4
"""Samples a process detects in at once."""


@dataclass(frozen=True, kw_only=True)
class LoadedDetector:
    """A trained detector, built from the experiment in the metadata of its weights file, in evaluation mode."""

    path: Path
    facts: dict[str, Any]
    """Metadata of the file: role, recipe, seed, step, data, experiment."""
    experiment: Experiment
    detector: Network

    @classmethod
    def load(cls, path: Path) -> "LoadedDetector":
        """Build the detector and load its weights. Raises UserError for a file of another origin, weights that do not
        fit their own metadata, and a label encoder whose teacher is missing."""
        facts = read_facts(path, WeightsFacts)
        if facts["role"] not in get_args(Role):
            raise UserError(f"{path} holds a {facts['role']}; expected the weights of a {' or '.join(get_args(Role))}.")
        experiment = from_plain(facts["experiment"])
        config = experiment.teacher
        if config is not None and config.voxel is not None:
            try:
                config.voxel.check_backend()
            except UserError:  # without spconv, by plain PyTorch
                config = replace(config, voxel=replace(config.voxel, backend="reference"))
                experiment = replace(experiment, teacher=config)
        teacher = TrainedWeights.recall(facts["teacher"]) if experiment.role == "label_encoder" else None
        detector = build_detector(experiment, teacher)
        load_weights(detector, path)
        return cls(path=path, facts=facts, experiment=experiment, detector=detector.eval())

    @property
    def without_spconv(self) -> bool:
        """Whether plain PyTorch replaces spconv, which is not installed; the results are the same."""
        return self.experiment != from_plain(self.facts["experiment"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels of its boxes."""
        return CLASSES

    def predict(self, images: Images, rig: Rig, *, min_score: float = 0.0) -> Boxes:
        """Detect the objects around the car at one moment: boxes in the frame of the rig, the best first.

        Args:
            images: One per camera in the rig's order, uint8 [height, width, 3], RGB; any size with the aspect ratio of
                `rig.image_size`, and any number of cameras.

        Returns:
            Boxes on the CPU. Their velocities are NaN for a two-frame student, whose input is the same moment twice.

        Raises:
            UserError: for a LiDAR teacher, images that do not match the rig, and a rig in another frame.
        """
        config = self.experiment.data
        require(rig, Rig, "rig")
        require(min_score, Share, "min_score")
        if self.experiment.role != "student":
            raise UserError(f"{self.path} is a {self.experiment.role}, which takes no images: load a camera student.")
        if rig.frame != config.bev_frame:
            where = f"the {rig.frame} frame, this student works in the {config.bev_frame} frame"
            raise UserError(f'the rig\'s poses are in {where}: make the rig with frame="{config.bev_frame}"')
        frames = rig.views(images, config).expand(config.num_frames, -1, -1, -1, -1)
        batch = rig.batch(frames, config).to(next(self.detector.parameters()).device)
        with torch.no_grad(), naming(self):
            boxes = detect(self.detector, batch)[0].to("cpu")
        if config.num_frames > 1:
            boxes = replace(boxes, velocity=torch.full_like(boxes.velocity, torch.nan))
        return boxes.best(min_score)

    def index(self, data: Path | None, version: str | None) -> NuscenesIndex:
        """The given data root, or else the one of the training. Raises UserError where neither is known, or the root
        cannot be opened."""
        known = self.facts["data"]
        if data is None and (known is None or hub.name_of(self.path)):
            origin = "was converted" if known is None else "is a published model"
            raise UserError(f"{self.path} {origin}, so the root of its data is unknown: give --data ROOT.")
        if data is None and version is None:
            version = known["version"]
        return NuscenesIndex.open(data or Path(known["root"]), version)

    def dataset(
        self, index: NuscenesIndex, split: str | None, samples: Int[np.ndarray, "samples"] | None = None
    ) -> NuscenesDataset:
        """The samples of a split (default: validation), or those at some positions of the index, with the sensors that
        the detector reads."""
        split = split if split is not None else split_names(index.version)[1]
        positions = samples_of_split(index, split) if samples is None else samples
        data, seed = self.experiment.evaluation_data, self.facts["seed"]
        return NuscenesDataset(index, data, positions, training=False, seed=seed)


def weights_of(path: Path, checkpoint: str) -> Path:
    """The detector's weights in a run folder, the file itself, or the file of `zoo:NAME` or `hf:owner/name`. Raises
    UserError if a folder is no run, or has no such checkpoint, and for a name that zoo or hub do not have."""
    path = hub.resolve(path)
    return RunFolder.open(path).weights(checkpoint) if path.is_dir() else path


@contextmanager
def naming(loaded: LoadedDetector) -> Iterator[None]:
    """Context in which a DivergedError of the detector becomes a UserError with the file, the step and a remedy."""
    try:
        yield
    except DivergedError as error:
        raise UserError(
            f"The training of {loaded.path} ({loaded.facts['recipe']}, step {loaded.facts['step']}) diverged. "
            f"{error} Take an earlier checkpoint (--checkpoint step_…; metrics.jsonl of the run shows when its losses "
            "went wrong), or train again with a lower training.optimiser.learning_rate or clip_norm."
        ) from None


def detect_together(
    detector: nn.Module, dataset: NuscenesDataset, *, workers: int, report: Callable[[int], None] = lambda done: None
) -> Detections:
    """Detections of all samples of a data set, global frame, in its order: each process detects in its share of the
    samples and gets all of them. The detector is left in evaluation mode. `report`: called after each batch with the
    number of samples that this process has finished. Raises DivergedError for outputs that are not finite."""
    processes, device = number_of_processes(), next(detector.parameters()).device
    mine = range(dist.get_rank() if processes > 1 else 0, len(dataset), processes)
    batches = [[(NEUTRAL_EPOCH, item) for item in mine[first : first + BATCH]] for first in range(0, len(mine), BATCH)]
    pinned = torch.cuda.is_available()
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=pack, num_workers=workers, pin_memory=pinned)
    detector.eval()
    parts: list[Detections] = []
    with torch.no_grad():
        for packed in loader:
            batch = packed.to(device, non_blocking=True)
            for meta, boxes in zip(batch.meta, detect(cast(Detector, detector), batch), strict=True):
                parts.append(detections_to_global(boxes, meta, sample=mine[len(parts)]))
            report(len(parts))
    gathered = [parts] * processes
    if processes > 1:
        dist.all_gather_object(gathered, parts)
    found = Detections.concatenate([part for share in gathered for part in share])
    return found.select(np.argsort(found.sample, kind="stable"))
