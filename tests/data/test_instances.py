"""Instance targets: masks under the image augmentation, cell by cell (docs/methods/x3kd.md#instance-targets)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from dualdistill.data.augment import ImageView
from dualdistill.data.check import check_root
from dualdistill.data.collate import collate
from dualdistill.data.config import DataConfig, ImageAugmentation, InstancesConfig
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.images import load_image
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.instances import (
    MIN_PIXELS,
    SeenObjects,
    key_images,
    make_masks,
    mask_files,
    owners_in_view,
    owners_of_cells,
)
from dualdistill.data.virtual_points.files import ArrayFiles
from dualdistill.data.virtual_points.masks import PAINT_CLASSES, ImageInstances, SyntheticMasks
from dualdistill.errors import UserError
from dualdistill.structures import CLASSES
from tests.data.tiny_root import TinyRoot

STORED = (90, 160)
CAMERA = DataConfig(
    points=False,
    num_frames=1,
    image_size=(32, 96),
    depth_stride=8,
    instances=InstancesConfig(masks="synthetic"),
    image_augmentation=ImageAugmentation(rotation=(-5.4, 5.4)),
)


def seen(owner: Tensor, score: list[float] | None = None) -> SeenObjects:
    count = int(owner.max())
    return SeenObjects(
        owner=owner.to(torch.uint16),
        klass=torch.arange(count) % len(CLASSES),
        score=torch.tensor(score or [1.0] * count),
    )


def box_of(mask: Tensor) -> Tensor:
    """Left, top, right, bottom."""
    rows, columns = mask.nonzero().unbind(dim=1)
    return torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).double()


def grown(mask: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(mask[None, None].float(), 2 * pixels + 1, stride=1, padding=pixels)[0, 0] > 0


def rectangle(top: int, bottom: int, left: int, right: int) -> Tensor:
    owner = torch.zeros(STORED, dtype=torch.long)
    owner[top:bottom, left:right] = 1
    return owner


views = st.builds(
    ImageView,
    resize=st.floats(0.5, 1.3),
    crop=st.tuples(st.integers(-8, 20), st.integers(-8, 10)),
    size=st.just((64, 128)),
    flip=st.booleans(),
    rotate_deg=st.floats(-6, 6),
)


@given(
    view=views, top=st.integers(0, 60), left=st.integers(0, 110), height=st.integers(10, 30), width=st.integers(10, 50)
)
def test_without_rotation_a_mask_and_the_corners_of_its_box_go_to_one_place(
    view: ImageView, top: int, left: int, height: int, width: int
) -> None:
    view = replace(view, rotate_deg=0.0)
    owner = rectangle(top, top + height, left, left + width)
    moved = owners_in_view(seen(owner), view) == 1
    corners = torch.tensor([[left, top, 0, 1], [left + width, top + height, 0, 1]]).double() @ view.matrix().double().mT
    low, high = corners[:, :2].amin(dim=0), corners[:, :2].amax(dim=0)
    limits = torch.tensor([view.size[1], view.size[0]])
    low, high = low.clamp(min=0), torch.minimum(high, limits)
    if not moved.any():
        assert (high - low).clamp(min=0).prod() < MIN_PIXELS + 2 * (high - low).abs().sum() + 4
        return
    assert (box_of(moved) - torch.cat([low, high])).abs().max() < 2


@given(view=views)
def test_flipping_twice_is_the_identity(view: ImageView) -> None:
    owner = rectangle(20, 60, 30, 100)
    once = owners_in_view(seen(owner), replace(view, rotate_deg=0.0, flip=False))
    assert torch.equal(owners_in_view(seen(owner), replace(view, rotate_deg=0.0, flip=True)).flip(1), once)
    whole = ImageView(resize=1.0, crop=(0, 0), size=STORED, flip=True)
    assert torch.equal(owners_in_view(seen(owners_in_view(seen(owner), whole)), whole), owner)


@given(view=views)
def test_masks_lie_where_the_pixels_of_their_objects_do(
    view: ImageView, tmp_path_factory: pytest.TempPathFactory
) -> None:
    owner = rectangle(25, 70, 40, 120)
    path = tmp_path_factory.mktemp("image") / "image.png"
    Image.fromarray((255 * owner).byte().numpy()).convert("RGB").save(path)
    bright = load_image(path, view, STORED)[0] > 127
    masked = owners_in_view(seen(owner), view) == 1
    assert not (bright & ~grown(masked, 2)).any()  # resized images are truncated to whole pixels
    assert not (masked & ~grown(bright, 2)).any()


def test_instances_of_which_little_is_left_or_nobody_is_sure_are_dropped() -> None:
    owner = torch.zeros(STORED, dtype=torch.long)
    owner[0:4, 0:4] = 1  # 16 pixels
    owner[10:13, 0:5] = 2  # 15
    owner[20:30, 0:5] = 3  # 50, of which the crop shows 20
    owner[40:50, 0:10] = 4
    whole = ImageView(resize=1.0, crop=(0, 0), size=STORED)
    assert owners_in_view(seen(owner), whole).unique().tolist() == [0, 1, 3, 4]
    right_part = replace(whole, crop=(3, 0))
    assert owners_in_view(seen(owner), right_part).unique().tolist() == [0, 3, 4]
    assert owners_in_view(seen(owner, [0.9, 0.9, 0.2, 0.3]), whole, 0.3).unique().tolist() == [0, 1, 4]


def test_more_objects_than_a_byte_counts_are_told_apart() -> None:
    owner = (torch.arange(90)[:, None] // 5 * 20 + torch.arange(160)[None] // 8) + 1  # 360 of 40 pixels
    whole = ImageView(resize=1.0, crop=(0, 0), size=STORED)
    assert torch.equal(owners_in_view(seen(owner), whole), owner)
    assert torch.equal(owners_in_view(seen(owner), replace(whole, flip=True)), owner.flip(1))


def test_beyond_the_image_there_is_nobody() -> None:
    owner = torch.ones(STORED, dtype=torch.long)
    moved = owners_in_view(seen(owner), ImageView(resize=1.0, crop=(-8, -4), size=(100, 176)))
    assert moved.sum() == 90 * 160
    assert moved[4:94, 8:168].all()


def test_a_cell_belongs_to_whom_fills_most_of_it_and_at_least_a_quarter() -> None:
    owner = torch.zeros(8, 20, dtype=torch.long)
    owner[0:2, 0:2] = 1  # a quarter of a cell
    owner[0:4, 4:5] = 2  # a quarter beside
    owner[0:4, 5:7] = 1  # a half
    owner[0:3, 8:9] = 2  # less than a quarter
    owner[4:8, 12:14] = 2  # as much as the next: the first counts
    owner[4:8, 14:16] = 1
    owner[4:8, 16:20] = 3
    assert owners_of_cells(owner, 3, 4).tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 3]]
    assert owners_of_cells(torch.zeros(8, 20, dtype=torch.long), 0, 4).tolist() == [[0] * 5] * 2


@given(seed=st.integers(0, 1000), stride=st.sampled_from([1, 2, 4, 8]))
def test_cells_are_what_a_loop_over_them_says(seed: int, stride: int) -> None:
    owner = torch.randint(0, 4, (8, 16), generator=torch.Generator().manual_seed(seed))
    cells = owners_of_cells(owner, 3, stride)
    for row in range(8 // stride):
        for column in range(16 // stride):
            inside = owner[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
            shares = [float((inside == number).float().mean()) for number in (1, 2, 3)]
            assert cells[row, column] == (shares.index(max(shares)) + 1 if max(shares) >= 0.25 else 0)


def test_of_overlapping_masks_the_first_counts_and_classes_are_the_detectors(tmp_path: Path) -> None:
    masks = torch.zeros(2, *STORED, dtype=torch.bool)
    masks[0, 10:20, 10:20] = masks[1, 10:20, 15:30] = True
    objects = SeenObjects.of(ImageInstances.of(masks, ["bus", "barrier"], torch.tensor([0.9, 0.5])))
    assert (objects.owner.long() == 1).sum() == 100
    assert (objects.owner.long() == 2).sum() == 100
    assert [CLASSES[klass] for klass in objects.klass] == ["bus", "barrier"]
    cache = files_in(tmp_path)
    cache.write("samples/CAM_FRONT/a.jpg", objects)
    again = cache.read("samples/CAM_FRONT/a.jpg")
    assert torch.equal(again.owner, objects.owner)
    assert torch.equal(again.klass, objects.klass)
    assert torch.equal(again.score, objects.score)
    cache.path("samples/CAM_FRONT/a.jpg").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(UserError, match="delete the file, then run `dualdistill data instances`"):
        cache.read("samples/CAM_FRONT/a.jpg")


def files_in(folder: Path) -> ArrayFiles[SeenObjects]:
    names = ("owner", "klass", "score")
    return ArrayFiles(folder=folder, kind=SeenObjects, names=names, what="instance masks", verb="instances")


# Samples


def fill(index: NuscenesIndex, config: InstancesConfig) -> ArrayFiles[SeenObjects]:
    """A car in the left half of each image, a person in the right one, a bus nobody is sure of above."""

    class Halves:
        identity = "halves"

        def __call__(self, row: int) -> ImageInstances:
            masks = torch.zeros(3, *STORED, dtype=torch.bool)
            masks[0, 20:, :80] = masks[1, 20:, 80:] = masks[2, :20] = True
            return ImageInstances.of(masks, ["car", "pedestrian", "bus"], torch.tensor([0.9, 0.8, 0.2]))

    cache = mask_files(index, config.masks, config.noise)
    make_masks(index, key_images(index, np.arange(len(index))), Halves(), cache)
    return cache


@pytest.fixture
def index(own_root: TinyRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NuscenesIndex:
    monkeypatch.setenv("DUALDISTILL_CACHE", str(tmp_path / "cache"))
    return NuscenesIndex.open(own_root.path)


def test_a_sample_has_the_objects_of_its_images_under_the_same_augmentation(index: NuscenesIndex) -> None:
    fill(index, InstancesConfig(masks="synthetic"))
    data = NuscenesDataset(index, CAMERA, np.arange(3), training=True, seed=0)
    batch = collate([data[epoch, 0] for epoch in range(6)])
    found = batch.instances
    assert found is not None
    assert batch.cameras is not None
    assert found.klass.shape == found.instance.shape == (6, 6, 4, 12)
    car, person, bus = (CLASSES.index(name) for name in ("car", "pedestrian", "bus"))
    assert bus not in found.klass
    mirrored = batch.cameras.augmented_from_image[:, 0, :, 0, 0] < 0
    for here, flipped in zip(found.klass.flatten(0, 1), mirrored.flatten().tolist(), strict=True):
        left, right = (person, car) if flipped else (car, person)
        assert here[-1, 1] == left
        assert here[-1, -2] == right
    assert ((found.instance == 0) == (found.klass == car))[found.klass >= 0].all()
    assert mirrored.any()
    assert not mirrored.all()


def test_other_draws_of_a_sample_do_not_change_with_instances(index: NuscenesIndex) -> None:
    fill(index, InstancesConfig(masks="synthetic"))
    without = NuscenesDataset(index, replace(CAMERA, instances=None), np.arange(3), training=True, seed=0)[1, 2]
    given_too = NuscenesDataset(index, CAMERA, np.arange(3), training=True, seed=0)[1, 2]
    assert without.cameras is not None
    assert given_too.cameras is not None
    assert without.instances is None
    assert torch.equal(without.cameras.images, given_too.cameras.images)
    assert torch.equal(without.augmented_from_bev, given_too.augmented_from_bev)


def test_masks_are_wanted_for_training_alone_and_missing_ones_are_named_with_the_command(index: NuscenesIndex) -> None:
    assert NuscenesDataset(index, CAMERA, np.arange(3), training=False, seed=0)[0].instances is None
    with pytest.raises(UserError, match=r"18 of 18 key frame images .*dualdistill data instances .* --masks synthetic"):
        NuscenesDataset(index, CAMERA, np.arange(3), training=True, seed=0)
    (problem,) = check_root(index.root, split="mini_train", config=CAMERA).problems
    assert (problem.count, problem.what) == (18, "key frame images without instance masks")
    assert problem.remedy.endswith("--masks synthetic --split mini_train`")
    real = replace(CAMERA, instances=InstancesConfig(masks="maskrcnn"))
    (problem,) = check_root(index.root, config=real).problems
    assert problem.remedy.endswith("--masks maskrcnn --weights FILE`")
    noisy = replace(CAMERA, instances=InstancesConfig(masks="synthetic", noise=0.5))
    (problem,) = check_root(index.root, config=noisy).problems
    assert problem.remedy.endswith("--masks synthetic --noise 0.5`")
    cache = fill(index, InstancesConfig(masks="synthetic"))
    assert check_root(index.root, config=CAMERA).ok
    cache.path(index.data_filename[int(index.sample_cameras[1, 2])]).unlink()
    (problem,) = check_root(index.root, config=CAMERA).problems
    assert problem.count == 1


def test_masks_of_two_origins_do_not_mix(index: NuscenesIndex) -> None:
    cache = fill(index, InstancesConfig(masks="synthetic"))
    with pytest.raises(UserError, match="Delete the folder"):
        cache.begin({"masks": "others", "class_names": list(CLASSES)})


def test_samples_with_and_without_instances_make_no_batch(index: NuscenesIndex) -> None:
    fill(index, InstancesConfig(masks="synthetic"))
    sample = NuscenesDataset(index, CAMERA, np.arange(3), training=True, seed=0)[0, 0]
    with pytest.raises(ValueError, match="have instances"):
        collate([sample, replace(sample, instances=None)])


def test_every_class_of_a_synthetic_world_reaches_the_cells(world: Path) -> None:
    index = NuscenesIndex.open(world)
    masks, rows = SyntheticMasks(index), key_images(index, np.arange(len(index)))
    there, stored = set(), set()
    for row in rows:
        objects = SeenObjects.of(masks(row))
        size = (objects.owner.shape[0] // 2 * 2, objects.owner.shape[1])
        owner = owners_in_view(objects, ImageView(resize=1.0, crop=(0, 0), size=size))
        stored |= {int(objects.klass[number - 1]) for number in owner.unique() if number}
        cells = owners_of_cells(owner, len(objects.klass), 2)
        there |= {int(objects.klass[number - 1]) for number in cells.unique() if number}
    assert there == stored
    assert len(there) > 5


def test_settings_that_make_no_sense_or_no_difference_are_errors() -> None:
    with pytest.raises(ValueError, match="cameras=True"):
        DataConfig(cameras=False, depth=False, instances=InstancesConfig())
    with pytest.raises(ValueError, match=r"made from 0\.3"):
        InstancesConfig(min_score=0.2)
    with pytest.raises(ValueError, match="errors of their own"):
        InstancesConfig(noise=0.2)
    assert set(PAINT_CLASSES) == set(CLASSES)
