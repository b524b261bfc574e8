"""Sensor files that are missing, of another kind or layout, or hold what no sensor gives."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.robust.cases.case import Build, Case, png, replace, train
from tests.robust.places import Places


def _kitti(points: np.ndarray) -> bytes:
    return points[:, :4].astype(np.float32).tobytes()


def _with(column: int, value: float) -> Callable[[np.ndarray], bytes]:
    def change(points: np.ndarray) -> bytes:
        points = points.copy()
        points[::7, column] = value
        return points.tobytes()

    return change


CLOUDS: dict[str, Callable[[np.ndarray], bytes]] = {
    "empty": lambda points: b"",
    "cut off": lambda points: points.tobytes()[:-3],
    "KITTI": lambda points: _kitti(points[: len(points) // 5 * 5]),
    "KITTI, four points short": lambda points: _kitti(points[: len(points) // 5 * 5 - 4]),
    "float64": lambda points: points.astype(np.float64).tobytes(),
    "text": lambda points: b"x y z intensity ring\n" * 100,
    "all zero": lambda points: bytes(points.nbytes),
    "intensity NaN": _with(3, float("nan")),
    "intensity 1e38": _with(3, 1e38),
    "intensity -1": _with(3, -1.0),
    "x NaN": _with(0, float("nan")),
    "z infinite": _with(2, float("inf")),
    "y 10 km": _with(1, 10_000.0),
    "ring 0.5": _with(4, 0.5),
}


def sensors() -> Iterator[Case]:
    """Sensor files that are missing, of another kind or layout, or hold what no sensor gives."""
    for what, change in CLOUDS.items():
        for verb in ("data check", "train"):
            yield Case("7 sensors", f"{verb}: LiDAR {what}", _changed_cloud(verb, change), ("LIDAR_TOP",))
    cuts: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda content: b"",
        "cut off": lambda content: content[:-40],
        "text": lambda content: b"hello",
        "a bomb": lambda content: png(100_000, 100_000),
        "another size": lambda content: png(64, 64),
    }
    for what, cut in cuts.items():
        for verb in ("data check", "train"):
            yield Case("7 sensors", f"{verb}: image {what}", _changed_image(verb, cut), ("CAM_FRONT",))
    for folder in ("LIDAR_TOP", "CAM_FRONT"):
        for verb in ("data check", "train"):
            for what in ("missing", "pipe", "folder", "loop"):
                group = "8 hangs" if what in ("pipe", "loop") else "7 sensors"
                yield Case(group, f"{verb}: {folder} a {what}", _replaced(verb, folder, what), (folder,))
    for what in ("pipe", "folder"):
        for name in ("rig.json", "results.json"):
            yield Case(
                "8 hangs", f"{name} a {what}", _replaced_input(name, what), (name, "regular|no result file|folder")
            )


def _command(verb: str, root: Path, at: Places) -> list[str]:
    return ["data", "check", str(root)] if verb == "data check" else train(root, at.new())


def _changed_cloud(verb: str, change: Callable[[np.ndarray], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        for path in (root / "samples" / "LIDAR_TOP").iterdir():
            path.write_bytes(change(np.frombuffer(path.read_bytes(), np.float32).reshape(-1, 5)))
        return _command(verb, root, at)

    return build


def _changed_image(verb: str, change: Callable[[bytes], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        for path in (root / "samples" / "CAM_FRONT").iterdir():
            path.write_bytes(change(path.read_bytes()))
        return _command(verb, root, at)

    return build


def _replaced(verb: str, folder: str, what: str) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        replace(min((root / "samples" / folder).iterdir()), what)
        return _command(verb, root, at)

    return build


def _replaced_input(name: str, what: str) -> Build:
    def build(at: Places) -> list[str]:
        path = at.new() / name
        replace(path, what)
        if name == "results.json":
            return ["evaluate", str(path), "--data", str(at.root())]
        return ["predict", str(at.run()), "--images", "a.jpg", "--calibration", str(path)]

    return build
