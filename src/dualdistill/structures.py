"""Records that detectors, distillers, data and evaluation share.

Frames. A *BEV frame* is the right-handed metric frame a detector works in: the key frame's LIDAR_TOP (x right,
y forward, z up) for everything that distils, the key frame's ego frame for the official BEVDepth preset. With BEV
augmentation, "BEV" always means the augmented frame; `augmented_from_bev` leads there.

Maps. A BEV map is `[..., y, x]`: rows grow with y, columns with x; cell (0, 0) starts at the lower bounds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

CAMERAS = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
"""Order of the `cam` axis everywhere."""

TASKS = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
"""The six task heads of CenterPoint and their classes (docs/methods/centerpoint.md#classes)."""

CLASSES = tuple(name for task in TASKS for name in task)
"""Detector class order: label ids 0 to 9, the `klass` axis of every heat map."""

TASK_OF_CLASS = tuple(task for task, names in enumerate(TASKS) for _ in names)
"""Index into `TASKS` of each of `CLASSES`."""

Losses = dict[str, Float[Tensor, ""]]
"""Unweighted scalar losses by name."""

RecordT = TypeVar("RecordT", bound="_Movable")


class _Movable:
    """A record whose tensors move to a device together, nested records and tuples included."""

    def to(self: RecordT, device: torch.device | str, *, non_blocking: bool = False) -> RecordT:
        """The record on a device; `non_blocking` lets the host go on while pinned memory is copied."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def _each(self: RecordT, change: Callable[[Any], Any]) -> RecordT:
        def changed(value: Any) -> Any:
            if isinstance(value, Tensor | _Movable):
                return change(value)
            if isinstance(value, tuple):
                return tuple(changed(item) for item in value)
            return value

        return replace(self, **{f.name: changed(getattr(self, f.name)) for f in fields(self)})  # type: ignore[type-var, arg-type]


@dataclass(frozen=True, kw_only=True)
class Boxes(_Movable):
    """Upright 3D boxes of one sample; their coordinate frame is documented where they are used."""

    center: Float[Tensor, "boxes 3"]
    """Gravity centre, metres."""
    size: Float[Tensor, "boxes 3"]
    """Length (along the heading), width, height, metres."""
    yaw: Float[Tensor, "boxes"]
    """Heading, radians, counter-clockwise from +x."""
    velocity: Float[Tensor, "boxes 2"]
    """Metres per second along x and y; NaN where unknown."""
    label: Int[Tensor, "boxes"]
    """Index into `CLASSES`, or into those of a detector of your own."""
    score: Float[Tensor, "boxes"] | None = None
    """Confidence in [0, 1]; None for annotations."""

    def __len__(self) -> int:
        return len(self.label)

    def select(self, index: Tensor | slice) -> "Boxes":
        """The boxes at `index` (integers in any order, a boolean mask or a slice)."""
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            index = index.nonzero().squeeze(1)  # once for all columns: the host waits for a GPU each time
        return self._each(lambda column: column[index])

    def best(self, min_score: float = 0.0) -> "Boxes":
        """The boxes with at least this score, the best first.

        Raises:
            ValueError: for boxes without scores.
        """
        if self.score is None:
            raise ValueError("boxes without scores have no best")
        order = self.score.argsort(descending=True, stable=True)
        return self.select(order[self.score[order] >= min_score])

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> "Boxes":
        """No boxes, without scores."""
        return cls(
            center=torch.zeros(0, 3, device=device),
            size=torch.zeros(0, 3, device=device),
            yaw=torch.zeros(0, device=device),
            velocity=torch.zeros(0, 2, device=device),
            label=torch.zeros(0, dtype=torch.long, device=device),
        )

    @classmethod
    def concatenate(cls, parts: Sequence["Boxes"]) -> "Boxes":
        """All boxes of `parts` in order; at least one part, and either all or none with scores."""
        columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(cls)}
        joined: dict[str, Any] = {n: None if values[0] is None else torch.cat(values) for n, values in columns.items()}
        return cls(**joined)


@dataclass(frozen=True, kw_only=True)
class Points(_Movable):
    """LiDAR points of all samples of a batch, one after the other, in the (augmented) BEV frame."""

    features: Float[Tensor, "points chan"]
    """x, y, z (metres), intensity (0 to 255), time lag (seconds, >= 0, 0 = key frame); virtual points carry more."""
    sample: Int[Tensor, "points"]
    """Which sample of the batch each point belongs to, ascending."""


@dataclass(frozen=True, kw_only=True)
class Cameras(_Movable):
    """Camera images and geometry. Axis `frame`: 0 is the current key frame, 1 the adjacent earlier one (if any)."""

    images: UInt8[Tensor, "batch frame cam 3 h w"]
    """RGB, after image augmentation, not normalised."""
    intrinsics: Float[Tensor, "batch frame cam 3 3"]
    """Intrinsics of the original image, pixels."""
    augmented_from_image: Float[Tensor, "batch frame cam 4 4"]
    """Image augmentation: maps (u, v, depth, 1) of the original image to the network image; depth is untouched."""
    bev_from_camera: Float[Tensor, "batch frame cam 4 4"]
    """Camera of that frame to the *current* augmented BEV frame, ego motion between exposures included."""
    previous_from_current: Float[Tensor, "batch 4 4"]
    """Augmented BEV frame now to augmented BEV frame then (ego motion); identity with one frame or no earlier one."""
    frame_gap: Float[Tensor, "batch"]
    """Seconds between the two frames; 1/12 where the current frame replaces a missing earlier one."""


@dataclass(frozen=True, kw_only=True)
class SampleMeta:
    """Identity of a sample, and the pose of its BEV frame (before augmentation) in the world."""

    token: str
    timestamp_us: int
    global_from_bev: Float[Tensor, "4 4"]
    """float64."""
    ego_from_bev: Float[Tensor, "4 4"]
    """float64."""

    def __getstate__(self) -> dict[str, Any]:
        """NumPy's matrices are pickled by value; each tensor would be a file that loader processes pass on."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.numpy() if isinstance(value, Tensor) else value for name, value in values.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value if isinstance(value, str | int) else torch.from_numpy(value))


@dataclass(frozen=True, kw_only=True)
class InstanceMap(_Movable):
    """Class and instance of the object in each cell of the image features, after image augmentation."""

    klass: Int[Tensor, "batch cam h w"]
    """Index into `CLASSES` of the object in front; -1 where there is none."""
    instance: Int[Tensor, "batch cam h w"]
    """Number (from 0) of that object in its image; undefined where there is none."""


@dataclass(frozen=True, kw_only=True)
class Batch(_Movable):
    """Samples as the networks take them. Fields that a recipe does not need are None."""

    boxes: tuple[Boxes, ...]
    """Annotations of each sample in the augmented BEV frame, velocities in m/s; empty tuple entries are legal."""
    augmented_from_bev: Float[Tensor, "batch 4 4"]
    meta: tuple[SampleMeta, ...]
    cameras: Cameras | None = None
    points: Points | None = None
    depth: Float[Tensor, "batch cam h w"] | None = None
    """Nearest LiDAR depth (metres along the optical axis) in each image feature cell of the current frame; 0 = none."""
    depth_instance: Int[Tensor, "batch cam h w"] | None = None
    """Number of the annotated object that the point of each `depth` lies in, -1 = none. It distinguishes
    the objects of a sample and is no index into `boxes`: objects beyond their reach have numbers too."""
    instances: InstanceMap | None = None
    """Output of an instance segmenter for the current frame's images."""
    teacher: tuple[Tensor, ...] | None = None
    """Output of the teacher, read from a `TeacherCache` with the samples: its `names` in order, batch axis first."""

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True, kw_only=True)
class HeadOutput(_Movable):
    """Raw output of a CenterPoint head, all tasks packed."""

    heatmap: Float[Tensor, "batch klass y x"]
    """Logits, classes in the order of `CLASSES`."""
    regression: Float[Tensor, "batch task code y x"]
    """Ten codes a task: offset x, y (cells), z of the centre (m), log length, log width, log height, sin yaw, cos yaw,
    velocity x, y."""


@dataclass(frozen=True, kw_only=True)
class CameraOutput(_Movable):
    """Intermediate output of a camera detector, current frame."""

    features: Float[Tensor, "batch cam chan h w"]
    """Image neck output."""
    depth_logits: Float[Tensor, "batch cam depth h w"]
    depths: Float[Tensor, "depth"]
    """Lower edge of each depth bin, metres."""


@dataclass(frozen=True, kw_only=True)
class BevOutput:
    """Output of a BEV detector, teacher or student, for one batch.

    `head` lets a distiller apply the teacher's head to another map without owning it.
    """

    extent: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max of every map below, metres."""
    canvas: Float[Tensor, "batch _ _ _"]
    """Input of the BEV encoder: scattered pillars, or lifted and fused camera features."""
    stages: tuple[Float[Tensor, "batch _ _ _"], ...]
    """Outputs of the encoder stages, fine to coarse, after their last ReLU."""
    neck: Float[Tensor, "batch chan y x"]
    """Input of the detection head."""
    predictions: HeadOutput
    head: Callable[[Tensor], HeadOutput]
    """The detection head itself, applied to another neck map."""
    frames: int = 1
    """Frames whose channels are stacked in `canvas`, the current one first."""
    camera: CameraOutput | None = None


@dataclass(frozen=True, kw_only=True)
class CenterTargets(_Movable):
    """Targets of a CenterPoint head, all tasks packed as in `HeadOutput`. A `slot` is room for one box of a task and
    sample."""

    heatmap: Float[Tensor, "batch klass y x"]
    index: Int[Tensor, "batch task slot"]
    """Cell of the centre, row * width + column; 0 in slots not used."""
    mask: Bool[Tensor, "batch task slot"]
    """Which slots are used."""
    vector: Float[Tensor, "batch task slot code"]
    """Codes as in `HeadOutput.regression`; NaN where the velocity is not known."""


@dataclass(frozen=True, kw_only=True)
class Targets(_Movable):
    """What a detector should predict for a batch: for its losses and for distillers."""

    boxes: tuple[Boxes, ...]
    """Annotations, augmented BEV frame, velocities in m/s."""
    heatmap: Float[Tensor, "batch klass y x"]
    """Gaussian training targets of the detector's own head."""
    depth: Float[Tensor, "batch cam h w"] | None = None
    """As in `Batch`."""
    depth_instance: Int[Tensor, "batch cam h w"] | None = None
    """As in `Batch`."""
    velocity_scale: Float[Tensor, "batch"] | None = None
    """Seconds times which the detector's own head learns velocities; None for metres a second."""
    instances: InstanceMap | None = None
    """As in `Batch`."""
    center: CenterTargets | None = None
    """Targets of the detector's own head, for its losses; distillers need none."""


@runtime_checkable
class Detector(Protocol):
    """A BEV detector, LiDAR or camera."""

    @property
    def weights(self) -> dict[str, float]: ...
    def __call__(self, batch: Batch) -> BevOutput: ...
    def targets(self, batch: Batch) -> Targets: ...
    def losses(self, output: BevOutput, targets: Targets) -> Losses: ...
    def detect(self, output: BevOutput, batch: Batch) -> tuple[Boxes, ...]: ...


def named_tensors(record: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested records, tuples and lists, by dotted names."""
    if isinstance(record, Tensor):
        yield prefix, record
    elif is_dataclass(record):
        for field in fields(record):
            yield from named_tensors(getattr(record, field.name), f"{prefix}.{field.name}".lstrip("."))
    elif isinstance(record, tuple | list):
        for number, item in enumerate(record):
            yield from named_tensors(item, f"{prefix}.{number}")


def weighted_sum(losses: Losses, weights: dict[str, float]) -> Float[Tensor, ""]:
    """Sum of `losses` times `weights`.

    Raises:
        KeyError: for a loss without a weight.
    """
    stacked = torch.stack([*losses.values()])
    factors = torch.tensor([weights[name] for name in losses], dtype=stacked.dtype)
    return (stacked * factors.to(stacked.device, non_blocking=True)).sum()
