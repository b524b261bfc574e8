"""From a record to living parts: data sets, detectors, distillers, and weights that say what they are."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from dualdistill.data.collate import collate
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.distill.label_encoder import LabelDetector, LabelEncoder
from dualdistill.distill.labeldistill import LabelDistillConfig
from dualdistill.distill.shapes import BevShapes
from dualdistill.experiment.experiment import Experiment, from_plain
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.center_head import init_task_heads
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.models.checkpoints import load_weights
from dualdistill.structures import Batch, Boxes, Points
from dualdistill.train.step import Distillation, freeze
from dualdistill.train.trained_weights import TrainedWeights

Network = BevDepth | CenterPoint | LabelDetector
"""A detector that an experiment can train."""


def split_names(version: str) -> tuple[str, str]:
    """Training and validation split of a version."""
    return ("mini_train", "mini_val") if version.endswith("mini") else ("train", "val")


def open_dataset(
    experiment: Experiment, index: NuscenesIndex, *, split: str, training: bool, seed: int, remembered: bool = False
) -> NuscenesDataset:
    """The samples of a split as the experiment's networks take them.

    Args:
        remembered: Whether the teacher's output is cached, so that points are not needed (virtual ones may still
            serve as depth labels).
    """
    positions = samples_of_split(index, split)
    data = experiment.data
    if remembered and (data.virtual_points is None or not data.virtual_points.depth_from_virtual):
        data = replace(data, points=False, virtual_points=None)
    return NuscenesDataset(index, data, positions, training=training, seed=seed)


def evaluation_loader(dataset: NuscenesDataset, batch_size: int, workers: int) -> DataLoader[Batch]:
    """Every sample once, in order."""
    return DataLoader(
        dataset,
        batch_sampler=[
            [(0, i) for i in range(start, min(start + batch_size, len(dataset)))]
            for start in range(0, len(dataset), batch_size)
        ],
        collate_fn=collate,
        num_workers=workers,
    )


def build_detector(experiment: Experiment, teacher: CenterPoint | None = None) -> Network:
    """The network that learns in this experiment, freshly initialised.

    Args:
        teacher: Trained; a label encoder reads its annotations out through it, nobody else takes it.
    """
    if experiment.student is not None:
        return BevDepth(experiment.student)
    assert experiment.teacher is not None
    if experiment.label_encoder is None:
        return CenterPoint(experiment.teacher)
    if teacher is None:
        raise ValueError("a label encoder is built around its trained teacher: pass it")
    return LabelDetector(experiment.label_encoder.build(teacher=shapes_of(teacher)), teacher)


def shapes_of(teacher: CenterPoint) -> BevShapes:
    """Of a teacher's maps, which do not depend on what it sees: one point in the middle."""
    point = torch.zeros(1, teacher.config.point_channels)
    glance = Batch(
        boxes=(Boxes.empty(),),
        augmented_from_bev=torch.eye(4)[None],
        meta=(),
        points=Points(features=point, sample=torch.zeros(1, dtype=torch.long)),
    )
    was_training = teacher.training
    with torch.no_grad():
        shapes = BevShapes.of(teacher.eval()(glance))
    teacher.train(was_training)
    return shapes


def load_teacher(experiment: Experiment, weights: TrainedWeights) -> CenterPoint:
    """The trained teacher of an experiment, frozen."""
    assert experiment.teacher is not None
    teacher = CenterPoint(experiment.teacher)
    load_weights(teacher, weights.path)
    freeze(teacher)
    return teacher


def load_label_encoder(experiment: Experiment, weights: TrainedWeights, teacher: CenterPoint) -> LabelEncoder:
    """The trained label encoder of an experiment, which speaks to this teacher's head."""
    assert experiment.label_encoder is not None
    detector = LabelDetector(experiment.label_encoder.build(teacher=shapes_of(teacher)), teacher)
    load_weights(detector, weights.path)
    return detector.encoder


def build_distillation(
    experiment: Experiment,
    student: BevDepth,
    teacher: CenterPoint,
    example: Batch,
    label_encoder: LabelEncoder | None = None,
) -> Distillation:
    """The experiment's distiller, fitted to the shapes both detectors give for one example; heads inherited."""
    assert experiment.distiller is not None
    if experiment.init_head_from_teacher:
        init_task_heads(student.head, teacher.head)
    was_training = student.training
    student.eval()
    with torch.no_grad():
        taught, learnt = BevShapes.of(teacher(example)), BevShapes.of(student(example))
    student.train(was_training)
    distiller = experiment.distiller
    if isinstance(distiller, LabelDistillConfig):
        built: nn.Module = distiller.build(
            teacher=taught, student=learnt, judge=teacher.judge(), label_encoder=label_encoder
        )
    else:
        built = distiller.build(teacher=taught, student=learnt, judge=teacher.judge())
    precision = experiment.training.teacher_precision
    return Distillation(built, distiller.weights, teacher, teacher_precision=precision)


def experiment_of(facts: dict[str, Any]) -> Experiment:
    """The experiment a weights file was made by."""
    return from_plain(facts["experiment"])
