import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from dualdistill.geometry.cameras import bev_augmentation, image_augmentation, project
from dualdistill.geometry.transforms import transform

quick = settings(max_examples=20, deadline=None)
booleans = st.booleans()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0.0, 5.4, -5.4])
@pytest.mark.parametrize(("resize", "crop"), [(0.5, (12, 20)), (0.8, (41, 33))])
def test_a_painted_spot_is_found_where_the_matrix_says(flip, degrees, resize, crop):
    """The pixels' own way, through PIL: resize, crop, mirror, rotate."""
    height, width = 64, 96
    for u, v in ((70, 90), (120, 75), (95, 110)):
        pixels = np.zeros((180, 240), dtype=np.float32)
        pixels[v - 4 : v + 5, u - 4 : u + 5] = 1.0  # centre (u + 0.5, v + 0.5) in continuous coordinates
        image = Image.fromarray(pixels).resize((int(240 * resize), int(180 * resize)), Image.Resampling.BILINEAR)
        image = image.crop((crop[0], crop[1], crop[0] + width, crop[1] + height))
        if flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        seen = np.asarray(image.rotate(degrees, Image.Resampling.BILINEAR))
        rows, columns = np.mgrid[0:height, 0:width] + 0.5
        found = torch.tensor([(seen * columns).sum(), (seen * rows).sum()]) / float(seen.sum())
        matrix = image_augmentation(resize=resize, crop=crop, size=(height, width), flip=flip, rotate_deg=degrees)
        expected = transform(matrix, torch.tensor([[u + 0.5, v + 0.5, 7.0]]))[0]
        assert_close(found.float(), expected[:2], atol=0.3, rtol=0)
        assert expected[2] == 7.0


def test_mirroring_twice_and_turning_back_is_nothing():
    mirror = image_augmentation(resize=1.0, crop=(0, 0), size=(40, 60), flip=True, rotate_deg=0.0)
    assert_close(mirror @ mirror, torch.eye(4))
    there = image_augmentation(resize=1.0, crop=(0, 0), size=(40, 60), flip=False, rotate_deg=30.0)
    back = image_augmentation(resize=1.0, crop=(0, 0), size=(40, 60), flip=False, rotate_deg=-30.0)
    assert_close(back @ there, torch.eye(4), atol=1e-5, rtol=0)


@quick
@given(st.floats(-4, 4), st.floats(0.5, 2), booleans, booleans)
def test_bev_augmentation_rotates_then_scales_then_mirrors(angle, scale, flip_x, flip_y):
    start = torch.tensor([[3.0, -1.0, 2.0]], dtype=torch.float64)
    matrix = bev_augmentation(angle=angle, scale=scale, flip_x=flip_x, flip_y=flip_y, dtype=torch.float64)
    x, y = 3 * math.cos(angle) + math.sin(angle), 3 * math.sin(angle) - math.cos(angle)
    expected = [-scale * x if flip_x else scale * x, -scale * y if flip_y else scale * y, 2 * scale]
    assert_close(transform(matrix, start)[0], torch.tensor(expected, dtype=torch.float64))


def test_projection_is_similar_triangles_and_keeps_the_depth():
    intrinsics = torch.tensor([[100.0, 0, 50], [0, 200, 30], [0, 0, 1]])
    pixels = project(torch.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 9.0]]), intrinsics)
    assert_close(pixels, torch.tensor([[75.0, 130, 4], [50, 30, 9]]))


def test_projection_is_not_rounded_under_autocast():
    intrinsics = torch.tensor([[[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]]])
    points = torch.rand(1, 20, 3) + torch.tensor([0.0, 0, 2])
    exact = project(points, intrinsics)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(project(points, intrinsics), exact)
