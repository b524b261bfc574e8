"""`bench` on the CPU with tiny networks: rows for programs, a table for people, profiles, refusals."""

import json

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d
from typer.testing import CliRunner

from dualdistill.cli import app
from dualdistill.commands.bench import bench_inference, bench_loader, bench_step
from dualdistill.commands.options.training import BenchInference, BenchLoader, BenchStep
from dualdistill.errors import UserError
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import find
from dualdistill.train.step_cost import GPUS, DummyStep, TimedStep, flop_counter, gpu_named
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER

RECIPE, SETS = "synthetic/dualdistill-centerpoint", [*TINY_STUDENT, *TINY_TEACHER]
KEYS = {"benchmark", "setting", "name", "milliseconds", "ratio", "peak_mib", "difference", "machine"}


def test_a_distilled_step_is_timed_beside_its_student_alone(console, tmp_path):
    rows = bench_step(console, BenchStep(RECIPE, overrides=SETS, device="cpu", profile=tmp_path), repeats=1)
    assert [row["name"] for row in rows] == ["student alone", "distilled"]
    assert all(row.keys() >= KEYS for row in rows)
    assert all(row["facts"]["tflops"] > 0 and row["facts"]["samples_per_second"] > 0 for row in rows)
    assert rows[0]["ratio"] == 1
    json.dumps(rows)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"step-{name}.{kind}" for name in ("student-alone", "distilled") for kind in ("json", "txt")
    }
    assert "TFLOP/s" in console.file.getvalue()


def test_a_recipe_without_distillation_has_one_row(console):
    (row,) = bench_step(
        console, BenchStep("synthetic/student", overrides=list(TINY_STUDENT), device="cpu", samples=1), repeats=1
    )
    assert row["name"] == "step"
    assert "1 samples" in row["setting"]


def test_a_timed_step_trains_the_student_and_the_distiller_and_leaves_no_gradient():
    step = TimedStep(override(find(RECIPE).build(), SETS), 1, "cpu")
    before = [parameter.detach().clone() for parameter in step.parameters]
    step()
    moved = [not torch.equal(old, new) for old, new in zip(before, step.parameters, strict=True)]
    assert sum(moved) > 0.9 * len(moved)
    assert all(parameter.grad is None for parameter in step.parameters)
    assert not any(parameter.requires_grad for parameter in step.dummy.training.teacher.module.parameters())


def flops_of(run) -> int:
    with flop_counter() as counter:
        run()
    return counter.get_total_flops()


def test_the_counted_arithmetic_is_that_of_the_step_with_deformable_convolutions():
    step = TimedStep(override(find("synthetic/student").build(), list(TINY_STUDENT)), 1, "cpu")
    dummy = DummyStep(step.dummy.experiment, 1)
    with FlopCounterMode(display=False) as counter:
        dummy.step()
    assert flops_of(step) >= counter.get_total_flops() > 0

    image, weight = torch.randn(2, 4, 6, 5, requires_grad=True), nn.Parameter(torch.randn(8, 4, 3, 3))
    offset = torch.zeros(2, 18, 6, 5)
    forward = flops_of(lambda: deform_conv2d(image, offset, weight, padding=1))
    assert forward == 2 * 2 * 6 * 5 * 8 * 4 * 9
    assert flops_of(lambda: deform_conv2d(image, offset, weight, padding=1).sum().backward()) == 3 * forward


def test_the_loader_gives_the_same_batches_in_one_process_and_in_several(console, world, tmp_path):
    sets = [*SETS, "training.batch_size=2"]
    options = {"device": "cpu", "data": world, "workers": 2, "image_cache": tmp_path}
    rows = bench_loader(console, BenchLoader(RECIPE, overrides=sets, **options), seconds=0.05)
    assert [row["name"] for row in rows] == ["1 process", "1 process, image cache", "2 workers"]
    assert [row["difference"] for row in rows] == [None, 0, 0]
    assert all(0 <= row["facts"]["step_waits"] < 1 for row in rows)


def test_every_form_of_the_student_gives_the_live_ones_maps(console):
    rows = bench_inference(
        console, BenchInference("synthetic/student", overrides=list(TINY_STUDENT), device="cpu"), repeats=1
    )
    assert rows[0]["name"] == "live, fp32"
    assert any(row["name"].startswith("folded") for row in rows)
    for row in rows[1:]:
        assert row["difference"] < (5e-2 if "bf16" in row["name"] else 1e-4), row


def test_a_student_that_cannot_be_exported_is_timed_live_and_the_reason_is_printed(console):
    sets = [*TINY_STUDENT, "student.temporal.frames=2", "student.temporal.fusion=lift", "data.num_frames=2"]
    rows = bench_inference(console, BenchInference("synthetic/student", overrides=sets, device="cpu"), repeats=1)
    assert {row["name"].partition(",")[0] for row in rows} == {"live"}
    assert "cannot be exported" in console.file.getvalue()


def test_what_cannot_be_timed_is_refused(console):
    with pytest.raises(UserError, match="has no camera student"):
        bench_inference(console, BenchInference("synthetic/teacher-centerpoint", device="cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="doctor"):
            bench_step(console, BenchStep(RECIPE, device="cuda"))


@pytest.mark.parametrize(
    ("cuda_name", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40 GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", None),
    ],
)
def test_gpus_are_found_by_the_name_cuda_gives_them(cuda_name, name):
    gpu = gpu_named(cuda_name)
    assert (gpu and gpu.name) == name
    assert sum(gpu is other for other in GPUS) == (name is not None)


def test_the_command_line_times_a_step_and_writes_its_rows(tmp_path):
    sets = [word for assignment in TINY_STUDENT for word in ("--set", assignment)]
    arguments = ["bench", "step", "--recipe", "synthetic/student", "--device", "cpu", "--samples", "1", *sets]
    result = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "rows.json")])
    assert result.exit_code == 0, result.output
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert row.keys() >= KEYS
