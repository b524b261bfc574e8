"""`plan`: what a recipe will cost, before anything is spent."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dualdistill.commands.scaling import PACKAGED, ScalingTable
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.overrides import override
from dualdistill.recipes.catalogue import find
from dualdistill.train.assemble import open_dataset, split_names
from dualdistill.train.fill_cache import cached_maps, flips_drawn, refuse_uncacheable
from dualdistill.train.step_cost import DummyStep, StepCost, step_cost
from dualdistill.train.teacher_cache import TeacherCache, size_text

NUSCENES_TRAIN, NUSCENES_BALANCED = 28_130, 123_580
"""Samples of the official training split, as they are and class-balanced
(docs/methods/centerpoint.md#class-balanced-resampling)."""

_SMALL = 50e9
"""FLOPs of a step that is measured as it is; larger ones are measured on images of half the side, and scaled."""


def plan(
    console: Console,
    recipe: str,
    *,
    overrides: list[str],
    data: Path | None = None,
    version: str | None = None,
    split: str | None = None,
    devices: int = 1,
    measure: bool = False,
    scaling: Path | None = None,
    tflops: float | None = None,
) -> dict[str, Any]:
    """Print and return the cost of a training: parameters, arithmetic, memory, steps, files, disk, time, and what
    doubling a size does to it.

    Args:
        measure: Take the time of a step on this machine, instead of telling it from a scaling table.
        scaling: That table; the package's, if not given.
        tflops: Tell the time of devices that each reach so many 10^12 operations a second, instead.

    Raises:
        UserError: for more than one source of the time, and for a recipe or settings that do not exist.
    """
    if measure + (scaling is not None) + (tflops is not None) > 1:
        raise UserError("The time comes from one source: give --measure, --scaling or --tflops, not several.")
    if tflops is not None and not 0 < tflops < math.inf:
        raise UserError(f"--tflops is what a device reaches, in 10^12 operations a second: above 0, got {tflops:g}.")
    table = ScalingTable.read(scaling or PACKAGED)
    experiment = override(find(recipe).build(), overrides)
    each = experiment.training.batch_of_one(devices)
    samples, drawn, source = _samples(experiment, data, version, split)
    cost = step_cost(experiment)
    training = experiment.training
    steps = training.total_steps(drawn or 1)
    step_samples = training.batch_size * training.accumulate
    facts: dict[str, Any] = {
        "recipe": recipe,
        "parameters": cost.parameters,
        "flops per sample": {"forward": cost.flops_forward, "backward": cost.flops_backward},
        "flops in total": cost.flops * steps * step_samples,
        "samples per step": step_samples,
        "samples per device at once": each,
        "steps": steps,
        "samples seen": steps * step_samples,
        "epochs": steps * step_samples / drawn if drawn else None,
        "training samples": {"distinct": samples, "with class balance": drawn, "source": source},
        "memory per device": cost.parameter_bytes + each * cost.activation_bytes,
        "memory of which activations": each * cost.activation_bytes,
        "files": _files(experiment, samples),
        "disk": _disk(experiment, cost, steps, samples),
        "seconds": _seconds(experiment, cost, steps, devices, None if measure else table, tflops),
        "doubled": _doubled(experiment, table),
    }
    _show(console, facts)
    return facts


def _samples(
    experiment: Experiment, data: Path | None, version: str | None, split: str | None
) -> tuple[int | None, int | None, str]:
    """Training samples, distinct and as one epoch draws them, and who says so."""
    if data is None:
        if experiment.training.steps is not None:
            return None, None, "none given: --data names a root"
        drawn = NUSCENES_BALANCED if experiment.data.class_balanced else NUSCENES_TRAIN
        return NUSCENES_TRAIN, drawn, "the official train split (no --data was given)"
    index = NuscenesIndex.open(data, version)
    split = split or split_names(index.version)[0]
    dataset = open_dataset(experiment, index, split=split, training=False, seed=0)
    drawn = len(open_dataset(experiment, index, split=split, training=True, seed=0))
    return len(dataset), drawn, f"{data} ({index.version}, {split})"


def _files(experiment: Experiment, samples: int | None) -> dict[str, Any]:
    """What must be on disk before the first step; files a sample, and at most in all."""
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
        cache = TeacherCache.under(Path(), {}, cost.teacher_output, maps, experiment.training.cache_precision)
        flips = len(flips_drawn(experiment.data.bev_augmentation))
        disk["teacher cache per sample"] = cache.bytes_of_one(cost.teacher_output) * flips
        disk["teacher cache"] = disk["teacher cache per sample"] * samples if samples else None
        try:
            refuse_uncacheable(experiment)
        except UserError:
            disk["teacher cache needs"] = "no BEV rotation or scaling, no random sweeps"
    return disk


def _seconds(
    experiment: Experiment, cost: StepCost, steps: int, devices: int, table: ScalingTable | None, tflops: float | None
) -> dict[str, Any]:
    """Time of a sample, of a step, and in all, on devices that reach so much or else are like the one of the table;
    without both, like this one.

    Reading data is not part of it.
    """
    training = experiment.training
    each = training.batch_of_one(devices)
    machine, nearest = None, None
    if tflops is not None:
        per_sample = cost.flops / (tflops * 1e12)
    elif table is None:
        per_sample = _measured(experiment, cost)
    else:
        flops = each * cost.flops
        per_sample = table.seconds(experiment.role, training.precision, flops) / each
        machine, nearest = table.machine, table.nearest(experiment.role, training.precision, flops)
    per_step = per_sample * each * training.accumulate
    return {
        "per sample": per_sample,
        "per step": per_step,
        "in total": per_step * steps,
        "tflops": tflops,
        "machine": machine,
        "nearest measured step": nearest and {"name": nearest.facts.step, "precision": nearest.facts.precision},
    }


def _measured(experiment: Experiment, cost: StepCost) -> float:
    """Seconds of a sample in a step that is taken here: at half the image's sides where it is large, and scaled by its
    arithmetic."""
    tried, scale = experiment, 1.0
    height, width = experiment.data.image_size
    if cost.flops > _SMALL and experiment.data.cameras and not (height % 64 or width % 64):
        tried = replace(experiment, data=replace(experiment.data, image_size=(height // 2, width // 2)))
        scale = cost.flops / step_cost(tried).flops
    rehearsal = DummyStep(tried)
    rehearsal.step()  # the first step allocates
    began = time.perf_counter()
    rehearsal.step()
    return (time.perf_counter() - began) * scale


def _doubled(experiment: Experiment, table: ScalingTable) -> dict[str, dict[str, float | None]]:
    """By what time and memory of a step grow with each size that this experiment has, were it twice as large."""
    has = dict.fromkeys(table.growth, experiment.student is not None) | {"points": experiment.role == "teacher"}
    return {name: factors for name, factors in table.doubled().items() if has[name]}


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
    table.add_row("time", _said(facts))
    console.print(table)
    if facts["doubled"]:
        _show_doubled(console, facts["doubled"])


def _said(facts: dict[str, Any]) -> str:
    """How long, and who says so."""
    seconds, samples = facts["seconds"], facts["samples per step"]
    text = f"{seconds['per step']:,.3g} s a step of {samples} samples, {seconds['in total'] / 3600:,.1f} h in all, "
    if seconds["tflops"] is not None:
        return f"{text}reading of data apart, if a device reaches {seconds['tflops']:g} TFLOP/s in such a training"
    if seconds["machine"] is None:
        return text + "measured on this machine, reading of data apart"
    nearest = seconds["nearest measured step"]
    return (
        f"{text}reading of data apart, if devices were like the one that the table of measured steps was taken on: "
        f"{seconds['machine']} (its nearest step: {nearest['name']}, in precision {nearest['precision']}). "
        "Instead, `--measure` takes two steps on this machine, `--tflops` takes what your devices reach"
    )


def _show_doubled(console: Console, doubled: dict[str, dict[str, float | None]]) -> None:
    table = Table("twice as large", "time of a step", "memory of a step", box=None, pad_edge=False)
    for name, factors in doubled.items():
        table.add_row(name, *("?" if factor is None else f"x {factor:.2f}" for factor in factors.values()))
    console.print()
    console.print(table)
