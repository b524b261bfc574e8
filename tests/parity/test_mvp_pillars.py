"""The MVP teacher's pillars against the released code, and against the plain CenterPoint they contain.

Recorded numbers: the official DualDistill repository at e16e1678f071, run on the CPU (`pillar_variants`, keys
`mvp.*`; float32).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.testing import assert_close

from dualdistill.data.virtual_points.clouds import laid_out
from dualdistill.data.virtual_points.complete import CompletedSweep
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.structures import Batch, Boxes, Points, SampleMeta

GOLDEN = Path(__file__).parent / "golden" / "centerpoint" / "pillar_variants.npz"

SMALL = CenterPointConfig(
    reach=12.8,
    pillar_channels=(16,),
    stage_channels=(8, 8, 16),
    stage_layers=(1, 1, 1),
    neck_channels=8,
    head=CenterHeadConfig(shared_channels=8, head_channels=8),
)


def test_raw_painted_and_virtual_points_have_the_flags_that_the_released_pillars_read() -> None:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        in_file, read = arrays["mvp.points"][:, 15], arrays["mvp.points_after_flag"][:, 15]
    one_of_each = CompletedSweep(
        virtual=torch.zeros(1, 14), painted=torch.zeros(1, 15), painted_rows=torch.zeros(1, dtype=torch.long)
    )
    flags = laid_out(torch.zeros(1, 5), one_of_each, 0.0, "distillbev")[:, 15].tolist()
    for flag_in_file, flag in zip((1.0, 0.0, -1.0), flags, strict=True):  # raw, painted, virtual
        assert set(read[in_file == flag_in_file]) == {flag}


def test_the_released_number_of_weights() -> None:
    """See docs/methods/mvp.md#readers:
    5 983 558 parameters of the dynamic pillar teacher, 22 columns into its first layer."""
    model = CenterPointConfig(point_channels=17).build()
    assert model.encoder.layers[0].linear.weight.shape == (64, 22)
    assert sum(parameter.numel() for parameter in model.parameters()) == 5_983_558


def batch_of(features: torch.Tensor) -> Batch:
    meta = SampleMeta(
        token="", timestamp_us=0, global_from_bev=torch.eye(4).double(), ego_from_bev=torch.eye(4).double()
    )
    return Batch(
        boxes=(Boxes.empty(),),
        augmented_from_bev=torch.eye(4)[None],
        meta=(meta,),
        points=Points(features=features, sample=torch.zeros(len(features), dtype=torch.long)),
    )


def test_without_virtual_points_and_their_weights_it_is_the_plain_centerpoint() -> None:
    """See docs/methods/mvp.md#readers."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(800, 5, generator=generator) * torch.tensor([24.0, 24, 4, 255, 0]) - torch.tensor(
        [12.0, 12, 3, 0, 0]
    )
    lag = 0.05
    laid = laid_out(raw, CompletedSweep.none(), lag, "distillbev")
    plain_points = torch.cat([raw[:, :4], torch.full((len(raw), 1), lag)], dim=1)
    mvp, plain = replace(SMALL, point_channels=17).build().eval(), SMALL.build().eval()
    state = mvp.state_dict()
    wide = state["encoder.layers.0.linear.weight"]
    wide[:, 4:16] = 0
    columns = [0, 1, 2, 3, 16, 17, 18, 19, 20, 21]
    plain.load_state_dict(state | {"encoder.layers.0.linear.weight": wide[:, columns]})
    with torch.no_grad():
        ours, theirs = mvp(batch_of(laid)), plain(batch_of(plain_points))
    assert_close(ours.canvas, theirs.canvas, atol=1e-4, rtol=1e-6)
    assert_close(ours.predictions.heatmap, theirs.predictions.heatmap, atol=1e-6, rtol=1e-5)
