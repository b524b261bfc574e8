"""Load, predict, evaluate and train from Python, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import dualdistill as dd
from dualdistill.commands.predict import read_sample
from tests.commands.conftest import STEPS, TINY_STUDENT, runs  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def student(runs):  # noqa: F811
    """A barely trained student that still finds boxes."""
    loaded = dd.load(runs["student"], device="cpu")
    config = loaded.detector.config
    loaded.detector.config = replace(config, head=replace(config.head, score_threshold=0.01))
    return loaded


@pytest.fixture(scope="module")
def moment(student):
    """Images of one sample as arrays, and their rig."""
    index = student.index(None, None)
    batch = read_sample(student, index, "0", None)
    token = batch.meta[0].token
    rows = index.sample_cameras[list(index.sample_token).index(token)]
    images = [np.asarray(Image.open(index.path(int(row))).convert("RGB")) for row in rows]
    return images, dd.Rig.of(batch, index.image_size(rows[0]), "lidar")


def some_cameras(rig, cameras):
    return replace(rig, names=(), intrinsics=rig.intrinsics[cameras], bev_from_camera=rig.bev_from_camera[cameras])


def test_arrays_and_tensors_give_the_same_boxes_best_first(student, moment):
    images, rig = moment
    boxes = student.predict(images, rig)
    assert len(boxes) > 0
    assert (boxes.score.diff() <= 0).all()
    again = student.predict([torch.from_numpy(image.copy()) for image in images], rig, min_score=float(boxes.score[2]))
    assert torch.equal(again.center, boxes.center[: len(again)])
    assert len(again) >= 3
    assert boxes.velocity.isfinite().all() == (student.experiment.data.num_frames == 1)
    assert {student.classes[label] for label in boxes.label} <= {*student.classes}


@pytest.mark.parametrize("cameras", [[1], [0, 1, 2]])
def test_any_number_of_cameras_will_do(student, moment, cameras):
    images, rig = moment
    boxes = student.predict([images[c] for c in cameras], some_cameras(rig, cameras))
    assert boxes.center.isfinite().all()


def test_larger_images_of_the_same_cameras_are_seen_alike(student, moment):
    images, rig = moment
    smooth = [Image.fromarray(image).filter(ImageFilter.GaussianBlur(3)) for image in images]
    images, doubled = (
        [np.array(image.resize((image.width * factor, image.height * factor))) for image in smooth] for factor in (1, 2)
    )
    config = student.experiment.data
    small, large = rig.views(images, config).float(), rig.views(doubled, config).float()
    assert small.shape == large.shape
    assert (small - large).abs().mean() < 1  # grey levels: the same picture, resampled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[:4], "describes 6 cameras .* got 4"),
        (lambda images: [image.astype(float) for image in images], r"is float64 .*: expected uint8"),
        (lambda images: [image[:, :, 0] for image in images], "expected uint8"),
        (lambda images: [image[: image.shape[0] // 2] for image in images], "differ in proportions"),
    ],
)
def test_images_that_do_not_fit_the_rig_are_refused(student, moment, change, message):
    images, rig = moment
    with pytest.raises(dd.UserError, match=message):
        student.predict(change(images), rig)


def test_a_rig_in_another_frame_and_a_teacher_are_refused(student, moment, runs):  # noqa: F811
    images, rig = moment
    with pytest.raises(dd.UserError, match="poses are in the ego frame"):
        student.predict(images, replace(rig, frame="ego"))
    with pytest.raises(dd.UserError, match="takes no images"):
        dd.predict(runs["teacher"], images, rig)


def test_a_rig_whose_camera_is_no_pose_is_refused():
    good = {"intrinsics": [np.eye(3).tolist()], "bev_from_camera": np.eye(4)[None]}
    assert dd.Rig.of_matrices(image_size=(90, 160), **good).names == ("camera 0",)
    with pytest.raises(dd.UserError, match=r"'camera 0' needs a pose: .* must be a rotation"):
        dd.Rig.of_matrices(image_size=(90, 160), **(good | {"bev_from_camera": 2 * np.eye(4)[None]}))


def test_training_and_evaluation_are_those_of_the_command_line(world, tmp_path):
    settings = dict(setting.split("=") for setting in (*TINY_STUDENT, *STEPS))
    run = dd.fit("synthetic/student", data=world, out=tmp_path, settings=settings, seed=1, workers=0, quiet=True)
    metrics = dd.score(run, workers=0, quiet=True)
    written = json.loads((run / "evaluation" / "step_000003" / "metrics.json").read_text())
    assert [written[name] for name in ("mean_ap", "nd_score")] == [metrics["mean_ap"], metrics["nd_score"]]
    with pytest.raises(dd.UserError, match="There is no recipe"):
        dd.fit("synthetic/studnet", data=world, quiet=True)
