"""Cost of a training, counted before it runs."""

import json

import pytest
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from dualdistill.cli import app
from dualdistill.commands.options.training import Plan
from dualdistill.commands.plan import gpu_estimate, plan
from dualdistill.errors import UserError
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import RECIPES, find
from dualdistill.train.step_cost import DummyStep, Gpu, StepCost, step_cost
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
    dummy = DummyStep(experiment)
    with FlopCounterMode(display=False) as forward:
        loss = dummy.forward()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert loss.isfinite()
    cost = step_cost(experiment)
    # Pseudo boxes of a real step have a few windows more or less.
    assert cost.flops_forward == pytest.approx(forward.get_total_flops(), rel=0.05)
    assert cost.flops_backward == pytest.approx(backward.get_total_flops(), rel=0.05)
    assert cost.parameters["student"] == sum(p.numel() for p in dummy.training.detector.parameters())
    assert cost.parameters["teacher"] == sum(p.numel() for p in dummy.training.teacher.module.parameters())
    assert cost.activation_bytes > 4 * dummy.batch.cameras.images[:, 0].numel() / 3


def test_a_plan_counts_steps_samples_files_and_disk(console, world):
    facts = plan(
        console,
        Plan(
            RECIPE,
            overrides=[*SETS, "training.batch_size=4", "training.accumulate=2", "training.steps=50"],
            data=world,
            devices=2,
        ),
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
    facts = plan(console, Plan("nuscenes/teacher-centerpoint", overrides=["teacher.reach=12.8", "data.box_reach=12.8"]))
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
        plan(console, Plan(RECIPE, overrides=SETS, devices=3))


def test_a_measured_plan_gives_the_time_of_this_machine(console):
    facts = plan(console, Plan(RECIPE, overrides=[*SETS, "training.steps=100"], measure=True))
    assert facts["seconds"]["in total"] == pytest.approx(200 * facts["seconds"]["per sample"])
    assert facts["seconds"]["per sample"] > 0
    assert "measured on this machine" in console.file.getvalue()


def test_a_training_of_years_on_this_cpu_is_not_given_in_hours(console):
    facts = plan(console, Plan(RECIPE, overrides=[*SETS, "training.steps=1000000000"], measure=True))
    assert facts["seconds"]["in total"] > 1e6
    text = " ".join(console.file.getvalue().split())
    assert "too long for a whole training" in text
    assert "h in all" not in text


GPU = Gpu(name="some GPU", bf16_tflops=100, memory_gb=10, pattern="some")


def cost(sample_gb, *, flops=10**12, parameter_gb=1.0):
    return StepCost(
        flops_forward=flops // 4,
        flops_backward=3 * flops // 4,
        activation_bytes=round(sample_gb * 1e9),
        parameters={},
        parameter_bytes=round(parameter_gb * 1e9),
        teacher_output=None,
    )


@pytest.mark.parametrize(
    ("sample_gb", "devices", "at_once", "accumulate"),
    [(0.1, 1, 32, 1), (0.5, 1, 16, 2), (0.5, 4, 8, 1), (1.1, 1, 4, 8), (7.9, 2, 1, 16), (8.1, 1, None, None)],
)
def test_a_batch_that_does_not_fit_is_cut_into_equal_parts(sample_gb, devices, at_once, accumulate):
    experiment = override(find(RECIPE).build(), ["training.batch_size=32", "training.precision=bf16"])
    estimate = gpu_estimate(GPU, experiment, cost(sample_gb), 100, devices, 0.5)
    assert estimate["samples at once"] == at_once
    assert estimate.get("accumulate") == accumulate


def test_hours_are_arithmetic_over_the_assumed_share_of_the_peak():
    experiment = override(find(RECIPE).build(), ["training.batch_size=32", "training.precision=bf16"])
    one, four = (gpu_estimate(GPU, experiment, cost(0.1), 3600, devices, 0.5) for devices in (1, 4))
    assert one["seconds per step"] == pytest.approx(32 / 50)
    assert one["hours"] == pytest.approx(one["gpu hours"]) == pytest.approx(32 / 50)
    assert four["hours"] == pytest.approx(one["hours"] / 4)
    assert four["gpu hours"] == pytest.approx(one["gpu hours"])
    assert four["samples per second"] == pytest.approx(one["samples per second"]) == pytest.approx(50)
    slow = override(experiment, ["training.precision=32"])
    assert gpu_estimate(GPU, slow, cost(0.1), 3600, 1, 0.5)["hours"] == pytest.approx(2 * one["hours"])
    cut = override(experiment, ["training.batch_size=8", "training.accumulate=4"])
    assert gpu_estimate(GPU, cut, cost(0.1), 3600, 1, 0.5)["hours"] == pytest.approx(one["hours"])


def test_a_large_recipe_has_estimates_and_a_small_one_the_reason_for_none(console):
    sets = ["teacher.reach=12.8", "data.box_reach=12.8"]
    facts = plan(console, Plan("nuscenes/teacher-centerpoint", overrides=sets, devices=2, efficiency=0.01))
    assert {"A100 80 GB", "H100 SXM", "H200 SXM", "RTX 4090", "L40S"} <= {row["gpu"] for row in facts["gpus"]}
    assert facts["seconds"] is None
    text = " ".join(console.file.getvalue().split())
    assert "Estimates for 2 GPUs of a kind, not measured" in text
    assert "1% of the peak" in text
    plan(console, Plan(RECIPE, overrides=SETS))
    assert "there is no estimate" in " ".join(console.file.getvalue().split())


def test_the_tflops_of_a_device_give_the_time(console):
    facts = plan(console, Plan(RECIPE, overrides=[*SETS, "training.steps=100"], devices=2, tflops=25))
    assert facts["seconds"]["in total"] == pytest.approx(facts["flops in total"] / 25e12 / 2)
    assert "25 TFLOP/s" in " ".join(console.file.getvalue().split())
    with pytest.raises(UserError, match="one source"):
        plan(console, Plan(RECIPE, overrides=SETS, tflops=25, measure=True))


@pytest.mark.parametrize("option", ["--tflops=-1", "--efficiency=35", "--tflops=nan"])
def test_numbers_out_of_range_are_refused(option):
    result = CliRunner().invoke(app, ["plan", RECIPE, option])
    assert result.exit_code
    assert option.partition("=")[0] in f"{result.output} {result.exception}"


def test_devices_and_accumulation_share_the_work_of_a_step(console):
    def seconds(*sets, **how):
        facts = plan(console, Plan("synthetic/student", overrides=[*TINY_STUDENT, *sets], tflops=1, **how))
        return facts["seconds"]["per step"]

    one = seconds("training.batch_size=2")
    assert seconds("training.batch_size=4", devices=2) == pytest.approx(one)
    assert seconds("training.batch_size=2", "training.accumulate=3") == pytest.approx(3 * one)
