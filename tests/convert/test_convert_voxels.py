"""Voxel CenterPoints of the official code bases (docs/methods/centerpoint.md#checkpoints)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from dualdistill.convert.checkpoint_file import convert
from dualdistill.convert.teachers import teacher_name
from dualdistill.errors import UserError
from dualdistill.models.centerpoint import CenterPoint, voxel_centerpoint
from dualdistill.ops.sparse_conv import Sites, SparseTensor
from tests.convert.foreign import FULL_VOXELS, mmdet3d_voxels, tianweiy_voxels

SHAPE = (41, 16, 16)


def network(conversion) -> CenterPoint:
    model = CenterPoint(conversion.config).eval()
    model.load_state_dict(conversion.state)
    return model


def voxels() -> SparseTensor:
    random = torch.Generator().manual_seed(0)
    cells = (torch.rand(1, *SHAPE, generator=random) < 0.02).nonzero()
    return SparseTensor(torch.randn(len(cells), 5, generator=random), Sites(cells, SHAPE, 1))


def original_encoder(state: dict[str, Tensor], x: SparseTensor) -> Tensor:
    """The sparse encoder of the original CenterPoint by its own names, on dense grids and masks."""
    grid, mask = x.dense(), x.with_features(torch.ones(len(x.sites), 1)).dense()

    def conv(name: str, grid: Tensor, **options) -> Tensor:
        weight = state[f"{name}.weight"].permute(4, 3, 0, 1, 2)
        return F.conv3d(grid, weight, state.get(f"{name}.bias"), **options)

    def norm(name: str, grid: Tensor) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(grid, *parts, eps=1e-3)

    def block(name: str, grid: Tensor) -> Tensor:
        inner = norm(f"{name}.bn1", conv(f"{name}.conv1", grid, padding=1)).relu() * mask
        return (norm(f"{name}.bn2", conv(f"{name}.conv2", inner, padding=1)) + grid).relu() * mask

    def down(name: str, grid: Tensor, first: int, **options) -> tuple[Tensor, Tensor]:
        size = state[f"{name}.{first}.weight"].shape[:3]
        met = (F.conv3d(mask, torch.ones(1, 1, *size), **options) > 0).float()
        return norm(f"{name}.{first + 1}", conv(f"{name}.{first}", grid, **options)).relu() * met, met

    grid = norm("backbone.conv_input.1", conv("backbone.conv_input.0", grid, padding=1)).relu() * mask
    for stage in (1, 2, 3, 4):
        if stage > 1:
            padding = (0, 1, 1) if stage == 4 else (1, 1, 1)
            grid, mask = down(f"backbone.conv{stage}", grid, 0, stride=2, padding=padding)
        for index in (0, 1) if stage == 1 else (3, 4):
            grid = block(f"backbone.conv{stage}.{index}", grid)
    grid, _ = down("backbone.extra_conv", grid, 0, stride=(2, 1, 1))
    return grid.flatten(1, 2)


@pytest.mark.parametrize(("size", "reach"), [(0.1, 51.2), (0.075, 54.0)])
def test_the_voxel_teachers_are_the_published_ones_to_the_last_parameter(size, reach):
    conversion = convert(mmdet3d_voxels(FULL_VOXELS), "legacy", size)
    assert len(conversion.mapping) == 504
    assert conversion.config == voxel_centerpoint(size)
    assert conversion.config.reach == reach
    assert sum(p.numel() for p in network(conversion).parameters()) == 8_938_262


def test_the_original_voxel_model_has_biases_that_go_into_norms():
    state = tianweiy_voxels(FULL_VOXELS)
    assert len(state) == 557
    assert sum(t.numel() for n, t in state.items() if "running" not in n and "num_batches" not in n) == 8_941_590
    conversion = convert(state, None, 0.1)
    assert conversion.config == voxel_centerpoint()
    folded = [entry.key for entry in conversion.mapping if entry.fate == "folded"]
    assert len(folded) == 37 + 16


@pytest.mark.parametrize("state", [mmdet3d_voxels(), tianweiy_voxels()])
def test_every_key_is_accounted_for_once_and_in_order(state):
    conversion = convert(state, "legacy", 0.1)
    assert [entry.key for entry in conversion.mapping] == list(state)
    assert {entry.into for entry in conversion.mapping} == conversion.state.keys()


def test_the_original_sparse_encoder_says_the_same_here():
    state = tianweiy_voxels()
    with torch.no_grad():
        ours = network(convert(state, None, 0.1)).encoder.sparse(voxels())
        assert_close(ours, original_encoder(state, voxels()), rtol=1e-4, atol=1e-4)


def test_both_layouts_of_kernels_are_one_network():
    old = mmdet3d_voxels()
    new = {name: t.permute(4, 0, 1, 2, 3).contiguous() if t.ndim == 5 else t for name, t in old.items()}
    first, second = convert(dict(old), "new", 0.1), convert(new, "new", 0.1)
    for name, tensor in first.state.items():
        assert torch.equal(second.state[name], tensor)
    assert {"spconv 1.x", "spconv 2.x"} == {
        entry.why.split(":")[0].removeprefix("kernel of ")
        for conversion in (first, second)
        for entry in conversion.mapping
        if entry.fate == "changed"
    }


def test_old_names_of_the_original_code_base_are_the_same_network():
    starts = {"conv_input": 0, "conv1": 3, "conv2": 5, "conv3": 10, "conv4": 15, "extra_conv": 20}
    for name in tianweiy_voxels():
        if name.startswith("backbone."):
            _, part, index, *rest = name.split(".")
            old = ".".join(["backbone.middle_conv", str(starts[part] + int(index)), *rest])
            assert teacher_name(old) == teacher_name(name) is not None


@pytest.mark.parametrize(
    ("state", "boxes", "voxel", "message"),
    [
        (mmdet3d_voxels(), "new", None, r"--voxel 0\.1"),
        (mmdet3d_voxels(), None, 0.1, "--boxes legacy"),
        (mmdet3d_voxels(), "new", 0.2, r"published voxels are 0\.1 m or 0\.075 m"),
        (tianweiy_voxels(), "new", 0.1, "legacy boxes, but --boxes new"),
        (tianweiy_voxels(channels=21), None, 0.1, "21 channels"),
        (
            mmdet3d_voxels() | {"pts_middle_encoder.conv_mid.0.weight": torch.zeros(3)},
            "new",
            0.1,
            "unknown: pts_middle",
        ),
        (
            {n: t for n, t in tianweiy_voxels().items() if n != "backbone.conv3.0.weight"},
            None,
            0.1,
            r"missing: encoder",
        ),
        (
            {n: t.permute(3, 4, 0, 1, 2) if t.ndim == 5 else t for n, t in mmdet3d_voxels().items()},
            "new",
            0.1,
            "no layout known",
        ),
        ({"backbone.conv_input.0.weight": torch.zeros(3, 3, 3, 5, 4)}, None, 0.1, "no whole voxel CenterPoint"),
    ],
)
def test_what_does_not_fit_exactly_is_refused_in_words(state, boxes, voxel, message):
    with pytest.raises(UserError, match=message):
        convert(dict(state), boxes, voxel)
