"""A linear map of channels that keeps inner products: the orthogonal projector of DualDistill.

Source: docs/methods/dualdistill.md#orthogonal-projector. With fewer outputs than inputs, W has orthonormal rows: W Wᵀ =
I, while Wᵀ W is the orthogonal projection on the row space. W is no free parameter but the image of one under a map
that only produces orthonormal frames, so the constraint holds exactly after any optimiser step.

Differs from the released code in the map: Cayley instead of Householder. The released one multiplies the frame by the
integer part of a diagonal that starts at -1; the first weight decay that float32 can see makes it -0.99999994, whose
integer part is 0, and the projector is zero from then on (about step 8 of the released schedule). It is kept as
`householder`, for the ablation that runs the method as released, and tests/parity holds both.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

OrthogonalMap = Literal["cayley", "householder"]


def cayley(raw: Float[Tensor, "long short"]) -> Float[Tensor, "long short"]:
    """First columns of (I + A/2)⁻¹ (I - A/2), where A = [[S, -Vᵀ], [V, 0]], S = R - Rᵀ and [R; V] = raw.

    The zero block of A leaves one short x short system to solve (its Schur complement), not a long x long one.
    """
    short = raw.shape[1]
    r, v = raw[:short], raw[short:]
    identity = torch.eye(short, dtype=raw.dtype, device=raw.device)
    # inv_ex: the checked inverse would wait for the device
    inverse = torch.linalg.inv_ex(identity + (r - r.mT) / 2 + v.mT @ v / 4).inverse
    return torch.cat([2 * inverse - identity, -v @ inverse])


def householder(raw: Float[Tensor, "long short"]) -> Float[Tensor, "long short"]:
    """Product of the reflections below the diagonal, times the integer part of the diagonal: as released, broken.

    The cast to integers has no gradient and turns -0.99999994 into 0: never use it with weight decay.
    """
    vectors = raw.tril(-1)
    taus = 2 / (1 + vectors.square().sum(dim=0))
    return torch.linalg.householder_product(vectors, taus) * raw.diagonal().int()


_MAPS = {"cayley": cayley, "householder": householder}


class SemiOrthogonal(nn.Module):
    """Per cell: gain * (W f) + bias, where W has orthonormal rows (or columns, with more outputs than inputs).

    Always float32: half precision would leave W orthogonal to three digits only.
    """

    undecayed: ClassVar[frozenset[str]] = frozenset({"raw"})
    """Weight decay would pull W towards where it started."""

    base: Tensor

    def __init__(self, inputs: int, outputs: int, map: OrthogonalMap = "cayley"):
        super().__init__()
        self.map = map
        # A plain matrix: `torch.nn.utils.parametrizations.orthogonal` would read a 1x1 convolution as a batch
        # of 1x1 matrices, each then +1 or -1.
        self.raw = nn.Parameter(torch.zeros(outputs, inputs))
        if map == "householder":
            nn.init.eye_(self.raw)
            self.raw.data.neg_()
        self.gain = nn.Parameter(torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        long = max(inputs, outputs)
        self.register_buffer("base", nn.init.orthogonal_(torch.empty(long, long)))

    @property
    def weight(self) -> Float[Tensor, "outputs inputs"]:
        """W: the base (a random rotation, where training starts) times the frame that `raw` stands for."""
        wide = self.raw.shape[0] < self.raw.shape[1]
        with torch.autocast(self.raw.device.type, enabled=False):
            frame = self.base @ _MAPS[self.map](self.raw.mT if wide else self.raw)
        return frame.mT if wide else frame

    def forward(self, features: Float[Tensor, "batch inputs y x"]) -> Float[Tensor, "batch outputs y x"]:
        with torch.autocast(features.device.type, enabled=False):
            weight = self.gain[:, None] * self.weight
            return F.conv2d(features.float(), weight[:, :, None, None], self.bias)

    @torch.no_grad()
    def orthogonality_error(self) -> float:
        """Largest entry of |W Wᵀ - I| (|Wᵀ W - I| where W is tall)."""
        weight = self.weight
        frame = weight.mT if weight.shape[0] < weight.shape[1] else weight
        return (frame.mT @ frame - torch.eye(frame.shape[1], device=frame.device)).abs().max().item()

    @torch.no_grad()
    def largest_entry(self) -> float:
        """Largest |entry| of W; exactly 0 once a projector has collapsed."""
        return self.weight.abs().max().item()
