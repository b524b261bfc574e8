"""Results of runs that never were, written by the real writer: what pages and tables are made of."""

import dataclasses
from pathlib import Path

import numpy as np

from dualdistill.experiment.plain import to_plain
from dualdistill.science.record import (
    Band,
    DepthError,
    Result,
    Scores,
    TaughtBy,
    experiment_identity,
    fingerprint_of,
    write_result,
)
from dualdistill.science.study import Row, Study, StudyTable
from dualdistill.structures import CLASSES
from dualdistill.synthetic import TINY

TEACHER = "synthetic/teacher-centerpoint"
TINY_STUDY = Study(
    name="made-up",
    summary="for tests",
    world=TINY,
    tables=(
        StudyTable(
            key="methods",
            title="Methods",
            rows=(
                Row(recipe="synthetic/student", name="no distillation"),
                Row(recipe="synthetic/distillbev-centerpoint", name="DistillBEV"),
                Row(recipe="synthetic/dualdistill-centerpoint", name="DualDistill"),
            ),
        ),
    ),
)


def made_up_result(row: str, seed: int, mean_ap: float, **changes: object) -> Result:
    """A run that scored `mean_ap`; NDS is half as much more."""
    recipe = f"synthetic/{row}"
    role = "teacher" if row.startswith("teacher") else "student"
    experiment, _ = TINY_STUDY.experiment(recipe)
    identity = {
        "recipe": recipe,
        "seed": seed,
        "experiment": experiment_identity(to_plain(experiment)),
        "world": {"generator": 1, **dataclasses.asdict(TINY)},
        "needs": {},
    }
    distilled = role == "student" and row != "student"
    noise = np.random.default_rng(0).normal(scale=0.01, size=20)
    values: dict[str, object] = {
        "study": TINY_STUDY.name,
        "row": row,
        "recipe": recipe,
        "seed": seed,
        "role": role,
        "identity": identity,
        "fingerprint": fingerprint_of(identity),
        "scores": Scores(
            mean_ap=mean_ap,
            nd_score=1.5 * mean_ap,
            tp_errors={"trans_err": 0.5, "scale_err": 0.3, "orient_err": None, "vel_err": 1.0, "attr_err": 0.2},
            class_ap=dict.fromkeys(CLASSES, mean_ap),
            bands=[
                Band(low=0.0, high=15.0, mean_ap=mean_ap, class_ap={"car": mean_ap}, objects={"car": 3}),
                Band(low=15.0, high=25.0, mean_ap=None, class_ap={}, objects={}),
            ],
            replicates_mean_ap=(mean_ap + noise).tolist(),
            replicates_nd_score=(1.5 * mean_ap + noise).tolist(),
        ),
        "steps": 10,
        "samples": 20,
        "parameters": 1000,
        "cpu_seconds": 60.0,
        "wall_seconds": 61.0,
        "version": "0",
        "commit": "abc",
        "cpu": "a CPU",
        "teacher": TaughtBy(recipe=TEACHER, sha256="0" * 64) if distilled else None,
        "depth": DepthError(cells=5, mean_absolute=2.0, mean_relative=0.2, bands={"0-10": 2.0}),
        "similarity": {TEACHER: {"objects": 0.6 if distilled else 0.3, "all": 0.5}} if role == "student" else {},
    }
    return Result(**values | changes)


def write_made_up(folder: Path, scores: dict[str, list[float]]) -> None:
    """One file for each row and seed, in a folder of results; with a teacher."""
    for row, values in scores.items():
        for seed, mean_ap in enumerate(values):
            result = made_up_result(row, seed, mean_ap)
            write_result(folder / result.file_name, result)
    teacher = made_up_result("teacher-centerpoint", 0, 0.6)
    write_result(folder / teacher.file_name, teacher)
