"""Decoded images on disk: the same samples, never an old image, and no more room than told before."""

import os
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualdistill.data import images
from dualdistill.data.augment import ImageView
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.images import ImageCache
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from tests.data.test_dataset import SMALL, assert_same

CONFIG = replace(SMALL, points=False, depth=False)


def dataset(index: NuscenesIndex, cache: ImageCache | None = None) -> NuscenesDataset:
    made = NuscenesDataset(index, CONFIG, np.arange(len(index)), training=True, seed=0)
    made.image_cache = cache
    return made


@pytest.fixture
def cache(tiny_index: NuscenesIndex, tmp_path: Path) -> ImageCache:
    return ImageCache.under(tmp_path, tiny_index)


def test_samples_are_equal_bit_by_bit_and_no_image_is_decoded_twice(tiny_index, cache, monkeypatch):
    plain, cached = dataset(tiny_index), dataset(tiny_index, cache)
    keys = [(epoch, item) for epoch in (0, 1) for item in (0, 5)]
    for key in keys:
        assert_same(plain[key], cached[key])
    want = [plain[key] for key in keys]
    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded again"))
    for key, sample in zip(keys, want, strict=True):
        assert_same(sample, cached[key])


def test_changed_images_and_damaged_files_are_decoded_again(tiny_index, cache):
    row = int(tiny_index.sample_cameras[0, 0])
    path, shape = tiny_index.path(row), (45, 80)

    def read(value: int) -> int:
        return int(cache.pixels(path, shape, lambda: np.full((*shape, 3), value, dtype=np.uint8))[0, 0, 0])

    assert (read(1), read(2)) == (1, 1)
    status = path.stat()
    try:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert (read(3), read(4)) == (3, 3)
    finally:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert read(5) == 5
    (file,) = cache.folder.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert read(6) == 6
    file.write_bytes(content[:100])
    assert (read(7), read(8)) == (7, 7)


def test_the_room_told_before_is_that_of_every_file_a_training_can_make(tiny_index, cache):
    positions = range(len(tiny_index))
    before = cache.require_room(tiny_index, positions, CONFIG)
    loaded = dataset(tiny_index, cache)
    for epoch in range(12):
        for item in positions:
            loaded[epoch, item]
    files = list(cache.folder.rglob("*.safetensors"))
    count = int(before.split(" files")[0].rsplit(" ", 1)[1])
    assert count / 2 < len(files) <= count
    assert cache.require_room(tiny_index, positions, CONFIG).split(" at most")[0] == before.split(" at most")[0]


def test_a_disk_without_room_is_refused_with_the_size(tiny_index, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("dualdistill.files.disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(UserError, match=r"image cache .* needs .* whose disk has 1 B.*--image-cache"):
        cache.require_room(tiny_index, range(len(tiny_index)), CONFIG)


def test_a_file_that_is_gone_is_not_served_from_the_cache(tiny_index, cache, tmp_path):
    path = tmp_path / "image.jpg"
    shutil.copy(tiny_index.path(int(tiny_index.sample_cameras[0, 0])), path)
    view = ImageView(resize=0.5, crop=(0, 0), size=(16, 16))
    height, width = (int(side) for side in tiny_index.data_size[int(tiny_index.sample_cameras[0, 0])])
    images.load_image(path, view, (height, width), cache=cache)
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        images.load_image(path, view, (height, width), cache=cache)
