"""What a training will cost, told before it."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dualdistill.commands.plan import plan
from dualdistill.commands.scaling import PACKAGED, ScalingTable
from dualdistill.errors import UserError
from dualdistill.experiment.overrides import override
from dualdistill.recipes.catalogue import RECIPES, find
from dualdistill.train.step_cost import DummyStep, step_cost
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER, TINY_VOXEL_TEACHER

SETS = [*TINY_STUDENT, *TINY_TEACHER]
RECIPE = "synthetic/dualdistill-centerpoint"
OF_EACH_KIND = {
    (experiment.role, type(experiment.distiller)): name
    for name in reversed(RECIPES)
    if name.startswith("synthetic/") and (experiment := RECIPES[name].build())
}
"""The first recipe of every method."""


def test_arithmetic_counted_without_doing_it_is_that_of_a_real_step():
    experiment = override(find(RECIPE).build(), SETS)
    rehearsal = DummyStep(experiment)
    with FlopCounterMode(display=False) as forward:
        loss = rehearsal.forward()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert loss.isfinite()
    cost = step_cost(experiment)
    # Pseudo boxes of a real step have a few windows more or less.
    assert cost.flops_forward == pytest.approx(forward.get_total_flops(), rel=0.05)
    assert cost.flops_backward == pytest.approx(backward.get_total_flops(), rel=0.05)
    assert cost.parameters["student"] == sum(p.numel() for p in rehearsal.training.detector.parameters())
    assert cost.parameters["teacher"] == sum(p.numel() for p in rehearsal.training.teacher.module.parameters())
    assert cost.activation_bytes > 4 * rehearsal.batch.cameras.images[:, 0].numel() / 3


def test_a_plan_counts_steps_samples_files_and_disk(console, world):
    facts = plan(
        console,
        RECIPE,
        overrides=[*SETS, "training.batch_size=4", "training.accumulate=2", "training.steps=50"],
        data=world,
        devices=2,
    )
    distinct = facts["training samples"]["distinct"]
    assert facts["samples per step"] == 8
    assert facts["samples per device at once"] == 2
    assert facts["samples seen"] == 400
    assert facts["epochs"] == pytest.approx(400 / distinct)
    assert facts["files"]["camera images per sample"] == 6
    assert facts["files"]["LiDAR sweeps per sample"] == 5
    assert facts["files"]["trained teacher"] == "synthetic/teacher-centerpoint"
    assert facts["disk"]["teacher cache"] == distinct * facts["disk"]["teacher cache per sample"]
    json.dumps(facts)


def test_the_length_of_a_paper_recipe_is_that_of_the_official_split(console):
    facts = plan(console, "nuscenes/teacher-centerpoint", overrides=["teacher.reach=12.8", "data.box_reach=12.8"])
    assert facts["steps"] == round(20 * 123_580 / 32)
    assert facts["parameters"]["teacher"] == 5_982_790


@pytest.mark.parametrize("name", [*OF_EACH_KIND.values(), "synthetic/labeldistill-centerpoint-voxel"])
def test_a_step_of_every_method_is_counted(name):
    experiment = find(name).build()
    sets = list(TINY_STUDENT if experiment.student else ())
    if experiment.teacher is not None:
        sets += TINY_TEACHER if experiment.teacher.voxel is None else (*TINY_VOXEL_TEACHER, "data.num_sweeps=1")
    cost = step_cost(override(experiment, sets))
    assert min(cost.flops_forward, cost.flops_backward, cost.activation_bytes, *cost.parameters.values()) > 0
    parts = {
        "teacher": experiment.teacher,
        "label_encoder": experiment.label_encoder,
        "distiller": experiment.distiller,
    }
    assert cost.parameters.keys() == {experiment.role, *(part for part, config in parts.items() if config is not None)}
    trained = sum(cost.parameters.get(part, 0) for part in (experiment.role, "distiller"))
    frozen = sum(cost.parameters.values()) - trained
    assert cost.parameter_bytes == 16 * trained + 4 * frozen


def test_devices_that_cannot_share_a_batch_are_refused(console):
    with pytest.raises(UserError, match="3 devices cannot share a batch of 2"):
        plan(console, RECIPE, overrides=SETS, devices=3)


def test_a_measured_plan_tells_the_time(console):
    facts = plan(console, RECIPE, overrides=[*SETS, "training.steps=100"], measure=True)
    assert facts["seconds"]["in total"] == pytest.approx(200 * facts["seconds"]["per sample"])
    assert facts["seconds"]["per sample"] > 0
    assert facts["seconds"]["machine"] is None
    assert "measured on this machine" in console.file.getvalue()
    assert torch.is_grad_enabled()


def test_a_plan_without_measuring_tells_a_time_and_whose_it_is(console, tmp_path):
    table = ScalingTable.read(PACKAGED)
    facts = plan(console, RECIPE, overrides=[*SETS, "training.steps=100"])
    seconds, samples = facts["seconds"], facts["samples per step"]
    flops = samples * (facts["flops per sample"]["forward"] + facts["flops per sample"]["backward"])
    assert seconds["per step"] == pytest.approx(table.seconds("student", "32", flops))
    assert seconds["in total"] == pytest.approx(100 * seconds["per step"])
    assert seconds["machine"] == table.machine
    said = " ".join(console.file.getvalue().split())
    assert table.machine in said
    assert "--measure" in said
    assert facts["doubled"].keys() == {"cameras", "image width", "depth bins", "BEV cells a side", "batch"}

    rows = json.loads(PACKAGED.read_text())
    own = tmp_path / "own.json"
    own.write_text(json.dumps([r | {"machine": "mine", "milliseconds": 2 * r["milliseconds"]} for r in rows]))
    slower = plan(console, RECIPE, overrides=[*SETS, "training.steps=100"], scaling=own)
    assert slower["seconds"]["machine"] == "mine"
    assert slower["seconds"]["in total"] == pytest.approx(2 * seconds["in total"])
    assert slower["doubled"] == facts["doubled"]


def test_what_a_device_reaches_tells_the_time(console):
    facts = plan(console, RECIPE, overrides=[*SETS, "training.steps=100"], devices=2, tflops=25)
    assert facts["seconds"]["in total"] == pytest.approx(facts["flops in total"] / 25e12 / 2)
    assert "25 TFLOP/s" in " ".join(console.file.getvalue().split())
    with pytest.raises(UserError, match="one source"):
        plan(console, RECIPE, overrides=SETS, tflops=25, measure=True)
    with pytest.raises(UserError, match="above 0, got -1"):
        plan(console, RECIPE, overrides=SETS, tflops=-1)


def test_devices_and_accumulation_share_the_work_of_a_step(console):
    def seconds(*sets, **how):
        facts = plan(console, "synthetic/student", overrides=[*TINY_STUDENT, *sets], **how)
        return facts["seconds"]["per step"]

    one = seconds("training.batch_size=2")
    assert seconds("training.batch_size=4", devices=2) == pytest.approx(one)
    assert seconds("training.batch_size=2", "training.accumulate=3") == pytest.approx(3 * one)


def test_a_teacher_is_told_what_more_points_cost(console):
    facts = plan(console, "synthetic/teacher-centerpoint", overrides=list(TINY_TEACHER))
    assert facts["doubled"].keys() == {"points"}
