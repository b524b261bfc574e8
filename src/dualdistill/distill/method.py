"""What a distillation method declares about itself: its loss weights, what it requires, how it is built."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.distill.label_encoder import LabelEncoder
from dualdistill.distill.shapes import BevShapes
from dualdistill.structures import TASK_OF_CLASS, Boxes, HeadOutput, Losses


@runtime_checkable
class HeadCriterion(Protocol):
    """Decoding and detection losses under the teacher head's settings; the teacher detector provides it. Not a module,
    and holding none: a distiller that owned the teacher would train and save it."""

    def pseudo_boxes(self, predictions: HeadOutput, temperature: float) -> tuple[Boxes, ...]:
        """Detections of each sample after suppression, decoded in float32; velocities in m/s. `temperature`: divides
        the logits for the score threshold only; below 1, fewer and surer boxes pass."""

    def losses_of_features(
        self, head: Callable[[Tensor], HeadOutput], neck: Float[Tensor, "batch chan y x"], boxes: tuple[Boxes, ...]
    ) -> Losses:
        """The unweighted losses `terms.RESPONSES` of the head's predictions for a map, with `boxes` as truth
        (velocities in m/s, NaN where unknown; no box at all is legal). The head need not be evaluated where they have
        no terms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Requires:
    """What a method needs beside the outputs of two detectors, the annotated boxes and their heat maps.

    Recipes, data, teacher cache and assembly provide what is declared here; they never ask for the method's type.
    """

    teacher_maps: tuple[str, ...] | None = None
    """Maps of the teacher's `BevOutput` that the losses use: "canvas", "stage0", ..., "neck". A teacher cache keeps
    no others; None keeps all."""
    criterion: bool = False
    """The teacher's `HeadCriterion`."""
    label_encoder: bool = False
    """A trained `LabelEncoder` for this teacher."""
    depth_instances: bool = False
    """`Targets.depth_instance`: the object that each depth label lies on."""
    instance_masks: bool = False
    """`Targets.instances`: the objects that an instance segmenter finds in the images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillerInputs:
    """What a distiller is built from: the maps of two detectors, and what its configuration requires.

    Raises:
        ValueError: for detectors that cover different ground, and for a criterion that is a module.
    """

    teacher: BevShapes
    student: BevShapes
    criterion: HeadCriterion | None = None
    """The teacher's, if `requires.criterion`."""
    label_encoder: LabelEncoder | None = None
    """Trained for this teacher, if `requires.label_encoder`."""
    task_of_class: tuple[int, ...] = TASK_OF_CLASS
    """Task of each class of both heads, ascending from 0."""

    def __post_init__(self) -> None:
        ours, theirs = self.student.extent, self.teacher.extent
        if ours != theirs:
            raise ValueError(f"teacher and student must see one rectangle, got {theirs} and {ours} m")
        if isinstance(self.criterion, nn.Module):
            raise ValueError("the criterion must not be a module: the distiller would own (train, save) the teacher")


@runtime_checkable
class DistillerConfig(Protocol):
    """Configuration of a method: a frozen dataclass of plain values."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every loss by name."""

    @property
    def requires(self) -> Requires: ...

    def build(self, inputs: DistillerInputs) -> nn.Module:
        """The distiller for two detectors with maps of these shapes.

        Raises:
            ValueError: if the shapes do not fit each other or this configuration, or something required is missing.
        """


def check_no_effect(config: Any, reason: str, names: tuple[str, ...]) -> None:
    """Raises ValueError where one of these fields is not at its default although `reason` leaves it without effect."""
    default = {each.name: each.default for each in fields(config)}
    for name in names:
        if getattr(config, name) != default[name]:
            raise ValueError(f"{name} has no effect, since {reason}: leave it out")
