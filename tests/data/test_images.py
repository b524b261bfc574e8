"""Pixels and matrices of the image augmentation say the same; broken files are named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from dualdistill.data.augment import ImageView, apply_view, draw_bev, draw_view, resized_size, turned
from dualdistill.data.config import BevAugmentation, DataConfig, ImageAugmentation
from dualdistill.data.images import load_image
from dualdistill.errors import UserError
from tests.gpu.pretend import DEVICE, watching

FULL = (900, 1600)


def dot(u: int, v: int, radius: int = 6, size: tuple[int, int] = FULL) -> Tensor:
    pixels = torch.zeros(3, *size, dtype=torch.uint8)
    pixels[:, v - radius : v + radius + 1, u - radius : u + radius + 1] = 255
    return pixels


def as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def centre_of_light(pixels: Tensor) -> Tensor:
    light = pixels[0].double()
    v, u = torch.meshgrid(torch.arange(light.shape[0]) + 0.5, torch.arange(light.shape[1]) + 0.5, indexing="ij")
    return torch.stack([(light * u).sum(), (light * v).sum()]) / light.sum()


@pytest.mark.parametrize("seed", range(8))
def test_a_painted_dot_arrives_where_the_matrix_says(seed: int) -> None:
    view = draw_view(ImageAugmentation(), (256, 704), FULL, np.random.default_rng(seed))
    u, v = 800, 600
    arrived = centre_of_light(apply_view(dot(u, v), view, FULL))
    expected = (view.matrix() @ torch.tensor([u + 0.5, v + 0.5, 1.0, 1.0]))[:2].double()
    assert_close(arrived, expected, atol=1.0, rtol=0)


@pytest.mark.parametrize(
    ("size", "ranges", "resized", "crop"),
    [
        ((256, 704), ImageAugmentation(), (432, 768), (32, 176)),
        ((512, 1408), ImageAugmentation(), (828, 1472), (32, 316)),
        ((256, 704), ImageAugmentation(scale=(-0.054, 0.11), test_scale=0.0), (396, 704), (0, 140)),
        ((512, 1408), ImageAugmentation(scale=(-0.108, 0.22), test_scale=0.0), (792, 1408), (0, 280)),
    ],
)
def test_test_views_are_the_documented_ones(
    size: tuple[int, int], ranges: ImageAugmentation, resized: tuple[int, int], crop: tuple[int, int]
) -> None:
    view = draw_view(ranges, size, FULL, None)
    assert resized_size(FULL, view.resize) == resized
    assert view.crop == crop
    assert not view.flip
    assert view.rotate_deg == 0


def test_training_views_fill_their_ranges() -> None:
    views = [draw_view(ImageAugmentation(), (256, 704), FULL, np.random.default_rng(seed)) for seed in range(400)]
    scales = [view.resize for view in views]
    assert 0.38 <= min(scales) < 0.385
    assert 0.545 < max(scales) <= 0.55
    assert 150 < sum(view.flip for view in views) < 250
    angles = [view.rotate_deg for view in views]
    assert -5.4 <= min(angles) < -5.2
    assert 5.2 < max(angles) <= 5.4
    for view in views:
        height, width = resized_size(FULL, view.resize)
        assert view.crop[1] == height - 256
        assert 0 <= view.crop[0] <= max(0, width - 704)


def test_the_base_scale_follows_the_size_of_the_stored_image() -> None:
    view = draw_view(ImageAugmentation(test_scale=0.0), (64, 176), (99, 176), None)
    assert view.resize == 1.0
    assert view.crop == (0, 35)


def test_what_lies_beyond_the_image_is_black() -> None:
    white = torch.full((3, 90, 160), 255, dtype=torch.uint8)
    view = ImageView(resize=0.5, crop=(0, -10), size=(55, 100))
    pixels = apply_view(white, view, (90, 160))
    assert pixels[:, :10].max() == 0  # above
    assert pixels[:, :, 80:].max() == 0  # to the right
    assert pixels[:, 10:, :80].min() == 255
    for crop in ((-30, 70), (90, 0), (0, -60)):  # a corner of it, none of it
        corner = apply_view(white, ImageView(resize=0.5, crop=crop, size=(50, 50)), (90, 160))
        (x, y), lit = crop, corner.bool().sum(dim=(1, 2))
        assert (lit == max(0, min(x + 50, 80) - max(x, 0)) * max(0, min(y + 50, 45) - max(y, 0))).all()


@pytest.mark.parametrize("crop", [(37, 194), (0, 140), (-20, -8), (200, 250)])
@pytest.mark.parametrize("resize", [0.3, 0.44, 0.5, 1.0, 1.3])
def test_pixels_are_those_of_pillow_to_a_few_grey_levels(crop: tuple[int, int], resize: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*FULL, 3), dtype=np.uint8)
    for flip, angle in ((False, 0.0), (True, 3.0)):
        view = ImageView(resize=resize, crop=crop, size=(256, 704), flip=flip, rotate_deg=angle)
        (x, y), (height, width) = crop, resized_size(FULL, resize)
        slow = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).crop((x, y, x + 704, y + 256))
        slow = slow.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(angle) if flip else slow
        fast = as_image(apply_view(torch.from_numpy(noise).permute(2, 0, 1), view, FULL))
        assert np.abs(np.asarray(fast, dtype=int) - np.asarray(slow, dtype=int)).max() <= 3


def test_bev_draws_fill_their_ranges_and_keep_their_shape() -> None:
    matrices = torch.stack([draw_bev(BevAugmentation(), np.random.default_rng(seed)) for seed in range(400)])
    scale = matrices[:, 2, 2]
    assert 0.95 <= scale.min() < 0.953
    assert 1.047 < scale.max() <= 1.05
    linear = matrices[:, :2, :2] / scale[:, None, None]
    assert_close(linear @ linear.mT, torch.eye(2, dtype=torch.float64).expand(400, 2, 2))
    assert 150 < (torch.linalg.det(linear) < 0).sum() < 250  # one flip of two mirrors
    assert not matrices[:, :3, 3].any()
    shifted = draw_bev(BevAugmentation(translation_sd=0.5), np.random.default_rng(0))
    assert shifted[:3, 3].all()


@pytest.mark.parametrize("resize", [0.1, 0.24, 0.37, 0.44, 0.55, 0.7, 0.9])
@pytest.mark.parametrize("stored", [FULL, (149, 267)])
def test_decoding_smaller_changes_pixels_a_little_and_geometry_not(
    tmp_path: Path, resize: float, stored: tuple[int, int]
) -> None:
    path = tmp_path / "dot.jpg"
    v, u = (side * 5 // 8 for side in stored)
    as_image(dot(u, v, radius=stored[0] // 20, size=stored)).save(path, quality=95)
    size = resized_size(stored, resize)
    view = ImageView(resize=resize, crop=(size[1] // 9, size[0] // 7), size=(size[0] * 3 // 4, size[1] * 3 // 4))
    slow = load_image(path, view, stored)
    fast = load_image(path, view, stored, draft=True)
    assert fast.shape == slow.shape == (3, *view.size)
    assert (fast.double() - slow.double()).abs().mean() < 0.5
    centres = [centre_of_light(x) for x in (slow, fast)]
    assert_close(centres[0], centres[1], atol=0.1, rtol=0)


def test_a_file_decoded_whole_has_the_pixels_pillow_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "noise.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    pixels = load_image(path, ImageView(resize=1.0, crop=(0, 0), size=(90, 160)), (90, 160))
    assert_close(pixels, torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1), atol=0, rtol=0)


def test_red_is_the_first_channel(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (160, 90), (255, 0, 0)).save(path)
    pixels = load_image(path, ImageView(resize=1.0, crop=(0, 0), size=(90, 160)), (90, 160))
    assert pixels[0].min() == 255
    assert pixels[1:].max() == 0


def test_broken_images_are_named(tmp_path: Path) -> None:
    view = ImageView(resize=1.0, crop=(0, 0), size=(90, 160))
    whole, cut, text = tmp_path / "whole.jpg", tmp_path / "cut.jpg", tmp_path / "text.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole)
    cut.write_bytes(whole.read_bytes()[:-3000])
    text.write_text("not an image")
    for path in (cut, text, tmp_path / "gone.jpg"):
        with pytest.raises(UserError, match=rf"{path.name} .*(restore or replace it|check the path)"):
            load_image(path, view, (90, 160))
    Image.fromarray(np.full((90, 160), 40_000, np.uint16)).save(tmp_path / "deep.png")
    Image.new("L", (160, 90)).save(tmp_path / "film.gif", save_all=True, append_images=[Image.new("L", (160, 90), 99)])
    for name in ("deep.png", "film.gif"):
        with pytest.raises(UserError, match=f"{name} .*expected one, of 8 bits a channel"):
            load_image(tmp_path / name, view, (90, 160))
    with pytest.raises(UserError, match=r"whole\.jpg has 160x90 pixels, but 1600x900 in sample_data\.json"):
        load_image(whole, view, FULL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_sweeps": 0},
        {"depth_stride": 15},
        {"train_candidates": (8, 2)},
        {"point_range": (0.0, 0.0, 0.0, 1.0, 1.0, 0.0)},
        {"box_reach": 0.0},
    ],
)
def test_a_data_config_that_cannot_work_is_refused_at_once(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"\d|nothing|high"):
        DataConfig(**wrong)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotate_deg", [0.0, 5.4, -3.217, 90.0, 180.0, -33.3])
@pytest.mark.parametrize("size", [(37, 53), (40, 40)])
def test_crops_are_turned_as_pillow_rotates_them_mirrored(flip: bool, rotate_deg: float, size: tuple[int, int]) -> None:
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8).permute(2, 0, 1)
    view = ImageView(resize=1.0, crop=(0, 0), size=size, flip=flip, rotate_deg=rotate_deg)
    mirrored = pixels.flip(2) if flip else pixels
    expected = torch.from_numpy(np.array(as_image(mirrored).rotate(rotate_deg))).permute(2, 0, 1)
    assert torch.equal(apply_view(pixels, view, size), expected)
    images, turns = pixels.expand(2, 1, 2, -1, -1, -1), torch.tensor([[view.turn()] * 2] * 2, dtype=torch.int32)
    assert torch.equal(turned(images, turns), expected.expand_as(images))
    with watching():
        there = turned(images.to(DEVICE), turns.to(DEVICE)).to("cpu")
    assert torch.equal(there, expected.expand_as(images))


@pytest.mark.parametrize("crop", [(0, 0), (3, 21), (-4, 30), (40, -6), (500, 0), (17, 5)])
@pytest.mark.parametrize("resize", [0.3, 0.52, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("decoded", [(90, 160), (57, 100), (45, 80)])
def test_a_crop_is_cut_from_the_whole_image_resized(
    crop: tuple[int, int], resize: float, decoded: tuple[int, int]
) -> None:
    stored, size, scale = (90, 160), (32, 48), {90: 1.0, 57: 5 / 8, 45: 0.5}[decoded[0]]
    pixels = torch.randint(0, 256, (*decoded, 3), dtype=torch.uint8).permute(2, 0, 1)
    height, width = resized_size(stored, resize)
    whole = apply_view(pixels, ImageView(resize=resize, crop=(0, 0), size=(height, width)), stored, scale)
    beyond = torch.zeros(3, 300, 900, dtype=torch.uint8)
    beyond[:, 50 : 50 + height, 50 : 50 + width] = whole
    (x, y), (rows, columns) = crop, size
    cut = apply_view(pixels, ImageView(resize=resize, crop=crop, size=size), stored, scale)
    assert torch.equal(cut, beyond[:, 50 + y : 50 + y + rows, 50 + x : 50 + x + columns])
    ratio = [side / (scale * own) * (1 + 1e-9) for side, own in zip((height, width), stored, strict=True)]
    at_once = torch.ops.aten._upsample_bicubic2d_aa(
        pixels[None].contiguous(memory_format=torch.channels_last), [height, width], False, *ratio
    )
    assert torch.equal(whole, at_once[0])
