"""Laws of a sample: everything in it moves together, and it depends on seed, epoch and item alone."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.collate import collate, pack
from dualdistill.data.config import DataConfig, ImageAugmentation
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import class_balanced, classes_present, sample_boxes
from dualdistill.data.sweeps import STAND_IN_GAP, earlier_frame
from dualdistill.errors import UserError
from dualdistill.geometry.boxes import points_in_boxes
from dualdistill.geometry.cameras import project
from dualdistill.geometry.transforms import transform
from dualdistill.structures import CAMERAS, CLASSES, Batch
from tests.data.tiny_root import TinyRoot, write_root

SMALL = DataConfig(
    image_size=(32, 80),
    depth_stride=8,
    image_augmentation=ImageAugmentation(test_scale=0.0, scale=(-0.1, 0.1)),
)


def dataset(index: NuscenesIndex, training: bool = True, seed: int = 0, **changes: object) -> NuscenesDataset:
    config = replace(SMALL, **changes)  # type: ignore[arg-type]
    return NuscenesDataset(index, config, np.arange(len(index)), training=training, seed=seed)


def tensors(record: object) -> list[Tensor]:
    """All tensors in a record, in order."""
    if isinstance(record, Tensor):
        return [record]
    if isinstance(record, tuple):
        return [tensor for item in record for tensor in tensors(item)]
    if hasattr(record, "__dataclass_fields__"):
        return [tensor for f in fields(record) for tensor in tensors(getattr(record, f.name))]  # type: ignore[arg-type]
    return []


def assert_same(a: Batch, b: Batch) -> None:
    for one, other in zip(tensors(a), tensors(b), strict=True):
        assert_close(one, other, atol=0, rtol=0, equal_nan=True)


def test_a_sample_depends_on_seed_epoch_and_item_alone(tiny_index: NuscenesIndex) -> None:
    first = dataset(tiny_index)
    sample = first[2, 5]
    first[0, 1]
    assert_same(sample, dataset(tiny_index)[2, 5])
    for other in (dataset(tiny_index)[3, 5], dataset(tiny_index, seed=1)[2, 5]):
        assert not torch.equal(sample.augmented_from_bev, other.augmented_from_bev)


def test_worker_processes_load_what_the_main_process_loads(tiny_index: NuscenesIndex) -> None:
    data = dataset(tiny_index)
    keys = [(3, item) for item in (4, 0, 2, 1)]
    loader = torch.utils.data.DataLoader(data, batch_size=2, sampler=keys, num_workers=2, collate_fn=pack)
    batches = list(loader)
    assert len(batches) == 2
    assert batches[1].buffer.is_shared()
    assert_same(batches[1].to("cpu"), collate([data[keys[2]], data[keys[3]]]))


def test_at_test_time_nothing_is_augmented_and_epochs_do_not_matter(tiny_index: NuscenesIndex) -> None:
    data = dataset(tiny_index, training=False)
    assert_same(data[0, 5], data[9, 5])
    assert torch.equal(data[5].augmented_from_bev[0], torch.eye(4))


def test_points_and_boxes_pass_through_the_same_augmentation(tiny_index: NuscenesIndex) -> None:
    plain, augmented = dataset(tiny_index, training=False)[5], dataset(tiny_index, random_sweeps=False)[5]
    matrix = augmented.augmented_from_bev[0]
    bev_from_global = torch.linalg.inv(plain.meta[0].global_from_bev)
    boxes = sample_boxes(tiny_index, 5, bev_from_global)
    assert_close(augmented.boxes[0].center, transform(matrix, boxes.center.float()), atol=1e-4, rtol=0)
    velocity = boxes.velocity.float() @ matrix[:2, :2].T
    assert_close(augmented.boxes[0].velocity, velocity, atol=1e-4, rtol=0)
    assert plain.points is not None
    assert augmented.points is not None
    # The range cuts differently before and after, so only points well inside are compared.
    inner = plain.points.features[plain.points.features[:, :2].norm(dim=1) < 45]
    moved = transform(matrix, inner[:, :3])
    distance = torch.cdist(moved.double(), augmented.points.features[:, :3].double()).amin(dim=1)
    low, high = moved.new_tensor(SMALL.point_range).view(2, 3) + torch.tensor([[0.01], [-0.01]])
    inside = ((moved > low) & (moved < high)).all(dim=1)
    assert inside.sum() > 500
    assert distance[inside].max() < 1e-3


def test_boxes_move_over_the_ground_as_fast_as_annotated(tiny_index: NuscenesIndex) -> None:
    boxes = dataset(tiny_index, training=False)[3].boxes[0]
    speed = boxes.velocity.norm(dim=1)
    assert [CLASSES[label] for label in boxes.label] == ["car", "pedestrian"]  # the animal is none of the ten
    assert_close(speed, torch.tensor([4.0, 0.0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("bev_frame", ["lidar", "ego"])
@pytest.mark.parametrize("training", [True, False])
def test_augmented_points_seen_through_augmented_cameras_hit_the_same_pixels(
    tiny_root: TinyRoot, tiny_index: NuscenesIndex, bev_frame: str, training: bool
) -> None:
    sample = dataset(tiny_index, training=training, bev_frame=bev_frame)[0, 5]
    assert sample.cameras is not None
    world = torch.tensor(tiny_root.world)
    augmented_from_global = sample.augmented_from_bev[0].double() @ torch.linalg.inv(sample.meta[0].global_from_bev)
    points = transform(augmented_from_global, world)
    rows = tiny_index.sample_cameras[5]
    for camera, row in enumerate(rows):
        camera_from_bev = torch.linalg.inv(sample.cameras.bev_from_camera[0, 0, camera].double())
        actual = transform(camera_from_bev, points)
        expected = transform(torch.from_numpy(np.linalg.inv(tiny_index.global_from_sensor(row))), world)
        # BEV scale survives in neither: it is divided out by the extrinsics.
        assert_close(actual, expected, atol=1e-3, rtol=0)
        front = expected[:, 2] > 1
        pixels = project(actual, sample.cameras.intrinsics[0, 0, camera].double())[front, :2]
        assert_close(pixels, project(expected, torch.tensor(tiny_index.intrinsics(row)))[front, :2], atol=0.1, rtol=0)


def test_the_depth_label_is_the_same_whatever_the_bev_augmentation(tiny_index: NuscenesIndex) -> None:
    still = ImageAugmentation(scale=(0, 0), flip=0.0, rotation=(0, 0), test_scale=0.0)
    depth = [dataset(tiny_index, image_augmentation=still)[epoch, 5].depth for epoch in range(2)]
    assert depth[0] is not None
    assert depth[0].count_nonzero() > 20
    # Width 80 of 160 leaves no room for the crop to move.
    assert_close(depth[0], depth[1])


def test_both_frames_of_a_camera_share_their_view(tiny_index: NuscenesIndex) -> None:
    cameras = dataset(tiny_index)[0, 5].cameras
    assert cameras is not None
    assert torch.equal(cameras.augmented_from_image[:, 0], cameras.augmented_from_image[:, 1])
    assert cameras.augmented_from_image[0, 0].unique(dim=0).shape[0] == len(CAMERAS)


def test_a_static_point_is_found_by_the_earlier_frame_too(tiny_index: NuscenesIndex) -> None:
    sample = dataset(tiny_index)[0, 5]
    assert sample.cameras is not None
    gap_us = round(sample.cameras.frame_gap.item() * 1e6)
    front = CAMERAS.index("CAM_FRONT")
    key = int(tiny_index.sample_cameras[5, front])
    then = [key]
    while (row := int(tiny_index.data_prev[then[-1]])) >= 0:
        then.append(row)
    earlier = min(
        then,
        key=lambda r: abs(int(tiny_index.data_timestamp_us[key] - tiny_index.data_timestamp_us[r]) - gap_us),
    )
    assert earlier != key
    point_global = torch.tensor(tiny_index.global_from_sensor(earlier)) @ torch.tensor([0.5, 0.2, 10.0, 1.0]).double()
    augmented_from_global = sample.augmented_from_bev[0].double() @ torch.linalg.inv(sample.meta[0].global_from_bev)
    point_bev = augmented_from_global @ point_global
    seen = torch.linalg.inv(sample.cameras.bev_from_camera[0, 1, front].double()) @ point_bev
    assert_close(seen, torch.tensor([0.5, 0.2, 10.0, 1.0]).double(), atol=1e-3, rtol=0)


def test_previous_from_current_is_the_motion_of_the_ego_car(tiny_index: NuscenesIndex) -> None:
    plain = dataset(tiny_index, training=False, previous_frame="key")[5]
    before = dataset(tiny_index, training=False, previous_frame="key")[4]
    assert plain.cameras is not None
    expected = torch.linalg.inv(before.meta[0].global_from_bev) @ plain.meta[0].global_from_bev
    assert_close(plain.cameras.previous_from_current[0], expected.float(), atol=1e-4, rtol=0)
    assert_close(plain.cameras.frame_gap, torch.tensor([0.5]))
    augmented = dataset(tiny_index, previous_frame="key")[5]
    assert augmented.cameras is not None
    matrix = augmented.augmented_from_bev[0].double()
    expected = matrix @ expected @ torch.linalg.inv(matrix)
    assert_close(augmented.cameras.previous_from_current[0], expected.float(), atol=1e-4, rtol=0)


def test_a_scenes_first_sample_stands_in_for_its_own_past(tiny_index: NuscenesIndex) -> None:
    for sample in (dataset(tiny_index)[0, 0], dataset(tiny_index, training=False)[6]):
        cameras = sample.cameras
        assert cameras is not None
        assert torch.equal(cameras.images[:, 0], cameras.images[:, 1])
        assert torch.equal(cameras.bev_from_camera[:, 0], cameras.bev_from_camera[:, 1])
        assert torch.equal(cameras.previous_from_current[0], torch.eye(4))
        assert_close(cameras.frame_gap, torch.tensor([STAND_IN_GAP]))


def test_training_draws_gaps_of_three_to_nine_quarter_seconds(tiny_index: NuscenesIndex) -> None:
    gaps = [earlier_frame(tiny_index, 5, SMALL, np.random.default_rng(seed)) for seed in range(60)]
    quarters = {round(frame.gap / 0.25) for frame in gaps if frame is not None}
    assert quarters == set(range(3, 10))
    for frame in gaps:
        assert frame is not None
        assert len({round(int(tiny_index.data_timestamp_us[row]), -4) for row in frame.cameras}) == 1


@pytest.mark.parametrize(("sample", "gap"), [(5, 1.5), (4, 1.5), (2, 1.0), (1, 0.5)])
def test_the_test_time_gap_is_a_second_and_a_half_or_all_there_is(
    tiny_index: NuscenesIndex, sample: int, gap: float
) -> None:
    frame = earlier_frame(tiny_index, sample, SMALL, None)
    assert frame is not None
    assert frame.gap == pytest.approx(gap, abs=0.01)


def test_of_key_frames_alone_the_nearest_to_the_wanted_gap_is_taken(own_root: TinyRoot) -> None:
    index = NuscenesIndex.open(own_root.path)
    frames = [earlier_frame(index, sample, SMALL, None) for sample in range(3)]
    assert [None if frame is None else round(frame.gap, 3) for frame in frames] == [None, 0.5, 1.0]


def test_one_frame_means_one_frame(tiny_index: NuscenesIndex) -> None:
    cameras = dataset(tiny_index, num_frames=1)[5].cameras
    assert cameras is not None
    assert cameras.images.shape == (1, 1, 6, 3, 32, 80)
    assert torch.equal(cameras.previous_from_current[0], torch.eye(4))


def test_a_config_gets_what_it_asked_for_and_nothing_else(tiny_index: NuscenesIndex) -> None:
    only_points = dataset(tiny_index, cameras=False)[5]
    assert only_points.cameras is None
    assert only_points.depth is None
    only_cameras = dataset(tiny_index, points=False, depth=False)[5]
    assert only_cameras.points is None
    assert only_cameras.depth is None


def test_the_bev_augmentation_is_the_same_for_cameras_and_for_points(tiny_index: NuscenesIndex) -> None:
    one, other = dataset(tiny_index, cameras=False)[5], dataset(tiny_index, points=False)[5]
    assert torch.equal(one.augmented_from_bev, other.augmented_from_bev)


def test_the_bev_frame_lies_where_the_meta_says(tiny_index: NuscenesIndex) -> None:
    row = int(tiny_index.sample_lidar[5])
    lidar, ego = (dataset(tiny_index, bev_frame=frame)[5].meta[0] for frame in ("lidar", "ego"))
    assert_close(lidar.global_from_bev, torch.from_numpy(tiny_index.global_from_sensor(row)))
    assert_close(ego.global_from_bev, torch.tensor(tiny_index.global_from_ego(row)))
    assert_close(ego.ego_from_bev, torch.eye(4, dtype=torch.float64))


def test_boxes_beyond_reach_or_without_a_point_are_left_out(own_root: TinyRoot) -> None:
    own_root.rewrite("sample_annotation", lambda records: records[0].update(num_lidar_pts=0))
    own_root.rewrite("sample_annotation", lambda records: records[4].update(translation=[700.0, 1600.0, 1.0]))
    data = dataset(NuscenesIndex.open(own_root.path), training=False)
    assert [data[i].boxes[0].label.tolist() for i in range(3)] == [[8], [0], [0, 8]]


def test_a_sample_may_be_empty(own_root: TinyRoot) -> None:
    own_root.rewrite("sample_annotation", lambda records: records.clear())
    index = NuscenesIndex.open(own_root.path)
    batch = collate([dataset(index, class_balanced=True)[0, i] for i in range(3)])
    assert [len(boxes) for boxes in batch.boxes] == [0, 0, 0]


def test_a_test_split_gives_samples_without_boxes(tmp_path) -> None:
    root = write_root(tmp_path / "r", {"scene-0077": 2}, version="v1.0-test", sweeps=False, annotated=False)
    sample = dataset(NuscenesIndex.open(root.path), training=False)[1]
    assert len(sample.boxes[0]) == 0
    assert sample.cameras is not None


def test_a_missing_camera_is_said_before_anything_is_read(own_root: TinyRoot) -> None:
    def drop(records: list[dict]) -> None:
        records[:] = [r for r in records if not r["token"].startswith("scene-0061-CAM_BACK-")]

    own_root.rewrite("sample_data", drop)
    index = NuscenesIndex.open(own_root.path)
    with pytest.raises(UserError, match=r"3 of 3 samples .* CAM_BACK \(the first: scene-0061-0\)"):
        dataset(index)
    assert dataset(index, cameras=False)[0].points is not None


def test_a_batch_is_its_samples_in_order(tiny_index: NuscenesIndex) -> None:
    data = dataset(tiny_index)
    samples = [data[0, item] for item in (5, 0, 3)]
    batch = collate(samples)
    assert len(batch) == 3
    assert [meta.token for meta in batch.meta] == [sample.meta[0].token for sample in samples]
    assert batch.points is not None
    assert (batch.points.sample.diff() >= 0).all()
    for i, sample in enumerate(samples):
        assert sample.points is not None
        assert torch.equal(batch.points.features[batch.points.sample == i], sample.points.features)
    assert_same(collate([collate(samples[:2]), samples[2]]), batch)


def test_samples_of_different_data_make_no_batch(tiny_index: NuscenesIndex) -> None:
    with pytest.raises(ValueError, match="1 of 2 samples have cameras"):
        collate([dataset(tiny_index)[0], dataset(tiny_index, cameras=False)[0]])
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_resampling_gives_every_class_its_tenth(tiny_index: NuscenesIndex) -> None:
    positions = np.arange(10)
    present = classes_present(tiny_index, positions)
    assert present.sum(axis=0).tolist() == [10, 0, 0, 0, 0, 0, 0, 0, 10, 0]
    assert len(class_balanced(tiny_index, positions, 0)) == 2 * int(20 / 10)
    assert np.array_equal(class_balanced(tiny_index, positions, 0), class_balanced(tiny_index, positions, 0))


@pytest.mark.nuscenes
def test_resampling_the_real_cut_lifts_the_rare_classes(nuscenes_index: NuscenesIndex) -> None:
    positions = np.arange(len(nuscenes_index))
    present = classes_present(nuscenes_index, positions)
    share = int(present.sum() / 10)
    drawn = class_balanced(nuscenes_index, positions, 0)
    assert len(drawn) == share * present.any(axis=0).sum()
    for klass, block in enumerate(np.split(drawn, present.any(axis=0).sum())):
        assert present[block, np.flatnonzero(present.any(axis=0))[klass]].all()


@pytest.mark.nuscenes
def test_real_points_in_augmented_boxes_stay_in_them(nuscenes_index: NuscenesIndex) -> None:
    positions = np.arange(len(nuscenes_index))
    config = DataConfig(cameras=False, num_sweeps=1, point_range=(-80, -80, -10, 80, 80, 10))
    counts = []
    for training in (False, True):
        sample = NuscenesDataset(nuscenes_index, config, positions, training=training, seed=0)[7]
        assert sample.points is not None
        held = points_in_boxes(sample.points.features[:, :3], sample.boxes[0]).sum(dim=1)
        counts.append(held.sum().item())
    assert counts[0] > 300
    assert abs(counts[0] - counts[1]) < 0.1 * counts[0]
