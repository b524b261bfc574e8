"""`make gpu-check`: whether this machine's GPU computes what a CPU computes, and how fast it trains.

Nothing is downloaded. Each check gives measurements and problems; a check that would begin after the time limit is left
out and named. Writes gpu-check.json and gpu-check.md; the exit code is 1 where a check found a problem.

    python tools/gpu_check.py [--out FOLDER] [--minutes 8]
    python tools/gpu_check.py --toy     # the same checks on a CPU with tiny networks, to test this program
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from dualdistill.commands.bench import bench_step
from dualdistill.commands.options.training import BenchStep, Train
from dualdistill.commands.train import start_training
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import override
from dualdistill.geometry.grid import BevGrid
from dualdistill.ops.bev_pool import lift_splat_pool, make_pool_plan
from dualdistill.ops.nms import circle_nms, rotated_nms
from dualdistill.ops.voxelize import dynamic_voxelize, scatter_max, scatter_mean
from dualdistill.recipes.catalogue import find
from dualdistill.report.timing import machine, relative_difference
from dualdistill.structures import weighted_sum
from dualdistill.synthetic import TINY, make_synthetic
from dualdistill.train.metrics import read_metrics
from dualdistill.train.step_cost import DummyStep

METHODS = ("dualdistill-centerpoint", "x3kd-full-centerpoint", "labeldistill-centerpoint")
TOLERANCES = {"fp32": (1e-3, 2e-2), "TF32": (1e-2, 1e-1), "bf16": (5e-2, 4e-1)}
"""Largest relative difference of a loss, and of the whole gradient (norm of the difference over the norm), to float32
on the CPU. Gradients pass a hundred layers, ReLUs and maxima, which may switch where two values nearly agree."""
OPERATORS = 1e-4
"""Largest relative difference of an operator's results and gradients in float32."""
SMALL = [
    "student.image.backbone=test_resnet",
    "student.image.channels=8",
    "student.lift.context_channels=4",
    "student.lift.hidden_channels=8",
    "student.bev.widths=8,8,16",
    "student.bev.neck_channels=8",
    "student.head.shared_channels=8",
    "student.head.head_channels=4",
    "data.image_size=32,96",
]
SMALL_TEACHER = [
    "teacher.pillar_channels=8",
    "teacher.stage_channels=8,8,16",
    "teacher.neck_channels=8",
    "teacher.head.shared_channels=8",
    "teacher.head.head_channels=4",
]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the checks are."""

    device: str
    family: str
    steps: int
    """Of each training."""
    processes: int
    overrides: tuple[str, ...] = ()
    """Of a recipe with a student and a teacher."""

    def experiment(self, name: str) -> Experiment:
        experiment = find(f"{self.family}/{name}").build()
        return override(experiment, self.fitting(experiment))

    def fitting(self, experiment: Experiment) -> list[str]:
        """The overrides whose part the experiment has."""
        parts = {"student": experiment.student, "teacher": experiment.teacher, "data": experiment.student}
        return [each for each in self.overrides if parts[each.partition(".")[0]] is not None]


TOY = Size(device="cpu", family="synthetic", steps=12, processes=2, overrides=(*SMALL, *SMALL_TEACHER))


@dataclass(kw_only=True)
class Checker:
    """Measurements and problems of the checks."""

    size: Size
    folder: Path
    console: Console
    results: dict[str, dict[str, Any]]
    problems: list[str]

    def note(self, check: str, name: str, value: Any) -> None:
        self.results.setdefault(check, {})[name] = value

    def compare(self, check: str, name: str, difference: float | None, limit: float) -> None:
        """Record a relative difference; beyond its limit, or not a number, it is a problem."""
        self.note(check, name, {"difference": difference, "limit": limit})
        if difference is not None and not difference <= limit:
            self.problems.append(f"{check}: {name} differs by {difference:.2g}, at most {limit:g} was expected")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Context in which float32 products on a GPU may (not) run in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def operators(checker: Checker) -> None:
    """Pooling, voxelisation, deformable convolution and suppression, with gradients, on the device and on the CPU."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    grid = BevGrid(x_min=-8.0, y_min=-8.0, cell=0.5, width=32, height=32)
    frustum, depth, context = 20 * rand(2, 3, 8, 6, 10, 3) - 10, rand(6, 8, 6, 10), rand(6, 16, 6, 10)
    points, sample = 20 * rand(5000, 3) - 10, torch.arange(2).repeat_interleave(2500)
    image, offset, weight = rand(2, 16, 9, 11), 4 * rand(2, 18, 9, 11) - 2, rand(16, 16, 3, 3)
    boxes, scores = torch.cat([20 * rand(300, 2), 1 + 3 * rand(300, 2), 6 * rand(300, 1)], dim=1), rand(300)

    def pool(depth: Tensor, context: Tensor, frustum: Tensor) -> Tensor:
        return lift_splat_pool(depth, context, make_pool_plan(frustum, grid, (-5.0, 3.0)))

    def pillars(features: Tensor, points: Tensor, sample: Tensor) -> Tensor:
        found = dynamic_voxelize(points, sample, grid, (-5.0, 3.0), 2)
        kept = features.index_select(0, found.kept)
        return torch.cat([f(kept, found.pillar, len(found)) for f in (scatter_mean, scatter_max)], dim=1)

    cases: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]] = {
        "lift-splat pooling": (pool, (depth, context), (frustum,)),
        "pillars": (pillars, (rand(5000, 8),), (points, sample)),
        "deformable convolution": (lambda i, o, w: deform_conv2d(i, o, w, padding=1), (image, offset, weight), ()),
        "rotated suppression": (lambda b, s: rotated_nms(b, s, 0.2, 300, 50).float(), (), (boxes, scores)),
        "circle suppression": (lambda b, s: circle_nms(b[:, :2], s, 4.0, 50).float(), (), (boxes, scores)),
    }
    for name, (function, learnt, given) in cases.items():
        found = [_with_gradients(function, learnt, given, device) for device in ("cpu", checker.size.device)]
        checker.compare("operators", name, relative_difference(*found), OPERATORS)


def _with_gradients(
    function: Callable[..., Tensor], learnt: Sequence[Tensor], given: Sequence[Tensor], device: str
) -> list[Tensor]:
    leaves = [tensor.to(device, copy=True).requires_grad_() for tensor in learnt]
    result = function(*leaves, *(tensor.to(device) for tensor in given))
    if not leaves:
        return [result]
    upstream = torch.linspace(-1, 1, result.numel()).view(result.shape).to(device)
    return [result.detach(), *torch.autograd.grad(result, leaves, upstream)]


def agreement(checker: Checker) -> None:
    """Losses and gradients of one sample of three methods, against float32 on the CPU."""
    device = checker.size.device
    for name in METHODS:
        experiment = checker.size.experiment(name)
        experiment = replace(experiment, training=replace(experiment.training, teacher_precision="fp32"))
        dummy = DummyStep(experiment)
        for module in dummy.training.modules():
            if isinstance(module, nn.Dropout):
                module.eval()  # a GPU draws other numbers
        start = {key: value.clone() for key, value in dummy.training.state_dict().items()}
        reference = _losses_and_gradients(dummy, "cpu")
        for precision, limits in TOLERANCES.items():
            if precision == "TF32" and device == "cpu":
                continue
            dummy.training.load_state_dict(start)  # batch norms have moved their averages
            with tf32(precision == "TF32"):
                losses, gradients = _losses_and_gradients(dummy, device, half=precision == "bf16")
            worst = max(abs(losses[loss] - value) / max(abs(value), 1e-3) for loss, value in reference[0].items())
            apart = _norm([ours - theirs for ours, theirs in zip(gradients, reference[1], strict=True)])
            case = f"{checker.size.family}/{name}, {precision}"
            checker.compare("agreement", f"{case}, losses", worst, limits[0])
            checker.compare("agreement", f"{case}, gradient", apart / _norm(reference[1]), limits[1])


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


def _losses_and_gradients(dummy: DummyStep, device: str, half: bool = False) -> tuple[dict[str, float], list[Tensor]]:
    training, batch = dummy.training.to(device), dummy.batch.to(device)
    torch.manual_seed(0)
    with torch.autocast(device, torch.bfloat16, enabled=half):
        losses = training(batch)
        weighted_sum(losses, training.weights).backward()
    gradients = [p.grad.detach().float().cpu() for p in training.parameters() if p.grad is not None]
    training.zero_grad()
    return {name: loss.item() for name, loss in losses.items()}, gradients


def speed(checker: Checker) -> None:
    """One distilled step, and one of its student alone: time, arithmetic, memory, launches and waits."""
    size = checker.size
    recipe, repeats = f"{size.family}/dualdistill-centerpoint", 1 if size.device == "cpu" else 5
    for samples in (1,) if size.device == "cpu" else (16, 8, 4, 2, 1):
        try:
            options = BenchStep(recipe, overrides=list(size.overrides), device=size.device, samples=samples)
            rows = bench_step(checker.console, options, repeats=repeats)
        except UserError as error:  # too little memory for so many
            checker.note("speed", f"{samples} samples", str(error))
            continue
        for row in rows:
            facts = {"samples": samples, "milliseconds": row["milliseconds"], "peak MiB": row["peak_mib"]}
            checker.note("speed", row["name"], facts | row["facts"])
        return
    checker.problems.append("speed: not even one sample fits")


def trainings(checker: Checker) -> None:
    """Teacher, student and distilled student on a synthetic world with images of nuScenes' size: losses must fall."""
    size, runs = checker.size, checker.folder / "runs"
    width = {} if size.device == "cpu" else {"image_width": 1600, "image_height": 900, "lidar_azimuths": 1080}
    world = make_synthetic(checker.folder / "world", replace(TINY, name="check", **width))
    for name in ("teacher-centerpoint", "student", "dualdistill-centerpoint"):
        recipe = f"{size.family}/{name}"
        experiment = find(recipe).build()
        began = time.monotonic()
        run = start_training(
            checker.console,
            Train(
                recipe,
                data=world,
                out=runs,
                seed=0,
                overrides=size.fitting(experiment) + _short(experiment, size.steps),
            ),
        )
        records = read_metrics(run / "metrics.jsonl")
        third = max(1, len(records) // 3)
        first, last = (sum(r["loss"] for r in some) / third for some in (records[:third], records[-third:]))
        checker.note(
            "trainings",
            recipe,
            {
                "steps": records[-1]["step"],
                "seconds": round(time.monotonic() - began, 1),
                "loss of the first third": first,
                "loss of the last third": last,
                "share of time waiting for data": sum(r["data_share"] for r in records[1:]) / max(1, len(records) - 1),
            },
        )
        if not last < first:
            checker.problems.append(f"trainings: the loss of {recipe} went from {first:.3g} to {last:.3g}")


def _short(experiment: Experiment, steps: int) -> list[str]:
    sets = ["training.epochs=none", f"training.steps={steps}", "training.log_every=2", f"training.save_every={steps}"]
    sets += ["training.optimiser.warmup_steps=2", "training.batch_size=2"]
    if experiment.student is not None:
        sets += ["student.image.pretrained=none"]
    return sets


def processes(checker: Checker) -> None:
    """A student trained by a process on each GPU (two on a CPU): it ends well, in one run folder."""
    size, out = checker.size, checker.folder / "several"
    count = size.processes
    if count < 2:
        checker.note("processes", "left out", "one GPU")
        return
    experiment = find(f"{size.family}/student").build()
    sets = [*size.fitting(experiment), *_short(experiment, 6), f"training.batch_size={2 * count}"]
    command = [sys.executable, "-m", "dualdistill.cli", "train", f"{size.family}/student", "--out", str(out)]
    command += ["--data", str(checker.folder / "world"), "--devices", str(count), "--workers", "0"]
    command += [word for each in sets for word in ("--set", each)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    folders = list((out / size.family / "student").glob("*"))
    checker.note("processes", f"{count} processes", {"seconds": round(time.monotonic() - began, 1)})
    if done.returncode or len(folders) != 1:
        checker.problems.append(
            f"processes: exit code {done.returncode}, {len(folders)} run folders. {(done.stdout + done.stderr)[-2000:]}"
        )


CHECKS: tuple[Callable[[Checker], None], ...] = (operators, speed, agreement, trainings, processes)


def run(size: Size, folder: Path, minutes: float) -> dict[str, Any]:
    """Make all checks that begin within the time limit; write and return the report."""
    folder.mkdir(parents=True, exist_ok=True)
    checker = Checker(size=size, folder=folder, console=Console(), results={}, problems=[])
    began, seconds = time.monotonic(), {}
    for check in CHECKS:
        if time.monotonic() - began > 60 * minutes:
            checker.problems.append(f"{check.__name__}: left out, {minutes:g} minutes were over")
            continue
        checker.console.print(f"[bold]{check.__name__}[/]: {(check.__doc__ or '').splitlines()[0]}")
        start = time.monotonic()
        try:
            check(checker)
        except Exception:  # the other checks still tell something
            checker.problems.append(f"{check.__name__}: {traceback.format_exc()}")
        seconds[check.__name__] = round(time.monotonic() - start, 1)
    report = {"machine": machine(), "seconds": seconds, "results": checker.results, "problems": checker.problems}
    (folder / "gpu-check.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "gpu-check.md").write_text(page(report))
    return report


def page(report: dict[str, Any]) -> str:
    """The report for a reader, in Markdown."""
    lines = ["# GPU check", "", *(f"- {name}: {value}" for name, value in report["machine"].items()), ""]
    problems = report["problems"]
    lines += ["## Problems", "", *(f"- {problem}" for problem in problems)] if problems else ["No problem was found."]
    for check, results in report["results"].items():
        lines += ["", f"## {check} ({report['seconds'].get(check, '?')} s)", ""]
        if all(isinstance(value, dict) and "limit" in value for value in results.values()):
            lines += ["| what | relative difference | at most |", "|---|---|---|"]
            lines += [f"| {name} | {value['difference']:.2g} | {value['limit']:g} |" for name, value in results.items()]
            continue
        lines += ["| what | measured | |", "|---|---|---|"]
        for name, value in results.items():
            facts = value if isinstance(value, dict) else {"": value}
            lines += [f"| {name} | {fact} | {_shown(number)} |" for fact, number in facts.items()]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"))
    parser.add_argument("--minutes", type=float, default=8.0, help="no check begins later")
    parser.add_argument("--toy", action="store_true", help="tiny networks on a CPU")
    options = parser.parse_args()
    size = TOY if options.toy else Size(device="cuda", family="nuscenes", steps=60, processes=torch.cuda.device_count())
    if not options.toy and not torch.cuda.is_available():
        print("PyTorch finds no GPU here: `dualdistill doctor` shows what is missing. --toy checks this program.")
        return 2
    folder = options.out / time.strftime("%Y%m%d-%H%M%S")
    problems = run(size, folder, options.minutes)["problems"]
    for problem in problems:
        print(f"problem: {problem}")
    print(f"wrote {folder / 'gpu-check.md'} and gpu-check.json: {len(problems)} problems")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
