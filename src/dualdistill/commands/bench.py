"""`bench`: how fast a recipe's training step, its data loading and its deployed student are on this machine."""

import cProfile
import math
import pstats
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from dualdistill.commands.options.training import BenchInference, BenchLoader, BenchStep
from dualdistill.data.collate import PackedBatch, pack
from dualdistill.data.images import ImageCache
from dualdistill.data.index import NuscenesIndex
from dualdistill.deploy.runtime import Maps, deployed_forms, has_bf16
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import override
from dualdistill.models.bevdepth import BevDepth
from dualdistill.ops.threads import one_thread
from dualdistill.recipes.catalogue import find
from dualdistill.report.table import Column
from dualdistill.report.timing import (
    Row,
    Variant,
    activities,
    machine_text,
    measure,
    relative_difference,
    run_ms,
    timing_tables,
    write_profile,
)
from dualdistill.structures import Batch, named_tensors
from dualdistill.synthetic import TINY, make_synthetic
from dualdistill.train.assemble import open_dataset, split_names
from dualdistill.train.data import StepSampler, random_batch, training_loader
from dualdistill.train.step_cost import TimedStep, flop_counter, gpu_named

COLUMNS = (
    Column(key="samples_per_second", title="samples/s", digits=2),
    Column(key="tflops", title="TFLOP/s", digits=3),
    Column(key="peak_share", title="of peak %", digits=1, scale=100.0),
    Column(key="launches", title="launches"),
    Column(key="step_waits", title="step waits %", digits=0, scale=100.0),
    Column(key="finishing_ms", title="finishing ms", digits=1),
)
"""Facts beside the times, each shown where a row has it."""


def choose(options: BenchStep | BenchLoader | BenchInference) -> tuple[str, Experiment, str]:
    """Recipe, experiment and device; by default a full-size recipe where there is a GPU, a synthetic one elsewhere.
    Raises UserError for a recipe that does not exist, or a device that is not there."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here. `dualdistill doctor` shows what is missing.")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    family = "nuscenes" if device == "cuda" else "synthetic"
    chosen = find(options.recipe or f"{family}/dualdistill-centerpoint")
    return chosen.name, override(chosen.build(), options.overrides or []), device


def bench_step(console: Console, options: BenchStep, *, repeats: int = 5) -> list[dict[str, Any]]:
    """Print and return the cost of one training step: of the recipe and, if it distils, of its student alone. Raises
    UserError for a recipe or device that does not exist, and for samples that do not fit into GPU memory."""
    name, experiment, device = choose(options)
    training, on_gpu, profile = experiment.training, device == "cuda", options.profile
    samples = options.samples or (training.batch_size if on_gpu else min(training.batch_size, 2))
    gpu = gpu_named(torch.cuda.get_device_name()) if on_gpu else None
    try:
        step = TimedStep(experiment, samples, device)
        distils = step.dummy.training.distiller is not None
        runs: dict[str, Callable[[], None]] = {"student alone": partial(step, distil=False)} if distils else {}
        runs["distilled" if distils else "step"] = step
        setting = f"training step of {name} ({samples} samples, precision {training.precision}, {_where(device)})"
        rows = _measured(setting, runs, device, repeats)
        for number, (row, run) in enumerate(zip(rows, runs.values(), strict=True)):
            with flop_counter() as counter:
                run()
            tflops = counter.get_total_flops() / row.milliseconds / 1e9
            facts: dict[str, Any] = {"samples_per_second": 1e3 * samples / row.milliseconds, "tflops": tflops}
            if gpu is not None:
                facts["peak_share"] = tflops / gpu.peak_tflops(training.precision)
            if on_gpu:
                facts["waits"] = _waits(run)
            if on_gpu or profile is not None:
                launches = _profiled(run, device, profile, f"step-{row.name.replace(' ', '-')}")
                facts |= {"launches": launches} if on_gpu else {}
            rows[number] = replace(row, facts=facts)
    except torch.OutOfMemoryError:
        raise UserError(f"{samples} samples do not fit into this GPU's memory: give fewer with --samples.") from None
    if on_gpu and gpu is None:
        console.print(f"The peak of {torch.cuda.get_device_name()} is not in the table of known GPUs.")
    report = _report(console, "step", rows, profile)
    for line, count in ((rows[-1].facts or {}).get("waits") or {}).items():
        console.print(f"waits for the GPU: {count} at {line}")
    return report


def _measured(setting: str, runs: Mapping[str, Callable[[], Any]], device: str, repeats: int) -> list[Row]:
    return measure(setting, [Variant(name=n, run=run) for n, run in runs.items()], repeats=repeats, device=device)


def _waits(run: Callable[[], None]) -> dict[str, int]:
    """How often the host waits for the GPU in one run, by file and line, the most frequent first."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing CUDA operation" in str(w.message)]
    return dict(Counter(lines).most_common())


def _profiled(run: Callable[[], object], device: str, folder: Path | None, name: str) -> int:
    """Kernel launches of one profiled run; a Chrome trace and a table of operators go to `folder`."""
    with torch.profiler.profile(activities=activities(device)) as profiler:
        run()
        if device == "cuda":
            torch.cuda.synchronize()
    if folder is not None:
        write_profile(profiler, folder, name, device)
    return sum(event.count for event in profiler.key_averages() if "LaunchKernel" in event.key)


def bench_loader(console: Console, options: BenchLoader, *, seconds: float = 10.0) -> list[dict[str, Any]]:
    """Print and return the rate of a training's loader in one process and in several, and what a step waits for it.

    Beside the loader's own time stands that of finishing a loaded sample (`data/collate.py`), which the step's device
    does. With an image cache one process is also timed with it, after a pass that fills it. Each rate is taken over
    about `seconds`.
    """
    name, experiment, device = choose(options)
    batch_size = experiment.training.batch_size
    with tempfile.TemporaryDirectory() as folder:
        index = NuscenesIndex.open(options.data or make_synthetic(Path(folder), TINY), options.version)
        split = options.split or split_names(index.version)[0]
        dataset = open_dataset(experiment, index, split=split, training=True, seed=0)
        cache = ImageCache.under(options.image_cache, index) if options.image_cache is not None else None
        if cache is not None:
            console.print(cache.require_room(index, set(dataset.positions.tolist()), experiment.data))
        timed = partial(_loader_rate, dataset, batch_size)
        with one_thread():
            loaded = {"1 process": timed(0, seconds)}
            single = loaded["1 process"]
            if cache is not None:
                dataset.image_cache = cache
                for _ in ("filling", "filled"):
                    loaded["1 process, image cache"] = timed(0, most=single.batches)
                dataset.image_cache = None
            if options.profile is not None:
                options.profile.mkdir(parents=True, exist_ok=True)
                with cProfile.Profile() as profiler, (options.profile / "loader.txt").open("w") as file:
                    pack(dataset.__getitems__([(0, i) for i in range(min(len(dataset), batch_size))]))
                    pstats.Stats(profiler, stream=file).sort_stats("tottime").print_stats(60)
        loaded[f"{options.workers} workers"] = timed(options.workers, seconds)
    samples = batch_size if device == "cuda" else 1
    step = TimedStep(experiment, samples, device)
    step()
    step_rate = 1e3 * samples / run_ms(step, device)
    console.print(f"A step takes {step_rate:,.3g} samples a second ({samples} at once on {_where(device)}).")
    finishing_ms = run_ms(lambda: single.first.to(device), device) / len(single.first)
    rows = [
        Row(
            setting=f"loader of {name} (batch {batch_size}, {options.data or 'a tiny synthetic world'}; ms a sample)",
            name=variant,
            milliseconds=1e3 / one.rate,
            ratio=one.rate / single.rate,
            difference=None if one is single else _difference(single.first, one.first),
            facts={
                "samples_per_second": one.rate,
                "step_waits": max(0.0, 1 - one.rate / step_rate),
                "finishing_ms": finishing_ms,
            },
        )
        for variant, one in loaded.items()
    ]
    return _report(console, "loader", rows, options.profile)


class _Loaded(NamedTuple):
    first: PackedBatch
    rate: float
    """Samples a second, once the queue of loaded batches is used up."""
    batches: int
    """Number that the rate was taken over."""


def _loader_rate(
    dataset: Any, batch_size: int, workers: int, seconds: float = math.inf, *, most: int | None = None
) -> _Loaded:
    """Load until the seconds are over, `most` batches at most."""
    order = StepSampler(len(dataset), batch_size, first=0, last=10**6, seed=0)
    loader = training_loader(dataset, pack, order, workers=workers)
    batches = iter(loader)
    first = next(batches)
    for _ in islice(batches, workers * (loader.prefetch_factor or 0)):
        pass  # loaded while the processes started
    began, passed, done = time.perf_counter(), 0.0, 0
    while done == 0 or (passed < seconds and done != most):
        next(batches)
        passed, done = time.perf_counter() - began, done + 1
    return _Loaded(first, done * batch_size / passed, done)


def _difference(*batches: PackedBatch) -> float | None:
    return relative_difference(*(dict(named_tensors(batch.to("cpu"))) for batch in batches))


def bench_inference(console: Console, options: BenchInference, *, repeats: int = 5) -> list[dict[str, Any]]:
    """Print and return the time of one sample in the live student and in every form it can be deployed in.

    The exported forms run on the CPU; those whose extra is not installed are left out. Raises UserError for a recipe
    without a student.
    """
    name, experiment, device = choose(options)
    if experiment.student is None:
        raise UserError(f"{name} has no camera student: choose a recipe of a student, such as synthetic/student.")
    torch.manual_seed(0)
    student, batch = BevDepth(experiment.student).eval(), random_batch(experiment.data)
    with tempfile.TemporaryDirectory() as folder:
        deployed = {}
        if device == "cpu":
            try:
                deployed = deployed_forms(student, batch, Path(folder))
            except UserError as error:
                console.print(str(error))
        live = partial(_live, student.to(memory_format=torch.channels_last).to(device), batch.to(device), device)
        forms: dict[str, Callable[[], Maps]] = {"live, fp32": partial(live, half=False)}
        if device == "cuda" or has_bf16():
            forms["live, bf16 autocast"] = partial(live, half=True)
        setting = f"inference of {name} (one sample, {_where(device)})"
        rows = _measured(setting, forms | deployed, device, repeats)
        if options.profile is not None:
            _profiled(forms["live, fp32"], device, options.profile, "inference")
    return _report(console, "inference", rows, options.profile)


@torch.no_grad()
def _live(student: BevDepth, batch: Batch, device: str, *, half: bool) -> Maps:
    """The student as it is trained, in float32 or under bf16 autocast."""
    with torch.autocast(device, torch.bfloat16, enabled=half):
        output = student(batch).predictions
    return output.heatmap.float(), output.regression.float()


def _where(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _report(console: Console, benchmark: str, rows: Sequence[Row], profile: Path | None) -> list[dict[str, Any]]:
    shown = [column for column in COLUMNS if any(column.key in (row.facts or {}) for row in rows)]
    for table in timing_tables(rows, shown):
        console.print(table.to_rich(console.width))
    console.print(machine_text(), style="dim")
    if profile is not None:
        console.print(f"profile: {profile}")
    return [{"benchmark": benchmark, **row.to_json(), "machine": machine_text()} for row in rows]
