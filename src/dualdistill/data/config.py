"""Configuration of the data: what a sample holds, and its augmentation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from dualdistill.settings import Few, Natural, NonNegative, Positive, Share, Side, checked

Range = tuple[float, float]
_Candidate = Annotated[int, Meta(ge=0, le=1000)]


def _check_range(name: str, value: tuple[float, float]) -> None:
    if value[0] > value[1]:
        raise ValueError(f"{name} must be (low, high), got {value}")


@dataclass(frozen=True, kw_only=True)
@checked
class ImageAugmentation:
    """Ranges of the image augmentation (docs/methods/bevdepth.md#image-augmentation); the defaults are DualDistill's.

    The base scale brings the stored width to the network's; the offsets below are added to it.
    """

    scale: Range = (-0.06, 0.11)
    """Uniform offset of the scale while training."""
    test_scale: float = 0.04
    """Offset at test time (0 in the official BEVDepth)."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    rotation: Range = (-5.4, 5.4)
    """Degrees, about the centre of the crop."""

    def __post_init__(self) -> None:
        _check_range("scale", self.scale)
        _check_range("rotation", self.rotation)


@dataclass(frozen=True, kw_only=True)
@checked
class BevAugmentation:
    """Ranges of the BEV augmentation of a training sample (docs/methods/centerpoint.md#augmentation)."""

    rotation: Range = (-0.3925, 0.3925)
    """Radians about z."""
    scale: tuple[Positive, Positive] = (0.95, 1.05)
    flip_x: Share = 0.5
    """Probability of x -> -x."""
    flip_y: Share = 0.5
    """Probability of y -> -y."""
    translation_sd: NonNegative = 0.0
    """Standard deviation of a shift along each axis, metres (0.5 in MVP's own LiDAR recipe)."""

    def __post_init__(self) -> None:
        _check_range("rotation", self.rotation)
        _check_range("scale", self.scale)


@dataclass(frozen=True, kw_only=True)
@checked
class ObjectSampling:
    """Pasting of objects from other scenes into the point cloud, for LiDAR teachers
    (docs/methods/centerpoint.md#object-sampling)."""

    min_points: Natural = 5
    """Objects with fewer points are never pasted."""
    counts: tuple[Natural, ...] = (2, 3, 7, 4, 6, 2, 6, 6, 2, 2)
    """Boxes of each class (order of `structures.CLASSES`) up to which a frame is filled."""
    clear_inside: bool = True
    """Remove scene points inside a pasted box (mmdet3d does, CenterPoint does not)."""
    last_epoch: Natural | None = None
    """Last epoch in which objects are pasted; None: the last one of the training."""

    def __post_init__(self) -> None:
        if len(self.counts) != 10:
            raise ValueError(f"counts must be ten numbers, one a class, got {self.counts}")


MASK_RCNN_SCORE = 0.3
"""Lowest score of the instances of Mask R-CNN that are kept (docs/methods/mvp.md#mask-sources)."""

MaskSource = Literal["synthetic", "maskrcnn", "semantic", "official"]
"""Origin of the masks behind the virtual points: the synthetic world, torchvision's Mask R-CNN, class maps of a
semantic segmenter, or, through the cache files of the official MVP, CenterNet2."""


def _check_noise(noise: float, masks: MaskSource) -> None:
    if noise and masks != "synthetic":
        raise ValueError(f"noise is for perfect masks: masks={masks} have errors of their own, leave it out")


@dataclass(frozen=True, kw_only=True)
@checked
class VirtualPointsConfig:
    """Painted and virtual points beside the LiDAR's, for the MVP teacher (docs/methods/mvp.md#columns)."""

    masks: MaskSource = "maskrcnn"
    layout: Literal["distillbev", "centerpoint"] = "distillbev"
    """The 17 channels of DistillBEV's pillars, or the 16 of the original MVP's: see `virtual_points.clouds`."""
    sweeps: bool = True
    """Whether earlier sweeps carry painted and virtual points too; otherwise the key frame alone does."""
    missing: Literal["error", "unpainted"] = "error"
    """Treatment of sweeps without cached points, about one in a hundred of the official download."""
    noise: Share = 0.0
    """Strength of the errors added to the perfect masks of a synthetic world, from 0 (none) to 1
    (docs/methods/mvp.md#imperfect-masks)."""
    depth_from_virtual: bool = True
    """Whether virtual points count as depth labels of the cameras, as in the released MVP runs
    (docs/methods/dualdistill.md#depth-labels-under-mvp)."""
    ring_leak: bool = False
    """Ring index instead of 1 in the first class column of raw sweep points: for released weights only."""

    def __post_init__(self) -> None:
        _check_noise(self.noise, self.masks)
        if self.ring_leak and self.layout != "distillbev":
            raise ValueError("ring_leak is an accident of the distillbev layout")

    @property
    def point_channels(self) -> int:
        """Channels of a point of the teacher's input."""
        return 17 if self.layout == "distillbev" else 16


@dataclass(frozen=True, kw_only=True)
@checked
class InstancesConfig:
    """Instance masks of the key frame's images, for distillers that need them (docs/methods/x3kd.md#instance-targets).
    They are read while training only."""

    masks: Literal["synthetic", "maskrcnn", "semantic"] = "maskrcnn"
    """Origin of the masks."""
    noise: Share = 0.0
    """Strength of errors added to perfect masks, as in `VirtualPointsConfig`."""
    min_score: Share = 0.3
    """Lowest score of an instance; the others are background. Mask R-CNN's begin at 0.3."""

    def __post_init__(self) -> None:
        _check_noise(self.noise, self.masks)
        if self.masks == "maskrcnn" and self.min_score < MASK_RCNN_SCORE:
            raise ValueError(
                f"min_score {self.min_score} has no effect: Mask R-CNN's masks are made from {MASK_RCNN_SCORE} upwards"
            )


@dataclass(frozen=True, kw_only=True)
@checked
class DataConfig:
    """What a sample holds beside its annotations. The defaults are those of DualDistill's R50 rows
    (docs/methods/dualdistill.md#data)."""

    cameras: bool = True
    """Whether images are read."""
    points: bool = True
    """Whether samples hold LiDAR points."""
    depth: bool = True
    """Whether depth labels of the cameras are made (this reads the key LiDAR sweep); needs `cameras`."""
    bev_frame: Literal["lidar", "ego"] = "lidar"
    """LIDAR_TOP of the key frame, or the ego frame at the same moment."""

    image_size: tuple[Side, Side] = (256, 704)
    """Height and width of the network's images, pixels."""
    image_augmentation: ImageAugmentation = ImageAugmentation()
    draft_decoding: bool = True
    """Decode JPEGs no larger than the network's size asks for, in eighths: faster, slightly different pixels."""

    num_frames: Literal[1, 2] = 2
    """1: the key frame alone; 2: an earlier frame too."""
    previous_frame: Literal["sweep", "key"] = "sweep"
    """Earlier frame: a camera sweep some steps back (DualDistill), or the previous key frame (official BEVDepth)."""
    frame_step: Positive = 0.25
    """Seconds between candidates for the earlier frame: the first lies one step back, and so on."""
    train_candidates: tuple[_Candidate, _Candidate] = (2, 8)
    """First and last candidate (counted from 0) drawn from while training: 0.75 to 2.25 s back."""
    test_candidate: _Candidate = 5
    """Candidate at test time: 1.5 s back."""

    num_sweeps: Few = 10
    """LiDAR sweeps accumulated, the key frame's included."""
    random_sweeps: bool = True
    """While training, leave out a random one of the `num_sweeps` earlier sweeps instead of the oldest (mmdet3d)."""
    point_range: tuple[float, float, float, float, float, float] = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    """x, y, z from, x, y, z to, metres, in the augmented BEV frame: points outside are dropped."""

    virtual_points: VirtualPointsConfig | None = None
    """Adds painted and virtual points, which must have been made before; None: LiDAR alone, 5 channels."""

    depth_stride: Few = 16
    """Pixels of the network image per depth cell."""
    depth_range: tuple[Positive, Positive] = (1.0, 60.0)
    """Nearest (included) and farthest (excluded) depth that makes a label, metres."""
    depth_variant: Literal["nearest", "official"] = "nearest"
    """How the points of a cell make its label: see `data.depth`."""
    depth_instance: bool = False
    """Whether samples hold the number of the object that each depth label lies on (TiG-BEV); needs `depth`."""

    instances: InstancesConfig | None = None
    """Adds instance maps, from masks made before, in cells of `depth_stride` (X-IS of the X3KD-style method); needs
    `cameras`."""

    bev_augmentation: BevAugmentation = BevAugmentation()
    box_reach: Positive = 51.2
    """Annotations are kept where |x| and |y| of their centre are below this, metres, after augmentation."""
    class_balanced: bool = False
    """Whether the training set is resampled by class (CBGS)."""
    object_sampling: ObjectSampling | None = None
    """Copy-paste of objects while training; only without cameras."""

    def __post_init__(self) -> None:
        height, width = self.image_size
        if height % self.depth_stride or width % self.depth_stride:
            raise ValueError(f"depth_stride {self.depth_stride} does not divide image_size {self.image_size}")
        _check_range("train_candidates", self.train_candidates)
        _check_range("depth_range", self.depth_range)
        if self.depth_instance and not (self.cameras and self.depth):
            raise ValueError("depth_instance has no effect without depth labels: it needs cameras=True, depth=True")
        if self.instances is not None and not self.cameras:
            raise ValueError("instances has no effect without images: it needs cameras=True")
        if any(low >= high for low, high in zip(self.point_range[:3], self.point_range[3:], strict=True)):
            raise ValueError(f"point_range must go from low to high on every axis, got {self.point_range}")
        if self.object_sampling is not None and (self.cameras or not self.points):
            raise ValueError("object_sampling pastes points that no image shows: it needs points=True, cameras=False")
        if self.virtual_points is not None and not self.points:
            raise ValueError("virtual_points has no effect without points: set it to none")

    @property
    def point_channels(self) -> int:
        """Channels of a point in a sample."""
        return 5 if self.virtual_points is None else self.virtual_points.point_channels
