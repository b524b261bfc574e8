"""Where masks come from: the synthetic world's own, and Mask R-CNN from a local file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import sample_boxes
from dualdistill.data.virtual_points.complete import CACHE_NAMES, CompletedSweep, lidar_records, make_virtual_points
from dualdistill.data.virtual_points.files import ArrayFiles
from dualdistill.data.virtual_points.maskrcnn import CATEGORIES, NAME_OF_COCO, MaskRcnn
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, InstanceMasks, SemanticMasks, SyntheticMasks
from dualdistill.errors import UserError
from dualdistill.structures import CLASSES, Boxes
from dualdistill.synthetic import TINY, make_synthetic

WORLD = replace(
    TINY,
    name="masked",
    train_scenes=1,
    val_scenes=0,
    key_frames=2,
    image_width=256,
    image_height=144,
    lidar_azimuths=360,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> NuscenesIndex:
    return NuscenesIndex.open(make_synthetic(tmp_path_factory.mktemp("world") / "root", WORLD, workers=1))


def files_in(folder: Path) -> ArrayFiles[CompletedSweep]:
    return ArrayFiles(
        folder=folder, kind=CompletedSweep, names=CACHE_NAMES, what="virtual points", verb="virtual-points"
    )


def distances(points: Tensor, boxes: Boxes) -> Tensor:
    """Metres from each point to each box, 0 inside."""
    from_center = points[None, :, :3].double() - boxes.center[:, None]
    cos, sin = boxes.yaw.cos()[:, None], boxes.yaw.sin()[:, None]
    x, y, z = from_center.unbind(dim=2)
    local = torch.stack([x * cos + y * sin, y * cos - x * sin, z], dim=2)
    return (local.abs() - boxes.size[:, None] / 2).clamp(min=0).norm(dim=2)


def test_virtual_points_lie_on_the_objects_they_are_named_after(world: NuscenesIndex, tmp_path: Path) -> None:
    cache = files_in(tmp_path)
    make_virtual_points(world, lidar_records(world, np.arange(2), 10), SyntheticMasks(world), cache)
    to_own_class, covered = [], []
    detector_label = torch.tensor([CLASSES.index(name) for name in PAINT_CLASSES])
    for position in range(len(world)):
        row = int(world.sample_lidar[position])
        virtual = cache.read(world.data_filename[row]).virtual
        boxes = sample_boxes(world, position, torch.from_numpy(np.linalg.inv(world.global_from_sensor(row))))
        label = detector_label[virtual[:, 3:13].argmax(dim=1)]
        same = boxes.label[:, None] == label[None]
        to_own_class.append(distances(virtual, boxes).masked_fill(~same, 100.0).amin(dim=0))
        near = boxes.select((boxes.center[:, :2].norm(dim=1) < 40) & (boxes.label == CLASSES.index("car")))
        covered.append((distances(virtual[label == CLASSES.index("car")], near) < 0.3).any(dim=1))
    metres = torch.cat(to_own_class)
    # Surfaces of these objects are round where boxes are not, and a mask also shows what lies behind its rim.
    assert len(metres) >= 500
    assert metres.median() < 0.1
    assert (metres < 0.5).double().mean() > 0.8
    assert torch.cat(covered).double().mean() > 0.8


def test_between_key_frames_the_synthetic_world_has_no_masks(world: NuscenesIndex, tmp_path: Path) -> None:
    cache = files_in(tmp_path)
    rows = lidar_records(world, np.arange(2), 10)
    make_virtual_points(world, rows, SyntheticMasks(world), cache)
    sweeps = [row for row in rows if not world.data_is_key[row]]
    assert sweeps
    assert all(len(cache.read(world.data_filename[row]).virtual) == 0 for row in sweeps)


def test_synthetic_masks_show_what_their_explanation_says(world: NuscenesIndex) -> None:
    masks = SyntheticMasks(world)
    assert isinstance(masks, InstanceMasks)
    for row in world.sample_cameras[0]:
        found = masks(int(row))
        assert found.masks.shape[1:] == (144, 256)
        assert (found.masks.sum(dim=0) <= 1).all()
        assert (found.score == 1).all()


def test_a_root_without_masks_is_told_what_to_do(tiny_index: NuscenesIndex) -> None:
    with pytest.raises(UserError, match="--masks maskrcnn --weights FILE"):
        SyntheticMasks(tiny_index)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model that is sure of seeing cars and aeroplanes."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=CATEGORIES)
    with torch.no_grad():
        bias = model.roi_heads.box_predictor.cls_score.bias
        bias.fill_(-10.0)
        bias[3] = bias[5] = 10.0
        model.roi_heads.mask_predictor.mask_fcn_logits.bias.fill_(3.0)
    path = tmp_path_factory.mktemp("weights") / "maskrcnn.pth"
    torch.save(model.state_dict(), path)
    return path


def test_mask_rcnn_gives_instances_of_the_classes_coco_shares(tiny_index: NuscenesIndex, weights: Path) -> None:
    masks = MaskRcnn(tiny_index, weights, short_side=64)
    assert isinstance(masks, InstanceMasks)
    found = masks(int(tiny_index.sample_cameras[0, 1]))
    assert len(found) > 0
    assert set(found.klass.tolist()) == {PAINT_CLASSES.index("car")}  # aeroplanes are left out
    assert found.masks.shape[1:] == (90, 160)
    assert (found.score >= 0.3).all()
    assert (found.score.diff() <= 0).all()
    assert set(NAME_OF_COCO.values()) < set(PAINT_CLASSES)


def test_mask_rcnn_wants_its_own_weights_in_a_local_file(tiny_index: NuscenesIndex, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="maskrcnn_resnet50_fpn_v2_coco"):
        MaskRcnn(tiny_index, tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(UserError, match="cannot be read"):
        MaskRcnn(tiny_index, tmp_path / "text.pth")
    save_file({"backbone.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="another model"):
        MaskRcnn(tiny_index, tmp_path / "other.safetensors")


def write_class_maps(world: NuscenesIndex, folder: Path, classes: np.ndarray, legend: str = '{"13": "car"}') -> int:
    """One class map and its legend; returns the row of the image."""
    row = int(world.sample_cameras[0, 1])
    path = (folder / world.data_filename[row]).with_suffix(".png")
    path.parent.mkdir(parents=True)
    Image.fromarray(classes).save(path)
    (folder / "classes.json").write_text(legend)
    return row


def test_connected_regions_of_a_class_map_are_instances(world: NuscenesIndex, tmp_path: Path) -> None:
    classes = np.zeros((72, 128), dtype=np.uint8)  # half the image's size
    classes[10:20, 10:30] = 13
    classes[20:30, 30:50] = 13  # touches the first at a corner
    classes[50:60, 100:120] = 13
    classes[40, 5:90] = 11  # a class that the legend leaves out
    row = write_class_maps(world, tmp_path, classes)
    source: InstanceMasks = SemanticMasks(world, tmp_path)
    found = source(row)
    assert found.masks.flatten(1).sum(dim=1).tolist() == [1600, 800]
    assert [PAINT_CLASSES[klass] for klass in found.klass.tolist()] == ["car", "car"]
    assert len(source(int(world.sample_cameras[0, 0]))) == 0, "an image without a class map"


def test_specks_of_a_class_map_are_left_out(world: NuscenesIndex, tmp_path: Path) -> None:
    classes = np.zeros((144, 256), dtype=np.uint8)
    classes[10, 10:13] = 13
    row = write_class_maps(world, tmp_path, classes)
    assert len(SemanticMasks(world, tmp_path)(row)) == 0


@pytest.mark.parametrize(
    ("legend", "mode", "reason"),
    [
        ('{"13": "tram"}', "L", "names tram; the classes are car, truck"),
        ("[13]", "L", "expected the class of each number"),
        ('{"13": "car"}', "RGB", "one channel of class numbers"),
    ],
)
def test_class_maps_that_cannot_be_read_are_refused(
    world: NuscenesIndex, tmp_path: Path, legend: str, mode: str, reason: str
) -> None:
    blank = np.zeros((72, 128, 3) if mode == "RGB" else (72, 128), dtype=np.uint8)
    row = write_class_maps(world, tmp_path, blank, legend)
    with pytest.raises(UserError, match=reason):
        SemanticMasks(world, tmp_path)(row)


def test_a_folder_without_class_maps_of_the_root_is_refused(world: NuscenesIndex, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('{"13": "car"}')
    with pytest.raises(UserError, match=r"no class map for an image of .*, such as samples/CAM_FRONT"):
        SemanticMasks(world, tmp_path)
