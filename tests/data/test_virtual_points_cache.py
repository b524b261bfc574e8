"""Laws of the cache of virtual points, ours and the official one's."""

import pickle
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dualdistill import files
from dualdistill.data.build import LIDAR
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.clouds import virtual_point_files
from dualdistill.data.virtual_points.complete import (
    CACHE_NAMES,
    LARGEST_GAP_US,
    CompletedSweep,
    images_of_sweep,
    lidar_records,
    make_virtual_points,
)
from dualdistill.data.virtual_points.files import ArrayFiles
from dualdistill.data.virtual_points.masks import ImageInstances, InstanceMasks
from dualdistill.data.virtual_points.official import OfficialFiles, read_official
from dualdistill.errors import UserError
from dualdistill.structures import CAMERAS
from tests.data.tiny_root import TinyRoot, write_root

NAME = "samples/LIDAR_TOP/a.pcd.bin"


class MiddleOfKeyFrames:
    """A car in the middle of each key frame image; how often it was asked is counted."""

    identity = "middle"

    def __init__(self, index: NuscenesIndex):
        self.index, self.asked = index, 0

    def __call__(self, row: int) -> ImageInstances:
        self.asked += 1
        height, width = (int(side) for side in self.index.data_size[row])
        if not self.index.data_is_key[row]:
            return ImageInstances.none((height, width))
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[:, height // 4 : -height // 4, width // 4 : -width // 4] = True
        return ImageInstances.of(mask, ["car"], torch.tensor([0.5]))


def some_sweep(seed: int = 0) -> CompletedSweep:
    generator = torch.Generator().manual_seed(seed)
    return CompletedSweep(
        virtual=torch.rand(6, 14, generator=generator),
        painted=torch.rand(4, 15, generator=generator),
        painted_rows=torch.tensor([1, 3, 4, 9]),
    )


def files_in(folder: Path) -> ArrayFiles[CompletedSweep]:
    return ArrayFiles(
        folder=folder, kind=CompletedSweep, names=CACHE_NAMES, what="virtual points", verb="virtual-points"
    )


def assert_same(a: CompletedSweep, b: CompletedSweep) -> None:
    assert torch.equal(a.virtual, b.virtual)
    assert torch.equal(a.painted, b.painted)
    assert torch.equal(a.painted_rows, b.painted_rows)


def official(sweep: CompletedSweep) -> dict[str, np.ndarray]:
    return {
        "virtual_points": sweep.virtual.numpy(),
        "real_points": sweep.painted.numpy(),
        "real_points_indice": sweep.painted_rows.numpy(),
    }


def test_files_that_will_not_fit_are_refused_after_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = NuscenesIndex.open(write_root(tmp_path / "root", {"scene-0061": 3}, sweeps=False).path)
    rows, cache = np.flatnonzero(index.data_channel == LIDAR).tolist(), files_in(tmp_path / "points")
    monkeypatch.setattr(files, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(UserError, match=r"virtual points \(2 more\) needs .* whose disk has 1 kB"):
        cache.make(index, rows, lambda row: some_sweep(), {})
    assert len(list(cache.folder.rglob("*.npz"))) == 1
    monkeypatch.undo()
    assert cache.make(index, rows, lambda row: some_sweep(), {}) == 2


@pytest.mark.parametrize("sweep", [some_sweep(), CompletedSweep.none()], ids=["some", "none"])
def test_what_is_written_is_read_again(tmp_path: Path, sweep: CompletedSweep) -> None:
    cache = files_in(tmp_path)
    cache.write(NAME, sweep)
    assert_same(cache.read(NAME), sweep)
    assert cache.missing([NAME, "sweeps/LIDAR_TOP/b.pcd.bin"]) == ["sweeps/LIDAR_TOP/b.pcd.bin"]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn"])
def test_a_broken_file_is_said_to_be_so(tmp_path: Path, damage: bytes) -> None:
    cache = files_in(tmp_path)
    cache.write(NAME, some_sweep())
    cache.path(NAME).write_bytes(damage)
    with pytest.raises(UserError, match="delete the file"):
        cache.read(NAME)


def test_official_files_are_found_beside_the_lidars_and_read_without_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = OfficialFiles(folder=tmp_path)
    path = tmp_path / "samples" / "LIDAR_TOP_VIRTUAL" / "a.pcd.bin.pkl.npy"
    assert cache.path(NAME) == path
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        np.save(file, official(some_sweep()))  # as the official code does
    monkeypatch.setattr(pickle, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    assert cache.missing([NAME]) == []
    assert_same(cache.read(NAME), some_sweep())


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("sweep", [some_sweep(), CompletedSweep.none()], ids=["some", "none"])
@pytest.mark.parametrize("old_numpy", [False, True])
def test_official_files_of_every_pickle_protocol_are_read(
    tmp_path: Path, sweep: CompletedSweep, protocol: int, old_numpy: bool
) -> None:
    whole = np.empty((), dtype=object)
    whole[()] = official(sweep) | {"real_points": np.asfortranarray(sweep.painted.numpy())}
    pickled = pickle.dumps(whole, protocol=protocol)
    if old_numpy and protocol < 4:  # before NumPy 2 the module had another name
        pickled = pickled.replace(b"numpy._core.", b"numpy.core.")
    with (tmp_path / "file.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)
    assert_same(read_official(tmp_path / "file.npy"), sweep)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("(_ for _ in ()).throw(AssertionError('code of a file was run'))",)


@pytest.mark.parametrize(
    "content",
    [Harmful(), {"virtual_points": Harmful()}, {"virtual_points": np.zeros((2, 14), np.float32)}, [1, 2], "text"],
    ids=["code", "code inside", "keys missing", "list", "text"],
)
def test_other_official_files_are_refused_and_nothing_in_them_is_run(tmp_path: Path, content: object) -> None:
    whole = np.empty((), dtype=object)
    whole[()] = content
    with (tmp_path / "file.npy").open("wb") as file:
        np.save(file, whole)
    with pytest.raises(UserError, match="not a file of the official virtual points"):
        read_official(tmp_path / "file.npy")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"something else altogether"])
def test_torn_official_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.npy").write_bytes(content)
    with pytest.raises(UserError, match="not a file of the official virtual points"):
        read_official(tmp_path / "file.npy")
    with pytest.raises(UserError, match="No such file"):
        read_official(tmp_path / "none.npy")


def test_key_frames_take_their_own_images_and_sweeps_the_nearest(tiny_index: NuscenesIndex) -> None:
    images = partial(images_of_sweep, tiny_index)
    key = int(tiny_index.sample_lidar[3])
    assert images(key) == tiny_index.sample_cameras[3].tolist()
    times = tiny_index.data_timestamp_us
    for row in (int(tiny_index.data_prev[key]), int(tiny_index.data_next[key])):
        chosen = images(row)
        scene = tiny_index.sample_scene[tiny_index.data_sample]
        for camera in range(len(CAMERAS)):
            others = np.flatnonzero(
                (tiny_index.data_channel == camera) & (scene == tiny_index.sample_scene[tiny_index.data_sample[row]])
            )
            assert abs(times[chosen[camera]] - times[row]) == abs(times[others] - times[row]).min()


def test_an_image_too_far_from_a_sweep_in_time_does_not_count(tmp_path: Path) -> None:
    root = write_root(tmp_path / "root", {"scene-0061": 2})
    root.rewrite(
        "sample_data",
        lambda records: [
            record.update(timestamp=record["timestamp"] + 500_000 + LARGEST_GAP_US + 1)
            for record in records
            if "CAM" in record["token"]
        ],
    )
    index = NuscenesIndex.open(root.path)
    rows = [row for row in lidar_records(index, np.arange(2), 10) if not index.data_is_key[row]]
    images = partial(images_of_sweep, index)
    assert len(rows) == 9
    assert all(images(row) == [-1] * len(CAMERAS) for row in rows)
    assert images(int(index.sample_lidar[1])) == index.sample_cameras[1].tolist()


def test_records_are_the_key_frames_and_all_sweeps_that_may_be_drawn(tiny_index: NuscenesIndex) -> None:
    rows = lidar_records(tiny_index, np.array([2]), 4)
    key = int(tiny_index.sample_lidar[2])
    assert len(rows) == 5
    assert key in rows
    assert lidar_records(tiny_index, np.array([2]), 1) == [key]


def test_an_interrupted_making_goes_on_to_the_same_files(own_root: TinyRoot, tmp_path: Path) -> None:
    index = NuscenesIndex.open(own_root.path)
    rows = lidar_records(index, np.arange(len(index)), 2)
    whole = files_in(tmp_path / "whole")
    assert make_virtual_points(index, rows, MiddleOfKeyFrames(index), whole) == len(rows) == 3

    def interrupt(todo: Iterable[int]) -> Iterable[int]:
        yield next(iter(todo))
        raise KeyboardInterrupt

    part = files_in(tmp_path / "part")
    with pytest.raises(KeyboardInterrupt):
        make_virtual_points(index, rows, MiddleOfKeyFrames(index), part, progress=interrupt)
    masks = MiddleOfKeyFrames(index)
    assert make_virtual_points(index, list(reversed(rows)), masks, part) == 2
    assert masks.asked == 2 * len(CAMERAS)
    for row in rows:
        assert len(whole.read(index.data_filename[row]).virtual) == 50 * len(CAMERAS)
        assert_same(whole.read(index.data_filename[row]), part.read(index.data_filename[row]))


def test_points_of_two_origins_do_not_mix(own_root: TinyRoot, tmp_path: Path) -> None:
    index = NuscenesIndex.open(own_root.path)
    cache = files_in(tmp_path / "cache")
    make_virtual_points(index, [], MiddleOfKeyFrames(index), cache)
    with pytest.raises(UserError, match="Delete the folder"):
        make_virtual_points(index, [], MiddleOfKeyFrames(index), cache, seed=1)


def test_the_root_is_only_read(own_root: TinyRoot) -> None:
    index = NuscenesIndex.open(own_root.path)
    before = sorted(own_root.path.rglob("*"))
    cache = virtual_point_files(index, "maskrcnn")
    make_virtual_points(index, [int(index.sample_lidar[0])], MiddleOfKeyFrames(index), cache)
    assert sorted(own_root.path.rglob("*")) == before
    assert cache.made_from is not None


def test_the_tests_masks_keep_the_protocol(tiny_index: NuscenesIndex) -> None:
    assert isinstance(MiddleOfKeyFrames(tiny_index), InstanceMasks)
