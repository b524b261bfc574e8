"""Laws of the index, and its words for broken roots."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dualdistill import files
from dualdistill.data.build import box_velocities
from dualdistill.data.index import NuscenesIndex, Texts, read_columns, write_columns
from dualdistill.data.splits import sample_boxes
from dualdistill.data.sweeps import read_points
from dualdistill.data.tables import TABLES
from dualdistill.errors import UserError
from dualdistill.geometry.boxes import points_in_boxes
from dualdistill.geometry.cameras import project
from dualdistill.geometry.transforms import transform
from dualdistill.structures import CAMERAS, CLASSES, Boxes
from tests.data.tiny_root import ATTRIBUTES, SIZES, TinyRoot, ego_pose, pose_matrix, write_root


def test_samples_come_scene_after_scene_and_in_time_order(tiny_index: NuscenesIndex) -> None:
    assert list(tiny_index.sample_token)[:3] == ["scene-0061-0", "scene-0061-1", "scene-0061-2"]
    assert tiny_index.sample_scene.tolist() == [0] * 6 + [1] * 4
    assert tiny_index.sample_prev.tolist() == [-1, 0, 1, 2, 3, 4, -1, 6, 7, 8]
    assert tiny_index.sample_next.tolist() == [1, 2, 3, 4, 5, -1, 7, 8, 9, -1]


def test_key_frames_lead_to_their_files(tiny_index: NuscenesIndex) -> None:
    for sample in range(len(tiny_index)):
        rows = [*tiny_index.sample_cameras[sample], tiny_index.sample_lidar[sample]]
        for name, row in zip((*CAMERAS, "LIDAR_TOP"), rows, strict=True):
            assert tiny_index.path(int(row)).parent.name == name
            assert tiny_index.path(int(row)).is_file()
            assert tiny_index.data_is_key[row]
            assert tiny_index.data_timestamp_us[row] == tiny_index.sample_timestamp_us[sample]


def test_links_go_there_and_back_within_a_scene(tiny_index: NuscenesIndex) -> None:
    rows = np.flatnonzero(tiny_index.data_prev >= 0)
    before = tiny_index.data_prev[rows]
    assert np.array_equal(tiny_index.data_next[before], rows)
    assert (tiny_index.data_timestamp_us[before] < tiny_index.data_timestamp_us[rows]).all()
    scene = tiny_index.sample_scene[tiny_index.data_sample]
    assert np.array_equal(scene[before], scene[rows])
    assert np.array_equal(tiny_index.data_channel[before], tiny_index.data_channel[rows])


def test_poses_are_those_of_the_records_own_moment(tiny_index: NuscenesIndex) -> None:
    row = int(tiny_index.data_prev[tiny_index.sample_lidar[3]])  # a sweep 50 ms before a key frame
    np.testing.assert_allclose(tiny_index.global_from_ego(row), pose_matrix(*ego_pose(1.45)), atol=1e-9)


def test_boxes_keep_centre_heading_class_and_order_of_sides(tiny_index: NuscenesIndex) -> None:
    rows = tiny_index.annotations(4)
    assert [CLASSES[c] if c >= 0 else None for c in tiny_index.annotation_class[rows]] == [
        "car",
        "pedestrian",
        None,
    ]
    width, length, height = SIZES["vehicle.car"]
    assert tiny_index.annotation_size[rows][0].tolist() == [length, width, height]
    assert tiny_index.annotation_center[rows][0].tolist() == [618.0, 1610.0, 1.0]
    assert [tiny_index.categories[c] for c in tiny_index.annotation_category[rows]] == list(SIZES)
    assert tiny_index.annotation_attribute[rows].tolist() == [0, -1, -1]
    assert list(tiny_index.attributes) == list(ATTRIBUTES)
    assert tiny_index.annotation_visibility[rows].tolist() == [4, 1, 1]


def test_velocities_are_metres_a_second_over_the_ground(tiny_index: NuscenesIndex) -> None:
    moving = tiny_index.annotation_class == CLASSES.index("car")
    np.testing.assert_allclose(tiny_index.annotation_velocity[moving], [[4.0, 0.0]] * 10, atol=1e-6)
    np.testing.assert_allclose(tiny_index.annotation_velocity[~moving], 0.0, atol=1e-6)


def test_a_box_alone_or_too_far_from_its_neighbours_has_no_known_velocity() -> None:
    center = np.array([[0.0, 0, 0], [1, 2, 0], [5, 5, 0], [9, 5, 0]])
    seconds = np.array([0.0, 1.5, 1.5, 4.6])
    velocity = box_velocities(center, seconds, np.array([-1, 0, -1, 2]), np.array([1, -1, -1, -1]))
    np.testing.assert_allclose(velocity[:2], [[1 / 1.5, 2 / 1.5]] * 2)
    assert np.isnan(velocity[2:]).all()


def test_a_central_difference_may_span_twice_the_time() -> None:
    center = np.array([[0.0, 0, 0], [1, 0, 0], [6, 0, 0]])
    seconds = np.array([0.0, 1.0, 3.0])
    velocity = box_velocities(center, seconds, np.array([-1, 0, 1]), np.array([1, 2, -1]))
    np.testing.assert_allclose(velocity[:2], [[1.0, 0.0], [2.0, 0.0]])
    assert np.isnan(velocity[2]).all()


def test_an_index_survives_the_way_to_a_worker_process(tiny_index: NuscenesIndex) -> None:
    letter = pickle.dumps(tiny_index)
    copy = pickle.loads(letter)
    assert len(letter) < 1000  # it names files, it does not carry them
    assert np.array_equal(copy.annotation_center, tiny_index.annotation_center)
    assert list(copy.sample_token) == list(tiny_index.sample_token)


def test_a_changed_table_is_read_again(own_root: TinyRoot) -> None:
    before = NuscenesIndex.open(own_root.path)
    own_root.rewrite("sample_annotation", lambda records: records[0].update(num_lidar_pts=12345))
    after = NuscenesIndex.open(own_root.path)
    assert 12345 not in before.annotation_lidar_points
    assert 12345 in after.annotation_lidar_points
    assert not before.folder.exists()  # what it was made from is gone


def test_an_index_that_does_not_fit_is_refused_before_anything_is_written(
    own_root: TinyRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALDISTILL_CACHE", str(tmp_path / "cache"))
    index = NuscenesIndex.open(own_root.path)
    written = sum(path.stat().st_size for path in index.folder.iterdir())
    shutil.rmtree(tmp_path / "cache")
    for free in (1000, written):
        monkeypatch.setattr(files, "disk_usage", lambda path, free=free: type("Usage", (), {"free": free}))
        with pytest.raises(UserError, match=r"index of .* needs .* DUALDISTILL_CACHE"):
            NuscenesIndex.open(own_root.path)
        assert not (tmp_path / "cache").exists()


def test_a_root_is_only_read(own_root: TinyRoot) -> None:
    before = sorted(own_root.path.rglob("*"))
    NuscenesIndex.open(own_root.path)
    assert sorted(own_root.path.rglob("*")) == before


def test_a_test_version_needs_no_annotations(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", {"scene-0077": 2}, version="v1.0-test", sweeps=False, annotated=False)
    for name in ("instance", "sample_annotation"):
        (root.path / root.version / f"{name}.json").unlink()
    index = NuscenesIndex.open(root.path)
    assert index.num_annotations == 0
    assert index.annotation_center.shape == (0, 3)
    assert len(sample_boxes(index, 0, torch.eye(4, dtype=torch.float64))) == 0


def test_columns_come_back_as_they_were(tmp_path: Path) -> None:
    matrices = np.arange(32.0).reshape(2, 4, 4)
    write_columns(tmp_path / "a.arrow", {"m": matrices, "flag": np.array([True, False]), "text": ["é", ""]})
    columns = read_columns(tmp_path / "a.arrow")
    assert np.array_equal(columns["m"], matrices)
    assert columns["flag"].dtype == bool
    assert columns["flag"].tolist() == [True, False]
    assert isinstance(columns["text"], Texts)
    assert list(columns["text"]) == ["é", ""]


def test_no_version_is_guessed_where_there_are_several(own_root: TinyRoot) -> None:
    shutil.copytree(own_root.path / "v1.0-mini", own_root.path / "v1.0-trainval")
    with pytest.raises(UserError, match=r"v1\.0-mini, v1\.0-trainval"):
        NuscenesIndex.open(own_root.path)
    assert NuscenesIndex.open(own_root.path, "v1.0-trainval").version == "v1.0-trainval"


def test_a_missing_version_or_root_is_named(own_root: TinyRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no version 'v1\.0-test'; found: v1\.0-mini"):
        NuscenesIndex.open(own_root.path, "v1.0-test")
    with pytest.raises(UserError, match="is not a folder"):
        NuscenesIndex.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no v1\.0-"):
        NuscenesIndex.open(tmp_path / "empty")


@pytest.mark.parametrize("name", TABLES)
def test_every_missing_table_is_named(own_root: TinyRoot, name: str) -> None:
    (own_root.path / own_root.version / f"{name}.json").unlink()
    with pytest.raises(UserError, match=rf"lacks {name}\.json"):
        NuscenesIndex.open(own_root.path)


def test_a_table_that_was_cut_off_is_named(own_root: TinyRoot) -> None:
    path = own_root.path / own_root.version / "ego_pose.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"ego_pose\.json: cut off"):
        NuscenesIndex.open(own_root.path)


def test_a_record_without_a_field_is_named(own_root: TinyRoot) -> None:
    own_root.rewrite("sample", lambda records: records[1].pop("timestamp"))
    with pytest.raises(UserError, match=r"sample\.json: a record is not as nuScenes v1\.0 has it .*timestamp.*\[1\]"):
        NuscenesIndex.open(own_root.path)


def test_a_nan_in_a_box_is_named_by_record_and_field(own_root: TinyRoot) -> None:
    own_root.rewrite("sample_annotation", lambda records: records[2].update(size=[1.0, float("nan"), 1.0]))
    with pytest.raises(UserError, match=r"scene-0061-vehicle\.car-2'\) has size.*remove the record"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"size": [1.0, 0.0, 1.0]}, "size that is not positive"),
        ({"rotation": [0, 0, 0, 0]}, "rotation of length zero"),
        ({"translation": [1e308 * 10, 0, 0]}, "finite"),
    ],
)
def test_a_box_that_is_none_is_named(own_root: TinyRoot, change: dict, complaint: str) -> None:
    own_root.rewrite("sample_annotation", lambda records: records[2].update(change))
    with pytest.raises(UserError, match=rf"scene-0061-vehicle\.car-2.*{complaint}"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize(
    ("table", "field", "target"),
    [
        ("sample", "scene_token", "scene"),
        ("sample", "next", "sample"),
        ("sample_data", "sample_token", "sample"),
        ("sample_data", "ego_pose_token", "ego_pose"),
        ("sample_data", "calibrated_sensor_token", "calibrated_sensor"),
        ("sample_data", "prev", "sample_data"),
        ("calibrated_sensor", "sensor_token", "sensor"),
        ("sample_annotation", "sample_token", "sample"),
        ("sample_annotation", "instance_token", "instance"),
        ("sample_annotation", "prev", "sample_annotation"),
        ("instance", "category_token", "category"),
    ],
)
def test_a_token_that_leads_nowhere_is_named(own_root: TinyRoot, table: str, field: str, target: str) -> None:
    own_root.rewrite(table, lambda records: records[0].update({field: "nowhere"}))
    with pytest.raises(UserError, match=rf"{table}\.{field} of record .* 'nowhere', .*{target}\.json"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("sample", "scene_token"),
        ("sample_data", "sample_token"),
        ("sample_data", "ego_pose_token"),
        ("sample_annotation", "instance_token"),
        ("instance", "category_token"),
    ],
)
def test_a_link_that_must_lead_somewhere_may_not_be_empty(own_root: TinyRoot, table: str, field: str) -> None:
    own_root.rewrite(table, lambda records: records[0].update({field: ""}))
    with pytest.raises(UserError, match=rf"{table}\.{field} of record"):
        NuscenesIndex.open(own_root.path)


def test_two_records_with_one_token_are_named(own_root: TinyRoot) -> None:
    own_root.rewrite("sample", lambda records: records.append(records[0]))
    with pytest.raises(UserError, match="'scene-0061-0' occurs twice"):
        NuscenesIndex.open(own_root.path)


def test_a_cache_that_cannot_be_written_names_the_variable(own_root: TinyRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALDISTILL_CACHE", str(own_root.path / "v1.0-mini" / "log.json"))  # a file, no folder
    with pytest.raises(UserError, match="DUALDISTILL_CACHE"):
        NuscenesIndex.open(own_root.path)


@pytest.mark.nuscenes
def test_real_boxes_hold_exactly_the_points_they_say(nuscenes_index: NuscenesIndex) -> None:
    checked = 0
    for sample in range(len(nuscenes_index)):
        row = int(nuscenes_index.sample_lidar[sample])
        points = read_points(nuscenes_index.path(row))[:, :3].double()
        points_global = transform(torch.from_numpy(nuscenes_index.global_from_sensor(row)), points)
        rows = nuscenes_index.annotations(sample)
        held = points_in_boxes(points_global, all_boxes(nuscenes_index, rows)).sum(dim=1)
        assert held.tolist() == nuscenes_index.annotation_lidar_points[rows].tolist()
        checked += len(held)
    assert checked == nuscenes_index.num_annotations


def all_boxes(index: NuscenesIndex, rows: slice):

    w, x, y, z = index.annotation_rotation[rows].T
    yaw = np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))
    return Boxes(
        center=torch.tensor(index.annotation_center[rows]),
        size=torch.tensor(index.annotation_size[rows]),
        yaw=torch.from_numpy(yaw),
        velocity=torch.tensor(index.annotation_velocity[rows]),
        label=torch.tensor(index.annotation_class[rows]),
    )


@pytest.mark.nuscenes
def test_real_annotations_are_seen_by_the_cameras_that_look_at_them(nuscenes_index: NuscenesIndex) -> None:
    for sample in range(len(nuscenes_index)):
        boxes = sample_boxes(nuscenes_index, sample, torch.eye(4, dtype=torch.float64))
        rows = nuscenes_index.sample_cameras[sample]
        camera_from_global = np.linalg.inv(nuscenes_index.global_from_sensor(rows))
        camera = transform(torch.from_numpy(camera_from_global), boxes.center.expand(6, -1, -1))
        pixels = project(camera, torch.tensor(nuscenes_index.intrinsics(rows)))
        u, v, depth = pixels.unbind(dim=-1)
        # The six cameras see all around: only what is close to the car can be above or below every image.
        seen = ((depth > 0) & (u > 0) & (u < 1600) & (v > 0) & (v < 900)).any(dim=0)
        far = (depth.abs().amax(dim=0)) > 6
        assert seen[far].float().mean() > 0.97
