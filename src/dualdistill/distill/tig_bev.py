"""TiG-BEV: the inner geometry of objects, in depth from points and in BEV from a LiDAR teacher, for a camera student.

Source: TiG-BEV (Huang et al., 2022, arXiv 2212.13979) and its released code; docs/methods/tig_bev.md. Inner depth
compares depths relative to a cell of the same object; inter-keypoint and inter-channel distillation compare how
features inside an enlarged box relate to each other, not the features themselves.

Differs from the released code in where a keypoint is sampled: at its place, where the released code normalises for one
convention of `grid_sample` and samples by the other, which pulls keypoints up to a cell towards the upper bounds of the
map (docs/methods/tig_bev.md#keypoints; `Sampling` "released" is the released one, tests/parity holds both). It also
differs in that scenes without a box are legal, and in what surrounds the distiller: the teacher's batch norm keeps its
running statistics, and objects outside the ten classes are no objects.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.method import DistillerConfig, DistillerInputs, Requires
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.integers import constant
from dualdistill.ops.processes import mean_count
from dualdistill.settings import NonNegative, checked
from dualdistill.structures import BevOutput, Boxes, Losses, Targets

Sampling = Literal["exact", "released"]
"""Where a map is sampled for a point: at the point, or as released."""

BOXES_AT_ONCE = 64
"""Boxes whose similarity matrices exist at one time: a box takes about 10 MB at 24 x 24 keypoints."""


@dataclass(frozen=True, kw_only=True)
@checked
class TigBevConfig(DistillerConfig):
    """Settings of `TigBev`; the defaults are the released ones, save `sampling`."""

    inner_depth_weight: NonNegative | None = 1.0
    """Relative depths inside objects; None leaves them out, as for the other weights."""
    inter_keypoint_weight: NonNegative | None = 100.0
    """Relations between the keypoints of a box."""
    inter_channel_weight: NonNegative | None = 10.0
    """Relations between channels in a box, after a 1x1 convolution to the teacher's; 20 in the released two-frame R50
    without class balancing."""

    keypoints: Annotated[int, Meta(ge=2, le=256)] = 24
    """Along each side of a box; 2 are its corners."""
    margin: NonNegative = 1.6
    """Metres by which a box is enlarged on every side before keypoints are laid over it."""
    sampling: Sampling = "exact"
    """Where maps are sampled for a keypoint; "released" drifts up to a cell, for parity."""

    def __post_init__(self) -> None:
        if not self.weights:
            raise ValueError("all three weights are none: nothing to distil; leave the distiller out")

    @property
    def weights(self) -> dict[str, float]:
        terms = ("inner_depth", "inter_keypoint", "inter_channel")
        weights = {f"tig/{term}": getattr(self, f"{term}_weight") for term in terms}
        return {name: weight for name, weight in weights.items() if weight is not None}

    @property
    def requires(self) -> Requires:
        maps = self.weights.keys() - {"tig/inner_depth"}
        return Requires(teacher_maps=("neck",) if maps else (), depth_instances=self.inner_depth_weight is not None)

    def build(self, inputs: DistillerInputs) -> "TigBev":
        return TigBev(self, inputs)


class TigBev(nn.Module):
    """Losses "tig/inner_depth", "tig/inter_keypoint", "tig/inter_channel"; owns the 1x1 convolution of the last."""

    def __init__(self, config: TigBevConfig, inputs: DistillerInputs):
        super().__init__()
        self.config = config
        teacher, student = inputs.teacher, inputs.student
        self.teacher_grid, self.student_grid = teacher.grid(teacher.neck), student.grid(student.neck)
        inter_channel = config.inter_channel_weight is not None
        self.embed = nn.Conv2d(student.neck[0], teacher.neck[0], 1) if inter_channel else None

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in. Raises ValueError for inner depth, if the student
        predicts no depth, or the targets have none for these cells."""
        config = self.config
        losses: Losses = {}
        with torch.autocast(student.neck.device.type, enabled=False):
            if config.inner_depth_weight is not None:
                losses["tig/inner_depth"] = self._inner_depth(student, targets)
            if config.requires.teacher_maps:
                points = [keypoints(boxes, config.keypoints, config.margin) for boxes in targets.boxes]
                ours = self._sampled(student.neck, points, self.student_grid)
                theirs = self._sampled(teacher.neck.detach(), points, self.teacher_grid)
                if config.inter_keypoint_weight is not None:
                    losses["tig/inter_keypoint"] = relation_loss(ours.mT, theirs.mT)
                if self.embed is not None:
                    embedded = self.embed(ours.unsqueeze(3)).squeeze(3)
                    losses["tig/inter_channel"] = relation_loss(embedded, theirs)
        return losses

    def _inner_depth(self, student: BevOutput, targets: Targets) -> Float[Tensor, ""]:
        if student.camera is None or targets.depth is None or targets.depth_instance is None:
            raise ValueError(
                "inner depth needs a camera student, targets.depth and targets.depth_instance: set depth_instance in "
                "the data config, or inner_depth_weight to none"
            )
        logits, depth = student.camera.depth_logits.float(), targets.depth
        if logits.shape[-2:] != depth.shape[-2:]:
            raise ValueError(
                f"the student's depth has {tuple(logits.shape[-2:])} cells, the depth labels {tuple(depth.shape[-2:])}"
            )
        return inner_depth_loss(expected_depth(logits, student.camera.depths), depth, targets.depth_instance)

    def _sampled(
        self, features: Float[Tensor, "batch chan y x"], points: list[Tensor], grid: BevGrid
    ) -> Float[Tensor, "boxes chan points"]:
        """Features of one map at the keypoints of all boxes of the batch, sample after sample."""
        sampling = self.config.sampling
        return torch.cat([sample_map(m, p, grid, sampling) for m, p in zip(features.float(), points, strict=True)])

    no_weight_decay = no_weight_decay  # the function of `align` as a method


def expected_depth(
    logits: Float[Tensor, "batch cam depth h w"], depths: Float[Tensor, "depth"]
) -> Float[Tensor, "batch cam h w"]:
    """Mean of the depth distribution of each cell, metres; bin i stands for `depths[i]`."""
    return torch.einsum("bcdhw,d->bchw", logits.softmax(dim=2), depths)


def inner_depth_loss(
    predicted: Float[Tensor, "batch cam h w"],
    depth: Float[Tensor, "batch cam h w"],
    instance: Int[Tensor, "batch cam h w"],
) -> Float[Tensor, ""]:
    """Squared error of depths relative to a reference cell of the same object in the same camera; mean over all
    cells on objects, 0 without any. `instance`: number of the object in a cell, unique in its sample; -1 for none.

    The reference is the first cell whose prediction is best at the moment. It gets no gradient, neither as itself nor
    as the others' reference.
    """
    on_object = (instance >= 0).flatten().nonzero().squeeze(1)  # once: the host waits for a GPU each time
    image = on_object // (instance.shape[-2] * instance.shape[-1])
    number, ours, theirs = (each.flatten().index_select(0, on_object) for each in (instance, predicted, depth))
    count = mean_count(torch.full((), len(number), device=number.device), at_least=1)
    if not len(number):
        return ours.sum()  # an empty sum: zero, and part of the graph
    _, group = torch.stack([image, number.long()]).unique(dim=1, return_inverse=True)
    error, groups = (ours - theirs).detach().abs(), int(group.max()) + 1
    smallest = error.new_full((groups,), torch.inf).scatter_reduce(0, group, error, "amin")
    best = torch.where(~(error > smallest[group]))[0]  # written this way, the group of a NaN has one too
    first = group.new_full((groups,), len(group)).scatter_reduce(0, group[best], best, "amin")
    reference = first[group]
    relative, true = ours - ours.detach()[reference], theirs - theirs[reference]
    return (relative - true).square().sum() / count


def keypoints(boxes: Boxes, count: int, margin: float) -> Float[Tensor, "boxes points 2"]:
    """`count` x `count` points on the ground over each box, corners included, in metres; heights play no part.
    `margin`: metres by which the box is enlarged on every side."""
    steps = torch.linspace(-0.5, 0.5, count, device=boxes.center.device)
    unit = torch.cartesian_prod(steps, steps)  # points 2
    along, left = (unit * (boxes.size[:, None, :2] + 2 * margin)).unbind(dim=-1)  # boxes points
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    turned = torch.stack([along * cos - left * sin, along * sin + left * cos], dim=-1)
    return boxes.center[:, None, :2] + turned


def grid_positions(
    points: Float[Tensor, "boxes points 2"], grid: BevGrid, sampling: Sampling = "exact"
) -> Float[Tensor, "boxes points 2"]:
    """Metres into what `grid_sample` takes for x and y; points outside go to the border of the map."""
    last = 1 if sampling == "released" else 0
    cells = constant([grid.width - last, grid.height - last], points.device, points.dtype)
    return (2 * grid.coordinates(points) / cells - 1).clamp(-1, 1)


def sample_map(
    features: Float[Tensor, "chan y x"],
    points: Float[Tensor, "boxes points 2"],
    grid: BevGrid,
    sampling: Sampling = "exact",
) -> Float[Tensor, "boxes chan points"]:
    """Features at points on the ground (metres), bilinear between cell centres, fading to zero past the outermost."""
    positions = grid_positions(points, grid, sampling)[None]
    return F.grid_sample(features[None], positions, padding_mode="zeros", align_corners=False)[0].transpose(0, 1)


def relation_loss(
    ours: Float[Tensor, "boxes rows _"], theirs: Float[Tensor, "boxes rows _"], at_once: int = BOXES_AT_ONCE
) -> Float[Tensor, ""]:
    """Difference between the relations of the rows of two sets of features: squared distance of the normalised rows
    of their similarity matrices, summed over the row, mean over rows and boxes; 0 without boxes.

    Rows are keypoints (inter-keypoint) or channels (inter-channel); a row costs at most 4. The other axis may differ.
    `at_once`: boxes at a time; the backward pass computes their matrices anew. No influence on the result.
    """
    boxes = mean_count(torch.full((), len(ours), device=ours.device), at_least=1)
    if not len(ours):
        return ours.sum()  # an empty sum: zero, and part of the graph
    pairs = zip(ours.split(at_once), theirs.split(at_once), strict=True)
    costs = [checkpoint(_relation_cost, a, b, use_reentrant=False, preserve_rng_state=False) for a, b in pairs]
    return torch.stack(costs).sum() / (boxes * ours.shape[1])


def _relation_cost(ours: Float[Tensor, "boxes rows _"], theirs: Float[Tensor, "boxes rows _"]) -> Float[Tensor, ""]:
    a, b = (F.normalize(features @ features.mT, dim=2, eps=1e-12) for features in (ours, theirs))
    return (a - b).square().sum()
