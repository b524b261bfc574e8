"""The rules of the nuScenes detection benchmark: names and numbers, no computation.

Source: H. Caesar et al., "nuScenes", CVPR 2020, section 4, and the configuration `detection_cvpr_2019`.
"""

from dataclasses import dataclass

from dualdistill.structures import CLASSES

ATTRIBUTES = (
    "pedestrian.moving",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "cycle.with_rider",
    "cycle.without_rider",
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
)
"""Attribute ids 0 to 7 of the records in this room; -1 is "no attribute"."""

TP_ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
"""The `error` axis: metres, 1 - IoU, radians, metres a second, 1 - accuracy."""

UNDEFINED_ERRORS = {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}
"""Errors that are undefined for a class: a cone has no orientation, a barrier does not move."""

RACK_CATEGORY = "static_object.bicycle_rack"
RACKED_CLASSES = ("bicycle", "motorcycle")
"""Classes that are not evaluated inside a bicycle rack, where bikes are not annotated one by one."""


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """Constants of the benchmark; the defaults are `detection_cvpr_2019`."""

    class_range: tuple[tuple[str, int], ...] = (
        ("car", 50),
        ("truck", 50),
        ("bus", 50),
        ("trailer", 50),
        ("construction_vehicle", 50),
        ("pedestrian", 40),
        ("motorcycle", 40),
        ("bicycle", 40),
        ("traffic_cone", 30),
        ("barrier", 30),
    )
    """Each class in the order of reports, and its evaluated range around the ego vehicle, metres."""
    distances: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    """The `threshold` axis: largest distance of a match, metres between centres in the ground plane."""
    tp_distance: float = 2.0
    """The one of `distances` at which the true-positive errors are taken."""
    min_recall: float = 0.1
    """Recalls up to this one do not count, because they are noisy."""
    min_precision: float = 0.1
    """Precisions up to this one count as zero."""
    max_boxes: int = 500
    """Largest number of boxes per sample in a submission."""
    mean_ap_weight: int = 5
    """Weight of mAP in NDS, beside one for each true-positive score."""

    def __post_init__(self) -> None:
        if sorted(self.class_names) != sorted(CLASSES):
            raise ValueError(f"class_range needs each of {CLASSES} once, got {self.class_names}")
        if self.tp_distance not in self.distances:
            raise ValueError(f"tp_distance must be one of {self.distances}, got {self.tp_distance}")
        if not (0 <= self.min_recall <= 1 and 0 <= self.min_precision < 1):
            raise ValueError(f"min_recall and min_precision are shares, got {self.min_recall} and {self.min_precision}")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.class_range)

    @property
    def reach(self) -> tuple[int, ...]:
        """Evaluated range in metres by label id, that is in the order of `CLASSES`."""
        ranges = dict(self.class_range)
        return tuple(ranges[name] for name in CLASSES)


DETECTION_CVPR_2019 = DetectionConfig()
"""The configuration of all published nuScenes results."""
