"""The result file of the nuScenes detection benchmark (`results_nusc.json`): written, and read with suspicion."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from dualdistill.errors import UserError
from dualdistill.evaluate.protocol import ATTRIBUTES, DETECTION_CVPR_2019
from dualdistill.evaluate.records import Detections, GlobalBoxes
from dualdistill.structures import CLASSES

Source = Literal["camera", "lidar", "radar", "map", "external"]
SOURCES: tuple[Source, ...] = ("camera", "lidar", "radar", "map", "external")
"""What a method may have used at inference; `external` is training data beyond nuScenes."""

_LENGTH_WIDTH_HEIGHT = [1, 0, 2]
"""The file says width, length, height; the same list leads back."""

_ATTRIBUTE_IDS = {"": -1} | {name: i for i, name in enumerate(ATTRIBUTES)}
_LABELS = {name: i for i, name in enumerate(CLASSES)}


class _Box(msgspec.Struct, gc=False):
    """One box as the file has it."""

    sample_token: str
    translation: tuple[float, float, float]
    size: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    velocity: tuple[float, float]
    detection_name: str
    detection_score: float
    attribute_name: str
    num_pts: int = -1


class _Boxes(msgspec.Struct, gc=False):
    """A file whose boxes are still text: they are decoded one sample at a time, to keep few of them in memory."""

    results: dict[str, msgspec.Raw]
    meta: dict[str, Any]


class _LooseBoxes(msgspec.Struct):
    """The same, decoded by the standard library, which knows NaN."""

    results: dict[str, Any]
    meta: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A result file that could be read."""

    path: Path
    sample_tokens: tuple[str, ...]
    """In the order of the file."""
    detections: Detections
    """In the order of the file; `sample` counts in `sample_tokens`."""
    meta: dict[str, Any]

    def for_samples(self, sample_tokens: Sequence[str], *, others: Literal["refuse", "ignore"]) -> Detections:
        """The detections with `sample` counting in `sample_tokens`.

        Args:
            others: What to do with samples of the file that are not among them.

        Raises:
            UserError: if one of them is missing in the file, or for others that are refused.
        """
        position = {token: i for i, token in enumerate(sample_tokens)}
        missing = position.keys() - set(self.sample_tokens)
        if missing:
            raise UserError(
                f"{self.path} has no entry for {len(missing)} of the {len(position)} evaluated samples, such as "
                f"{min(missing)}: every sample needs one, an empty list where nothing was detected"
            )
        foreign = [token for token in self.sample_tokens if token not in position]
        if foreign and others == "refuse":
            raise UserError(
                f"{self.path} holds {len(foreign)} samples that are not evaluated, such as {foreign[0]}: "
                f"choose the split it was made for, or leave them out"
            )
        renumbered = np.array([position.get(token, -1) for token in self.sample_tokens], dtype=np.int64)
        boxes = self.detections.boxes
        detections = replace(self.detections, boxes=replace(boxes, sample=renumbered[boxes.sample]))
        return detections.select(detections.boxes.sample >= 0)


def write_submission(
    path: Path,
    detections: Detections,
    sample_tokens: Sequence[str],
    *,
    sources: Sequence[Source] = ("camera",),
) -> None:
    """Write a result file with one entry for each of `sample_tokens`.

    Args:
        sources: What the method uses at inference (a distilled camera student: the camera alone).

    Raises:
        ValueError: for numbers that are not finite, and for more boxes of a sample than the benchmark takes.
    """
    boxes = detections.boxes
    for name, values in (("center", boxes.center), ("size", boxes.size), ("rotation", boxes.rotation)):
        _require_finite(name, values)
    _require_finite("velocity", boxes.velocity)
    _require_finite("score", detections.score)
    order = np.argsort(boxes.sample, kind="stable")
    counts = np.bincount(boxes.sample, minlength=len(sample_tokens))
    if len(counts) > len(sample_tokens):
        raise ValueError(f"detections of {len(counts)} samples, but only {len(sample_tokens)} sample tokens")
    if len(counts) and counts.max() > DETECTION_CVPR_2019.max_boxes:
        raise ValueError(
            f"at most {DETECTION_CVPR_2019.max_boxes} boxes a sample can be submitted, got {counts.max()}"
        )

    meta = {f"use_{source}": source in sources for source in SOURCES}
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:  # sample by sample: a whole file as objects would need gigabytes
        file.write(b'{"meta":' + encode(meta) + b',"results":{')
        for i, (token, rows) in enumerate(
            zip(sample_tokens, np.split(order, np.cumsum(counts)[:-1]), strict=True)
        ):
            file.write(
                (b"," if i else b"")
                + encode(token)
                + b":"
                + encode(_as_written(token, detections.select(rows)))
            )
        file.write(b"}}")


def _require_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"a submission needs finite numbers, got a {name} of {values[~np.isfinite(values)][0]}"
        )


def _as_written(token: str, detections: Detections) -> list[_Box]:
    boxes = detections.boxes
    columns = (boxes.center, boxes.size[:, _LENGTH_WIDTH_HEIGHT], boxes.rotation, boxes.velocity, boxes.label)
    rows = zip(
        *(column.tolist() for column in columns), boxes.attribute, detections.score.tolist(), strict=True
    )
    return [
        _Box(
            sample_token=token,
            translation=tuple(translation),
            size=tuple(size),
            rotation=tuple(rotation),
            velocity=tuple(velocity),
            detection_name=CLASSES[label],
            detection_score=score,
            attribute_name="" if attribute < 0 else ATTRIBUTES[attribute],
        )
        for translation, size, rotation, velocity, label, attribute, score in rows
    ]


def read_submission(path: Path) -> Submission:
    """Read a result file.

    Velocities may be NaN (the benchmark then leaves them out of the velocity error), nothing else.

    Raises:
        UserError: for whatever the devkit would refuse too, and for boxes without volume or filed under another
            sample; says which sample, and what to do.
    """
    results, meta, decode = _entries(path)
    parts = []
    for i, (token, entry) in enumerate(results.items()):
        try:
            boxes = decode(entry)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise UserError(
                f"{path}: the boxes of sample {token} are not of the benchmark's form: {error}"
            ) from error
        parts.append(_checked(path, token, i, boxes))
    return Submission(
        path=path, sample_tokens=tuple(results), detections=Detections.concatenate(parts), meta=dict(meta)
    )


def _entries(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any], Callable[[Any], list[_Box]]]:
    """The undecoded boxes by sample, the meta entry, and what decodes the boxes of a sample."""
    form = 'expected {"meta": {...}, "results": {sample token: [boxes]}}'
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the result file {path}: {error.strerror}") from error
    try:
        strict = msgspec.json.decode(text, type=_Boxes)
        return strict.results, strict.meta, msgspec.json.Decoder(list[_Box]).decode
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path} is not a result file of the detection benchmark ({error}): {form}"
        ) from error
    except msgspec.DecodeError:
        pass  # perhaps only for a NaN, which JSON does not know but everybody writes
    try:
        loose = msgspec.convert(json.loads(text), _LooseBoxes)
    except msgspec.ValidationError as error:
        raise UserError(
            f"{path} is not a result file of the detection benchmark ({error}): {form}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): {form}") from error
    return loose.results, loose.meta, lambda entry: msgspec.convert(entry, list[_Box])


def _checked(path: Path, token: str, sample: int, boxes: list[_Box]) -> Detections:
    """The boxes of one sample as columns.

    Raises:
        UserError: for boxes that cannot be evaluated.
    """

    def refuse(problem: str) -> UserError:
        return UserError(f"{path}: sample {token}: {problem}")

    if len(boxes) > DETECTION_CVPR_2019.max_boxes:
        raise refuse(
            f"{len(boxes)} boxes, but the benchmark takes {DETECTION_CVPR_2019.max_boxes}: keep the best ones"
        )
    for box in boxes:
        if box.sample_token != token:
            raise refuse(f"holds a box of sample {box.sample_token!r}: file it under its own sample")
        if box.detection_name not in _LABELS:
            raise refuse(f"unknown class {box.detection_name!r}: use one of {', '.join(CLASSES)}")
        if box.attribute_name not in _ATTRIBUTE_IDS:
            raise refuse(
                f'unknown attribute {box.attribute_name!r}: use one of {", ".join(ATTRIBUTES)}, or ""'
            )

    def floats(name: str, width: int) -> np.ndarray:
        values = chain.from_iterable(getattr(box, name) for box in boxes)
        return np.fromiter(values, np.float64, len(boxes) * width).reshape(-1, width)

    def integers(values: Sequence[int]) -> np.ndarray:
        return np.array(values, dtype=np.int64)

    score = np.array([box.detection_score for box in boxes], dtype=np.float64)
    center, size, rotation = floats("translation", 3), floats("size", 3), floats("rotation", 4)
    for name, values in (("translation", center), ("size", size), ("rotation", rotation), ("score", score)):
        bad = np.flatnonzero(~np.isfinite(values.reshape(len(boxes), -1)).all(axis=1)) if len(boxes) else ()
        if len(bad):
            raise refuse(
                f"the {name} of box {bad[0]} is {values[bad[0]].tolist()}: leave out what is not finite"
            )
    if not (size > 0).all():
        at = int(np.flatnonzero(~(size > 0).all(axis=1))[0])
        raise refuse(
            f"the size of box {at} is {size[at].tolist()}: width, length and height must be positive"
        )
    columns = GlobalBoxes(
        sample=np.full(len(boxes), sample, dtype=np.int64),
        label=integers([_LABELS[box.detection_name] for box in boxes]),
        center=center,
        size=size[:, _LENGTH_WIDTH_HEIGHT],
        rotation=rotation,
        velocity=floats("velocity", 2),
        attribute=integers([_ATTRIBUTE_IDS[box.attribute_name] for box in boxes]),
        num_points=integers([box.num_pts for box in boxes]),
    )
    return Detections(boxes=columns, score=score)
