"""The tables of a synthetic world, in which every token follows from the seed and from what it stands for."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dualdistill.data.build import CATEGORIES
from dualdistill.data.tables import Attribute, Category, Log, Map, Record, Sensor, Visibility
from dualdistill.data.write_tables import TableWriter
from dualdistill.structures import CAMERAS

VERSION = "v1.0-trainval"
MAP_FILE = "maps/synthetic.png"

ATTRIBUTES = (
    *("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider"),
    *("pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving"),
)
VISIBILITY = ("v0-40", "v40-60", "v60-80", "v80-100")


def token(seed: int, *parts: object) -> str:
    """32 hexadecimal digits, the same for the same parts and seed."""
    text = "/".join(str(part) for part in (seed, *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def write_tables(root: Path, records: Iterable[Record], seed: int) -> None:
    """Writes `VERSION`/*.json: the records of all scenes, and those that they share."""
    logs = []
    with TableWriter(root / VERSION) as tables:
        for name in CATEGORIES:
            tables.write(Category(token=token(seed, "category", name), name=name, description=""))
        for name in ATTRIBUTES:
            tables.write(Attribute(token=token(seed, "attribute", name), name=name, description=""))
        for number, level in enumerate(VISIBILITY, start=1):
            low, high = level.removeprefix("v").split("-")
            text = f"visibility of whole object is between {low} and {high}%"
            tables.write(Visibility(token=str(number), level=level, description=text))
        for channel in (*CAMERAS, "LIDAR_TOP"):
            modality = "lidar" if channel == "LIDAR_TOP" else "camera"
            tables.write(Sensor(token=token(seed, "sensor", channel), channel=channel, modality=modality))
        for record in records:
            tables.write(record)
            if isinstance(record, Log):
                logs.append(record.token)
        shared = token(seed, "map")
        tables.write(Map(category="semantic_prior", token=shared, filename=MAP_FILE, log_tokens=logs))
