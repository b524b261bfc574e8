"""The digits of the whole program: losses and gradient norms of every small recipe, one evaluation, one exported model.

A refactoring keeps them. `digits.json` holds a record for each kind of machine that made one, with the commit;
`python -m tests.digits.test_digits` adds or replaces that of this machine, for a change meant to change results. On
those machines every digit is compared. On others only the detectors' own losses in the first step are, and roughly:
processors round differently, the ray caster, the optimiser and the thresholds on the trained teacher's confidence
amplify it. Between AVX-512 and AVX2 they differ by up to 4 %.
"""

import io
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from dualdistill.commands.data import make_instances, make_virtual
from dualdistill.commands.export import export_student
from dualdistill.commands.options.data import Instances, VirtualPoints
from dualdistill.commands.options.deployment import Export
from dualdistill.commands.options.training import Train
from dualdistill.commands.train import start_training
from dualdistill.evaluate.metrics import detection_metrics, metrics_summary
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.synthetic import TINY, make_synthetic
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER, TINY_VOXEL_TEACHER
from tests.evaluate.evaluation_worlds import noisy_detections, random_boxes, world_of

RECORD = Path(__file__).parent / "digits.json"
SMALL = sorted(
    (name for name in RECIPES if name.startswith("synthetic/")),
    key=lambda name: ("teacher-" not in name, "label-encoder-" not in name, name),
)
"""Teachers first, then label encoders, then those that learn from them."""
RECORDS = json.loads(RECORD.read_text())["records"]
RECORDED = [name for name in SMALL if all(name in record["training"] for record in RECORDS)]
"""Without recipes that are newer than the records."""
ELSEWHERE = 0.1
"""Relative difference that is allowed on another kind of machine."""
OWN = ("loss/heatmap", "loss/box/", "loss/depth")
"""The detector's own losses, on which no teacher has an influence."""


def machine() -> dict[str, str]:
    """What decides the rounding: PyTorch, its vector instructions, its threads, and the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    keys = ("vendor_id", "cpu family", "model", "stepping")
    return {
        "torch": torch.__version__,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "processor": " ".join(value.strip() for key, value in words.items() if key.strip() in keys),
    }


def complete(world: Path) -> Path:
    """The tiny world with virtual points for the MVP recipes and instance masks for X3KD's."""
    quiet = Console(file=io.StringIO())
    make_virtual(quiet, VirtualPoints(world))
    make_instances(quiet, Instances(world))
    return world


def train(name: str, world: Path, out: Path, trained: dict[str, Path]) -> Path:
    """Three steps of a recipe with tiny networks; `trained` has the runs its teachers come from."""
    experiment = RECIPES[name].build()
    sets = [*STEPS, *(TINY_STUDENT if experiment.student else ())]
    if experiment.teacher is not None:
        sets += TINY_TEACHER if experiment.teacher.voxel is None else TINY_VOXEL_TEACHER
    return start_training(
        Console(file=io.StringIO()),
        Train(
            name,
            data=world,
            out=out,
            overrides=sets,
            seed=1,
            workers=0,
            check=False,
            teacher=trained.get(experiment.teacher_recipe or ""),
            label_encoder=trained.get(experiment.label_encoder_recipe or ""),
        ),
    )


def digits_of(run: Path) -> list[dict[str, float]]:
    """Losses and gradient norm of each step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key.startswith("loss") or key == "gradient_norm"} for line in lines]


def evaluation() -> dict[str, float]:
    """Metrics of fixed, noisy detections."""
    boxes = random_boxes(seed=3, count=600)
    metrics = detection_metrics(world_of(boxes, samples=6), noisy_detections(boxes, seed=4))
    summary = metrics_summary(metrics, eval_time=0.0, meta=None)
    return {name: summary[name] for name in ("mean_ap", "nd_score")} | summary["tp_errors"]


def exported(run: Path, out: Path) -> dict[str, float]:
    """Outputs of the exported student on fixed images: mean and mean magnitude of each."""
    export_student(Console(file=io.StringIO()), Export(run, out=out, formats=["torch"]))
    program = torch.export.load(out / "model.pt2")
    _, *shape = json.loads((out / "export.json").read_text())["files"]["model.pt2"]["inputs"]["images"]
    images = torch.from_numpy(np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8))
    outputs = program.module()(images=images)
    named = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
    return {
        f"{name} {what}": float(value)
        for name, tensor in named
        for what, value in (("mean", tensor.double().mean()), ("magnitude", tensor.double().abs().mean()))
    }


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """The record of this kind of machine, or else the first."""
    return next((record for record in RECORDS if record["machine"] == machine()), RECORDS[0])


@pytest.fixture(scope="module")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Filled by the tests in their order, and by need where one runs alone."""
    complete(world)
    return {}


def run_of(name: str, world: Path, out: Path, trained: dict[str, Path]) -> Path:
    """The run of a recipe, and of those it needs before it."""
    if name not in trained:
        experiment = RECIPES[name].build()
        for needed in (experiment.teacher_recipe, experiment.label_encoder_recipe):
            if needed:
                run_of(needed, world, out, trained)
        trained[name] = train(name, world, out, trained)
    return trained[name]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("name", RECORDED)
def test_three_steps_of_a_recipe_have_the_recorded_losses(name, world, out, trained, recorded):
    came = digits_of(run_of(name, world, out, trained))
    want = recorded["training"][name]
    assert [step.keys() for step in came] == [step.keys() for step in want]
    if recorded["machine"] == machine():
        for step, one in zip(came, want, strict=True):
            assert step == pytest.approx(one, rel=1e-6, abs=1e-7)
    else:
        own = [key for key in want[0] if key.startswith(OWN) and "label-encoder" not in name]
        assert {key: came[0][key] for key in own} == pytest.approx({key: want[0][key] for key in own}, rel=ELSEWHERE)


def test_an_evaluation_has_the_recorded_metrics(recorded):
    assert evaluation() == pytest.approx(recorded["evaluation"], rel=1e-9)


def test_an_exported_model_gives_the_recorded_outputs(world, out, trained, tmp_path, recorded):
    came = exported(run_of("synthetic/student", world, out, trained), tmp_path / "export")
    same = recorded["machine"] == machine()
    assert came == pytest.approx(recorded["export"], rel=1e-6 if same else ELSEWHERE)


def record() -> None:
    """Write the record of this machine."""
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DUALDISTILL_CACHE"] = f"{folder}/cache"
        world = complete(make_synthetic(Path(folder) / "world", TINY, workers=1))
        runs: dict[str, Path] = {}
        for name in SMALL:
            run_of(name, world, Path(folder) / "runs", runs)
        digits = {
            "commit": commit,
            "machine": machine(),
            "training": {name: digits_of(run) for name, run in runs.items()},
            "evaluation": evaluation(),
            "export": exported(runs["synthetic/student"], Path(folder) / "export"),
        }
    others = [record for record in RECORDS if record["machine"] != digits["machine"]]
    RECORD.write_text(json.dumps({"records": [*others, digits]}, indent=1) + "\n")


if __name__ == "__main__":
    record()
