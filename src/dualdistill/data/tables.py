"""Schema of the 13 tables of nuScenes v1.0, for reading and for writing.

Source: https://www.nuscenes.org/nuscenes#data-format and schema_nuscenes.md of nuscenes-devkit. Lengths are metres,
times microseconds, rotations quaternions (w, x, y, z). Fields with a default may be absent from a table.
"""

import re
from pathlib import Path
from typing import Annotated

import msgspec

from dualdistill.errors import UserError

Token = Annotated[str, msgspec.Meta(description="name of a record, here or in another table")]
Integer = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


class Record(msgspec.Struct, kw_only=True, gc=False):
    """One entry of a table. Other records refer to it by its token, which is unique within the table."""

    token: Token

    @classmethod
    def table(cls) -> str:
        """Name of the table, such as `sample_data` for `SampleData`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__).lower()


class Attribute(Record, kw_only=True):
    name: str
    description: str = ""


class CalibratedSensor(Record, kw_only=True):
    """A sensor mounted on one car."""

    sensor_token: Token
    translation: Vector
    """Position of the sensor in the ego frame."""
    rotation: Quaternion
    """Ego from sensor."""
    camera_intrinsic: list[list[float]]
    """3x3, pixels of the stored image; empty unless the sensor is a camera."""


class Category(Record, kw_only=True):
    name: str
    description: str = ""


class EgoPose(Record, kw_only=True):
    timestamp: Integer = 0
    translation: Vector
    """Position of the ego frame in the global frame."""
    rotation: Quaternion
    """Global from ego."""


class Instance(Record, kw_only=True):
    """One object of one scene."""

    category_token: Token
    nbr_annotations: Integer = 0
    first_annotation_token: Token = ""
    last_annotation_token: Token = ""


class Log(Record, kw_only=True):
    logfile: str = ""
    vehicle: str = ""
    date_captured: str = ""
    location: str = ""


class Map(Record, kw_only=True):
    category: str = ""
    filename: str = ""
    log_tokens: list[Token] = []


class Sample(Record, kw_only=True):
    """A key frame: one moment at which all sensors were annotated."""

    timestamp: Integer
    prev: Token
    """The sample before it in its scene; empty at the start."""
    next: Token
    scene_token: Token


class SampleAnnotation(Record, kw_only=True):
    """The box of one instance in one sample, in the global frame."""

    sample_token: Token
    instance_token: Token
    visibility_token: Token
    attribute_tokens: list[Token]
    translation: Vector
    """Gravity centre."""
    rotation: Quaternion
    """Global from box (x forward, y left, z up)."""
    size: Vector
    """Width, length, height."""
    prev: Token
    """The instance's box in the sample before; empty if it has none."""
    next: Token
    num_lidar_pts: Integer
    num_radar_pts: Integer


class SampleData(Record, kw_only=True):
    """One file of one sensor."""

    sample_token: Token
    """The key frame that it belongs to, or leads to."""
    ego_pose_token: Token
    calibrated_sensor_token: Token
    timestamp: Integer
    fileformat: str = ""
    is_key_frame: bool
    height: Integer | None = None
    """Pixels of an image; 0 or null for other sensors."""
    width: Integer | None = None
    filename: str
    """Relative to the root."""
    prev: Token
    """The record before it of the same sensor; empty at the start."""
    next: Token


class Scene(Record, kw_only=True):
    log_token: Token = ""
    nbr_samples: Integer = 0
    first_sample_token: Token = ""
    last_sample_token: Token = ""
    name: str
    description: str = ""


class Sensor(Record, kw_only=True):
    channel: str
    modality: str = ""


class Visibility(Record, kw_only=True):
    """How much of an object the cameras see, in four levels."""

    level: str
    description: str = ""


TABLES = {record.table(): record for record in Record.__subclasses__()}
"""Record type of each table (`<table>.json`) of a version folder."""

ANNOTATION_TABLES = ("instance", "sample_annotation")
"""Tables that a test split may lack."""


def find_version(root: Path, version: str | None) -> str:
    """Name of the version folder of a root: the given one, or the only one there is.

    Raises:
        UserError: if the root or the version is missing, or several are there and none was named.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected a nuScenes root (with samples/ and v1.0-*/)")
    found = sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())
    if version is not None:
        if version not in found:
            raise UserError(f"{root} has no version {version!r}; found: {', '.join(found) or 'none'}")
        return version
    if not found:
        raise UserError(f"{root} has no v1.0-* folder: it is no nuScenes root, or its metadata was not unpacked there")
    if len(found) > 1:
        raise UserError(f"{root} has several versions ({', '.join(found)}): name one with --version")
    return found[0]


def require_tables(folder: Path) -> None:
    """Check that the version folder holds every table (a test version may lack the annotation tables).

    Raises:
        UserError: naming those missing.
    """
    optional = ANNOTATION_TABLES if folder.name.endswith("test") else ()
    missing = [name for name in TABLES if name not in optional and not (folder / f"{name}.json").is_file()]
    if missing:
        files = ", ".join(f"{name}.json" for name in missing)
        raise UserError(f"{folder} lacks {files}: unpack the metadata archive of this version again")
