"""`data virtual-points`, and a teacher that learns from what it made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from dualdistill.commands.data import make_virtual
from dualdistill.commands.options.data import VirtualPoints
from dualdistill.data.collate import collate
from dualdistill.data.config import DataConfig, VirtualPointsConfig
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.structures import weighted_sum

LIDAR = DataConfig(
    cameras=False, depth=False, num_frames=1, num_sweeps=4, virtual_points=VirtualPointsConfig(masks="synthetic")
)
TEACHER = CenterPointConfig(
    pillar=0.8,
    pillar_channels=(8,),
    stage_channels=(8, 8, 16),
    stage_layers=(1, 1, 1),
    neck_channels=8,
    head=CenterHeadConfig(shared_channels=8, head_channels=4),
)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUALDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def said(console: Console) -> str:
    return " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_made_once_and_kept_the_second_time(world: Path, console: Console, own_cache: Path) -> None:
    make_virtual(console, VirtualPoints(world))
    assert "virtual points of 33 LiDAR sweeps made, 0 kept" in said(console)
    files = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.npz")}
    assert len(files) == 33
    make_virtual(console, VirtualPoints(world))
    assert "virtual points of 0 LiDAR sweeps made, 33 kept" in said(console)
    assert files == {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.npz")}


@pytest.mark.parametrize("layout", ["distillbev", "centerpoint"])
def test_a_teacher_takes_a_step_on_them(world: Path, console: Console, own_cache: Path, layout: str) -> None:
    index = NuscenesIndex.open(world)
    config = replace(LIDAR, virtual_points=VirtualPointsConfig(masks="synthetic", layout=layout))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="dualdistill data virtual-points"):
        NuscenesDataset(index, config, np.arange(len(index)), training=True, seed=0)
    make_virtual(console, VirtualPoints(world))
    data = NuscenesDataset(index, config, np.arange(len(index)), training=True, seed=0)
    batch = collate([data[0, 0], data[0, 1]])
    teacher = replace(TEACHER, point_channels=config.point_channels).build()
    weighted_sum(teacher.losses(teacher(batch), teacher.targets(batch)), teacher.weights).backward()
    gradient = teacher.encoder.layers[0].linear.weight.grad
    assert gradient is not None
    # Every column says something: no class of the world is left out, and all kinds of points are there.
    assert (gradient[:, : config.point_channels].abs().sum(dim=0) > 0).all()
    assert gradient.isfinite().all()


def test_points_of_noisy_masks_lie_apart_and_are_others(world: Path, console: Console, own_cache: Path) -> None:
    index = NuscenesIndex.open(world)
    config = replace(LIDAR, virtual_points=VirtualPointsConfig(masks="synthetic", noise=0.5))
    make_virtual(console, VirtualPoints(world))
    with pytest.raises(UserError, match=r"--masks synthetic --noise 0\.5"):
        NuscenesDataset(index, config, np.arange(len(index)), training=False, seed=0)
    make_virtual(console, VirtualPoints(world, noise=0.5))
    assert len(list(own_cache.rglob("*.npz"))) == 2 * 33
    clouds = []
    for each in (LIDAR, config):
        points = NuscenesDataset(index, each, np.arange(len(index)), training=False, seed=0)[0].points
        assert points is not None
        clouds.append(points.features)
    perfect, noisy = ((cloud[cloud[:, 15] == 1][:, 14]) for cloud in clouds)  # scores of virtual points
    assert (perfect == 1).all()
    assert 0.5 < noisy.mean() < 1


def test_noise_without_effect_is_refused(world: Path, console: Console) -> None:
    with pytest.raises(UserError, match="--noise has no effect with --masks maskrcnn"):
        make_virtual(console, VirtualPoints(world, masks="maskrcnn", weights=Path("weights.pth"), noise=0.5))


@pytest.mark.parametrize(
    ("source", "weights", "message"),
    [
        ("synthetic", Path("weights.pth"), "--weights has no effect"),
        ("maskrcnn", None, "needs --weights FILE: the COCO weights of torchvision's maskrcnn_resnet50_fpn_v2"),
        ("maskrcnn", Path("/nowhere/weights.pth"), "no weights file /nowhere/weights.pth"),
    ],
)
def test_masks_that_cannot_be_had_are_refused(
    world: Path, console: Console, own_cache: Path, source: str, weights: Path | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_virtual(console, VirtualPoints(world, masks=source, weights=weights))
    assert not (own_cache / "virtual_points").exists()
