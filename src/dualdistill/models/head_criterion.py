"""Response distillation with a CenterPoint head: pseudo boxes and losses, as functions of its settings."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.center_decode import decode
from dualdistill.models.center_head import CenterHead, CenterHeadConfig
from dualdistill.models.center_losses import center_losses, losses_in_cells
from dualdistill.models.center_targets import center_targets
from dualdistill.models.frozen_head import can_be_read, read_head
from dualdistill.structures import Boxes, HeadOutput, Losses


@dataclass(frozen=True, slots=True)
class CenterCriterion:
    """Decoding, target assignment and losses of a CenterPoint head, without its weights
    (docs/methods/dualdistill.md#response-distillation)."""

    grid: BevGrid
    config: CenterHeadConfig

    def pseudo_boxes(self, predictions: HeadOutput, temperature: float) -> tuple[Boxes, ...]:
        """Detections that serve as labels: decoded in float32, no gradient; `temperature` moves the score threshold."""
        with torch.no_grad():
            exact = HeadOutput(heatmap=predictions.heatmap.float(), regression=predictions.regression.float())
            return decode(exact, self.grid, self.config, temperature=temperature)

    def losses_of_features(
        self, head: Callable[[Tensor], HeadOutput], neck: Float[Tensor, "batch chan y x"], boxes: tuple[Boxes, ...]
    ) -> Losses:
        """Unweighted losses of the predictions of `head` on a map, with `boxes` as ground truth; a frozen CenterPoint
        head is computed only where needed."""
        targets = center_targets(boxes, self.grid, self.config)
        if isinstance(head, CenterHead) and can_be_read(head):
            heatmap, codes = read_head(head, neck, targets.index, targets.mask)
            return losses_in_cells(heatmap, codes, targets, self.config.task_of_class)
        return center_losses(head(neck), targets, self.config.task_of_class)
