"""Weights that a study's students share, kept beside its results: teachers, label encoders, the first student.

A row or a seed can then be added on another machine, and compares with those that are there: the students learn from
the very same networks. A kept file names no path of the machine that trained it. Studies whose results lie beside each
other (`results/paper`, `results/long`) share what they train by the same settings: it is kept once.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from dualdistill.models.checkpoints import facts_text, fingerprint, read_facts
from dualdistill.science.jobs import Job, needed_run
from dualdistill.science.record import read_result, what_differs
from dualdistill.train.loaded_detector import weights_of
from dualdistill.train.run_folder import RunFolder

FOLDER = "shared"
"""Below the results."""
_RUN = "kept"
"""Name of the run folder that stands for a training made elsewhere."""


def shared_jobs(jobs: Iterable[Job]) -> list[Job]:
    """Those that others wait for, after what they themselves wait for."""
    jobs = list(jobs)
    needed = {folder for job in jobs for folder in job.waits_for}
    return sorted((job for job in jobs if job.folder in needed), key=lambda job: len(job.waits_for))


def kept_path(job: Job) -> Path:
    result = Path(job.result)
    return result.parent / FOLDER / f"{result.stem}.safetensors"


def find_kept(job: Job) -> Path | None:
    """The kept weights of a job: its own study's, or else those of a neighbouring study with the same settings.

    Raises:
        UserError: if its own study has a result of that name that is another job's.
    """
    if job.recorded and kept_path(job).is_file():
        return kept_path(job)
    own = Path(job.result)
    for result in sorted(own.parent.parent.glob(f"*/{own.name}")):
        weights = result.parent / FOLDER / kept_path(job).name
        if weights.is_file() and not what_differs(read_result(result).identity, job.identity):
            return weights
    return None


def keep(jobs: Sequence[Job]) -> list[Path]:
    """Write the weights of all shared jobs that are recorded and trained here, and not taken from a neighbouring study;
    returns the files."""
    written = []
    fingerprints: dict[str, str] = {}
    for job in shared_jobs(jobs):
        if not (job.trained and job.recorded):
            continue
        weights = weights_of(needed_run(job.recipe, Path(job.folder)), "last")
        path, known = kept_path(job), find_kept(job)
        if known is not None and known != path and fingerprint(known) == fingerprint(weights):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(load_file(weights), path, metadata=facts_text(_without_paths(read_facts(weights), fingerprints)))
        fingerprints[fingerprint(weights)] = fingerprint(path)
        written.append(path)
    return written


def adopt(jobs: Sequence[Job]) -> list[tuple[Job, Path]]:
    """Make a finished run, and a result, of each shared job that was not trained here and whose weights are kept.

    Returns:
        These jobs, and the files their weights were taken from.
    """
    kept = [(job, path) for job in shared_jobs(jobs) if not job.trained and (path := find_kept(job)) is not None]
    for job, weights in kept:
        if not job.recorded:
            Path(job.result).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(weights.parent.parent / Path(job.result).name, job.result)
        facts = read_facts(weights)
        run = RunFolder(Path(job.folder) / job.recipe / _RUN)
        if run.path.exists():
            shutil.rmtree(run.path)  # stopped before it was finished
        checkpoint = f"step_{facts['step']:06d}"
        (run.checkpoints / checkpoint).mkdir(parents=True)
        shutil.copyfile(weights, run.checkpoints / checkpoint / f"{facts['role']}.safetensors")
        run.point("last", checkpoint)
        run.write_json("experiment.json", {**facts, "overrides": job.overrides})
        scores = read_result(Path(job.result)).scores
        run.write_json(
            f"evaluation/{checkpoint}/metrics.json", {"mean_ap": scores.mean_ap, "nd_score": scores.nd_score}
        )
        run.write_json("finished.json", {"steps": facts["step"]})
    return kept


def _without_paths(facts: dict[str, Any], fingerprints: dict[str, str]) -> dict[str, Any]:
    """Facts with names for paths, and with the fingerprints of the kept files for those of the files they stem from."""
    facts = json.loads(json.dumps(facts))
    facts["data"]["root"] = Path(facts["data"]["root"]).name
    if facts["teacher"] is not None:
        teacher = facts["teacher"]
        teacher |= {
            "path": Path(teacher["path"]).name,
            "sha256": fingerprints.get(teacher["sha256"], teacher["sha256"]),
        }
    return facts
