"""Points, boxes, images and masks agree with each other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dualdistill.geometry.transforms import rigid, rotation_from_quaternion
from dualdistill.synthetic import TINY

Tables = dict[str, dict[str, dict[str, Any]]]
Row = dict[str, Any]


def pose(row: Row) -> np.ndarray:
    turn = rotation_from_quaternion(torch.tensor(row["rotation"], dtype=torch.float64))
    return rigid(turn, torch.tensor(row["translation"], dtype=torch.float64)).numpy()


def global_from_sensor(tables: Tables, data: Row) -> np.ndarray:
    ego = tables["ego_pose"][data["ego_pose_token"]]
    return pose(ego) @ pose(tables["calibrated_sensor"][data["calibrated_sensor_token"]])


def points_global(root: Path, tables: Tables, data: Row) -> np.ndarray:
    points = np.fromfile(root / data["filename"], dtype=np.float32).reshape(-1, 5)[:, :3].astype(np.float64)
    matrix = global_from_sensor(tables, data)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def channel_data(tables: Tables, channel: str, *, key_frames: bool) -> list[Row]:
    rows = tables["sample_data"].values()
    return [row for row in rows if f"/{channel}/" in row["filename"] and row["is_key_frame"] == key_frames]


def annotations_of(tables: Tables, sample: str) -> list[Row]:
    return [row for row in tables["sample_annotation"].values() if row["sample_token"] == sample]


def inside(points: np.ndarray, box: Row, margin: float = 0.0) -> np.ndarray:
    """Containment by the definition: nuScenes sizes are width, length, height."""
    matrix = pose(box)
    width, length, height = box["size"]
    local = (points - matrix[:3, 3]) @ matrix[:3, :3]
    return (np.abs(local) <= np.array([length, width, height]) / 2 + margin).all(axis=1)


def test_num_lidar_pts_counts_the_points_in_the_box(tiny_root: Path, tables: Tables) -> None:
    for data in channel_data(tables, "LIDAR_TOP", key_frames=True):
        points = points_global(tiny_root, tables, data)
        for box in annotations_of(tables, data["sample_token"]):
            assert box["num_lidar_pts"] == inside(points, box).sum()


def test_the_lidar_looks_forward_along_y_and_stands_on_the_ground(tiny_root: Path, tables: Tables) -> None:
    for row in tables["calibrated_sensor"].values():
        if tables["sensor"][row["sensor_token"]]["channel"] == "LIDAR_TOP":
            np.testing.assert_allclose(pose(row)[:3, :3] @ [0, 1, 0], [1, 0, 0], atol=0.05)
            height = row["translation"][2]
    data = channel_data(tables, "LIDAR_TOP", key_frames=True)[-1]
    points = np.fromfile(tiny_root / data["filename"], dtype=np.float32).reshape(-1, 5)
    near = np.hypot(points[:, 0], points[:, 1]) < 8
    assert abs(np.median(points[near, 2]) + height) < 0.15
    assert set(np.unique(points[:, 4])) <= set(range(TINY.lidar_beams))
    assert points[:, 3].min() >= 0
    assert points[:, 3].max() <= 255


def test_sweeps_line_up_with_their_key_frame_where_nothing_moves(tiny_root: Path, tables: Tables) -> None:
    """Upright surfaces seen from two places half a metre apart or more, both drawn in the global frame."""
    attributes = {row["name"]: token for token, row in tables["attribute"].items()}
    moving = {attributes["vehicle.moving"], attributes["pedestrian.moving"], attributes["cycle.with_rider"]}
    checked = 0
    for data in channel_data(tables, "LIDAR_TOP", key_frames=True):
        earlier = tables["sample_data"].get(data["prev"])
        if earlier is None:
            continue
        now, before = (points_global(tiny_root, tables, row) for row in (data, earlier))
        movers = [b for b in annotations_of(tables, data["sample_token"]) if moving & set(b["attribute_tokens"])]
        clouds = []
        for points in (now, before):
            still = ~np.any([inside(points, box, margin=2.0) for box in movers], axis=0) if movers else True
            clouds.append(points[still & (points[:, 2] > 0.3) & (points[:, 2] < 6)])
        here, there = (torch.from_numpy(cloud) for cloud in clouds)
        nearest = torch.cdist(there, here).amin(dim=1)
        assert nearest.median() < 0.35
        shift = torch.tensor([1.5, 1.5, 0.0], dtype=torch.float64)
        assert torch.cdist(there + shift, here).amin(dim=1).median() > 1.5 * nearest.median()
        checked += 1
    assert checked > 0


def test_centres_of_visible_boxes_fall_into_their_masks(tiny_root: Path, tables: Tables) -> None:
    masks = json.loads((tiny_root / "masks" / "instance_masks.json").read_text())
    assert len(masks) == 6 * len(tables["sample"])
    hits = misses = 0
    for mask in masks:
        data = tables["sample_data"][mask["sample_data_token"]]
        assert data["sample_token"] == mask["sample_token"]
        image = np.asarray(Image.open(tiny_root / mask["filename"]))
        assert image.shape == (data["height"], data["width"])
        sensor = tables["calibrated_sensor"][data["calibrated_sensor_token"]]
        camera_from_global = np.linalg.inv(global_from_sensor(tables, data))
        value_of = {entry["instance_token"]: entry for entry in mask["instances"]}
        for box in annotations_of(tables, mask["sample_token"]):
            x, y, z = (camera_from_global @ [*box["translation"], 1.0])[:3]
            u, v, _ = np.array(sensor["camera_intrinsic"]) @ [x / max(z, 1e-6), y / max(z, 1e-6), 1.0]
            seen = box["visibility_token"] == "4" and z > 3 and max(box["size"]) / z * data["width"] > 6
            if not seen or not (0 <= u < data["width"] and 0 <= v < data["height"]):
                continue
            value = value_of.get(box["instance_token"], {"value": -1})["value"]
            hit = image[int(v), int(u)] == value
            hits, misses = hits + hit, misses + (not hit)
    assert hits > 30
    assert hits > 4 * misses


def test_mask_values_and_pixel_counts_are_what_the_list_says(tiny_root: Path, tables: Tables) -> None:
    for mask in json.loads((tiny_root / "masks" / "instance_masks.json").read_text()):
        values, counts = np.unique(np.asarray(Image.open(tiny_root / mask["filename"])), return_counts=True)
        found = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}
        assert found == {entry["value"]: entry["pixels"] for entry in mask["instances"]}
        tokens = {entry["instance_token"] for entry in mask["instances"]} - {""}
        assert tokens <= set(tables["instance"])


def test_images_have_the_size_the_table_says_and_are_not_flat(tiny_root: Path, tables: Tables) -> None:
    for channel in ("CAM_FRONT", "CAM_BACK_LEFT"):
        for data in channel_data(tables, channel, key_frames=True):
            image = Image.open(tiny_root / data["filename"])
            assert image.size == (data["width"], data["height"]) == (TINY.image_width, TINY.image_height)
            assert np.asarray(image).std() > 10
