"""Two real key frames, drawn: boxes must sit on what they name. The frames stay outside the repository."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dualdistill.geometry.boxes import points_in_boxes
from dualdistill.geometry.transforms import rigid, transform
from dualdistill.structures import CAMERAS, CLASSES, Boxes
from dualdistill.visualize.bev import draw_bev
from dualdistill.visualize.cameras import Photographs, View, draw_cameras, visible_edges
from dualdistill.visualize.palette import DARK, LIGHT, BoxLayer
from tests.geometry.reference import boxes_from_legacy

pytestmark = pytest.mark.nuscenes


@dataclass(frozen=True, kw_only=True)
class KeyFrame:
    """A real key frame in the words of the package; BEV frame = LIDAR_TOP."""

    images: Tensor
    intrinsics: Tensor
    bev_from_camera: Tensor
    points: Tensor
    boxes: Boxes
    num_lidar_pts: Tensor
    info: dict[str, Any]

    def view(self, camera: int) -> View:
        return View(
            intrinsics=self.intrinsics[camera],
            augmented_from_image=torch.eye(4, dtype=torch.float64),
            camera_from_bev=torch.linalg.inv(self.bev_from_camera[camera]),
        )

    def centers_in_images(self) -> tuple[Tensor, Tensor]:
        """Pixels of each centre in each camera, and whether they are in the picture."""
        pixels, inside = [], []
        height, width = self.images.shape[-2:]
        for camera in range(len(CAMERAS)):
            view = self.view(camera)
            centers_camera = transform(view.camera_from_bev, self.boxes.center)
            uv = view.project(centers_camera)
            pixels.append(uv)
            inside.append(
                (centers_camera[:, 2] > 0) & (uv >= 0).all(-1) & (uv < uv.new_tensor([width, height])).all(-1)
            )
        return torch.stack(pixels), torch.stack(inside)


def load_images(paths: list[Path]) -> Tensor:
    pictures = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def load_points(path: Path) -> Tensor:
    return torch.from_numpy(np.fromfile(path, dtype=np.float32).reshape(-1, 5)).double()


def scene_0061(folder: Path) -> KeyFrame:
    """MMDetection3D 1.x: lidar to camera, counter-clockwise yaw, own class order, -1 for other objects."""
    info = json.loads((folder / "info.json").read_text())
    categories = {index: name for name, index in info["metainfo"]["categories"].items()}
    frame = info["data_list"][0]
    cameras = [frame["images"][name] for name in CAMERAS]
    instances = [one for one in frame["instances"] if one["bbox_label_3d"] >= 0]
    boxes = torch.tensor([one["bbox_3d"] for one in instances], dtype=torch.float64)
    return KeyFrame(
        images=load_images([folder / camera["img_path"] for camera in cameras]),
        intrinsics=torch.tensor([camera["cam2img"] for camera in cameras], dtype=torch.float64),
        bev_from_camera=torch.linalg.inv(
            torch.tensor([camera["lidar2cam"] for camera in cameras], dtype=torch.float64)
        ),
        points=load_points(folder / frame["lidar_points"]["lidar_path"]),
        boxes=Boxes(
            center=boxes[:, :3],
            size=boxes[:, 3:6],
            yaw=boxes[:, 6],
            velocity=torch.zeros(len(boxes), 2, dtype=torch.float64),
            label=torch.tensor([CLASSES.index(categories[one["bbox_label_3d"]]) for one in instances]),
        ),
        num_lidar_pts=torch.tensor([one["num_lidar_pts"] for one in instances]),
        info=frame,
    )


def val_2018_08_02(folder: Path) -> KeyFrame:
    """BEVDet on MMDetection3D 0.x: camera to lidar, legacy boxes, but with the gravity centre."""
    info = json.loads((folder / "info.json").read_text())
    cameras = [info["cams"][name] for name in CAMERAS]
    legacy = torch.tensor(info["gt_boxes"], dtype=torch.float64)
    legacy[:, 2] -= legacy[:, 5] / 2
    velocity = torch.tensor(info["gt_velocity"], dtype=torch.float64)
    return KeyFrame(
        images=load_images([folder / f"{name}.jpg" for name in CAMERAS]),
        intrinsics=torch.tensor([camera["cam_intrinsic"] for camera in cameras], dtype=torch.float64),
        bev_from_camera=rigid(
            torch.tensor([camera["sensor2lidar_rotation"] for camera in cameras], dtype=torch.float64),
            torch.tensor([camera["sensor2lidar_translation"] for camera in cameras], dtype=torch.float64),
        ),
        points=load_points(folder / "LIDAR_TOP.pcd.bin"),
        boxes=boxes_from_legacy(
            torch.cat([legacy, velocity], dim=1),
            torch.tensor([CLASSES.index(name) for name in info["gt_names"]]),
        ),
        num_lidar_pts=torch.tensor(info["num_lidar_pts"]),
        info=info,
    )


READERS = {"scene-0061": scene_0061, "val-2018-08-02": val_2018_08_02}


def load(name: str, root: Path) -> KeyFrame:
    folder = root.parent / f"nuscenes-keyframe-{name}"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name} beside the root of DUALDISTILL_NUSCENES")
    return READERS[name](folder)


@pytest.fixture(scope="module", params=READERS)
def key_frame(request: pytest.FixtureRequest, nuscenes_root: Path) -> KeyFrame:
    return load(request.param, nuscenes_root)


def test_boxes_hold_the_points_that_were_annotated(key_frame):
    held = points_in_boxes(key_frame.points[:, :3], key_frame.boxes).sum(dim=1)
    off = (held - key_frame.num_lidar_pts).abs()
    assert (off == 0).double().mean() > 0.8
    assert off.sum() < 0.04 * key_frame.num_lidar_pts.sum()  # the LiDAR frame is tilted: points at the faces


def test_what_the_lidar_saw_well_is_in_some_picture(key_frame):
    _, inside = key_frame.centers_in_images()
    seen = inside.any(dim=0)[key_frame.num_lidar_pts >= 5]
    assert len(seen) >= 10
    assert seen.double().mean() > 0.9


def test_projected_boxes_surround_their_projected_points(key_frame):
    checked = 0
    owned = points_in_boxes(key_frame.points[:, :3], key_frame.boxes)
    for camera in range(len(CAMERAS)):
        view = key_frame.view(camera)
        depth = transform(view.camera_from_bev, key_frame.boxes.center)[:, 2]
        ends, visible = visible_edges(key_frame.boxes, view)
        for box in (owned.any(dim=1) & (depth > 3) & visible.all(dim=1)).nonzero()[:, 0]:
            points_camera = transform(view.camera_from_bev, key_frame.points[owned[box], :3])
            pixels = view.project(points_camera)
            corners = ends[box].flatten(0, 1)
            assert (pixels >= corners.amin(dim=0) - 1e-6).all()
            assert (pixels <= corners.amax(dim=0) + 1e-6).all()
            checked += 1
    assert checked >= 20


def test_centres_land_where_the_info_file_has_them(nuscenes_root):
    frame = load("scene-0061", nuscenes_root)
    pixels, _ = frame.centers_in_images()
    known = 0
    for camera, name in enumerate(CAMERAS):
        for one in frame.info["cam_instances"][name]:
            center = pixels.new_tensor(one["center_2d"])
            nearest = (pixels[camera] - center).norm(dim=-1).amin()
            assert nearest < 1.0, (name, one["center_2d"])
            known += 1
    assert known > 60


def test_both_drawings_are_made(key_frame, tmp_path):
    truth = key_frame.boxes
    views = tuple(key_frame.view(camera) for camera in range(len(CAMERAS)))
    photographs = Photographs(names=CAMERAS, images=key_frame.images, views=views)
    cameras = draw_cameras(photographs, {"": [BoxLayer(name="ground truth", boxes=truth)]}, image_width=640)
    layer = BoxLayer(name="ground truth", boxes=truth, colour=LIGHT.truth)
    bev = draw_bev(key_frame.points, {"Real key frame": [layer]})
    for name, figure in {"cameras": cameras, "bev": bev}.items():
        figure.savefig(tmp_path / f"{name}.png")
        pixels = np.array(Image.open(tmp_path / f"{name}.png").convert("RGB")).reshape(-1, 3)
        wanted = DARK.classes[CLASSES[int(truth.label[0])]] if name == "cameras" else LIGHT.truth
        colour = np.array([int(wanted[at : at + 2], 16) for at in (1, 3, 5)])
        assert (np.abs(pixels - colour).max(axis=1) < 40).sum() > 50
