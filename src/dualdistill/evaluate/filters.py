"""The boxes that the benchmark evaluates: within range, with at least one point, and not a bike in a rack."""

import numpy as np
import torch
from jaxtyping import Bool

from dualdistill.evaluate.protocol import RACKED_CLASSES, REACH
from dualdistill.evaluate.records import GlobalBoxes, GroundTruth
from dualdistill.geometry.transforms import rotation_from_quaternion
from dualdistill.structures import CLASSES


def is_evaluated(boxes: GlobalBoxes, ground_truth: GroundTruth) -> Bool[np.ndarray, "boxes"]:
    """Mask of the evaluated `boxes`, annotations or detections of the samples of `ground_truth`."""
    offset = boxes.center[:, :2] - ground_truth.ego_position[boxes.sample, :2]
    near = np.sqrt((offset**2).sum(axis=1)) < REACH[boxes.label]
    keep = near & (boxes.num_points != 0)
    bikes = np.flatnonzero(keep & np.isin(boxes.label, [CLASSES.index(name) for name in RACKED_CLASSES]))
    keep[bikes] = ~in_rack(boxes.select(bikes), ground_truth.racks)
    return keep


def in_rack(boxes: GlobalBoxes, racks: GlobalBoxes) -> Bool[np.ndarray, "boxes"]:
    """Whether the centre of each box lies in (or on the border of) a rack of its sample."""
    order = np.argsort(racks.sample, kind="stable")
    first = np.searchsorted(racks.sample[order], boxes.sample, side="left")
    count = np.searchsorted(racks.sample[order], boxes.sample, side="right") - first
    box = np.repeat(np.arange(len(boxes)), count)
    within_slice = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    rack = order[first[box] + within_slice]
    global_from_rack = rotation_from_quaternion(torch.from_numpy(racks.rotation[rack])).numpy()
    offset = np.einsum("nji,nj->ni", global_from_rack, boxes.center[box] - racks.center[rack])
    inside = (np.abs(offset) <= racks.size[rack] / 2).all(axis=1)
    result = np.zeros(len(boxes), dtype=bool)
    result[box[inside]] = True
    return result
