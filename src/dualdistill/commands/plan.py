"""`plan`: what a recipe will cost, before anything is spent."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dualdistill.commands.options.training import Plan
from dualdistill.data.index import NuscenesIndex
from dualdistill.deploy.runtime import has_bf16
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import override
from dualdistill.files import size_text
from dualdistill.recipes.catalogue import find
from dualdistill.report.timing import run_ms
from dualdistill.train.assemble import open_dataset, split_names
from dualdistill.train.step_cost import GPUS, Gpu, StepCost, TimedStep, step_cost
from dualdistill.train.teacher_cache import TeacherCache, cached_maps, flips_drawn, refuse_uncacheable

NUSCENES_TRAIN, NUSCENES_BALANCED = 28_130, 123_580
"""Samples of the official training split, as they are and class-balanced
(docs/methods/centerpoint.md#class-balanced-resampling)."""

_USABLE_MEMORY = 0.9
"""Share of a GPU's memory that parameters and activations may take; the rest is for workspaces and fragments."""
_SHORT_STEP = 0.05
"""Seconds; in a shorter step the launching of kernels takes longer than their arithmetic."""
_SMALL_FLOPS = 50e9
"""On a CPU, larger steps are measured on images of half the side, and scaled."""
_LONGEST_HOURS = 1000.0
"""Longest training on a CPU that is given in hours; beyond it, only the time of a step is printed."""


def plan(console: Console, options: Plan) -> dict[str, Any]:
    """Print and return the cost of a training: parameters, arithmetic, memory, steps, files, disk, and time on GPUs.
    Raises UserError for a recipe or settings that do not exist."""
    devices = options.devices
    experiment = override(find(options.recipe).build(), options.overrides or [])
    each = experiment.training.batch_of_one(devices)
    samples, drawn, source = _samples(experiment, options)
    cost = step_cost(experiment)
    training = experiment.training
    steps = training.total_steps(drawn or 1)
    step_samples = training.batch_size * training.accumulate
    facts: dict[str, Any] = {
        "recipe": options.recipe,
        "parameters": cost.parameters,
        "flops per sample": {"forward": cost.flops_forward, "backward": cost.flops_backward},
        "flops in total": cost.flops * steps * step_samples,
        "samples per step": step_samples,
        "samples per device at once": each,
        "steps": steps,
        "devices": devices,
        "samples seen": steps * step_samples,
        "epochs": steps * step_samples / drawn if drawn else None,
        "training samples": {"distinct": samples, "with class balance": drawn, "source": source},
        "memory per device": cost.parameter_bytes + each * cost.activation_bytes,
        "memory of which activations": each * cost.activation_bytes,
        "files": _files(experiment, samples),
        "disk": _disk(experiment, cost, steps, samples),
        "efficiency": options.efficiency,
        "gpus": [gpu_estimate(gpu, experiment, cost, steps, devices, options.efficiency) for gpu in GPUS],
        "seconds": _seconds(experiment, cost, steps, options),
    }
    _show(console, facts)
    return facts


def gpu_estimate(
    gpu: Gpu, experiment: Experiment, cost: StepCost, steps: int, devices: int, efficiency: float
) -> dict[str, Any]:
    """Estimated time of a training on one GPU model, and how its batch fits into memory.

    The batch of a step is kept: where a device's share of it does not fit, it is cut into equal parts whose gradients
    accumulate. Without "samples at once" not even one sample fits.
    """
    training = experiment.training
    per_device = training.batch_of_one(devices) * training.accumulate
    room = _USABLE_MEMORY * gpu.memory_gb * 1e9 - cost.parameter_bytes
    most = min(training.batch_of_one(devices), int(room // cost.activation_bytes))
    at_once = max((n for n in range(1, most + 1) if per_device % n == 0), default=None)
    estimate: dict[str, Any] = {"gpu": gpu.name, "memory_gb": gpu.memory_gb, "samples at once": at_once}
    if at_once is None:
        return estimate
    peak = gpu.peak_tflops(training.precision)
    per_step = per_device * cost.flops / (efficiency * peak * 1e12)
    return estimate | {
        "accumulate": per_device // at_once,
        "peak_tflops": peak,
        "seconds per step": per_step,
        "samples per second": per_device / per_step,
        "hours": per_step * steps / 3600,
        "gpu hours": devices * per_step * steps / 3600,
    }


def _samples(experiment: Experiment, options: Plan) -> tuple[int | None, int | None, str]:
    """Training samples, distinct and as one epoch draws them, and where the numbers come from."""
    if options.data is None:
        if experiment.training.steps is not None:
            return None, None, "none given: --data names a root"
        drawn = NUSCENES_BALANCED if experiment.data.class_balanced else NUSCENES_TRAIN
        return NUSCENES_TRAIN, drawn, "the official train split (no --data was given)"
    index = NuscenesIndex.open(options.data, options.version)
    split = options.split or split_names(index.version)[0]
    dataset = open_dataset(experiment, index, split=split, training=False, seed=0)
    drawn = len(open_dataset(experiment, index, split=split, training=True, seed=0))
    return len(dataset), drawn, f"{options.data} ({index.version}, {split})"


def _files(experiment: Experiment, samples: int | None) -> dict[str, Any]:
    """Files that must be on disk before the first step: of a sample, and at most in all."""
    data = experiment.data
    needed: dict[str, Any] = {}
    if data.cameras:
        needed["camera images per sample"] = 6 * data.num_frames
    if data.points:
        needed["LiDAR sweeps per sample"] = data.num_sweeps + data.random_sweeps
    elif data.depth:
        needed["LiDAR sweeps per sample"] = 1
    if data.virtual_points is not None:
        needed["virtual points"] = f"of every sweep, {data.virtual_points.masks} masks (data virtual-points)"
    if data.instances is not None:
        needed["instance masks"] = f"of every key frame image, {data.instances.masks} masks (data instances)"
    if samples is not None:
        needed["sensor files at most"] = samples * sum(n for n in needed.values() if isinstance(n, int))
    if experiment.student is not None and experiment.student.pretrained != "none":
        needed["student weights"] = experiment.student.pretrained
    if experiment.student is not None and experiment.student.image.pretrained != "none":
        needed["image weights"] = f"{experiment.student.image.backbone} from {experiment.student.image.pretrained}"
    if experiment.teacher_recipe is not None:
        needed["trained teacher"] = experiment.teacher_recipe
    if experiment.label_encoder_recipe is not None:
        needed["trained label encoder"] = experiment.label_encoder_recipe
    return needed


def _disk(experiment: Experiment, cost: StepCost, steps: int, samples: int | None) -> dict[str, Any]:
    """Bytes that the run will write, and that a teacher cache would."""
    learnt = sum(count for name, count in cost.parameters.items() if name != "teacher" or experiment.role == "teacher")
    checkpoints = math.ceil(steps / experiment.training.save_every)
    if (kept := experiment.training.keep_last) is not None:
        checkpoints = min(checkpoints, kept + 1)  # and the best one
    disk: dict[str, Any] = {"checkpoints": checkpoints, "bytes of checkpoints": checkpoints * 12 * learnt}
    if cost.teacher_output is not None:
        maps = cached_maps(experiment, cost.teacher_output)
        cache = TeacherCache(Path(), {}, cost.teacher_output, maps, experiment.training.cache_precision)
        flips = len(flips_drawn(experiment.data.bev_augmentation))
        disk["teacher cache per sample"] = cache.bytes_of_one * flips
        disk["teacher cache"] = disk["teacher cache per sample"] * samples if samples else None
        try:
            refuse_uncacheable(experiment)
        except UserError:
            disk["teacher cache needs"] = "no BEV rotation or scaling, no random sweeps"
    return disk


def _seconds(experiment: Experiment, cost: StepCost, steps: int, options: Plan) -> dict[str, Any] | None:
    """Time of a sample, of a step and in all, loading apart: at `tflops` a device, or measured here; None without."""
    tflops = options.tflops
    if tflops is not None:
        per_sample, device = cost.flops / (tflops * 1e12), None
    elif options.measure:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        per_sample = _measured_on_cpu(experiment, cost) if device == "cpu" else _measured_on_gpu(experiment, cost)
    else:
        return None
    training = experiment.training
    per_step = per_sample * training.batch_of_one(options.devices) * training.accumulate
    return {
        "per sample": per_sample,
        "per step": per_step,
        "in total": per_step * steps,
        "tflops": tflops,
        "device": device,
    }


def _measured_on_cpu(experiment: Experiment, cost: StepCost) -> float:
    """Seconds of a sample in the second step of one sample.

    Large images are halved, and the time scaled by their arithmetic; a CPU without bf16 instructions, which would only
    emulate them, takes the step in float32.
    """
    tried, scale = experiment, 1.0
    if not has_bf16():
        tried = experiment = replace(experiment, training=replace(experiment.training, precision="32"))
    height, width = experiment.data.image_size
    if cost.flops > _SMALL_FLOPS and experiment.data.cameras and not (height % 64 or width % 64):
        tried = replace(experiment, data=replace(experiment.data, image_size=(height // 2, width // 2)))
        scale = cost.flops / step_cost(tried).flops
    step = TimedStep(tried, 1, "cpu")
    step()  # the first step allocates
    return scale * run_ms(step) / 1e3


def _measured_on_gpu(experiment: Experiment, cost: StepCost) -> float:
    """Seconds of a sample in a step of the batch, or of as much of it as fits into memory."""
    memory = torch.cuda.get_device_properties(0).total_memory
    most = int((_USABLE_MEMORY * memory - cost.parameter_bytes) // cost.activation_bytes)
    samples = max(1, min(experiment.training.batch_size, most))
    step = TimedStep(experiment, samples, "cuda")
    for _ in range(3):  # cuDNN chooses its algorithms
        step()
    return min(run_ms(step, "cuda") for _ in range(3)) / 1e3 / samples


def _show(console: Console, facts: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, count in facts["parameters"].items():
        table.add_row(f"parameters, {name}", f"{count:,}")
    forward, backward = facts["flops per sample"].values()
    table.add_row("arithmetic a sample", f"{forward / 1e9:,.1f} GFLOP forward, {backward / 1e9:,.1f} backward")
    table.add_row("arithmetic in total", f"{facts['flops in total'] / 1e15:,.3g} PFLOP")
    epochs = f", {facts['epochs']:.3g} epochs" if facts["epochs"] else ""
    table.add_row("steps", f"{facts['steps']:,} of {facts['samples per step']} samples{epochs}")
    distinct = facts["training samples"]["distinct"]
    table.add_row("training samples", f"{distinct:,}, from {facts['training samples']['source']}" if distinct else "?")
    activations = size_text(facts["memory of which activations"])
    table.add_row(
        "memory a device",
        f"about {size_text(facts['memory per device'])}, {activations} of it for the activations of "
        f"{facts['samples per device at once']} samples",
    )
    for name, value in facts["files"].items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    disk = facts["disk"]
    table.add_row("checkpoints", f"{disk['checkpoints']}, {size_text(disk['bytes of checkpoints'])}")
    if disk.get("teacher cache per sample"):
        whole = f", {size_text(disk['teacher cache'])} in all" if disk["teacher cache"] else ""
        needs = f"; needs {disk['teacher cache needs']}" if "teacher cache needs" in disk else ""
        table.add_row("teacher cache", f"{size_text(disk['teacher cache per sample'])} a sample{whole}{needs}")
    if facts["seconds"] is not None:
        table.add_row("time", _time_text(facts))
    console.print(table)
    _show_gpus(console, facts)


def _time_text(facts: dict[str, Any]) -> str:
    seconds, samples = facts["seconds"], facts["samples per step"]
    hours = seconds["in total"] / 3600
    step = f"{seconds['per step']:,.3g} s a step of {samples} samples"
    if seconds["tflops"] is not None:
        return f"{step}, {hours:,.3g} h in all at {seconds['tflops']:g} TFLOP/s a device, data loading apart"
    if seconds["device"] == "cpu" and hours > _LONGEST_HOURS:
        return f"{step}, measured on this CPU: too long for a whole training, which needs GPUs"
    return f"{step}, {hours:,.3g} h in all, measured on this machine ({seconds['device']}), data loading apart"


def _show_gpus(console: Console, facts: dict[str, Any]) -> None:
    devices, rows = facts["devices"], facts["gpus"]
    short = [row["gpu"] for row in rows if row.get("seconds per step", math.inf) < _SHORT_STEP]
    console.print()
    if len(short) == len(rows):
        console.print(
            f"On any GPU a step has less than {_SHORT_STEP} s of arithmetic: launching kernels and loading data "
            "decide, so there is no estimate. `--measure` times a step on this machine."
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("GPU", "GB", "samples at once", "accumulated", "s a step", "samples/s", "hours", "GPU hours"):
        table.add_column(title, justify="left" if title == "GPU" else "right")
    for row in rows:
        name = f"{row['gpu']} *" if row["gpu"] in short else row["gpu"]
        if row["samples at once"] is None:
            table.add_row(name, str(row["memory_gb"]), "none fits")
            continue
        numbers = [row[key] for key in ("seconds per step", "samples per second", "hours", "gpu hours")]
        cells = [str(row["memory_gb"]), str(row["samples at once"]), f"x {row['accumulate']}"]
        table.add_row(name, *cells, *(f"{number:,.3g}" for number in numbers))
    console.print(f"Estimates for {devices} GPU{'s' if devices > 1 else ''} of a kind, not measured:")
    console.print(table)
    if short:
        console.print(f"* below {_SHORT_STEP} s a step, launching kernels decides: the time is a lower bound.")
    console.print(
        f"Assumed: {facts['efficiency']:.0%} of the peak that NVIDIA's data sheets give for dense bf16 products (half "
        "of it, TF32, in precision 32), and a loader that delivers samples/s to each GPU. `dualdistill bench step` "
        "measures the share on yours (--efficiency), `bench loader` the loader. A batch that does not fit is cut with "
        "training.batch_size and accumulated with training.accumulate: as many samples a step, batch norm over fewer."
    )
