"""A tiny world and tiny networks, shared by the tests of whole workflows."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from dualdistill.commands.options.training import Train
from dualdistill.commands.train import start_training

TINY_STUDENT = (
    "student.image.backbone=test_resnet",
    "student.image.channels=8",
    "student.lift.context_channels=4",
    "student.lift.hidden_channels=8",
    "student.bev.widths=8,8,16",
    "student.bev.neck_channels=8",
    "student.head.shared_channels=8",
    "student.head.head_channels=4",
    "data.image_size=32,96",
)
TINY_TEACHER = (
    "teacher.pillar_channels=8",
    "teacher.stage_channels=8,8,16",
    "teacher.neck_channels=8",
    "teacher.head.shared_channels=8",
    "teacher.head.head_channels=4",
)
TINY_VOXEL_TEACHER = (
    "teacher.voxel.size=0.8",
    "teacher.voxel.height=0.5",
    "teacher.voxel.channels=4,8",
    "teacher.voxel.out_channels=4",
    "teacher.stage_channels=8,16",
    *TINY_TEACHER[2:],
)
STEPS = ("training.steps=3", "training.batch_size=1", "training.save_every=2", "training.log_every=1")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=120)


@pytest.fixture(scope="session")
def runs(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained teacher, student and distilled student, by role."""
    out = tmp_path_factory.mktemp("runs")
    quiet = Console(file=io.StringIO())
    recipes = {
        "teacher": ("synthetic/teacher-centerpoint", TINY_TEACHER),
        "student": ("synthetic/student", TINY_STUDENT),
        "distilled": ("synthetic/dualdistill-centerpoint", TINY_TEACHER + TINY_STUDENT),
    }
    return {
        role: start_training(quiet, Train(recipe, data=world, out=out, overrides=[*sets, *STEPS], seed=1, workers=0))
        for role, (recipe, sets) in recipes.items()
    }
