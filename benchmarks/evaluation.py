"""Evaluation of a result file: reading, matching and scoring, beside the devkit or the published loops."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.references.devkit import NOTE, devkit_python, run_devkit
from benchmarks.references.evaluation import as_objects, loop_metrics
from dualdistill.evaluate.metrics import average_matches, detection_metrics, match_all
from dualdistill.evaluate.protocol import ATTRIBUTES, MAX_BOXES, REACH, TP_ERRORS, UNDEFINED_ERRORS
from dualdistill.evaluate.records import Detections, GlobalBoxes, GroundTruth
from dualdistill.evaluate.submission import read_submission, write_submission
from dualdistill.report.timing import Row, Variant, measure, relative_difference
from dualdistill.structures import CLASSES

SHARES = {
    **{"car": 0.42, "pedestrian": 0.22, "traffic_cone": 0.1, "barrier": 0.09, "truck": 0.08},
    **{"construction_vehicle": 0.02, "motorcycle": 0.02, "bicycle": 0.02, "bus": 0.015, "trailer": 0.015},
}
"""Share of each class, about as in nuScenes."""

FULL_VAL = 6019
"""Samples of the official validation split."""

ORIGIN = (1500.0, 800.0, 0.0)
"""Where the ego vehicle always is, metres."""


class World(NamedTuple):
    """Annotations and detections, all of which are evaluated."""

    truth: GroundTruth
    detections: Detections


def make_world(samples: int, *, objects: int = 30, detections: int = 250, seed: int = 0) -> World:
    """Samples with so many objects and detections on average, half of which lie near an object."""
    random = np.random.default_rng(seed)
    count = samples * objects

    def anywhere(label: np.ndarray) -> np.ndarray:
        radius = 0.9 * REACH[label] * np.sqrt(random.random(len(label)))
        angle = random.uniform(0, 2 * np.pi, len(label))
        flat = [radius * np.cos(angle), radius * np.sin(angle), random.normal(size=len(label))]
        return np.array(ORIGIN) + np.stack(flat, axis=1)

    label = random.choice(len(CLASSES), count, p=[SHARES[name] for name in CLASSES]).astype(np.int64)
    yaw = random.uniform(-np.pi, np.pi, count)
    there = GlobalBoxes(
        sample=np.sort(random.integers(samples, size=count)),
        label=label,
        center=anywhere(label),
        size=random.uniform(0.5, 5, (count, 3)),
        rotation=np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], axis=1),
        velocity=random.normal(size=(count, 2)),
        attribute=random.integers(len(ATTRIBUTES), size=count),
        num_points=np.ones(count, np.int64),
    )
    source = np.sort(random.integers(count, size=samples * detections)) if count else np.zeros(0, np.int64)
    found = there.select(source)
    near = random.random(len(found)) < 0.5
    center = np.where(near[:, None], found.center + 0.8 * random.normal(size=found.center.shape), anywhere(found.label))
    inside = np.linalg.norm(center[:, :2] - np.array(ORIGIN)[:2], axis=1) < REACH[found.label]
    found = replace(
        found,
        center=center,
        size=found.size * np.exp(0.1 * random.normal(size=found.size.shape)),
        velocity=found.velocity + 0.5 * random.normal(size=found.velocity.shape),
        num_points=np.full(len(found), -1),
    )
    score = random.random(len(found), dtype=np.float32).astype(np.float64)
    reported = Detections.of(found, score).select(inside)
    number_in_sample = np.arange(len(reported)) - np.searchsorted(reported.sample, reported.sample)
    truth = GroundTruth(
        sample_tokens=tuple(f"{i:032x}" for i in range(samples)),
        ego_position=np.tile(ORIGIN, (samples, 1)),
        scene=np.arange(samples) // 40,
        boxes=there,
        racks=GlobalBoxes.empty(),
    )
    return World(truth=truth, detections=reported.select(number_in_sample < MAX_BOXES))


def run(quick: bool) -> list[Row]:
    """At full size, that of the official validation split: several minutes, nearly all of them the reference's."""
    return evaluation_rows(make_world(60 if quick else FULL_VAL), repeats=5)


def evaluation_rows(world: World, *, repeats: int) -> list[Row]:
    """Scoring, reading, and both together. The reference runs once: it needs no warming up."""
    truth, detections = world.truth, world.detections
    setting = f"{len(truth.sample_tokens)} samples, {len(truth.boxes)} objects, {len(detections)} detections"
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results_nusc.json"
        write_submission(results, detections, truth.sample_tokens)
        size = f"{results.stat().st_size / 1e6:.0f} MB"
        arrays = Variant(name="on arrays", run=lambda: _scores(truth.boxes, detections))
        columns = Variant(name="typed records to columns", run=lambda: len(read_submission(results).detections))
        both = Variant(name="dualdistill", run=lambda: _from_file(results, truth))
        ours = measure(f"evaluation: accumulate and score ({setting})", [arrays], repeats=repeats)
        reading = measure(f"evaluation: read the result file ({size})", [columns], repeats=max(1, repeats // 3))
        whole = measure(f"evaluation: from file to metrics ({size})", [both], repeats=1)
        python = devkit_python()
        theirs = _devkit(python, world, results) if python else _loops(world)
    scored = _scores(truth.boxes, detections)
    difference = relative_difference(theirs["scores"], scored)
    name = "nuscenes-devkit 1.2.0" if python else f"published loops ({NOTE})"
    rows = _beside(name, theirs["scoring"], ours, theirs.get("peak_mib"), difference)
    return [*rows, *(_beside(name, theirs["loading"], reading) if python else reading), *whole]


def _beside(
    name: str, seconds: float, ours: list[Row], peak: float | None = None, difference: float | None = None
) -> list[Row]:
    reference = Row(setting=ours[0].setting, name=name, milliseconds=1e3 * seconds, ratio=1.0, peak_mib=peak)
    return [reference, *(replace(row, ratio=1e3 * seconds / row.milliseconds, difference=difference) for row in ours)]


def _scores(objects: GlobalBoxes, detections: Detections) -> dict[str, np.ndarray]:
    metrics = average_matches(match_all(objects, detections))
    return {"ap": metrics.ap, "error": metrics.error}


def _from_file(path: Path, truth: GroundTruth) -> float:
    return detection_metrics(truth, read_submission(path).for_samples(truth.sample_tokens, others="refuse")).nd_score


def _loops(world: World) -> dict[str, Any]:
    objects = as_objects(world.truth.boxes)
    detections = as_objects(world.detections, world.detections.score)
    began = time.perf_counter()
    scores = loop_metrics(objects, detections)
    return {"scoring": time.perf_counter() - began, "scores": scores}


def _devkit(python: str, world: World, results: Path) -> dict[str, Any]:
    """Seconds and scores of the devkit, in our class order."""
    boxes, tokens = world.truth.boxes, np.array(world.truth.sample_tokens)
    arrays = results.with_name("objects.npz")
    np.savez(
        arrays,
        tokens=tokens,
        sample_token=tokens[boxes.sample],
        translation=boxes.center,
        size=boxes.size[:, [1, 0, 2]],
        rotation=boxes.rotation,
        velocity=boxes.velocity,
        detection_name=np.array(CLASSES)[boxes.label],
        attribute_name=np.array(ATTRIBUTES)[boxes.attribute],
    )
    measured = run_devkit(python, "devkit_evaluation.py", str(arrays), str(results))
    error = np.array([measured["error"][name] for name in CLASSES], dtype=np.float64)
    for name, undefined in UNDEFINED_ERRORS.items():  # the devkit leaves these out when it averages
        error[CLASSES.index(name), [TP_ERRORS.index(metric) for metric in undefined]] = np.nan
    measured["scores"] = {"ap": np.array([measured["ap"][name] for name in CLASSES]), "error": error}
    return measured
