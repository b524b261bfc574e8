"""Every recipe builds and takes a training step: small ones on a tiny world, full-size ones on paper (meta tensors)."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from dualdistill.commands.data import make_instances, make_virtual
from dualdistill.commands.options.data import Instances, VirtualPoints
from dualdistill.data.collate import collate
from dualdistill.data.index import NuscenesIndex
from dualdistill.experiment.plain import override
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.structures import weighted_sum
from dualdistill.train.assemble import assemble, build_detector, open_dataset
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER, TINY_VOXEL_TEACHER

SMALL = [name for name in RECIPES if name.startswith("synthetic/")]
FULL = {
    (experiment.student, experiment.teacher): name
    for name in RECIPES
    if name.startswith("nuscenes/") and (experiment := RECIPES[name].build())
}
"""One recipe for each pair of networks."""


@pytest.fixture(scope="module")
def completed_world(world: Path) -> Path:
    """The tiny world, with virtual points for the MVP recipes and instance masks for those with X-IS."""
    make_virtual(Console(file=io.StringIO()), VirtualPoints(world))
    make_instances(Console(file=io.StringIO()), Instances(world))
    return world


@pytest.mark.parametrize("name", SMALL)
def test_a_small_recipe_takes_a_training_step(name, completed_world):
    experiment = RECIPES[name].build()
    sets = list(TINY_STUDENT if experiment.student else ())
    if experiment.teacher is not None:
        sets += TINY_TEACHER if experiment.teacher.voxel is None else TINY_VOXEL_TEACHER
    experiment = override(experiment, sets)
    dataset = open_dataset(experiment, NuscenesIndex.open(completed_world), split="train", training=True, seed=0)
    batch = collate([dataset[0, 0], dataset[0, 4]])
    training = assemble(experiment).train()
    losses = training(batch)
    assert losses.keys() == training.weights.keys()
    total = weighted_sum(losses, training.weights)
    assert total.isfinite()
    total.backward()
    assert all(p.grad is not None for p in training.detector.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", FULL.values())
def test_a_full_size_recipe_builds_with_the_published_number_of_parameters(name):
    experiment = RECIPES[name].build()
    with torch.device("meta"):
        student = build_detector(experiment) if experiment.student else None
        teacher = CenterPoint(experiment.teacher) if experiment.teacher else None
    expected = {"resnet50": 53_218_078, "resnet101": 72_210_206}
    if student is not None:
        official = name.endswith("official")
        wanted = 76_384_590 if official else expected[experiment.student.image.backbone]
        assert sum(p.numel() for p in student.parameters()) == wanted
    if teacher is not None:
        wanted = 5_983_558 if experiment.teacher.point_channels == 17 else 5_982_790
        wanted = wanted if experiment.teacher.voxel is None else 8_938_262
        assert sum(p.numel() for p in teacher.parameters()) == wanted
