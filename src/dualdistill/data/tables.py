"""The 13 JSON tables of a nuScenes root, decoded into typed records, with every complaint in words."""

import json
import math
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from jaxtyping import Bool, Shaped

from dualdistill.errors import UserError

TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
"""Every table of a nuScenes v1.0 version folder (`<table>.json`)."""

ANNOTATION_TABLES = ("instance", "sample_annotation")
"""Those a test split may lack."""

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Named(msgspec.Struct, gc=False):
    """A record of `category`, `attribute` or `scene`."""

    token: str
    name: str


class Visibility(msgspec.Struct, gc=False):
    token: str
    level: str


class Sensor(msgspec.Struct, gc=False):
    token: str
    channel: str


class Sample(msgspec.Struct, gc=False):
    token: str
    timestamp: int
    prev: str
    next: str
    scene_token: str


class CalibratedSensor(msgspec.Struct):
    token: str
    sensor_token: str
    translation: Vector
    rotation: Quaternion
    camera_intrinsic: list[list[float]]


class EgoPose(msgspec.Struct, gc=False):
    token: str
    translation: Vector
    rotation: Quaternion


class SampleData(msgspec.Struct, gc=False):
    token: str
    sample_token: str
    ego_pose_token: str
    calibrated_sensor_token: str
    timestamp: int
    is_key_frame: bool
    filename: str
    prev: str
    next: str
    height: int | None = None
    width: int | None = None


class Instance(msgspec.Struct, gc=False):
    token: str
    category_token: str


class Annotation(msgspec.Struct, gc=False):
    token: str
    sample_token: str
    instance_token: str
    visibility_token: str
    attribute_tokens: list[str]
    translation: Vector
    size: Vector
    """Width, length, height: the order of nuScenes."""
    rotation: Quaternion
    prev: str
    next: str
    num_lidar_pts: int
    num_radar_pts: int


Record = TypeVar("Record", bound=msgspec.Struct)

Kind = Literal["text", "first text", "integer", "truth", "vector", "quaternion"]
"""What a field is as a column: texts (bytes, UTF-8); of lists of texts the first, or nothing; int64 (0 for null);
bool; float64 with a row of three or four for each record."""

_KINDS: dict[Any, Kind] = {
    str: "text",
    list[str]: "first text",
    int: "integer",
    int | None: "integer",
    bool: "truth",
    Vector: "vector",
    Quaternion: "quaternion",
}


def kinds_of(record: type[msgspec.Struct]) -> dict[str, Kind]:
    """What each field of a record is as a column.

    Raises:
        KeyError: for a record with a field that is no column.
    """
    return {field.name: _KINDS[field.type] for field in msgspec.structs.fields(record)}


def find_version(root: Path, version: str | None) -> str:
    """Name of the version folder of a root: the given one, or the only one there is.

    Raises:
        UserError: if the root or the version is missing, or several are there and none was named.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected a nuScenes root (with samples/ and v1.0-*/)")
    found = sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())
    if version is not None:
        if not (root / version).is_dir():
            raise UserError(f"{root} has no version {version!r}; found: {', '.join(found) or 'none'}")
        return version
    if not found:
        raise UserError(f"{root} has no v1.0-* folder: it is no nuScenes root, or its metadata was not unpacked there")
    if len(found) > 1:
        raise UserError(f"{root} has several versions ({', '.join(found)}): name one with --version")
    return found[0]


def require_tables(folder: Path) -> None:
    """See that the version folder holds every table (a test version may lack the annotation tables).

    Raises:
        UserError: naming those missing.
    """
    optional = ANNOTATION_TABLES if folder.name.endswith("test") else ()
    missing = [name for name in TABLES if name not in optional and not (folder / f"{name}.json").is_file()]
    if missing:
        files = ", ".join(f"{name}.json" for name in missing)
        raise UserError(f"{folder} lacks {files}: unpack the metadata archive of this version again")


def read_table(folder: Path, name: str, record: type[Record]) -> list[Record]:
    """All records of one table; none where an optional table is absent.

    Raises:
        UserError: for a table that is cut off, malformed, or holds a NaN, with the record it is in.
    """
    path = folder / f"{name}.json"
    if name in ANNOTATION_TABLES and not path.is_file():
        return []
    content = path.read_bytes()
    try:
        return msgspec.json.decode(content, type=list[record])  # type: ignore[valid-type]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {_explain(content, error)}") from error


def _explain(content: bytes, error: Exception) -> str:
    """What is wrong with a table that would not decode, and what to do."""
    remedy = "unpack the metadata archive of this version again"
    if isinstance(error, msgspec.ValidationError):
        return f"a record is not as nuScenes v1.0 has it ({error}); {remedy}"
    try:
        records = json.loads(content)
    except ValueError as unreadable:
        return f"cut off or not JSON ({unreadable}); {remedy}"
    for position, entry in enumerate(records):
        for field, value in entry.items():
            if not _is_finite(value):
                return (
                    f"record {position} (token {entry.get('token')!r}) has {field} = {value}; "
                    "expected finite numbers: correct or remove the record"
                )
    return f"not JSON as nuScenes writes it ({error}); {remedy}"


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def require_all(
    good: Bool[np.ndarray, "records"], folder: Path, name: str, tokens: Shaped[np.ndarray, "records"], what: str
) -> None:
    """See that every record of a table is good.

    Args:
        tokens: Of the records, as bytes.

    Raises:
        UserError: naming the first that is not, which has `what`.
    """
    if not good.all():
        token = tokens[int(np.flatnonzero(~good)[0])].decode()
        path = folder / f"{name}.json"
        raise UserError(f"{path}: record {token!r} has {what}; correct or remove the record")
