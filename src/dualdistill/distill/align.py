"""Alignment: the student's map in the shape of the teacher's. See docs/methods/dualdistill.md#alignment.

`Aoa` is the attention-guided orthogonal alignment of the two encoder levels: a cross-attention rewrites the student's
map at its own resolution, an orthogonal projection (docs/methods/dualdistill.md#orthogonal-projector) reduces its
channels, bilinear upsampling enlarges it. The others are the ablations (docs/methods/dualdistill.md#other-alignments).

Differs from the released code in the order of the last two steps (bilinear weights sum to one, so projecting first
gives the same map, to 3e-6, for a sixteenth of the work), and in the projector's map: Cayley instead of Householder.
The released one multiplies the frame by the integer part of a diagonal that starts at -1; the first weight decay that
float32 can see makes it -0.99999994, whose integer part is 0, and the projector is zero from then on (about step 8 of
the released schedule). It is kept as `householder`, for the ablation that runs the method as released, and tests/parity
holds both.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill.distill.shapes import Shape

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
    """Per cell: gain * (W f) + bias, where W has orthonormal rows (or columns, with more outputs than inputs): W Wᵀ =
    I, while Wᵀ W is the orthogonal projection on the row space.

    W is no free parameter but the image of one under a map that only produces orthonormal frames, so the constraint
    holds exactly after any optimiser step. Always float32: half precision would leave W orthogonal to three digits.
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


Alignment = Literal["aoa", "aoa-released", "attention", "orthogonal", "upsample-conv"]
"""How an encoder level is aligned: the method; the same with the projector that collapses; attention or
orthogonal projection alone; DistillBEV's bilinear upsampling and three 1x1 convolutions."""

PositionInit = Literal["zeros", "normal", "sine"]
"""How positions start: as released (the first attention is then nearly uniform); normal noise (std 0.02);
or one sine code in keys and queries alike, so that each query attends to its own cell first. The last two
are remedies, in the order of docs/methods/dualdistill.md#remedies, should the encoder levels not learn."""

Grid = tuple[int, int]
"""Height (y) and width (x) of a map, cells."""


def upsample(features: Float[Tensor, "batch chan _ _"], size: Grid) -> Float[Tensor, "batch chan y x"]:
    """Bilinear, corner cells on corner cells."""
    if features.shape[-2:] == size:
        return features
    return F.interpolate(features, size, mode="bilinear", align_corners=True)


class CrossAttentionAligner(nn.Module):
    """Cross-attention of learned queries, one a cell, to all cells of the student's map.

    The queries never see the image: all content comes through keys and values
    (docs/methods/dualdistill.md#cross-attention).
    """

    undecayed: ClassVar[frozenset[str]] = frozenset({"query", "position"})

    def __init__(
        self,
        channels: int,
        grid: Grid,
        heads: int = 8,
        *,
        out_channels: int | None = None,
        out_grid: Grid | None = None,
        position_init: PositionInit = "zeros",
        residual: bool = False,
    ):
        """Args:
            channels: Of the student's map, and of the result unless `out_channels` is given.
            grid: Of the student's map, and of the result unless `out_grid` is given.
            residual: Add the keys' map to what was attended; result and map must have one shape.

        Raises:
            ValueError: for channels the heads cannot share, or a residual between different shapes.
        """
        super().__init__()
        out_channels, out_grid = out_channels or channels, out_grid or grid
        if out_channels % heads:
            raise ValueError(f"{heads} attention heads cannot share {out_channels} channels")
        if residual and (out_channels, out_grid) != (channels, grid):
            raise ValueError(
                f"a residual needs maps of one shape, got {channels} x {grid} and {out_channels} x {out_grid}"
            )
        self.heads, self.out_grid, self.residual = heads, out_grid, residual
        self.keys = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.position = nn.Parameter(torch.zeros(1, channels, *grid))
        self.query = nn.Parameter(torch.randn(out_grid[0] * out_grid[1], out_channels))
        # A 1x1 convolution of the query map, written as the linear layer of tokens that it is.
        self.query_linear = nn.Linear(out_channels, out_channels)
        self.to_query = nn.Linear(out_channels, out_channels)
        self.to_key = nn.Linear(channels, out_channels)
        self.to_value = nn.Linear(channels, out_channels)
        self.to_out = nn.Linear(out_channels, out_channels)
        self.norm = nn.LayerNorm(out_channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(out_channels, 4 * out_channels), nn.ReLU(inplace=True), nn.Linear(4 * out_channels, out_channels)
        )
        if position_init == "normal":
            nn.init.trunc_normal_(self.position, std=0.02)
        elif position_init == "sine":
            self._start_at_own_cell(channels, grid)

    @torch.no_grad()
    def _start_at_own_cell(self, channels: int, grid: Grid) -> None:
        """Same code in keys and queries, same (orthogonal) projection of both: q.k is largest at the
        query's own cell."""
        if (self.query.shape[1], self.out_grid) != (channels, grid):
            raise ValueError("sine positions need queries on the grid and with the channels of the keys")
        code = sine_code(channels, grid)
        self.position.copy_(code)
        self.query.copy_(code.flatten(2).squeeze(0).mT + 1)  # + 1: the ReLU behind must let the code through …
        nn.init.eye_(self.query_linear.weight)
        nn.init.zeros_(self.query_linear.bias)
        nn.init.orthogonal_(self.to_query.weight, gain=2.0)
        self.to_key.weight.copy_(self.to_query.weight)
        self.to_query.bias.copy_(-self.to_query.weight.sum(dim=1))  # … and - 1 again
        nn.init.zeros_(self.to_key.bias)

    def attend(self, tokens: Float[Tensor, "batch keys chan"]) -> Float[Tensor, "batch queries out_chan"]:
        """What each query takes from a set of tokens (their order does not matter)."""

        def split(x: Float[Tensor, "batch tokens chan"]) -> Float[Tensor, "batch heads tokens code"]:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query = split(self.to_query(self.query_linear(self.query).relu())[None]).expand(len(tokens), -1, -1, -1)
        key, value = split(self.to_key(tokens)), split(self.to_value(tokens))
        attended = F.scaled_dot_product_attention(query, key, value)  # batch heads queries code
        return self.to_out(attended.transpose(1, 2).flatten(2))

    def forward(self, features: Float[Tensor, "batch chan y x"]) -> Float[Tensor, "batch out_chan out_y out_x"]:
        tokens = (self.keys(features) + self.position).flatten(2).mT  # batch (y x) chan
        attended = self.attend(tokens)
        if self.residual:
            attended = attended + tokens
        attended = self.norm(attended)
        attended = attended + self.feed_forward(attended)
        return attended.mT.unflatten(-1, self.out_grid)


def sine_code(channels: int, grid: Grid) -> Float[Tensor, "1 chan y x"]:
    """Sines and cosines of x (one half of the channels) and y, from a quarter period a cell to one over the map."""
    if channels % 4:
        raise ValueError(f"a 2-D sine code needs a multiple of 4 channels, got {channels}")
    height, width = grid
    exponents = torch.arange(channels // 4) / max(channels // 4 - 1, 1)
    frequencies = torch.pi / 2 * (4 / max(4, *grid)) ** exponents
    x = torch.arange(width)[None, :] * frequencies[:, None]
    y = torch.arange(height)[None, :] * frequencies[:, None]
    code_x = torch.cat([x.sin(), x.cos()])[:, None, :].expand(-1, height, -1)
    code_y = torch.cat([y.sin(), y.cos()])[:, :, None].expand(-1, -1, width)
    return torch.cat([code_x, code_y])[None]


class Aoa(nn.Module):
    """Attention-guided orthogonal alignment: attend at the student's resolution, project, enlarge to `size`."""

    def __init__(self, attention: nn.Module, projector: SemiOrthogonal, size: Grid):
        super().__init__()
        self.attention, self.projector, self.size = attention, projector, size

    def forward(self, features: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch chan y x"]:
        return upsample(self.projector(self.attention(features)), self.size)


class UpsampleConv3(nn.Module):
    """DistillBEV's adapter: enlarge, then three times 1x1 convolution, batch norm, ReLU; never negative."""

    def __init__(self, student: Shape, teacher: Shape):
        super().__init__()
        width = student[0]
        self.size = teacher[1:]
        # The first convolution commutes with upsampling and runs before it; batch norm does not.
        self.first = nn.Conv2d(width, width, 1)
        self.rest = nn.Sequential(
            *(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, width, 1)),
            *(nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.Conv2d(width, teacher[0], 1)),
            *(nn.BatchNorm2d(teacher[0]), nn.ReLU(inplace=True)),
        )

    def forward(self, features: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch chan y x"]:
        return self.rest(upsample(self.first(features), self.size))


def stage_aligner(
    alignment: Alignment,
    student: Shape,
    teacher: Shape,
    *,
    heads: int = 8,
    position_init: PositionInit = "zeros",
    residual: bool = False,
) -> nn.Module:
    """A module that takes an encoder map of shape `student` to shape `teacher`. Raises ValueError if the teacher's map
    is the smaller one, or shapes do not suit the alignment."""
    if teacher[1] < student[1] or teacher[2] < student[2]:
        raise ValueError(
            f"alignment enlarges maps: the teacher's {teacher[1]}x{teacher[2]} cells are fewer than the "
            f"student's {student[1]}x{student[2]}; pair the student's stage with a finer one of the teacher"
        )
    if alignment == "upsample-conv":
        return UpsampleConv3(student, teacher)
    attention: nn.Module = nn.Identity()
    alone = alignment == "attention"
    if alignment != "orthogonal":
        attention = CrossAttentionAligner(
            student[0],
            student[1:],
            heads,
            out_channels=teacher[0] if alone else None,
            out_grid=teacher[1:] if alone else None,
            position_init=position_init,
            residual=residual,
        )
    if alone:
        return attention
    projector = SemiOrthogonal(student[0], teacher[0], "householder" if alignment == "aoa-released" else "cayley")
    return Aoa(attention, projector, teacher[1:])


def neck_aligner(student: Shape, teacher: Shape) -> nn.Conv2d:
    """The 1x1 convolution before the head, whose result both MFD and CRD use (docs/methods/dualdistill.md#levels).
    Raises ValueError if the two maps differ in size."""
    if student[1:] != teacher[1:]:
        raise ValueError(f"the maps before the heads must have one size, got {student[1:]} and {teacher[1:]} cells")
    return nn.Conv2d(student[0], teacher[0], 1)


def no_weight_decay(module: nn.Module) -> set[str]:
    """Names of the parameters of `module` that weight decay must spare: norms, gains, biases, tables of
    positions and queries, and what a projector is made from."""
    names = {name for name, parameter in module.named_parameters() if parameter.ndim <= 1}
    for prefix, child in module.named_modules():
        names |= {f"{prefix}.{name}".lstrip(".") for name in getattr(child, "undecayed", ())}
    return names
