"""Equal configs, equal bytes; what is there is neither redone nor overwritten."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dualdistill.data.splits import official_splits
from dualdistill.errors import UserError
from dualdistill.synthetic import TINY, SyntheticConfig, make_synthetic
from dualdistill.synthetic.write import scene_names

SMALLEST = replace(
    TINY,
    name="smallest",
    train_scenes=1,
    val_scenes=1,
    key_frames=2,
    image_width=32,
    image_height=18,
    lidar_azimuths=40,
)


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_however_many_workers(tmp_path: Path) -> None:
    alone = make_synthetic(tmp_path / "alone", SMALLEST, workers=1)
    together = make_synthetic(tmp_path / "together", SMALLEST, workers=2)
    assert digest(alone) == digest(together)


def test_another_seed_gives_another_world(tmp_path: Path) -> None:
    one = digest(make_synthetic(tmp_path / "one", SMALLEST, workers=1))
    other = digest(make_synthetic(tmp_path / "other", replace(SMALLEST, seed=1), workers=1))
    shared = {value for name, value in one.items() if name.endswith((".jpg", ".bin"))} & set(other.values())
    assert not shared


def test_train_and_val_scenes_of_one_number_differ(tmp_path: Path) -> None:
    files = digest(make_synthetic(tmp_path / "world", SMALLEST, workers=1))
    images = [value for name, value in files.items() if "CAM_FRONT/" in name and name.endswith(".jpg")]
    assert len(set(images)) == len(images) == 4


def test_a_finished_world_is_left_alone(tmp_path: Path) -> None:
    root = make_synthetic(tmp_path / "world", SMALLEST, workers=1)
    stamps = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    told: list[int] = []
    make_synthetic(root, SMALLEST, workers=1, progress=lambda done, _: told.append(done))
    assert not told
    assert stamps == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_an_unfinished_world_is_redone(tmp_path: Path) -> None:
    whole = digest(make_synthetic(tmp_path / "whole", SMALLEST, workers=1))

    class InterruptedError(Exception):
        pass

    def interrupt(done: int, scenes: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        make_synthetic(tmp_path / "broken", replace(SMALLEST, seed=5), workers=1, progress=interrupt)
    assert digest(make_synthetic(tmp_path / "broken", SMALLEST, workers=1)) == whole


def test_a_world_made_before_a_setting_existed_is_the_one_with_its_default(tmp_path: Path) -> None:
    root = make_synthetic(tmp_path / "world", SMALLEST, workers=1)
    stamp = json.loads((root / "synthetic.json").read_text())
    del stamp["config"]["reach"]
    (root / "synthetic.json").write_text(json.dumps(stamp))
    make_synthetic(root, SMALLEST, workers=1)
    with pytest.raises(UserError, match="another configuration"):
        make_synthetic(root, replace(SMALLEST, reach=20.0), workers=1)


def test_a_folder_of_others_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="did not come"):
        make_synthetic(tmp_path, SMALLEST, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_world_is_not_overwritten(tmp_path: Path) -> None:
    make_synthetic(tmp_path, SMALLEST, workers=1)
    with pytest.raises(UserError, match="another configuration"):
        make_synthetic(tmp_path, replace(SMALLEST, seed=3), workers=1)


def test_scenes_beyond_the_official_lists_get_names_that_no_list_has() -> None:
    names = scene_names(replace(SMALLEST, train_scenes=701, val_scenes=152))
    assert names["train"][:700] == official_splits()["train"]
    assert [len(names["train"]), len(names["val"])] == [701, 152]
    new = [*names["train"][700:], *names["val"][150:]]
    assert len(set(new)) == 3
    assert not set(new) & {scene for scenes in official_splits().values() for scene in scenes}


def test_camera_sweeps_lie_between_the_key_frames(tmp_path: Path) -> None:
    root = make_synthetic(tmp_path, replace(SMALLEST, val_scenes=0, camera_sweeps=True), workers=1)
    assert len(list((root / "samples" / "CAM_FRONT").iterdir())) == 2
    assert len(list((root / "sweeps" / "CAM_FRONT").iterdir())) == 5


def test_lead_in_sweeps_come_before_the_first_key_frame(tmp_path: Path) -> None:
    root = make_synthetic(tmp_path, replace(SMALLEST, val_scenes=0, lead_in_sweeps=3), workers=1)
    stamp = [int(p.name.split("__")[-1].split(".")[0]) for p in (root / "samples" / "LIDAR_TOP").iterdir()]
    sweeps = [int(p.name.split("__")[-1].split(".")[0]) for p in (root / "sweeps" / "LIDAR_TOP").iterdir()]
    assert sum(time < min(stamp) for time in sweeps) == 3


@pytest.mark.parametrize("change", [{"key_frames": 0}, {"lidar_rate": 7.0}, {"seed": -1}, {"jpeg_quality": 100}])
def test_a_config_that_makes_no_sense_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        SyntheticConfig(**change)


def test_the_official_devkit_loads_it(tiny_root: Path) -> None:
    nuscenes = pytest.importorskip("nuscenes")
    world = nuscenes.NuScenes("v1.0-trainval", str(tiny_root), verbose=False)
    sample = world.sample[0]
    assert len(world.get_sample_data(sample["data"]["LIDAR_TOP"])[1]) == len(sample["anns"])
