"""The image neck of the BEVDet code base (docs/methods/bevdepth.md#image-backbone-and-neck);
the official one is `second.SecondFpn`."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePyramid(nn.Module):
    """Top-down pyramid that returns its finest level alone; no norm, no activation (BEVDet code base).

    With levels C4 and C5 this is the published two-level neck.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.output = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        for conv in (*self.laterals, self.output):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, levels: Sequence[Float[Tensor, "images _ _ _"]]) -> Float[Tensor, "images _ _ _"]:
        """Finest map of the pyramid.

        Args:
            levels: Fine to coarse.
        """
        fine_to_coarse = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=True)]
        merged = fine_to_coarse.pop()
        for finer in reversed(fine_to_coarse):
            merged = finer + F.interpolate(merged, size=finer.shape[-2:], mode="nearest")
        return self.output(merged)
