"""Films are read back frame by frame; depth maps keep their sources apart."""

import numpy as np
import pytest
import torch
from PIL import Image

from dualdistill.errors import UserError
from dualdistill.structures import CameraOutput
from dualdistill.visualize.cameras import draw_depth, likely_depth
from dualdistill.visualize.film import beside, rendered, write_film


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_film_holds_its_frames_in_order(tmp_path, suffix):
    frames = [Image.new("RGB", (40, 30), (shade, shade, shade)) for shade in (0, 120, 240)]
    write_film(tmp_path / f"film{suffix}", frames, rate=4.0)
    with Image.open(tmp_path / f"film{suffix}") as film:
        assert film.n_frames == 3
        for number in range(3):
            film.seek(number)
            assert abs(np.array(film.convert("RGB")).mean() - 120 * number) < 5


def test_frames_of_several_sizes_are_padded(tmp_path):
    write_film(tmp_path / "film.webp", [Image.new("RGB", (40, 30), "red"), Image.new("RGB", (50, 30))], rate=4.0)
    with Image.open(tmp_path / "film.webp") as film:
        assert (film.size, film.n_frames) == ((50, 30), 2)


def test_a_film_of_another_format_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"\.gif or \.webp"):
        write_film(tmp_path / "film.avi", [Image.new("RGB", (4, 4))], rate=4.0)


def test_pictures_stand_beside_each_other_at_one_height():
    strip = beside([Image.new("RGB", (40, 30), "red"), Image.new("RGB", (10, 10), "blue")], 60)
    assert strip.size == (80 + 60, 60)
    assert strip.getpixel((10, 30)) == (255, 0, 0)
    assert strip.getpixel((100, 30)) == (0, 0, 255)


def test_the_most_likely_bin_gives_the_depth():
    logits = torch.zeros(1, 2, 3, 1, 1)
    logits[0, 0, 2] = logits[0, 1, 1] = 1.0
    camera = CameraOutput(
        features=torch.zeros(1, 2, 4, 1, 1), depth_logits=logits, depths=torch.tensor([1.0, 5.0, 9.0])
    )
    assert likely_depth(camera).flatten().tolist() == [9.0, 5.0]


def test_depth_maps_of_all_sources_share_one_scale_and_cells_without_a_depth_stay_dark():
    images = torch.full((2, 3, 32, 96), 90, dtype=torch.uint8)
    near, none = torch.full((2, 4, 12), 3.0), torch.zeros(2, 4, 12)
    figure = draw_depth(("CAM_A", "CAM_B"), images, {"LiDAR": near, "student": none}, image_width=96)
    drawn = np.asarray(rendered(figure)).astype(int)
    rows = [drawn[36 * row + 16, 136 + 60] for row in (1, 2)]
    assert np.ptp(rows[0]) > 60
    assert rows[1].max() < 40
