"""TiG-BEV: a camera student learns the inner geometry of objects, in depth from points, in BEV from a LiDAR teacher.

Source: TiG-BEV (Huang et al., 2022, arXiv 2212.13979) and its released code; docs/methods/tig_bev.md. Inner depth
compares depths relative to a cell of the same object; inter-keypoint and inter-channel distillation compare how
features inside an enlarged box relate to each other, not the features themselves. What each term computes stands in
`inner_geometry`.

Differs from the released code in where keypoints are sampled (`TigBevConfig.sampling`), in that scenes without a box
are legal, and in what surrounds the distiller: the teacher's batch norm keeps its running statistics, and objects
outside the ten classes are no objects.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.crd import HeadCriterion
from dualdistill.distill.inner_geometry import (
    Sampling,
    expected_depth,
    inner_depth_loss,
    keypoints,
    relation_loss,
    sample_map,
)
from dualdistill.distill.shapes import BevShapes
from dualdistill.geometry.grid import BevGrid
from dualdistill.structures import BevOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
class TigBevConfig:
    """Knobs of `TigBev`; the defaults are the released settings, save `sampling`.

    An option that the others leave without effect is an error.
    """

    inner_depth: bool = True
    """Relative depths inside objects; needs `Targets.depth_instance`, so `DataConfig.depth_instance`."""
    inter_keypoint: bool = True
    """How keypoints of a box relate to each other."""
    inter_channel: bool = True
    """How channels in a box relate to each other, after a 1x1 convolution to the teacher's."""

    depth_range: tuple[float, float] = (1.0, 60.0)
    """Lower edge of the student's first depth bin, end of its last, metres."""
    depth_step: float = 1.0
    """Metres a bin of the student."""

    keypoints: int = 24
    """Along each side of a box."""
    margin: float = 1.6
    """Metres by which a box is enlarged on every side before keypoints are laid over it."""
    sampling: Sampling = "exact"
    """Where maps are read for a keypoint; "released" drifts up to a cell, for parity."""

    inner_depth_weight: float = 1.0
    inter_keypoint_weight: float = 100.0
    inter_channel_weight: float = 10.0
    """20 in the released two-frame R50 without class balancing."""

    def __post_init__(self) -> None:
        if not (self.inner_depth or self.inter_keypoint or self.inter_channel):
            raise ValueError("inner_depth, inter_keypoint and inter_channel are all off: leave the distiller out")
        if not self.depth_range[0] < self.depth_range[1] or self.depth_step <= 0:
            raise ValueError(
                f"depth bins need first < last and a positive step, got {self.depth_range}, {self.depth_step}"
            )
        if self.keypoints < 2:
            raise ValueError(f"keypoints must be at least 2 (the corners), got {self.keypoints}")
        for name in ("margin", "inner_depth_weight", "inter_keypoint_weight", "inter_channel_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        self._reject_options_without_effect()

    def _reject_options_without_effect(self) -> None:
        idle: dict[str, set[str]] = {}
        if not self.inner_depth:
            idle["inner_depth is off"] = {"depth_range", "depth_step", "inner_depth_weight"}
        if not self.inter_keypoint:
            idle["inter_keypoint is off"] = {"inter_keypoint_weight"}
        if not self.inter_channel:
            idle["inter_channel is off"] = {"inter_channel_weight"}
        if not self.distils_features:
            idle["no features are distilled"] = {"keypoints", "margin", "sampling"}
        default = {each.name: each.default for each in fields(self)}
        for reason, names in idle.items():
            for name in sorted(names):
                if getattr(self, name) != default[name]:
                    raise ValueError(f"{name} has no effect, since {reason}: leave it out")

    @property
    def distils_features(self) -> bool:
        """Whether BEV maps are compared."""
        return self.inter_keypoint or self.inter_channel

    @property
    def reads(self) -> tuple[str, ...]:
        """Maps of the teacher that are compared; a teacher cache may leave out the others."""
        return ("neck",) if self.distils_features else ()

    @property
    def bins(self) -> int:
        """Depth bins the student must have."""
        low, high = self.depth_range
        return math.ceil((high - low) / self.depth_step - 1e-6)

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss by name."""
        terms = ("inner_depth", "inter_keypoint", "inter_channel")
        return {f"tig/{term}": getattr(self, f"{term}_weight") for term in terms if getattr(self, term)}

    def build(self, *, teacher: BevShapes, student: BevShapes, judge: HeadCriterion | None = None) -> "TigBev":
        """The distiller for detectors with maps of these shapes.

        Args:
            judge: Not asked: TiG-BEV distils no responses.

        Raises:
            ValueError: if teacher and student see different ground.
        """
        return TigBev(self, teacher, student)


class TigBev(nn.Module):
    """Losses "tig/inner_depth", "tig/inter_keypoint", "tig/inter_channel"; owns the 1x1 convolution of the last."""

    depths: Tensor

    def __init__(self, config: TigBevConfig, teacher: BevShapes, student: BevShapes):
        super().__init__()
        if teacher.extent != student.extent:
            raise ValueError(f"teacher and student must see one rectangle, got {teacher.extent} and {student.extent} m")
        self.config = config
        self.teacher_grid, self.student_grid = teacher.grid(teacher.neck), student.grid(student.neck)
        self.embed = nn.Conv2d(student.neck[0], teacher.neck[0], 1) if config.inter_channel else None
        depths = config.depth_range[0] + config.depth_step * torch.arange(config.bins)
        self.register_buffer("depths", depths, persistent=False)

    def forward(self, teacher: BevOutput, student: BevOutput, targets: Targets) -> Losses:
        """All in float32, whatever precision the detectors ran in.

        Raises:
            ValueError: for inner depth, if the student made no depth or one with other bins, or the targets lack it.
        """
        config = self.config
        losses: Losses = {}
        with torch.autocast(student.neck.device.type, enabled=False):
            if config.inner_depth:
                losses["tig/inner_depth"] = self._inner_depth(student, targets)
            if config.distils_features:
                points = [keypoints(boxes, config.keypoints, config.margin) for boxes in targets.boxes]
                ours = self._sampled(student.neck, points, self.student_grid)
                theirs = self._sampled(teacher.neck.detach(), points, self.teacher_grid)
                if config.inter_keypoint:
                    losses["tig/inter_keypoint"] = relation_loss(ours.mT, theirs.mT)
                if self.embed is not None:
                    embedded = self.embed(ours.unsqueeze(3)).squeeze(3)
                    losses["tig/inter_channel"] = relation_loss(embedded, theirs)
        return losses

    def _inner_depth(self, student: BevOutput, targets: Targets) -> Float[Tensor, ""]:
        if student.camera is None or targets.depth is None or targets.depth_instance is None:
            raise ValueError(
                "inner depth needs a camera student, targets.depth and targets.depth_instance: "
                "set depth_instance in the data config, or switch inner_depth off"
            )
        logits, depth = student.camera.depth_logits.float(), targets.depth
        if logits.shape[2] != len(self.depths) or logits.shape[-2:] != depth.shape[-2:]:
            raise ValueError(
                f"expected {len(self.depths)} depth bins on {tuple(depth.shape[-2:])} cells as in the config and the "
                f"labels, the student made {logits.shape[2]} on {tuple(logits.shape[-2:])}"
            )
        return inner_depth_loss(expected_depth(logits, self.depths), depth, targets.depth_instance)

    def _sampled(
        self, features: Float[Tensor, "batch chan y x"], points: list[Tensor], grid: BevGrid
    ) -> Float[Tensor, "boxes chan points"]:
        """Features of one map at the keypoints of all boxes of the batch, sample after sample."""
        sampling = self.config.sampling
        return torch.cat([sample_map(m, p, grid, sampling) for m, p in zip(features.float(), points, strict=True)])

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must spare."""
        return no_weight_decay(self)
