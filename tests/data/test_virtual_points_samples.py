"""Laws of samples with virtual points (docs/methods/mvp.md#columns)."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.config import BevAugmentation, DataConfig, ImageAugmentation, ObjectSampling, VirtualPointsConfig
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import read_points
from dualdistill.data.virtual_points.clouds import VirtualClouds, laid_out, virtual_point_files
from dualdistill.data.virtual_points.complete import CompletedSweep, lidar_records, make_virtual_points
from dualdistill.errors import UserError
from tests.data.test_virtual_points_cache import MiddleOfKeyFrames, some_sweep
from tests.data.tiny_root import TinyRoot, write_root

POINTS = torch.tensor([[5.0, 6, 0.5, 100, 7], [0.5, 0.5, 0.5, 90, 8], [7, 8, 0.5, 80, 9]])
LIDAR = DataConfig(cameras=False, depth=False, num_frames=1, num_sweeps=2, virtual_points=VirtualPointsConfig())


@pytest.fixture(scope="module")
def completed_root(tmp_path_factory: pytest.TempPathFactory) -> TinyRoot:
    """Key frames only, each with painted and virtual points."""
    root = write_root(tmp_path_factory.mktemp("completed") / "root", {"scene-0061": 3}, sweeps=False)
    index = NuscenesIndex.open(root.path)
    cache = virtual_point_files(index, "maskrcnn")
    make_virtual_points(index, lidar_records(index, np.arange(3), 10), MiddleOfKeyFrames(index), cache)
    return root


@pytest.fixture
def index(completed_root: TinyRoot) -> NuscenesIndex:
    return NuscenesIndex.open(completed_root.path)


def configured(**changes: object) -> DataConfig:
    return replace(LIDAR, virtual_points=VirtualPointsConfig(**changes))  # type: ignore[arg-type]


def is_virtual(points: Tensor) -> Tensor:
    """Which points of the 17-channel layout are virtual."""
    return points[:, 15] == 1


def is_raw(points: Tensor) -> Tensor:
    return (points[:, 4:15] == 1).all(dim=1)


def is_painted(points: Tensor) -> Tensor:
    return ~is_raw(points) & ~is_virtual(points)


def sample(index: NuscenesIndex, config: DataConfig = LIDAR, item: int = 2, training: bool = False) -> Tensor:
    found = NuscenesDataset(index, config, np.arange(len(index)), training=training, seed=0)[item].points
    assert found is not None
    return found.features


def test_rows_of_the_distillbev_layout_are_those_of_the_release() -> None:
    added = some_sweep()
    cloud = laid_out(POINTS, added, 0.25, "distillbev")
    assert cloud.shape == (3 + 4 + 6, 17)
    raw, painted, virtual = cloud.split([3, 4, 6])
    assert_close(raw[0], torch.tensor([5, 6, 0.5, 100, *[1.0] * 11, 0, 0.25]))
    assert_close(painted[:, :15], added.painted)
    assert_close(virtual[:, :3], added.virtual[:, :3])
    assert_close(virtual[:, 4:15], added.virtual[:, 3:])
    assert ((cloud[:, 3] == -1) == (cloud[:, 15] == 1)).all()
    assert cloud[:, 15].tolist() == [0.0] * 7 + [1.0] * 6
    assert (cloud[:, 16] == 0.25).all()


def test_rows_of_the_original_layout_have_no_intensity_but_for_raw_points() -> None:
    added = some_sweep()
    cloud = laid_out(POINTS, added, 0.25, "centerpoint")
    raw, painted, virtual = cloud.split([3, 4, 6])
    assert_close(raw[0], torch.tensor([5, 6, 0.5, 100, *[1.0] * 10, 0, 0.25]))
    assert_close(painted[:, :14], torch.cat([added.painted[:, :3], added.painted[:, 4:]], dim=1))
    assert_close(virtual[:, :14], added.virtual)
    assert cloud[:, 14].tolist() == [0.0] * 7 + [1.0] * 6
    assert (cloud[:, 15] == 0.25).all()


def test_a_sweep_without_masks_has_unpainted_points_only() -> None:
    cloud = laid_out(POINTS, CompletedSweep.none(), 0.0, "distillbev")
    assert_close(cloud[:, :4], POINTS[:, :4])
    assert (cloud[:, 4:15] == 1).all()


def test_the_ring_leaks_into_the_first_class_column_where_asked() -> None:
    cloud = laid_out(POINTS, CompletedSweep.none(), 0.0, "distillbev", ring_leak=True)
    assert cloud[:, 4].tolist() == [7, 8, 9]
    assert (cloud[:, 5:15] == 1).all()


def test_samples_have_as_many_channels_as_their_config_says(index: NuscenesIndex) -> None:
    for layout in ("distillbev", "centerpoint"):
        config = configured(layout=layout)
        assert sample(index, config).shape[1] == config.point_channels
    assert replace(LIDAR, virtual_points=None).point_channels == 5


def test_key_frame_and_sweeps_carry_all_kinds_and_their_own_time(index: NuscenesIndex) -> None:
    points = sample(index, configured(missing="error"))
    for lag in (0.0, 0.5):
        now = points[(points[:, 16] - lag).abs() < 1e-3]
        assert all(kind(now).any() for kind in (is_raw, is_painted, is_virtual))
    assert ((points[:, 16].abs() < 1e-3) | ((points[:, 16] - 0.5).abs() < 1e-3)).all()


def test_the_key_frame_alone_carries_them_where_asked(index: NuscenesIndex) -> None:
    points = sample(index, configured(sweeps=False))
    earlier = points[:, 16] > 0
    assert earlier.any()
    assert is_raw(points[earlier]).all()
    assert is_virtual(points[~earlier]).any()


def test_raw_points_are_those_of_a_sample_without_virtual_points(index: NuscenesIndex) -> None:
    plain = sample(index, replace(LIDAR, virtual_points=None), training=True)
    with_virtual = sample(index, configured(), training=True)
    raw = with_virtual[is_raw(with_virtual)]
    assert_close(raw[:, [0, 1, 2, 3, 16]], plain, atol=1e-4, rtol=1e-5)


def test_augmentation_moves_all_kinds_alike(index: NuscenesIndex) -> None:
    turn = BevAugmentation(rotation=(0.3, 0.3), scale=(1.02, 1.02), flip_x=1.0, flip_y=0.0)
    config = replace(configured(), bev_augmentation=turn, random_sweeps=False)
    data = NuscenesDataset(index, config, np.arange(3), training=True, seed=0)[2]
    assert data.points is not None
    inverse = torch.linalg.inv(data.augmented_from_bev[0])
    back = data.points.features[:, :3] @ inverse[:3, :3].T + inverse[:3, 3]
    plain = sample(index)
    inner = back.norm(dim=1) < 45  # the range cuts differently before and after
    assert set(data.points.features[inner, 15].tolist()) == {0.0, 1.0}
    assert torch.cdist(back[inner].double(), plain[:, :3].double()).amin(dim=1).max() < 1e-3


def test_a_static_objects_virtual_points_lie_where_they_lay_before(completed_root: TinyRoot) -> None:
    """The world of this root does not move: depth is borrowed, so points agree within what objects are deep."""
    index = NuscenesIndex.open(completed_root.path)
    clouds = VirtualClouds(index, VirtualPointsConfig(), np.arange(3), 2)
    key, before = (int(index.sample_lidar[i]) for i in (2, 1))
    own = CompletedSweep(
        virtual=torch.cat([torch.tensor([[9.0, 3, 0.5]]), torch.eye(11)[:1]], dim=1),
        painted=CompletedSweep.none().painted,
        painted_rows=CompletedSweep.none().painted_rows,
    )
    global_from_key = torch.from_numpy(index.global_from_sensor(key))
    in_world = global_from_key @ torch.tensor([9.0, 3, 0.5, 1]).double()
    in_before = torch.linalg.inv(torch.from_numpy(index.global_from_sensor(before))) @ in_world
    then = replace(own, virtual=torch.cat([in_before[None, :3].float(), own.virtual[:, 3:]], dim=1))
    folder = completed_root.path.parent / "moved"
    clouds.files = replace(clouds.files, folder=folder)
    clouds.files.write(index.data_filename[key], own)
    clouds.files.write(index.data_filename[before], then)
    points = clouds.accumulate(key, [before])
    virtual = points[is_virtual(points)]
    assert_close(virtual[1, :3], virtual[0, :3], atol=1e-3, rtol=0)


def test_close_points_of_sweeps_go_virtual_ones_too(index: NuscenesIndex, tmp_path: Path) -> None:
    clouds = VirtualClouds(index, VirtualPointsConfig(), np.arange(3), 2)
    key, before = (int(index.sample_lidar[i]) for i in (2, 1))
    near = replace(CompletedSweep.none(), virtual=torch.tensor([[0.3, -0.4, 1.0, *[0.0] * 11]]))
    clouds.files = replace(clouds.files, folder=tmp_path)
    for row in (key, before):
        clouds.files.write(index.data_filename[row], near)
    points = clouds.accumulate(key, [before])
    assert points[is_virtual(points), 16].tolist() == [0.0]


def test_depth_labels_see_virtual_points_where_asked(index: NuscenesIndex) -> None:
    image = ImageAugmentation(test_scale=0.0)
    camera = replace(LIDAR, cameras=True, depth=True, image_size=(32, 80), depth_stride=8, image_augmentation=image)

    def labels(config: VirtualPointsConfig | None) -> Tensor:
        data = NuscenesDataset(index, replace(camera, virtual_points=config), np.arange(3), training=False, seed=0)
        depth = data[2].depth
        assert depth is not None
        return depth

    plain, dense = labels(None), labels(VirtualPointsConfig())
    assert torch.equal(plain, labels(VirtualPointsConfig(depth_from_virtual=False)))
    assert (dense > 0).sum() > (plain > 0).sum()
    assert (dense[plain > 0] > 0).all()
    assert (dense[plain > 0] <= plain[plain > 0]).all()  # the nearest counts


def test_sweeps_without_virtual_points_are_an_error_before_training(completed_root: TinyRoot, tmp_path: Path) -> None:
    shutil.copytree(completed_root.path, tmp_path / "copy")
    index = NuscenesIndex.open(tmp_path / "copy")
    with pytest.raises(UserError, match=r"3 of 3 LiDAR sweeps .*dualdistill data virtual-points .*--weights FILE"):
        NuscenesDataset(index, LIDAR, np.arange(3), training=True, seed=0)
    with pytest.raises(UserError, match="--masks synthetic`"):
        NuscenesDataset(index, configured(masks="synthetic"), np.arange(3), training=True, seed=0)
    with pytest.raises(UserError, match="unpack the official cache"):
        NuscenesDataset(index, configured(masks="official"), np.arange(3), training=True, seed=0)
    points = sample(index, configured(masks="official", missing="unpainted"))
    assert (points[:, 4:15] == 1).all()


def test_virtual_points_of_another_sweep_are_refused(index: NuscenesIndex, tmp_path: Path) -> None:
    data = NuscenesDataset(index, LIDAR, np.arange(3), training=False, seed=0)
    assert data.virtual is not None
    first, second = (index.data_filename[int(index.sample_lidar[i])] for i in (0, 1))
    other = data.virtual.files.read(second)
    data.virtual.files = replace(data.virtual.files, folder=tmp_path)
    data.virtual.files.write(first, other)
    with pytest.raises(UserError, match="were not made from"):
        data[0]


def test_pasted_objects_bring_their_virtual_points(index: NuscenesIndex) -> None:
    config = replace(configured(), object_sampling=ObjectSampling(min_points=1, counts=(20,) * 10))
    data = NuscenesDataset(index, config, np.arange(3), training=True, seed=0)
    assert data.objects is not None
    assert data.objects.database.points.shape[1] == 17
    assert data[0].points.features.shape[1] == 17  # type: ignore[union-attr]


def test_worker_processes_get_the_same_data_set(index: NuscenesIndex) -> None:
    data = NuscenesDataset(index, LIDAR, np.arange(3), training=True, seed=0)
    copy = pickle.loads(pickle.dumps(data))
    one, other = data[1].points, copy[1].points
    assert torch.equal(one.features, other.features)


def test_configurations_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="no effect without points"):
        DataConfig(points=False, virtual_points=VirtualPointsConfig())
    with pytest.raises(ValueError, match="ring_leak"):
        VirtualPointsConfig(ring_leak=True, layout="centerpoint")


def test_painted_points_of_the_cache_are_rows_of_the_lidar_file(index: NuscenesIndex) -> None:
    row = int(index.sample_lidar[1])
    points = read_points(index.path(row))
    found = virtual_point_files(index, "maskrcnn").read(index.data_filename[row])
    assert len(found.painted) > 0
    assert torch.equal(found.painted[:, :4], points[found.painted_rows, :4])
