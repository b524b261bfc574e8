"""The result file of the nuScenes detection benchmark (`results_nusc.json`), written and read."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec
import numpy as np

from dualdistill.errors import UserError
from dualdistill.evaluate.protocol import ATTRIBUTES, MAX_BOXES
from dualdistill.evaluate.records import Detections
from dualdistill.files import draft, read_bytes
from dualdistill.structures import CLASSES

Source = Literal["camera", "lidar", "radar", "map", "external"]
SOURCES: tuple[Source, ...] = ("camera", "lidar", "radar", "map", "external")
"""Modalities of a method at inference; `external` is training data beyond nuScenes."""

_LENGTH_WIDTH_HEIGHT = [1, 0, 2]
"""Permutation between the file's width, length, height and length, width, height; it is its own inverse."""

_ATTRIBUTE_IDS = {"": -1} | {name: i for i, name in enumerate(ATTRIBUTES)}
_LABELS = {name: i for i, name in enumerate(CLASSES)}

Entry = TypeVar("Entry")


class _Box(msgspec.Struct, gc=False):
    """One box with the fields of the file."""

    sample_token: str
    translation: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    velocity: tuple[float, float]
    detection_name: str
    detection_score: float
    attribute_name: str
    num_pts: int = -1


class _Boxes(msgspec.Struct, Generic[Entry], gc=False):
    """A file whose boxes are decoded one sample at a time, to save memory: each entry is still JSON (`msgspec.Raw`), or
    what the standard library made of it, which accepts NaN."""

    results: dict[str, Entry]
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A valid result file."""

    path: Path
    sample_tokens: tuple[str, ...]
    """Tokens in the order of the file."""
    detections: Detections
    """Detections in the order of the file; `sample` counts in `sample_tokens`."""
    meta: dict[str, Any]

    def for_samples(self, sample_tokens: Sequence[str], *, others: Literal["refuse", "ignore"]) -> Detections:
        """The detections with `sample` counting in `sample_tokens`. `others`: whether other samples of the file are an
        error or are ignored. Raises UserError for samples without an entry in the file, and for refused others."""
        position = {token: i for i, token in enumerate(sample_tokens)}
        missing = position.keys() - set(self.sample_tokens)
        if missing:
            raise UserError(
                f"{self.path} has no entry for {len(missing)} of the {len(position)} evaluated samples, such"
                f" as {min(missing)}: every sample needs one, an empty list where nothing was detected"
            )
        foreign = [token for token in self.sample_tokens if token not in position]
        if foreign and others == "refuse":
            raise UserError(
                f"{self.path} holds {len(foreign)} samples that are not evaluated, such as {foreign[0]}:"
                f" choose the split it was made for, or leave them out"
            )
        renumbered = np.array([position.get(token, -1) for token in self.sample_tokens], dtype=np.int64)
        detections = replace(self.detections, sample=renumbered[self.detections.sample])
        return detections.select(detections.sample >= 0)


def write_submission(
    path: Path, detections: Detections, sample_tokens: Sequence[str], *, sources: Sequence[Source] = ("camera",)
) -> None:
    """Write a result file with one entry for each of `sample_tokens`. Raises ValueError for numbers that are not
    finite, and for more boxes per sample than the benchmark allows.

    Args:
        detections: `sample` counts in `sample_tokens`.
        sources: Modalities at inference (only the camera for a distilled camera student).
    """
    _require_finite(detections)
    sample = detections.sample
    order = np.argsort(sample, kind="stable")
    counts = np.bincount(sample, minlength=len(sample_tokens))
    if len(counts) > len(sample_tokens):
        raise ValueError(f"expected detections of {len(sample_tokens)} samples, got some of sample {sample.max()}")
    if counts.max(initial=0) > MAX_BOXES:
        raise ValueError(f"expected at most {MAX_BOXES} boxes a sample, got {counts.max()}")

    meta = {f"use_{source}": source in sources for source in SOURCES}
    encode = msgspec.json.Encoder().encode
    # Sample by sample: a whole file as objects would need gigabytes.
    with draft(path) as temporary, temporary.open("wb") as file:
        file.write(b'{"meta":' + encode(meta) + b',"results":{')
        for i, (token, end) in enumerate(zip(sample_tokens, np.cumsum(counts), strict=True)):
            boxes = _as_written(token, detections.select(order[end - counts[i] : end]))
            file.write((b"," if i else b"") + encode(token) + b":" + encode(boxes))
        file.write(b"}}")


def _require_finite(detections: Detections) -> None:
    for name in ("center", "size", "rotation", "velocity", "score"):
        values = getattr(detections, name)
        if not np.isfinite(values).all():
            bad = values[~np.isfinite(values)][0]
            raise ValueError(f"a submission needs finite numbers, got {bad} in a {name}")


def _as_written(token: str, boxes: Detections) -> list[_Box]:
    numbers = (boxes.center, boxes.size[:, _LENGTH_WIDTH_HEIGHT], boxes.rotation, boxes.velocity)
    columns = (*numbers, boxes.label, boxes.attribute, boxes.score)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        _Box(token, center, size, rotation, velocity, CLASSES[label], score, ATTRIBUTES[which] if which >= 0 else "")
        for center, size, rotation, velocity, label, which, score in rows
    ]


def read_submission(path: Path) -> Submission:
    """Read a result file.

    Only velocities may be NaN, not infinite (the benchmark leaves them out of the velocity error). Raises UserError for
    everything that the devkit rejects, and for boxes without volume or in the entry of another sample; the message
    names the sample and the remedy.
    """
    results, meta, decode = _entries(path)
    parts = [_sample(path, i, token, entry, decode) for i, (token, entry) in enumerate(results.items())]
    return Submission(path=path, sample_tokens=tuple(results), detections=Detections.concatenate(parts), meta=meta)


def _entries(path: Path) -> tuple[dict[str, Any], dict[str, Any], Callable[[Any], list[_Box]]]:
    """The undecoded boxes by sample, the meta entry, and a decoder for the boxes of one sample."""
    form = 'a result file is {"meta": {...}, "results": {sample token: [boxes]}}'
    text = read_bytes(path)
    try:
        try:
            strict = msgspec.json.decode(text, type=_Boxes[msgspec.Raw])
            return strict.results, strict.meta, msgspec.json.Decoder(list[_Box]).decode
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # perhaps because of a NaN, which is not JSON but is written by many libraries
            loose = msgspec.convert(json.loads(text), _Boxes[Any])
            return loose.results, loose.meta, lambda entry: msgspec.convert(entry, list[_Box])
    except msgspec.ValidationError as error:
        raise UserError(f"{path} cannot be evaluated ({error}): {form}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}): {form}") from error


def _sample(path: Path, i: int, token: str, entry: Any, decode: Callable[[Any], list[_Box]]) -> Detections:
    """The boxes of the `i`-th sample of a file; a UserError for those that cannot be evaluated."""
    try:
        boxes = decode(entry)
    except (msgspec.DecodeError, ValueError) as error:  # of the wrong form, or text that is not UTF-8
        form = ", ".join(_Box.__struct_fields__)
        raise UserError(f"{path}: sample {token}: {error}: a box is made of {form}") from error
    if problem := _problem_with_names(token, boxes):
        raise UserError(f"{path}: sample {token}: {problem}")

    def floats(name: str, width: int) -> np.ndarray:
        values = chain.from_iterable(getattr(box, name) for box in boxes)
        return np.fromiter(values, np.float64, len(boxes) * width).reshape(-1, width)

    def integers(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    detections = Detections(
        sample=np.full(len(boxes), i),
        label=integers([_LABELS[box.detection_name] for box in boxes]),
        center=floats("translation", 3),
        size=floats("size", 3)[:, _LENGTH_WIDTH_HEIGHT],
        rotation=floats("rotation", 4),
        velocity=floats("velocity", 2),
        attribute=integers([_ATTRIBUTE_IDS[box.attribute_name] for box in boxes]),
        num_points=integers([box.num_pts for box in boxes]),
        score=np.array([box.detection_score for box in boxes], dtype=np.float64),
    )
    if problem := _problem_with_numbers(detections):
        raise UserError(f"{path}: sample {token}: {problem}")
    return detections


def _problem_with_names(token: str, boxes: list[_Box]) -> str | None:
    """The first problem with the number, sample, class or attribute of one sample's boxes, and its remedy."""
    if len(boxes) > MAX_BOXES:
        return f"{len(boxes)} boxes: keep the best {MAX_BOXES}, the benchmark's limit"
    if foreign := {box.sample_token for box in boxes} - {token}:
        return f"has a box of sample {min(foreign)!r}: move it to the entry of that sample"
    if unknown := {box.detection_name for box in boxes} - _LABELS.keys():
        return f"unknown class {min(unknown)!r}: use one of {', '.join(CLASSES)}"
    if unknown := {box.attribute_name for box in boxes} - _ATTRIBUTE_IDS.keys():
        return f'unknown attribute {min(unknown)!r}: use "" or one of {", ".join(ATTRIBUTES)}'
    return None


def _problem_with_numbers(boxes: Detections) -> str | None:
    """The first problem with the numbers of one sample's boxes, and its remedy."""
    numbers = np.concatenate([boxes.center, boxes.size, boxes.rotation, boxes.score[:, None]], axis=1)
    problems = {
        "a number that is not finite: leave such boxes out": ~np.isfinite(numbers),
        "an infinite velocity: give a finite one, or NaN where it is unknown": np.isinf(boxes.velocity),
        "no volume: width, length and height must be positive": boxes.size <= 0,
    }
    return next((f"box {np.argwhere(bad)[0, 0]} has {what}" for what, bad in problems.items() if bad.any()), None)
