"""`predict`: boxes of one sample of a root, or of the user's own images."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dualdistill.cli import app
from dualdistill.commands.options.deployment import Predict
from dualdistill.commands.predict import FILM_HEIGHT, predict_sample, read_sample
from dualdistill.deploy.calibration import Rig
from dualdistill.errors import UserError
from dualdistill.structures import CAMERAS
from dualdistill.train.loaded_detector import LoadedDetector, weights_of


@pytest.fixture(autouse=True)
def _bold(monkeypatch):
    """Barely trained networks say little: let them speak."""
    load = LoadedDetector.load

    def bold(path):
        trained = load(path)
        config = trained.detector.config
        trained.detector.config = replace(config, head=replace(config.head, score_threshold=0.01))
        return trained

    monkeypatch.setattr(LoadedDetector, "load", bold)


def predicted(console, run, **options):
    return predict_sample(console, Predict(run, **options))


def own_files(runs, folder):
    """The first validation sample as a user would have it: image files and a calibration file."""
    trained = LoadedDetector.load(weights_of(runs["student"], "last"))
    index = trained.index(None, None)
    batch = read_sample(trained, index, "0", None)
    token = batch.meta[0].token
    rows = index.sample_cameras[list(index.sample_token).index(token)]
    rig = Rig.of(batch, index.image_size(rows[0]), "lidar")
    rig.write(folder / "rig.json")
    return [index.path(int(row)) for row in rows], folder / "rig.json"


def test_boxes_come_best_first_with_a_drawing(runs, tmp_path, console):
    answer = predicted(console, runs["student"], picture=tmp_path / "seen.png")
    scores = [box["score"] for box in answer["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["frame"] == "lidar"
    json.dumps(answer)
    for name in ("seen.png", "seen-cameras.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 280
    assert f"{len(scores)} boxes" in console.file.getvalue()


def test_a_samples_own_files_and_calibration_give_the_boxes_of_the_sample(runs, tmp_path, console):
    images, calibration = own_files(runs, tmp_path)
    of_root = predicted(console, runs["student"])
    own = predicted(console, runs["student"], images=images, calibration=calibration)
    assert len(own["boxes"]) == len(of_root["boxes"]) > 0
    for one, other in zip(own["boxes"], of_root["boxes"], strict=True):
        assert one["class"] == other["class"]
        assert one["center"] == pytest.approx(other["center"], abs=1e-3)


def test_a_teacher_looks_at_the_points_of_a_sample(runs, tmp_path, console):
    assert predicted(console, runs["teacher"], min_score=0.99)["boxes"] == []
    images, calibration = own_files(runs, tmp_path)
    with pytest.raises(UserError, match="takes no images"):
        predicted(console, runs["teacher"], images=images, calibration=calibration)


def test_a_pose_in_the_ego_frame_leads_to_the_students_through_the_lidars(runs, tmp_path):
    _, calibration = own_files(runs, tmp_path)
    plain = json.loads(calibration.read_text())
    ego_from_lidar = torch.eye(4, dtype=torch.float64)
    ego_from_lidar[:3, 3] = torch.tensor([0.9, 0.0, 1.8])
    for camera in plain["cameras"]:
        pose = torch.tensor(camera.pop("lidar_from_camera"), dtype=torch.float64)
        camera["ego_from_camera"] = (ego_from_lidar @ pose).tolist()
    (tmp_path / "ego.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="works in the lidar frame"):
        Rig.read(tmp_path / "ego.json", "lidar")
    (tmp_path / "ego.json").write_text(json.dumps(plain | {"ego_from_lidar": ego_from_lidar.tolist()}))
    through_ego, direct = Rig.read(tmp_path / "ego.json", "lidar"), Rig.read(calibration, "lidar")
    assert through_ego.names == CAMERAS
    torch.testing.assert_close(through_ego.bev_from_camera, direct.bev_from_camera)


def test_what_a_calibration_file_lacks_is_said(runs, tmp_path, console):
    images, calibration = own_files(runs, tmp_path)
    with pytest.raises(UserError, match="expected one image each, in that order, got 2"):
        predicted(console, runs["student"], images=images[:2], calibration=calibration)
    with pytest.raises(UserError, match="both --images and --calibration"):
        predicted(console, runs["student"], images=images)
    plain = json.loads(calibration.read_text())
    for change, message in (
        ({"image_size": "large"}, "not a calibration file"),
        ({"cameras": []}, "describes no camera"),
        ({"colour": "red"}, "not a calibration file"),
        ({"cameras": [plain["cameras"][0] | {"intrinsics": [[1.0]]}]}, "length 3"),
        ({"cameras": [plain["cameras"][0] | {"lidar_from_camera": [[0.0] * 4] * 4}]}, "needs a pose"),
        ({"cameras": [{k: v for k, v in plain["cameras"][0].items() if k != "lidar_from_camera"}]}, "has neither"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(plain | change))
        with pytest.raises(UserError, match=message):
            Rig.read(tmp_path / "bad.json", "lidar")
    with pytest.raises(UserError, match="cannot be read"):
        Rig.read(tmp_path / "none.json", "lidar")


def test_pictures_have_the_photographs_own_size_for_any_number_of_cameras(runs, tmp_path, console):
    images, calibration = own_files(runs, tmp_path)
    plain = json.loads(calibration.read_text())
    calibration.write_text(json.dumps(plain | {"cameras": plain["cameras"][:2]}))
    predicted(console, runs["student"], images=images[:2], calibration=calibration, picture=tmp_path / "seen.png")
    with Image.open(images[0]) as photograph, Image.open(tmp_path / "seen-cameras.png") as picture:
        assert picture.width == 2 * photograph.width + 4


def test_a_folder_of_images_is_a_moment_and_folders_of_cameras_are_a_film(runs, tmp_path, console):
    images, calibration = own_files(runs, tmp_path)
    listed = predicted(console, runs["student"], images=images, calibration=calibration)
    folder, film = tmp_path / "moment", tmp_path / "film"
    for name, image in zip(CAMERAS, images, strict=True):
        (film / name).mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        for copy in (folder / f"{name}.jpg", film / name / "1.jpg", film / name / "2.jpg"):
            copy.write_bytes(image.read_bytes())
    assert predicted(console, runs["student"], images=[folder], calibration=calibration) == listed
    answer = predicted(console, runs["student"], images=[film], calibration=calibration, video=tmp_path / "seen.gif")
    assert [frame["boxes"] for frame in answer["frames"]] == [listed["boxes"]] * 2
    with Image.open(tmp_path / "seen.gif") as gif:
        assert gif.height == FILM_HEIGHT
    (film / "CAM_BACK" / "2.jpg").unlink()
    with pytest.raises(UserError, match="CAM_BACK: 1"):
        predicted(console, runs["student"], images=[film], calibration=calibration)


def test_a_film_shows_every_key_frame_of_the_scene(runs, tmp_path, console):
    answer = predicted(console, runs["student"], video=tmp_path / "scene.gif")
    assert len({frame["sample"] for frame in answer["frames"]}) == 3
    with pytest.raises(UserError, match="expected a name"):
        predicted(console, runs["student"], video=tmp_path / "scene.avi")


def test_images_follow_their_option_in_a_row(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("dualdistill.commands.predict.predict_sample", lambda _, options: given.append(options))
    words = ["predict", "run", "--images", "a.jpg", "b.jpg", "c.jpg", "--calibration", "rig.json", "--json"]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "boxes.json")])
    assert result.exit_code == 0, result.output
    assert [path.name for path in given[0].all_images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert given[0].checkpoint.name == "run"
    assert (tmp_path / "boxes.json").is_file()
