"""Converted checkpoints in use, on a tiny world: scored, and teaching."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dualdistill.commands.convert import convert_checkpoint
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.deployment import Convert
from dualdistill.commands.options.training import Evaluate, Train
from dualdistill.commands.train import start_training
from dualdistill.errors import UserError
from dualdistill.geometry.cameras import frustum
from dualdistill.models.bevdepth import BevDepth, distill_bevdepth
from dualdistill.models.checkpoints import read_facts
from dualdistill.synthetic import TINY, make_synthetic
from dualdistill.train.run_folder import RunFolder
from tests.commands.conftest import TINY_STUDENT
from tests.convert.foreign import State, mmdet3d_pillars, mmdet3d_voxels, tianweiy_pillars
from tests.convert.test_student_names import bevdet_state

WIDTHS = (
    "teacher.stage_channels=8,12,16",
    "teacher.neck_channels=8",
    "teacher.head.shared_channels=8",
    "teacher.head.head_channels=8",
)
"""Settings of the narrow networks in `foreign`, whose recipes are full size."""
ONE_STEP = (
    "training.epochs=none",
    "training.steps=1",
    "training.batch_size=1",
    "student.image.pretrained=none",
    "data.class_balanced=false",
    "init_head_from_teacher=false",
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Weights files of two pillar teachers and a voxel one, made from states of the official code bases."""
    folder = tmp_path_factory.mktemp("converted")
    foreign: dict[str, tuple[State, str | None, float | None]] = {
        "dynamic": (mmdet3d_pillars(), "legacy", None),
        "original": (tianweiy_pillars(), None, None),
        "voxels": (mmdet3d_voxels(), "legacy", 0.1),
    }
    for name, (state, boxes, voxel) in foreign.items():
        torch.save({"state_dict": dict(state)}, folder / f"{name}.pth")
        quiet = Console(file=io.StringIO())
        convert_checkpoint(quiet, Convert(folder / f"{name}.pth", folder / f"{name}.safetensors", boxes, voxel))
    return folder


def learn(console: Console, world: Path, out: Path, teacher: Path, *sets: str) -> Path:
    recipe = "nuscenes/dualdistill-centerpoint"
    overrides = [*TINY_STUDENT, *ONE_STEP, *sets]
    return start_training(
        console, Train(recipe, data=world, out=out, overrides=overrides, seed=0, teacher=teacher, workers=0)
    )


@pytest.mark.parametrize("name", ["dynamic", "original", "voxels"])
def test_a_converted_teacher_is_scored(converted, world, console, tmp_path, name):
    metrics = evaluate_anything(console, Evaluate(converted / f"{name}.safetensors", data=world, out=tmp_path))
    assert 0 <= metrics["nd_score"] <= 1
    assert f"converted/{name}" in console.file.getvalue()
    assert (tmp_path / "results_nusc.json").is_file()


def test_a_converted_teacher_teaches(converted, world, console, tmp_path):
    teacher = converted / "original.safetensors"
    sets = (*WIDTHS, "teacher.pillar_channels=4,8", "teacher.pillar_points=20")
    run = RunFolder.open(learn(console, world, tmp_path, teacher, *sets))
    identity = run.experiment["teacher"]
    assert (identity["recipe"], identity["path"]) == ("converted/original", str(teacher.resolve()))
    assert (run.checkpoint() / "student.safetensors").is_file()


def test_a_teacher_of_another_network_is_refused_with_the_settings_that_fit_it(converted, world, console, tmp_path):
    teacher = converted / "original.safetensors"
    with pytest.raises(UserError, match=r"converted/original\) is another model") as refused:
        learn(console, world, tmp_path, teacher, "teacher.pillar_channels=4,8")
    said = str(refused.value)
    sets = [line.removeprefix("--set ") for line in said.splitlines()[-1].strip().split(" --set ")]
    assert set(sets) == {*WIDTHS, "teacher.pillar_points=20"}
    assert not any(tmp_path.iterdir())


def test_what_no_shape_tells_of_a_teacher_is_compared_too(converted, world, console, tmp_path):
    """Without its empty rows the original's network has the same tensors and other answers."""
    with pytest.raises(UserError, match=r"teacher\.pillar_points: 20, in this recipe none"):
        learn(console, world, tmp_path, converted / "original.safetensors", *WIDTHS, "teacher.pillar_channels=4,8")


def test_a_voxel_teacher_is_not_taken_for_one_of_pillars(converted, world, console, tmp_path):
    with pytest.raises(UserError, match=r"CenterPoint with voxels, and this recipe learns from one with pillars"):
        learn(console, world, tmp_path, converted / "voxels.safetensors")


def test_a_converted_student_is_scored_on_images_of_its_own_size(console, tmp_path):
    """Full size, as all published ones are: on a single key frame."""
    world = make_synthetic(tmp_path / "world", replace(TINY, train_scenes=1, key_frames=1), workers=1)
    model = BevDepth(distill_bevdepth())
    state = moderate(bevdet_state(model))
    state["img_view_transformer.frustum"] = frustum((64, 192), (4, 12), model.depths)
    torch.save({"state_dict": dict(state)}, tmp_path / "student.pth")
    out = tmp_path / "student.safetensors"
    account = convert_checkpoint(console, Convert(tmp_path / "student.pth", out))
    assert {entry["fate"] for entry in account["keys"]} == {"renamed", "changed", "compared"}
    assert read_facts(out)["experiment"]["data"]["image_size"] == [64, 192]
    metrics = evaluate_anything(console, Evaluate(out, data=world))
    assert 0 <= metrics["nd_score"] <= 1
    assert (tmp_path / "evaluation" / "student" / "results_nusc.json").is_file()


def moderate(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state of a network just initialised: one of any numbers would overflow."""
    random = torch.Generator().manual_seed(0)
    for name, tensor in state.items():
        if tensor.ndim > 1:
            spread = 0.0 if "conv_offset" in name else tensor[0].numel() ** -0.5
            state[name] = spread * torch.randn(tensor.shape, generator=random)
        elif tensor.is_floating_point():
            one = name.endswith(("running_var", ".weight"))
            state[name] = torch.ones_like(tensor) if one else torch.zeros_like(tensor)
    return state
