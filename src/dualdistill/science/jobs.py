"""What has to be trained for a study: jobs, and what each learns from."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Role
from dualdistill.experiment.plain import to_plain
from dualdistill.science.record import experiment_identity, fingerprint_of, read_result, result_name, what_differs
from dualdistill.science.study import Start, Study, needed_recipes
from dualdistill.synthetic.write import GENERATOR_VERSION


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run: trained, evaluated and recorded by a process of its own."""

    study: str
    row: str
    recipe: str
    overrides: list[str]
    seed: int
    role: Role
    identity: dict[str, Any]
    data: str
    """Root of the world."""
    folder: str
    """Of the run, its log and its clock."""
    result: str
    """The file to write."""
    learns_from: dict[str, str]
    """Folder of the job behind each recipe whose weights this one takes."""
    starts_from: dict[str, str]
    """Recipe and folder of the student whose weights this one starts from; empty for random weights."""
    start: Start
    """The setting that takes them."""
    teacher_cache: str | None
    """Where the answers of the teacher are kept, for all jobs it teaches; None for a job without one."""
    compared_with: dict[str, str]
    """Folder of the job of each teacher that the student's features are compared with."""
    bands: list[float]
    replicates: int

    @property
    def name(self) -> str:
        return f"{self.row} seed {self.seed}"

    @property
    def waits_for(self) -> set[str]:
        """Folders of the jobs that must be done before."""
        return {*self.learns_from.values(), *self.starts_from.values(), *self.compared_with.values()}

    @property
    def run(self) -> Path | None:
        """The run folder, if training has begun."""
        found = [
            path.parent
            for path in sorted(Path(self.folder).glob(f"{self.recipe}/*/experiment.json"))
            if not path.parent.is_symlink()
        ]
        return found[-1] if found else None

    @property
    def trained(self) -> bool:
        """Whether the weights are there."""
        return self.run is not None and (self.run / "finished.json").is_file()

    @property
    def recorded(self) -> bool:
        """Whether the result is there, and is this job's.

        Raises:
            UserError: if a result of that name is another job's, with what differs.
        """
        path = Path(self.result)
        if not path.is_file():
            return False
        different = what_differs(read_result(path).identity, self.identity)
        if different:
            shown = "\n  ".join(different[:8]) + (f"\n  … and {len(different) - 8} more" if different[8:] else "")
            raise UserError(
                f"{path} was made by other settings than those of the study {self.study!r} now:\n  {shown}\n"
                "Delete the file to run it anew, or keep both: --results FOLDER."
            )
        return True


def needed_run(recipe: str, folder: Path) -> Path:
    """The finished run of another job."""
    runs = [path.parent for path in sorted(folder.glob(f"{recipe}/*/finished.json")) if not path.parent.is_symlink()]
    if not runs:
        raise UserError(f"{folder} has no finished run of {recipe}, which this one needs: run the study again.")
    return runs[-1]


def write_job(path: Path, job: Job) -> None:
    path.write_text(json.dumps(dataclasses.asdict(job), indent=1) + "\n")


def read_job(path: Path) -> Job:
    return msgspec.json.decode(path.read_bytes(), type=Job)


def all_jobs(study: Study, *, data: Path, out: Path, results: Path, seeds: Iterable[int]) -> list[Job]:
    """Every job of a study in the order they are worth having: who teaches first, then table by table, seed by seed."""
    maker = _Maker(study=study, data=data, out=out, results=results)
    seeds = list(seeds)
    for row in study.rows().values():
        maker.add_needs(row.recipe, row.sets)
    for table in study.tables:
        for seed in seeds:
            for row in table.rows:
                maker.add(row.key, row.recipe, row.sets, seed)
    return list(maker.jobs.values())


class _Maker:
    """Collects jobs, each once, what they need before them."""

    def __init__(self, *, study: Study, data: Path, out: Path, results: Path):
        self.study, self.data, self.out, self.results = study, data, out, results
        self.jobs: dict[tuple[str, int], Job] = {}
        plain = {"generator": GENERATOR_VERSION, **dataclasses.asdict(study.world)}
        self.world = json.loads(json.dumps(plain))  # as a file gives it back

    def add_needs(self, recipe: str, sets: tuple[str, ...]) -> dict[str, Job]:
        """Jobs of the recipes that this one learns from, theirs before them."""
        experiment, _ = self.study.experiment(recipe, sets)
        return {
            needed: self.add(needed.rpartition("/")[2], needed, (), self.study.teacher_seed)
            for needed in needed_recipes(experiment)
        }

    def add(self, key: str, recipe: str, sets: tuple[str, ...], seed: int) -> Job:
        if (key, seed) in self.jobs:
            return self.jobs[key, seed]
        experiment, overrides = self.study.experiment(recipe, sets)
        needs = self.add_needs(recipe, sets)
        start = self._pretraining() if experiment.role == "student" and not self._is_pretraining(key) else None
        identity: dict[str, Any] = {
            "recipe": recipe,
            "seed": seed,
            "experiment": experiment_identity(to_plain(experiment)),
            "world": self.world,
            "needs": {needed: job.identity for needed, job in needs.items()},
        }
        if start is not None:
            identity |= {"starts_from": start.identity, "start": self.study.start}
        folder = self.out / f"{key}-seed{seed}-{fingerprint_of(identity)[:10]}"
        job = Job(
            study=self.study.name,
            row=key,
            recipe=recipe,
            overrides=overrides,
            seed=seed,
            role=experiment.role,
            identity=identity,
            data=str(self.data),
            folder=str(folder),
            result=str(self.results / result_name(key, seed)),
            learns_from={needed: job.folder for needed, job in needs.items()},
            starts_from={start.recipe: start.folder} if start is not None else {},
            start=self.study.start,
            teacher_cache=str(self.out / "teacher-cache") if experiment.distiller is not None else None,
            compared_with={} if experiment.role != "student" or self._is_pretraining(key) else self._teachers(needs),
            bands=list(self.study.bands),
            replicates=self.study.replicates,
        )
        self.jobs[key, seed] = job
        return job

    def _is_pretraining(self, key: str) -> bool:
        return self.study.pretraining is not None and key == self.study.pretraining.key

    def _pretraining(self) -> Job | None:
        row = self.study.pretraining
        return self.add(row.key, row.recipe, row.sets, self.study.teacher_seed) if row is not None else None

    def _teachers(self, needs: dict[str, Job]) -> dict[str, str]:
        """A student's own teacher; all of the study for one that has none."""
        own = {recipe: job.folder for recipe, job in needs.items() if job.role == "teacher"}
        return own or {job.recipe: job.folder for job in self.jobs.values() if job.role == "teacher"}
