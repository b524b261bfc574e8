"""What `check_root` finds, and that it finds nothing where nothing is wrong."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from dualdistill.data import check
from dualdistill.data.check import check_root, sampled_problems
from dualdistill.data.config import DataConfig
from dualdistill.data.index import NuscenesIndex
from tests.data.tiny_root import TinyRoot, write_root


def test_a_whole_root_has_no_problem(tiny_root: TinyRoot) -> None:
    report = check_root(tiny_root.path, split="mini_train")
    assert report.ok
    assert (report.num_scenes, report.num_samples, report.num_annotations) == (1, 6, 18)
    assert report.boxes_of_class["car"] == report.boxes_of_class["pedestrian"] == 6
    assert report.num_bytes > 0


def test_only_files_that_will_be_read_are_looked_at(tiny_root: TinyRoot) -> None:
    lidar_only = DataConfig(cameras=False, depth=False, num_sweeps=1)
    assert check_root(tiny_root.path, config=lidar_only).num_files == 10
    assert check_root(tiny_root.path, config=DataConfig(points=False, depth=False, num_frames=1)).num_files == 60
    key_frames = DataConfig(points=False, depth=False, previous_frame="key")
    assert check_root(tiny_root.path, config=key_frames).num_files == 60


def test_every_kind_of_broken_file_is_told_with_number_and_example(own_root: TinyRoot) -> None:
    folder = own_root.path / "samples"
    (folder / "CAM_BACK" / "scene-0061-CAM_BACK-0.jpg").unlink()
    (folder / "CAM_BACK" / "scene-0061-CAM_BACK-1.jpg").unlink()
    cut = folder / "CAM_FRONT" / "scene-0061-CAM_FRONT-1.jpg"
    cut.write_bytes(cut.read_bytes()[:-50])
    (folder / "CAM_FRONT_LEFT" / "scene-0061-CAM_FRONT_LEFT-2.jpg").write_text("hello")
    (folder / "LIDAR_TOP" / "scene-0061-LIDAR_TOP-0.pcd.bin").write_bytes(bytes(33))
    report = check_root(own_root.path)
    found = {problem.what: problem for problem in report.problems}
    assert len(found) == 4
    assert found["files in samples/CAM_BACK: missing"].count == 2
    assert found["files in samples/CAM_BACK: missing"].example.endswith("scene-0061-CAM_BACK-0.jpg")
    assert "files in samples/CAM_FRONT: cut off" in found
    assert any("CAM_FRONT_LEFT: unreadable" in what for what in found)
    assert any("LIDAR_TOP: empty, or not a multiple of 20" in what for what in found)
    assert all(problem.remedy for problem in report.problems)


def test_images_of_another_size_and_impossible_speeds_are_told(own_root: TinyRoot) -> None:
    own_root.rewrite("sample_data", lambda records: records[0].update(width=1600, height=900))
    own_root.rewrite("sample_annotation", lambda records: records[1].update(translation=[710.0, 1610.0, 1.0]))
    what = [problem.what for problem in check_root(own_root.path).problems]
    assert any("not 1600x900 pixels" in text for text in what)
    assert any("faster than 60 m/s" in text for text in what)


def test_samples_without_a_sensor_are_told(own_root: TinyRoot) -> None:
    def drop(records: list[dict]) -> None:
        records[:] = [r for r in records if not r["token"].startswith("scene-0061-LIDAR_TOP-")]

    own_root.rewrite("sample_data", drop)
    (problem,) = check_root(own_root.path).problems
    assert (problem.what, problem.count, problem.example) == ("samples without LIDAR_TOP", 3, "scene-0061-0")


def test_some_samples_show_what_is_wrong_with_tables_and_sensor_files(own_root: TinyRoot) -> None:
    assert not list(sampled_problems(NuscenesIndex.open(own_root.path)))
    for path in (own_root.path / "samples" / "LIDAR_TOP").iterdir():
        path.write_bytes(bytes(200))
    own_root.rewrite("sample_annotation", lambda records: records[1].update(translation=[710.0, 1610.0, 1.0]))
    found = {problem.what: problem for problem in sampled_problems(NuscenesIndex.open(own_root.path))}
    assert found["files in samples/LIDAR_TOP: all points in the sensor's origin"].count == 3
    assert any("faster than 60 m/s" in what for what in found)


def test_of_a_large_root_a_few_samples_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_root(tmp_path / "root", {"scene-0061": 5, "scene-0103": 5}, sweeps=False)
    monkeypatch.setattr(check, "SAMPLED", 2)  # the first and the last
    for name in ("CAM_FRONT/scene-0061-CAM_FRONT-0.jpg", "CAM_BACK/scene-0061-CAM_BACK-3.jpg"):
        (root.path / "samples" / name).unlink()
    (problem,) = sampled_problems(NuscenesIndex.open(root.path))
    assert problem.example == "samples/CAM_FRONT/scene-0061-CAM_FRONT-0.jpg"


def test_progress_sees_every_file(own_root: TinyRoot) -> None:
    seen: list[int] = []

    def watch(rows: Iterable[int]) -> Iterable[int]:
        for row in rows:
            seen.append(row)
            yield row

    assert check_root(own_root.path, progress=watch).num_files == len(seen) == 21


@pytest.mark.nuscenes
def test_the_real_cut_is_whole(nuscenes_root: Path) -> None:
    report = check_root(nuscenes_root)
    assert report.ok
    assert report.num_files == 140
    assert report.num_annotations == 1222
