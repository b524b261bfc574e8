"""The teacher's decoding and detection losses, as plain functions for distillers."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from dualdistill.structures import Boxes, HeadOutput, Losses

RESPONSES = ("heatmap", "box/xy", "box/z", "box/size", "box/yaw", "box/velocity")
"""Names of the losses a head criterion returns."""


@runtime_checkable
class HeadCriterion(Protocol):
    """Decoding and detection losses under the teacher head's settings; the teacher detector provides it.

    Not a module, and holding none: a distiller that owned the teacher would train and save it.
    """

    def pseudo_boxes(self, predictions: HeadOutput, temperature: float) -> tuple[Boxes, ...]:
        """Detections of each sample after suppression, decoded in float32; velocities in m/s.

        Args:
            temperature: Divides the logits for the score threshold only; below 1, fewer and surer boxes pass.
        """

    def losses_of_features(
        self, head: Callable[[Tensor], HeadOutput], neck: Float[Tensor, "batch chan y x"], boxes: tuple[Boxes, ...]
    ) -> Losses:
        """The unweighted losses `RESPONSES` of the head's predictions for a map, with `boxes` as truth (velocities in
        m/s, NaN where unknown; no box at all is legal). The head need not be evaluated where they have no terms."""


def response_weights(*, heatmap: float, box: float, velocity: float) -> dict[str, float]:
    """Weights of `RESPONSES`; `velocity` comes on top of `box`."""
    return {"heatmap": heatmap} | {
        name: box * velocity if name == "box/velocity" else box for name in RESPONSES if name != "heatmap"
    }
