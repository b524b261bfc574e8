"""TiG-BEV: the inner geometry of objects, in depth from points and in BEV from a LiDAR teacher, for a camera student.

Source: TiG-BEV (Huang et al., 2022, arXiv 2212.13979) and its released code; docs/methods/tig_bev.md. Inner depth
compares depths relative to a cell of the same object; inter-keypoint and inter-channel distillation compare how
features inside an enlarged box relate to each other, not the features themselves. What each term computes stands in
`inner_geometry`.

Differs from the released code in where keypoints are sampled (`TigBevConfig.sampling`), in that scenes without a box
are legal, and in what surrounds the distiller: the teacher's batch norm keeps its running statistics, and objects
outside the ten classes are no objects.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor, nn

from dualdistill.distill.align import no_weight_decay
from dualdistill.distill.inner_geometry import (
    Sampling,
    expected_depth,
    inner_depth_loss,
    keypoints,
    relation_loss,
    sample_map,
)
from dualdistill.distill.method import DistillerInputs, Requires
from dualdistill.geometry.grid import BevGrid
from dualdistill.settings import NonNegative, checked
from dualdistill.structures import BevOutput, Losses, Targets


@dataclass(frozen=True, kw_only=True)
@checked
class TigBevConfig:
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
        """Weight of every loss by name."""
        terms = ("inner_depth", "inter_keypoint", "inter_channel")
        weights = {f"tig/{term}": getattr(self, f"{term}_weight") for term in terms}
        return {name: weight for name, weight in weights.items() if weight is not None}

    @property
    def distils_features(self) -> bool:
        """Whether BEV maps are compared."""
        return self.inter_keypoint_weight is not None or self.inter_channel_weight is not None

    @property
    def requires(self) -> Requires:
        return Requires(
            teacher_maps=("neck",) if self.distils_features else (), depth_instances=self.inner_depth_weight is not None
        )

    def build(self, inputs: DistillerInputs) -> "TigBev":
        """See `DistillerConfig.build`."""
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
        """All in float32, whatever precision the detectors ran in.

        Raises:
            ValueError: for inner depth, if the student predicts no depth, or the targets have none for these cells.
        """
        config = self.config
        losses: Losses = {}
        with torch.autocast(student.neck.device.type, enabled=False):
            if config.inner_depth_weight is not None:
                losses["tig/inner_depth"] = self._inner_depth(student, targets)
            if config.distils_features:
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
