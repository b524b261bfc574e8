"""Pillar encoder, SECOND and its neck against numbers of the released code.

Provenance: each golden .json names the repository and commit that made its numbers.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.geometry.grid import BevGrid
from dualdistill.models.layers.second import Second, SecondFpn
from dualdistill.models.pillars import PillarEncoder, capped, decorate
from dualdistill.ops.voxelize import dynamic_voxelize
from dualdistill.structures import Points

GOLDEN = Path(__file__).parent / "golden" / "centerpoint"
GRID = BevGrid.around(6.4, 0.2)


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def load(module: torch.nn.Module, arrays: dict[str, Tensor], prefix: str, renamed: dict[str, str]) -> None:
    """Fill `module` with the arrays under `prefix`, strictly but for the batch counters."""
    state = {}
    for name, value in arrays.items():
        if name.startswith(prefix) and not name.endswith("num_batches_tracked"):
            name = name.removeprefix(prefix)
            for theirs, ours in renamed.items():
                name = name.replace(theirs, ours)
            state[name] = value
    left = module.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert not left.missing_keys


def encoder(
    arrays: dict[str, Tensor], prefix: str, channels: tuple[int, ...], point_channels: int = 5
) -> PillarEncoder:
    made = PillarEncoder(point_channels, channels, GRID, (-5.0, 3.0))
    names = {"pfn_layers": "layers"}
    for layer in range(len(channels)):
        names |= {
            f"layers.{layer}.0.": f"layers.{layer}.linear.",
            f"layers.{layer}.1.": f"layers.{layer}.norm.",
        }
    load(made, arrays, prefix, names)
    return made


def scene(arrays: dict[str, Tensor]) -> Points:
    parts = [arrays["points.0"], arrays["points.1"]]
    sample = torch.repeat_interleave(torch.arange(2), torch.tensor([len(part) for part in parts]))
    return Points(features=torch.cat(parts), sample=sample)


def at(canvas: Tensor, coors: Tensor) -> Tensor:
    """Canvas features at (sample, z, y, x)."""
    sample, _, y, x = coors.long().unbind(dim=1)
    return canvas[sample, :, y, x]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_pillar_features_are_the_released_ones(mode):
    arrays = golden("pillar_forward")
    pillars = encoder(arrays, "w.pts_voxel_encoder.", (8,)).train(mode == "train")
    points = scene(arrays)
    inside = (arrays["point_coors"] >= 0).all(dim=1)
    if mode == "train":  # points out of range count in the released statistics, and not in ours
        assert inside.all()
    canvas = pillars(points, 2)
    assert_close(at(canvas, arrays["pillar_coors"]), arrays[f"{mode}.pillar_features"], rtol=1e-4, atol=1e-4)
    assert int((canvas != 0).any(dim=1).sum()) <= len(arrays["pillar_coors"])
    if mode == "eval":
        sums = torch.stack([canvas.sum((2, 3)), canvas.abs().sum((2, 3)), (canvas != 0).sum((2, 3))], dim=2)
        assert_close(sums, arrays["canvas_checksum"], rtol=1e-4, atol=1e-3)
    else:
        norm = pillars.layers[0].norm
        assert_close(norm.running_mean, arrays["train.pfn_running_mean_after"], rtol=1e-4, atol=1e-5)
        assert_close(norm.running_var, arrays["train.pfn_running_var_after"], rtol=1e-4, atol=1e-5)


def test_backbone_and_neck_are_the_released_ones():
    arrays = golden("pillar_forward")
    pillars = encoder(arrays, "w.pts_voxel_encoder.", (8,)).eval()
    backbone = Second(8, (8, 8, 16), (2, 1, 2), (2, 2, 2)).eval()
    load(backbone, arrays, "w.pts_backbone.", {})
    neck = SecondFpn((8, 8, 16), (6, 6, 6), (0.5, 1, 2)).eval()
    load(neck, arrays, "w.pts_neck.", {})
    with torch.no_grad():
        stages = backbone(pillars(scene(arrays), 2))
        for index, stage in enumerate(stages):
            assert_close(stage, arrays[f"eval.backbone{index}"], rtol=1e-4, atol=1e-4)
        assert_close(neck(stages), arrays["eval.neck"], rtol=1e-4, atol=1e-4)


def test_pillars_of_virtual_points_are_the_released_ones():
    arrays = golden("pillar_variants")
    pillars = encoder(arrays, "mvp.w.", (6,), point_channels=17).eval()
    features = arrays["mvp.points_after_flag"]
    canvas = pillars(Points(features=features, sample=torch.zeros(len(features)).long()), 1)
    found = at(canvas, arrays["mvp.pillar_coors"])
    assert_close(found, arrays["mvp.pillar_features"], rtol=1e-4, atol=1e-4)


def test_two_point_layers_are_the_released_ones():
    arrays = golden("pillar_variants")
    points = arrays["two_layer.points"]
    # This recording describes points by their distance too: an eleventh column, which no CenterPoint has.
    layers = encoder(arrays, "two_layer.w.", (6, 8), point_channels=6).eval()
    pillars = dynamic_voxelize(points[:, :3], torch.zeros(len(points)).long(), GRID, (-5.0, 3.0), 1)
    kept = points[pillars.kept]
    described = torch.cat([decorate(kept, pillars, GRID), kept[:, :3].norm(dim=1, keepdim=True)], dim=1)
    assert_close(pillars.cells, arrays["two_layer.pillar_coors"][:, [0, 2, 3]].long())
    expected = arrays["two_layer.eval.pillar_features"]
    assert_close(layers.pool(described, pillars), expected, rtol=1e-4, atol=1e-4)


def test_hard_pillars_are_the_released_ones_empty_rows_included():
    arrays = golden("pillar_variants")
    made = PillarEncoder(5, (6,), GRID, (-5.0, 3.0), max_points=4)
    names = {"pfn_layers": "layers"}
    load(made, arrays, "hard.w.", names)
    made.eval()
    voxels, count = arrays["hard.voxels"], arrays["hard.num_points"]
    held = torch.arange(4) < count[:, None]
    points = Points(features=voxels[held], sample=torch.zeros(int(held.sum())).long())
    canvas = made(points, 1)
    _, y, x = arrays["hard.coors_zyx"].long().unbind(dim=1)
    assert (count < 4).any()
    assert_close(canvas[0, :, y, x].T, arrays["hard.pillar_features"], rtol=1e-4, atol=1e-4)


def test_pillars_are_capped_in_the_order_of_points():
    xyz = torch.tensor([[0.1, 0.1, 0.0], [1.1, 0.1, 0.0], [0.1, 0.1, 0.1], [0.1, 0.1, 0.2], [1.1, 0.1, 0.1]])
    pillars = capped(dynamic_voxelize(xyz, torch.zeros(5).long(), GRID, (-5.0, 3.0), 1), 2)
    assert pillars.kept.tolist() == [0, 1, 2, 4]
    assert len(pillars) == 2
