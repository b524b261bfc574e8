"""Schema of the 13 tables of nuScenes v1.0, and their writer, for data of one's own too.

Source: https://www.nuscenes.org/nuscenes#data-format and schema_nuscenes.md of nuscenes-devkit. Lengths are metres,
times microseconds, rotations quaternions (w, x, y, z). Fields with a default may be absent from a table.

A root that this package can read needs, beside the sensor files, at least these records:

- one `Scene` for each drive, and one `Sample` for each of its annotated moments (key frames);
- one `Sensor` for each channel: the six `structures.CAMERAS` and `LIDAR_TOP`; and one `CalibratedSensor` for each
  mounting of it on a car;
- one `SampleData` for each file (`*.jpg` or `*.png`; LiDAR as float32 x, y, z, intensity, ring), and the `EgoPose` of
  its moment. Those of one sensor and scene are linked, oldest first, by `prev` and `next`; so are samples of a scene;
- one `Instance` for each object, and one `SampleAnnotation` for each sample that shows it, linked as well;
- every `Category`, `Attribute` and `Visibility` that these refer to.

`NuscenesIndex.open` checks all of it, and names the record where something is wrong.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TypedDict

import msgspec

from dualdistill.errors import UserError
from dualdistill.files import writing

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
    """Name of a version folder of a root, with all its tables: the given one, or the only one there is.

    Raises:
        UserError: if the root, the version or a table is missing, or several versions are there and none was named.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; expected a nuScenes root (with samples/ and v1.0-*/)")
    found = sorted(path.name for path in root.glob("v1.0-*") if path.is_dir())
    if version is None and not found:
        raise UserError(f"{root} has no v1.0-* folder: it is no nuScenes root, or its metadata was not unpacked there")
    if version is None and len(found) > 1:
        raise UserError(f"{root} has several versions ({', '.join(found)}): name one with --version")
    name = found[0] if version is None else version
    if name not in found:
        raise UserError(f"{root} has no version {name!r}; found: {', '.join(found) or 'none'}")
    wanted = [table for table in TABLES if table not in ANNOTATION_TABLES or not name.endswith("test")]
    if missing := [f"{table}.json" for table in wanted if not (root / name / f"{table}.json").is_file()]:
        raise UserError(f"{root / name} lacks {', '.join(missing)}: unpack the metadata archive of this version again")
    return name


class TableWriter:
    """Writes records to the tables of one version folder as they come, laid out as nuScenes publishes them.

    A context manager; left by an exception, the tables stay unfinished, and no reader accepts them.

        with TableWriter(root / "v1.0-trainval") as tables:
            tables.write(Sensor(token="lidar", channel="LIDAR_TOP", modality="lidar"))

    Args:
        folder: Made if it is missing. All 13 tables are written, also those that get no record.

    Raises:
        UserError: if the folder holds tables already, or cannot be written.
    """

    def __init__(self, folder: Path):
        with writing(folder), ExitStack() as opened:
            folder.mkdir(parents=True, exist_ok=True)
            for path in (folder / f"{name}.json" for name in TABLES):
                if path.exists():
                    raise UserError(f"{folder} already holds {path.name}: write elsewhere, or delete its tables")
            self._files = {
                kind: opened.enter_context((folder / f"{name}.json").open("xb")) for name, kind in TABLES.items()
            }
            self._open = opened.pop_all()
        self._decoders = {kind: msgspec.json.Decoder(kind) for kind in TABLES.values()}

    def write(self, record: Record) -> None:
        """Add a record to its table.

        Raises:
            UserError: for a record that could not be read again: a field of another type, a number that is not finite.
        """
        file, content = self._files[type(record)], msgspec.json.encode(record)
        try:
            self._decoders[type(record)].decode(content)  # what is not finite was written as null
        except msgspec.ValidationError as error:
            name = f"{record.table()} record {record.token!r}"
            raise UserError(f"{name} is not as nuScenes v1.0 has it ({error})") from error
        lines = re.sub(rb"\n +", b"\n", msgspec.json.format(content, indent=1))
        file.write((b",\n" if file.tell() else b"[\n") + lines)

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._open:
            for file in self._files.values() if kind is None else ():
                file.write(b"\n]\n" if file.tell() else b"[]\n")


class Links(TypedDict):
    prev: str
    next: str


def links(tokens: Sequence[str], position: int) -> Links:
    """`prev` and `next` of one record in a chain of records, oldest first."""
    ends = ["", *tokens, ""]
    return {"prev": ends[position], "next": ends[position + 2]}
