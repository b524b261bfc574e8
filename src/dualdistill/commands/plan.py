"""`plan`: what a recipe will cost, before anything is spent."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table as RichTable

from dualdistill.commands.options.training import Plan
from dualdistill.data.index import NuscenesIndex
from dualdistill.deploy.runtime import has_bf16
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import override
from dualdistill.files import size_text
from dualdistill.recipes.catalogue import find
from dualdistill.report.table import Column, Table
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
    experiment, devices = override(find(options.recipe).build(), options.overrides or []), options.devices
    training = experiment.training
    each, step_samples = training.batch_of_one(devices), training.batch_size * training.accumulate
    samples, drawn, source = _samples(experiment, options)
    cost, steps = step_cost(experiment), training.total_steps(drawn or 1)
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
    data, student = experiment.data, experiment.student
    images = 6 * data.num_frames if data.cameras else 0
    sweeps = data.num_sweeps + data.random_sweeps if data.points else int(data.depth)
    needed = {
        "camera images per sample": images,
        "LiDAR sweeps per sample": sweeps,
        "virtual points": (v := data.virtual_points) and f"of every sweep, {v.masks} masks (data virtual-points)",
        "instance masks": (i := data.instances) and f"of every key frame image, {i.masks} masks (data instances)",
        "sensor files at most": samples and samples * (images + sweeps),
        "student weights": student and student.pretrained,
        "image weights": student and f"{student.image.backbone} from {student.image.pretrained}",
        "trained teacher": experiment.teacher_recipe,
        "trained label encoder": experiment.label_encoder_recipe,
    }
    # Recipes without pretrained weights name them "none".
    return {name: what for name, what in needed.items() if what and not str(what).endswith("none")}


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
    device, tflops = None, options.tflops
    if tflops is not None:
        per_sample = cost.flops / (tflops * 1e12)
    elif options.measure:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        per_sample = _measured(experiment, cost, "cpu" if device == "cpu" else "cuda")
    else:
        return None
    per_step = per_sample * experiment.training.batch_of_one(options.devices) * experiment.training.accumulate
    times = {"per sample": per_sample, "per step": per_step, "in total": per_step * steps}
    return {**times, "tflops": tflops, "device": device}


def _measured(experiment: Experiment, cost: StepCost, device: str) -> float:
    """Seconds of a sample in a step: of the batch on a GPU, or as much of it as fits; of one sample on a CPU.

    For a CPU large images are halved, and the time scaled by their arithmetic; one without bf16 instructions, which
    would only emulate them, takes the step in float32.
    """
    samples, scale, times, training = 1, 1.0, 1, experiment.training
    if device == "cuda":
        room = _USABLE_MEMORY * torch.cuda.get_device_properties(0).total_memory - cost.parameter_bytes
        samples, times = max(1, min(training.batch_size, int(room // cost.activation_bytes))), 3
    else:
        if not has_bf16():
            experiment = replace(experiment, training=replace(training, precision="32"))
        height, width = experiment.data.image_size
        if cost.flops > _SMALL_FLOPS and experiment.data.cameras and not (height % 64 or width % 64):
            experiment = replace(experiment, data=replace(experiment.data, image_size=(height // 2, width // 2)))
            scale = cost.flops / step_cost(experiment).flops
    step = TimedStep(experiment, samples, device)
    for _ in range(times):  # the first steps allocate, and cuDNN chooses its algorithms
        step()
    return scale * min(run_ms(step, device) for _ in range(times)) / 1e3 / samples


def _show(console: Console, facts: dict[str, Any]) -> None:
    forward, backward = facts["flops per sample"].values()
    samples, disk, seconds = facts["training samples"], facts["disk"], facts["seconds"]
    lines = {f"parameters, {name}": f"{count:,}" for name, count in facts["parameters"].items()} | {
        "arithmetic a sample": f"{forward / 1e9:,.1f} GFLOP forward, {backward / 1e9:,.1f} backward",
        "arithmetic in total": f"{facts['flops in total'] / 1e15:,.3g} PFLOP",
        "steps": f"{facts['steps']:,} of {facts['samples per step']} samples"
        + (f", {facts['epochs']:.3g} epochs" if facts["epochs"] else ""),
        "training samples": f"{samples['distinct']:,}, from {samples['source']}" if samples["distinct"] else "?",
        "memory a device": f"about {size_text(facts['memory per device'])}, "
        f"{size_text(facts['memory of which activations'])} of it for the activations of "
        f"{facts['samples per device at once']} samples",
        **{name: f"{value:,}" if isinstance(value, int) else value for name, value in facts["files"].items()},
        "checkpoints": f"{disk['checkpoints']}, {size_text(disk['bytes of checkpoints'])}",
    }
    if disk.get("teacher cache per sample"):
        whole = f", {size_text(disk['teacher cache'])} in all" if disk["teacher cache"] else ""
        needs = f"; needs {disk['teacher cache needs']}" if "teacher cache needs" in disk else ""
        lines["teacher cache"] = f"{size_text(disk['teacher cache per sample'])} a sample{whole}{needs}"
    if seconds is not None:
        tflops, hours = seconds["tflops"], seconds["in total"] / 3600
        how = f"at {tflops:g} TFLOP/s a device" if tflops else f"measured on this machine ({seconds['device']})"
        whole = f"{hours:,.3g} h in all, {how}, data loading apart"
        if seconds["device"] == "cpu" and hours > _LONGEST_HOURS:
            whole = "measured on this CPU: too long for a whole training, which needs GPUs"
        lines["time"] = f"{seconds['per step']:,.3g} s a step of {facts['samples per step']} samples, {whole}"
    table = RichTable.grid(padding=(0, 2))
    for line in lines.items():
        table.add_row(*line)
    console.print(table)
    _show_gpus(console, facts)


_GPU_COLUMNS = (
    Column(key="gpu", title="GPU"),
    Column(key="memory_gb", title="GB"),
    Column(key="samples at once", title="at once"),
    Column(key="accumulate", title="accumulated"),
    Column(key="seconds per step", title="s a step", digits=3),
    Column(key="samples per second", title="samples/s", digits=1),
    Column(key="hours", title="hours", digits=1),
    Column(key="gpu hours", title="GPU hours", digits=1),
)


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
    console.print(f"Estimates for {devices} GPU{'s' if devices > 1 else ''} of a kind, not measured:")
    marked = [
        {
            **row,
            "gpu": row["gpu"] + " *" * (row["gpu"] in short),
            "samples at once": row["samples at once"] or "none fits",
        }
        for row in rows
    ]
    console.print(Table(columns=_GPU_COLUMNS, rows=tuple(marked)).to_rich(console.width))
    if short:
        console.print(f"* below {_SHORT_STEP} s a step, launching kernels decides: the time is a lower bound.")
    console.print(
        f"Assumed: {facts['efficiency']:.0%} of the peak that NVIDIA's data sheets give for dense bf16 products (half "
        "of it, TF32, in precision 32), and a loader that delivers samples/s to each GPU. `dualdistill bench step` "
        "measures the share on yours (--efficiency), `bench loader` the loader. A batch that does not fit is cut with "
        "training.batch_size and accumulated with training.accumulate: as many samples a step, batch norm over fewer."
    )
