"""Laws of pasting objects between LiDAR scenes."""

import pickle
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch

from dualdistill import files
from dualdistill.data.config import DataConfig, ObjectSampling
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.object_sampling import ObjectDatabase, ObjectSampler, without_collisions
from dualdistill.errors import UserError
from dualdistill.geometry.boxes import footprints, points_in_boxes
from dualdistill.ops.rotated_iou import rotated_iou
from dualdistill.structures import Boxes
from tests.data.tiny_root import TinyRoot, write_root

LIDAR = DataConfig(cameras=False, depth=False, num_frames=1, num_sweeps=2)
MANY = ObjectSampling(min_points=1, counts=(20,) * 10)


def squares(*centers: tuple[float, float], label: int = 0) -> Boxes:
    xy = torch.tensor(centers, dtype=torch.float64).reshape(-1, 2)
    count = len(xy)
    return Boxes(
        center=torch.cat([xy, torch.zeros(count, 1, dtype=torch.float64)], dim=1),
        size=torch.ones(count, 3, dtype=torch.float64),
        yaw=torch.zeros(count, dtype=torch.float64),
        velocity=torch.zeros(count, 2, dtype=torch.float64),
        label=torch.full((count,), label),
    )


@pytest.fixture
def boxed_root(tmp_path_factory: pytest.TempPathFactory) -> TinyRoot:
    """A root whose cars are so large that the tiny world has points inside them, each in its own place."""
    root = write_root(tmp_path_factory.mktemp("boxed") / "root", {"scene-0061": 4}, sweeps=False)

    def spread(records: list[dict]) -> None:
        for i, record in enumerate(records):
            place = [568.0 + 14 * (i % 6), 1580.0 + 40 * (i // 6), 1.0]
            record.update(size=[6.0, 6.0, 6.0], translation=place)

    root.rewrite("sample_annotation", spread)
    return root


def test_a_candidate_goes_if_it_overlaps_anything_still_there() -> None:
    standing = squares((0, 0))
    candidates = squares((0.5, 0), (3, 0), (3.5, 0), (9, 9))
    # The second goes for the third's sake, which then has room.
    assert without_collisions(standing, candidates).tolist() == [False, False, True, True]
    assert without_collisions(squares(), squares()).tolist() == []


def test_objects_keep_their_points_and_their_place(boxed_root: TinyRoot) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    database = ObjectDatabase.open(index, np.arange(len(index)), 1)
    assert len(database) > 3
    assert (np.diff(database.offset) > 0).all()
    for row in range(len(database)):
        boxes = database.boxes(np.array([row]))
        assert points_in_boxes(database.points_of(row)[:, :3], boxes).float().mean() > 0.95  # float32 at the faces


def test_a_database_is_gathered_once(boxed_root: TinyRoot) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    seen: list[int] = []

    def watch(positions: Iterable[int]) -> Iterable[int]:
        seen.extend(positions)
        return positions

    first = ObjectDatabase.open(index, np.array([0, 1, 1]), 1, watch)
    second = ObjectDatabase.open(index, np.array([1, 0]), 1, watch)
    assert seen == [0, 1]
    assert np.array_equal(first.points, second.points)
    letter = pickle.dumps(second)  # to a worker process go names, not points
    assert len(letter) < 1000
    assert np.array_equal(pickle.loads(letter).points, first.points)


def test_objects_that_will_not_fit_are_refused_and_leave_nothing(
    boxed_root: TinyRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    monkeypatch.setattr(files, "disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(UserError, match=r"Objects of samples \(3 more\) needs"):
        ObjectDatabase.open(index, np.arange(len(index)), 1)
    assert not list(index.folder.glob("objects-*"))
    assert not list(index.folder.parent.glob(".draft-*"))


def test_pasted_objects_stand_free_and_bring_their_points(boxed_root: TinyRoot) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    database = ObjectDatabase.open(index, np.arange(len(index)), 1)
    points, boxes = ObjectSampler(database, MANY)(torch.zeros(1, 5), squares((0, 0)), np.random.default_rng(0))
    assert len(boxes) > 1
    assert len(points) > 1
    overlap = rotated_iou(footprints(boxes), footprints(boxes)).fill_diagonal_(0)
    assert not overlap.any()
    assert points_in_boxes(points[:, :3], boxes.select(torch.arange(1, len(boxes)))).any(dim=1).all()


def test_a_full_frame_gets_nothing(boxed_root: TinyRoot) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    database = ObjectDatabase.open(index, np.arange(len(index)), 1)
    sampler = ObjectSampler(database, ObjectSampling(min_points=1, counts=(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)))
    points, boxes = sampler(torch.zeros(1, 5), squares((500, 500)), np.random.default_rng(0))
    assert len(boxes) == 1
    assert len(points) == 1


def test_scene_points_inside_pasted_boxes_go_if_wanted(boxed_root: TinyRoot) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    database = ObjectDatabase.open(index, np.arange(len(index)), 1)
    _, pasted = ObjectSampler(database, MANY)(torch.zeros(0, 5), squares(), np.random.default_rng(0))
    inside = torch.zeros(1, 5)
    inside[0, :3] = pasted.center[0].float()
    kept = {}
    for clear in (True, False):
        sampler = ObjectSampler(database, replace(MANY, clear_inside=clear))
        points, boxes = sampler(inside, squares(), np.random.default_rng(0))
        assert points_in_boxes(inside[:, :3], boxes).any()
        kept[clear] = bool((points == inside).all(dim=1).any())
    assert kept == {True: False, False: True}


def test_pasting_depends_on_seed_epoch_and_item_and_ends_when_told(boxed_root: TinyRoot) -> None:
    index = NuscenesIndex.open(boxed_root.path)
    config = replace(LIDAR, object_sampling=replace(MANY, last_epoch=0))
    data, plain = (NuscenesDataset(index, c, np.arange(4), training=True, seed=0) for c in (config, LIDAR))
    pasted, again = data[0, 2], NuscenesDataset(index, config, np.arange(4), training=True, seed=0)[0, 2]
    assert pasted.points is not None
    assert again.points is not None
    assert torch.equal(pasted.points.features, again.points.features)
    assert len(pasted.boxes[0]) > len(plain[0, 2].boxes[0])
    assert len(data[1, 2].boxes[0]) == len(plain[1, 2].boxes[0])


def test_pasting_into_camera_data_is_refused() -> None:
    with pytest.raises(ValueError, match="no image shows"):
        DataConfig(object_sampling=ObjectSampling())
