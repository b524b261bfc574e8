"""From an experiment to what trains: data sets, detector, teacher source, distiller."""

from collections.abc import Callable
from dataclasses import replace

import torch

from dualdistill.data.config import DataConfig
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.distill.label_encoder import LabelDetector
from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.shapes import BevShapes
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.models.checkpoints import load_weights
from dualdistill.ops.frozen import freeze
from dualdistill.structures import Batch, Boxes, Points
from dualdistill.train.data import random_batch
from dualdistill.train.step import LiveTeacher, TeacherSource, Training
from dualdistill.train.trained_weights import TrainedWeights

Network = BevDepth | CenterPoint | LabelDetector
"""A detector that an experiment can train."""


def split_names(version: str) -> tuple[str, str]:
    """Training and validation split of a version."""
    return ("mini_train", "mini_val") if version.endswith("mini") else ("train", "val")


def open_dataset(
    experiment: Experiment, index: NuscenesIndex, *, split: str, training: bool, seed: int, for_teacher: bool = True
) -> NuscenesDataset:
    """The samples of a split as the experiment's networks take them. `for_teacher`: False leaves out the points that
    only a live teacher takes, where its output is cached or not needed; virtual points may still give depth labels."""
    data = experiment.data
    if not for_teacher and (data.virtual_points is None or not data.virtual_points.depth_from_virtual):
        data = replace(data, points=False, virtual_points=None)
    return NuscenesDataset(index, data, samples_of_split(index, split), training=training, seed=seed)


def assemble(
    experiment: Experiment,
    *,
    teacher: TrainedWeights | None = None,
    label_encoder: TrainedWeights | None = None,
    source: Callable[[CenterPoint], TeacherSource] | None = None,
    pretrained: bool = False,
) -> Training:
    """The parts of an experiment's training, put together once: for training, costs, gradients and benchmarks.

    Random numbers are drawn from the global generator for the detector, then the teacher, then the distiller: a
    distilled student starts from the weights that it has alone under the same seed. Raises UserError for weights that
    cannot be had or are of another network.

    Args:
        teacher, label_encoder: Weights of the experiment's frozen networks; None leaves them random.
        source: Makes the teacher source from the frozen teacher, such as a cache; `LiveTeacher` if not given.
        pretrained: Load the weights that the student's configuration names.
    """
    if experiment.role != "student":
        return Training(build_detector(experiment, teacher))
    student = build_detector(experiment)
    assert isinstance(student, BevDepth)
    if pretrained:
        student.load_pretrained()
    if experiment.teacher is None:
        return Training(student)
    frozen = load_teacher(experiment, teacher)
    if experiment.init_head_from_teacher:
        student.head.tasks.load_state_dict(frozen.head.tasks.state_dict())  # not `shared`: its input is another map
    distiller, config = experiment.distiller, experiment.training
    if distiller is None:
        return Training(student)
    shapes, requires, encoder = shapes_of(frozen), distiller.requires, None
    if requires.label_encoder and experiment.label_encoder is not None:
        encoder = LabelDetector(experiment.label_encoder.build(teacher=shapes), frozen)
        if label_encoder is not None:
            load_weights(encoder, label_encoder.path)
    inputs = DistillerInputs(
        teacher=shapes,
        student=shapes_of(student, experiment.data),
        criterion=frozen.criterion() if requires.criterion else None,
        label_encoder=encoder.encoder if encoder is not None else None,
        task_of_class=student.config.head.task_of_class,
    )
    try:
        built = distiller.build(inputs)  # before the source: filling a cache draws random numbers
    except ValueError as error:
        raise UserError(f"The distiller does not fit these detectors: {error}. Change either with --set.") from None
    return Training(
        student,
        teacher=source(frozen) if source is not None else LiveTeacher(frozen, config.teacher_precision),
        distiller=built,
        distiller_weights={name: config.distill_weight * weight for name, weight in distiller.weights.items()},
        gradient_share=config.gradient_share,
    )


def build_detector(experiment: Experiment, teacher: TrainedWeights | None = None) -> Network:
    """The network that learns in this experiment, freshly initialised. `teacher`: weights of the teacher whose frozen
    neck and head a label encoder is trained through, if it is one; None leaves that teacher random."""
    if experiment.student is not None:
        return BevDepth(experiment.student)
    assert experiment.teacher is not None
    if experiment.label_encoder is None:
        return CenterPoint(experiment.teacher)
    frozen = load_teacher(experiment, teacher)
    return LabelDetector(experiment.label_encoder.build(teacher=shapes_of(frozen)), frozen)


def load_teacher(experiment: Experiment, weights: TrainedWeights | None) -> CenterPoint:
    """The frozen teacher of an experiment; random without weights."""
    assert experiment.teacher is not None
    teacher = CenterPoint(experiment.teacher)
    if weights is not None:
        load_weights(teacher, weights.path)
    freeze(teacher)
    return teacher


@torch.no_grad()
def shapes_of(detector: BevDepth | CenterPoint, data: DataConfig | None = None) -> BevShapes:
    """Shapes of a detector's maps, from a forward pass on one point or one camera's image: they depend on neither.
    `data`: size of the images; a camera detector needs it."""
    if isinstance(detector, CenterPoint):
        features, sample = torch.zeros(1, detector.config.point_channels), torch.zeros(1, dtype=torch.long)
        points = Points(features=features, sample=sample)
        example = Batch(boxes=(Boxes.empty(),), augmented_from_bev=torch.eye(4)[None], meta=(), points=points)
    else:
        assert data is not None
        example = random_batch(data, boxes=0, points=1, cameras=1)
    was_training = detector.training
    shapes = BevShapes.of(detector.eval()(example))
    detector.train(was_training)
    return shapes
