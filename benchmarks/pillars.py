"""Points to canvas: dynamic pillars by the split layer, beside padded voxels and beside the plain definition.

The padded network computes something else where a pillar has more points than it takes, and in training, where its norm
counts the padding. So results are compared once with the same network: caps that are never reached, evaluation, padding
left out of the maximum.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.floor import traffic_ms
from benchmarks.references.pillars import hard_pillars
from dualdistill.geometry.grid import BevGrid
from dualdistill.models.pillars import PillarEncoder, PointLayer, pool_split
from dualdistill.ops.voxelize import Pillars, dynamic_voxelize
from dualdistill.report.timing import Row, Variant, measure
from dualdistill.structures import Points

POINTS, CHANNELS, MAX_POINTS = 250_000, 64, 20
MAX_PILLARS = {True: 30_000, False: 40_000}
"""In training, and in evaluation."""
GRID, Z_RANGE = BevGrid.around(51.2, 0.2), (-5.0, 3.0)


def run(quick: bool) -> list[Row]:
    """Equality with padded voxels, forward in evaluation, forward + backward in training."""
    return pillar_rows(POINTS // 20 if quick else POINTS, repeats=3 if quick else 7)


def pillar_rows(count: int, *, repeats: int) -> list[Row]:
    torch.manual_seed(0)
    points = street_points(count)
    encoder = PillarEncoder(5, (CHANNELS,), GRID, Z_RANGE)
    with torch.no_grad():  # as after some training: scales of either sign
        norm = _layer(encoder).norm
        norm.weight.normal_()
        norm.bias.normal_()
    threads = torch.get_num_threads()
    setting = f"{count} points, {'x'.join(map(str, GRID.shape))} cells, C={CHANNELS}, float32, {threads} threads"
    rows = []
    for training in (False, True):
        own = copy.deepcopy(encoder).train(training)
        forms = _forms(own, points)
        what = "forward + backward, training" if training else "forward, evaluation"
        # read: points; written: the canvas (and in training its gradient, read)
        moved = 4 * (points.features.numel() + (1 + training) * CHANNELS * math.prod(GRID.shape))
        rows += measure(
            f"pillars, {what} ({setting})",
            [
                Variant(
                    name=name,
                    run=_both(form, own) if training else _forward(form),
                    repeats=max(1, repeats // 2) if "split" not in name else None,
                )
                for name, form in forms.items()
            ],
            repeats=repeats,
            floor_ms=traffic_ms(moved),
            floor="points read, canvas written once",
        )
    return rows + equality_rows(encoder.eval(), points, setting)


def equality_rows(encoder: PillarEncoder, points: Points, setting: str) -> list[Row]:
    """The same canvas from all forms, where the padded network computes the same."""
    raw = points.features
    cell = flat_cells(raw)
    crowded = min(int(torch.bincount(cell).max()), 4 * MAX_POINTS)
    order = cell.argsort(stable=True)
    rank = torch.arange(len(cell)) - torch.searchsorted(cell[order].contiguous(), cell[order].contiguous())
    kept = order[rank < crowded][: len(raw) // 8].sort().values  # padded to the fullest, more would not fit in memory
    some = Points(features=raw[kept], sample=points.sample[kept])
    forms = _forms(encoder, some)
    del forms["padded voxels"]
    padded = _padded(encoder, some, crowded, len(some.features), skip_padding=True)
    forms = {"padded voxels, same network": padded} | forms
    return measure(
        f"pillars, same results (an eighth of {setting})",
        [Variant(name=name, run=_forward(form, compared=True)) for name, form in forms.items()],
        repeats=1,
    )


def street_points(count: int) -> Points:
    """Ten sweeps of 32 beams over flat ground and 120 obstacles, thinning out with distance."""
    made: list[Tensor] = []
    azimuth, distance = math.tau * torch.rand(120), 4 + 46 * torch.rand(120)
    while sum(map(len, made)) < count:
        ego = 0.5 * (len(made) % 10)
        beam = torch.deg2rad(torch.linspace(-30, 10, 32))[torch.randint(32, (count // 5,))]
        turn, reach = math.tau * torch.rand(len(beam)), 5 + 150 * torch.rand(len(beam)).square()
        obstacle, hit = torch.randint(120, (len(beam),)), torch.rand(len(beam)) < 0.45
        turn = torch.where(hit, azimuth[obstacle] + 0.03 * torch.randn(len(beam)), turn)
        reach = torch.where(hit, distance[obstacle] + 0.4 * torch.randn(len(beam)), reach)
        ground = torch.where(beam < 0, 1.84 / (-beam.sin()).clamp(min=1e-3), torch.inf)
        reach = torch.minimum(reach, ground)
        x, y, z = reach * beam.cos() * turn.cos() - ego, reach * beam.cos() * turn.sin(), reach * beam.sin()
        rest = 255 * torch.rand(len(beam)), torch.full_like(x, 0.1 * ego)
        sweep = torch.stack([x, y, z, *rest], dim=1)
        low, high = Z_RANGE
        limit = -GRID.x_min - 1e-3
        inside = (x.abs() < limit) & (y.abs() < limit) & (z >= low) & (z < high)
        made.append(sweep[inside][: max(1, count // 10)])
    return Points(features=torch.cat(made)[:count], sample=torch.zeros(count, dtype=torch.long))


def flat_cells(raw: Tensor) -> Tensor:
    x, y = GRID.cells(raw[:, :2]).unbind(dim=1)
    return y * GRID.width + x


def _forms(encoder: PillarEncoder, points: Points) -> dict[str, Callable[[], Tensor]]:
    layer = _layer(encoder)

    def grouped() -> Pillars:
        return dynamic_voxelize(points.features[:, :3], points.sample, GRID, Z_RANGE, 1)

    def plain() -> Tensor:
        pillars = grouped()
        described = encoder.describe(points.features.index_select(0, pillars.kept), pillars)
        return as_canvas(encoder.pool(described, pillars), pillars)

    def split() -> Tensor:
        pillars = grouped()
        return as_canvas(pool_split(points.features, pillars, GRID, layer.linear, layer.norm), pillars)

    padded = _padded(encoder, points, MAX_POINTS, MAX_PILLARS[encoder.training])
    return {"padded voxels": padded, "dynamic pillars, definition": plain, "dynamic pillars, split layer": split}


def _layer(encoder: PillarEncoder) -> PointLayer:
    (layer,) = encoder.layers
    assert isinstance(layer, PointLayer)
    return layer


def _padded(
    encoder: PillarEncoder, points: Points, max_points: int, max_pillars: int, skip_padding: bool = False
) -> Callable[[], Tensor]:
    raw, layer, caps = points.features, _layer(encoder), {"max_points": max_points, "max_pillars": max_pillars}
    return lambda: hard_pillars(raw, flat_cells(raw), GRID, layer.linear, layer.norm, **caps, skip_padding=skip_padding)


def as_canvas(features: Tensor, pillars: Pillars) -> Tensor:
    _, y, x = pillars.cells.unbind(dim=1)
    canvas = features.new_zeros(GRID.height * GRID.width, features.shape[1])
    return canvas.index_copy(0, y * GRID.width + x, features).view(1, *GRID.shape, -1).permute(0, 3, 1, 2)


def _forward(form: Callable[[], Tensor], *, compared: bool = False) -> Callable[[], Tensor | None]:
    @torch.no_grad()
    def run() -> Tensor | None:
        canvas = form()
        return canvas if compared else None

    return run


def _both(form: Callable[[], Tensor], encoder: PillarEncoder) -> Callable[[], None]:
    upstream = torch.randn(1, CHANNELS, *GRID.shape)
    by_layout = {True: upstream, False: upstream.contiguous(memory_format=torch.channels_last)}

    def run() -> None:
        encoder.zero_grad()
        canvas = form()
        canvas.backward(by_layout[canvas.is_contiguous()])

    return run
