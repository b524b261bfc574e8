"""The rules of the nuScenes detection benchmark: the configuration `detection_cvpr_2019` of all published results.

Source: H. Caesar et al., "nuScenes", CVPR 2020, section 4.
"""

import numpy as np

from dualdistill.structures import CLASSES

ATTRIBUTES = (
    *("pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing"),
    *("cycle.with_rider", "cycle.without_rider", "vehicle.moving", "vehicle.parked", "vehicle.stopped"),
)
"""Attribute ids 0 to 7 of the records in this room; -1 is "no attribute"."""

TP_ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
"""The `error` axis: metres, 1 - IoU, radians, metres a second, 1 - accuracy."""

UNDEFINED_ERRORS = {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}
"""Errors that are undefined for a class: a cone has no orientation, a barrier does not move."""

RACK_CATEGORY = "static_object.bicycle_rack"
RACKED_CLASSES = ("bicycle", "motorcycle")
"""Classes that are not evaluated inside a bicycle rack, where bikes are not annotated one by one."""

CLASS_RANGE = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), 50),
    **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40),
    **dict.fromkeys(("traffic_cone", "barrier"), 30),
}
"""Each class in the order of reports, and its evaluated range around the ego vehicle, metres."""
REACH = np.array([CLASS_RANGE[name] for name in CLASSES])
"""The same by label id."""
DISTANCES = (0.5, 1.0, 2.0, 4.0)
"""The `threshold` axis: largest distance of a match, metres between centres in the ground plane."""
TP_THRESHOLD = DISTANCES.index(2.0)
"""Index of the distance at which the true-positive errors are taken."""
MIN_RECALL = 0.1
"""Recalls up to this one do not count, because they are noisy."""
MIN_PRECISION = 0.1
"""Precisions up to this one count as zero."""
MAX_BOXES = 500
"""Largest number of boxes per sample in a submission."""
MEAN_AP_WEIGHT = 5
"""Weight of mAP in NDS, beside one for each true-positive score."""
