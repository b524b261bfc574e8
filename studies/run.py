"""Run a study: every run is a process of its own; what is recorded is skipped, what was broken off is done again."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from safetensors.torch import load_file, save_file

from dualdistill import zoo
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import custom_splits, official_splits
from dualdistill.evaluate.bootstrap import gain_over_scenes
from dualdistill.evaluate.scoring import read_results
from dualdistill.files import write_atomically
from dualdistill.models.checkpoints import facts_text, fingerprint, read_facts
from dualdistill.recipes.catalogue import find
from dualdistill.report.timing import machine
from dualdistill.synthetic import make_synthetic
from dualdistill.train.loaded_detector import weights_of
from dualdistill.train.run_folder import environment
from studies.design import STUDENT, Job, Network, Study
from studies.likeness import likeness
from studies.results import WEIGHTS, add, read

_RUN = "{run}"
"""Stands in a command for the run folder that the command before it made."""
_COMMANDS = f"""
import json, pathlib, sys
from dualdistill.cli import main
folder, commands = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
for command in commands:
    if {_RUN!r} in command:
        run = next(path.parent for path in sorted(folder.glob("*/*/*/finished.json")) if not path.parent.is_symlink())
        command[command.index({_RUN!r})] = str(run)
    sys.argv = ["dualdistill", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
"""One process for several commands: importing PyTorch takes as long as a hundred training steps of this size."""


class FailedRun(Exception):
    """A command ended with an error; the message names its log."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where a study lives on this machine, and where its record is."""

    study: Study
    data: Path
    out: Path
    results: Path
    """The study's JSON file."""
    weights: Path = WEIGHTS

    def record(self, part: str, key: str, value: Any) -> None:
        add(self.results, part, key, value)

    def network(self, name: str) -> Path:
        return self.weights / f"{name}.safetensors"


def run_study(
    place: Workplace, *, workers: int = 2, limit_minutes: float | None = None, only: Iterable[str] = ()
) -> list[str]:
    """Make the world and the shared networks, then do the runs that are not recorded; returns the keys that failed.

    Args:
        workers: Runs side by side, one thread each.
        limit_minutes: After so long nothing more is started.
        only: Keys of rows; nothing takes all.
    """
    deadline = None if limit_minutes is None else time.monotonic() + 60 * limit_minutes
    left = remaining(place, only)
    needed = {name for job in left for name in job.row.networks}
    if not place.study.rows:  # a study of networks alone
        needed = place.study.networks.keys() - read(place.results)["networks"].keys()
    make_world(place, workers, virtual=any(name.startswith("teacher-mvp") for name in needed))
    for name, network in place.study.networks.items():
        if name in needed and not place.network(name).is_file():
            train_network(place, name, network)
    print(f"{place.study.name}: {len(left)} runs to do -> {place.results}", flush=True)
    failed: list[str] = []
    queue, lock = iter(left), threading.Lock()

    def work() -> None:
        while deadline is None or time.monotonic() < deadline:
            with lock:
                job = next(queue, None)
            if job is None:
                return
            try:
                run_job(place, job)
            except FailedRun as error:
                failed.append(job.key)
                print(f"failed {job.key}: {error}", flush=True)

    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()
    return failed


def remaining(place: Workplace, only: Iterable[str] = ()) -> list[Job]:
    """Jobs without a record, in order.

    Raises:
        SystemExit: if a recorded run had other settings than the study has now.
    """
    known, wanted = read(place.results)["runs"], set(only)
    left = []
    for job in place.study.jobs():
        if wanted and job.row.key not in wanted:
            continue
        if job.key not in known:
            left.append(job)
        elif known[job.key]["sets"] != place.study.settings(job):
            raise SystemExit(
                f"{place.results}: {job.key} was run with {known[job.key]['sets']}, the study now has "
                f"{place.study.settings(job)}. Delete the entry to run it again."
            )
    return left


def make_world(place: Workplace, workers: int, *, virtual: bool) -> None:
    """The synthetic world with the study's split, and on demand virtual points of every noise; what exists is kept."""
    began = time.monotonic()
    make_synthetic(place.data, place.study.world, workers=workers)
    index = NuscenesIndex.open(place.data)
    if place.study.scenes is not None:
        splits = custom_splits(index) or official_splits()
        first = {place.study.split: splits["train"][: place.study.scenes]}
        write_atomically(place.data / index.version / "splits.json", json.dumps(splits | first))
    for noise in place.study.noises if virtual else ():
        command = ["data", "virtual-points", str(place.data), "--masks", "synthetic", "--noise", f"{noise:g}"]
        _call(place.out, command)
    if time.monotonic() - began > 60:  # it was not there
        megabytes = sum(file.stat().st_size for file in place.data.rglob("*") if file.is_file()) // 1_000_000
        world = dataclasses.asdict(place.study.world)
        place.record("world", place.study.world.name, world | {"megabytes": megabytes})


def train_network(place: Workplace, name: str, network: Network) -> None:
    """Train shared weights, keep them in half precision, evaluate what is kept."""
    print(f"training {name}", flush=True)
    folder = place.out / "networks" / name
    shutil.rmtree(folder, ignore_errors=True)
    given = ["--teacher", str(place.network(f"teacher-{network.teacher}"))] if network.teacher else []
    seconds = _call(folder, _train(place, folder, network.recipe, network.sets, 0, given))
    weights = weights_of(_run_of(folder), "last")
    half = folder / f"{name}.safetensors"
    facts = read_facts(weights)
    tensors = {key: t.half() if t.is_floating_point() else t for key, t in load_file(weights).items()}
    save_file(tensors, half, metadata=facts_text(facts))
    seconds += _call(folder, _evaluate(place, str(half), folder))
    facts["data"]["root"] = place.data.name
    if facts["teacher"] is not None:
        facts["teacher"]["path"] = Path(facts["teacher"]["path"]).name
    save_file(tensors, half, metadata=facts_text(facts))
    place.weights.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(half, place.network(name))
    entry = {"recipe": network.recipe, "sets": list(network.sets), "sha256": fingerprint(half)}
    scores = _scores(folder)
    place.record("networks", name, entry | scores | {"cpu_seconds": seconds} | _machine())
    world = place.study.world
    card = zoo.Card(
        what=find(network.recipe).summary,
        recipe=network.recipe,
        settings=network.sets,
        seed=0,
        data=f"synthetic world {world.name}, seed {world.seed}: {world.train_scenes} training scenes; scored on its "
        f"{world.val_scenes} validation scenes",
        command=f"python -m studies run {place.study.name}",
        mAP=scores["mean_ap"],
        NDS=scores["nd_score"],
        sha256=entry["sha256"],
    )
    place.network(name).with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=1))


def run_job(place: Workplace, job: Job) -> None:
    """Train, evaluate, record."""
    began = time.monotonic()
    folder = place.out / job.key
    shutil.rmtree(folder, ignore_errors=True)
    given = []
    if place.study.backbone is not None:
        given += ["--set", f"student.image.pretrained={place.network(place.study.backbone)}"]
    for name in job.row.networks:
        guide = "--label-encoder" if name.startswith("label-encoder") else "--teacher"
        given += [guide, str(place.network(name))]
    if job.row.teacher is not None and job.row.cached:
        given += ["--teacher-cache", str(place.out / "teacher-cache")]
    sets = place.study.settings(job)
    train = _train(place, folder, job.row.recipe, sets, job.seed, given)
    seconds = _call(folder, train, _evaluate(place, _RUN, folder))
    entry = {"recipe": job.row.recipe, "sets": sets, **_scores(folder), **_end_of_log(folder)}
    entry |= over_scenes(place, job)
    guided = job.row if job.row.teacher else next((row for row in place.study.rows if row.teacher), None)
    if guided is not None:
        weights, teacher = weights_of(_run_of(folder), "last"), place.network(f"teacher-{guided.teacher}")
        entry |= likeness(weights, teacher, guided, place.data)
    place.record("runs", job.key, entry | {"cpu_seconds": seconds} | _machine())
    minutes = (time.monotonic() - began) / 60
    print(f"{job.key}: mAP {entry['mean_ap']:.4f} NDS {entry['nd_score']:.4f}, {minutes:.1f} min", flush=True)


def over_scenes(place: Workplace, job: Job) -> dict[str, Any]:
    """The gain in mAP over the student alone of the same budget and seed: its 95 % interval over validation scenes.

    Returns:
        Nothing for the student, and where its result file is not on this machine.
    """
    student = f"{STUDENT}/{job.budget}/{job.seed}"
    files = [place.out / key / "evaluation" / "results_nusc.json" for key in (job.key, student)]
    if job.key == student or not files[1].is_file():
        return {}
    index = NuscenesIndex.open(place.data)
    (truth, ours, _), (_, theirs, _) = (read_results(file, index, "val") for file in files)
    return {"over_scenes": list(gain_over_scenes(truth, ours, theirs).mean_ap_interval)}


def _train(
    place: Workplace, folder: Path, recipe: str, sets: Iterable[str], seed: int, given: Iterable[str]
) -> list[str]:
    command = ["train", recipe, "--data", str(place.data), "--out", str(folder), "--seed", str(seed)]
    command += ["--split", place.study.split, "--workers", "0", "--no-check", *given]
    return command + [part for each in ("training.save_every=100000", *sets) for part in ("--set", each)]


def _evaluate(place: Workplace, what: str, folder: Path) -> list[str]:
    out = ["--out", str(folder / "evaluation")]
    return ["evaluate", what, "--data", str(place.data), *out, "--workers", "0", "--slices"]


def _call(folder: Path, *commands: list[str]) -> float:
    """Run `dualdistill` commands in one process with one thread; returns its CPU seconds.

    Raises:
        FailedRun: with the end of the log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    program = [sys.executable, "-c", _COMMANDS, str(folder), json.dumps(commands)]
    with log.open("ab") as file:
        process = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | threads
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise FailedRun(f"exit code {process.returncode}; {log} ends with:\n" + "\n".join(_tail(log)))
    return usage.ru_utime + usage.ru_stime


def _tail(log: Path) -> Iterator[str]:
    yield from log.read_bytes()[-2000:].decode(errors="replace").splitlines()[-6:]


def _run_of(folder: Path) -> Path:
    return next(file.parent for file in sorted(folder.rglob("finished.json")) if not file.parent.is_symlink())


def _scores(folder: Path) -> dict[str, Any]:
    metrics, bands = (
        json.loads((folder / "evaluation" / f"{name}.json").read_text()) for name in ("metrics", "slices")
    )
    scores = {name: metrics[name] for name in ("mean_ap", "nd_score", "tp_errors", "mean_dist_aps")}
    return scores | {f"mean_ap {band['name']}": band["mean_ap"] for band in bands}


def _end_of_log(folder: Path) -> dict[str, Any]:
    """Losses, unweighted, and the factor on distillation where it is bounded: means over the last fifth."""
    lines = (_run_of(folder) / "metrics.jsonl").read_text().splitlines()
    last = [json.loads(line) for line in lines[-max(1, len(lines) // 5) :]]
    names = [name for name in last[0] if name.startswith("loss/") or name == "diagnostics/distill_factor"]
    return {"end": {name: sum(record[name] for record in last) / len(last) for name in names}}


def _machine() -> dict[str, Any]:
    return {"commit": environment()["commit"], "cpu": machine()["CPU"]}
