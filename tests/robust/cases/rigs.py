"""Calibration files of a user's own cameras."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.robust.cases.case import DAMAGES, MATRICES, Build, Case, png
from tests.robust.places import Places


def rig() -> dict[str, Any]:
    """A good calibration file, of one camera."""
    pose = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    camera = {
        "name": "front",
        "intrinsics": [[120.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
        "lidar_from_camera": pose,
    }
    return {"image_size": [90, 160], "cameras": [camera]}


def rigs() -> Iterator[Case]:
    """Calibration files of a user's own cameras."""
    nan = float("nan")
    for key, value in (
        *(("intrinsics", matrix) for matrix in MATRICES),
        ("lidar_from_camera", [[0.0] * 4] * 4),
        ("lidar_from_camera", [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]),
        ("lidar_from_camera", [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]),
        ("lidar_from_camera", [[1.0, 0, 0, 1e9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ("lidar_from_camera", [[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ("lidar_from_camera", [[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        ("lidar_from_camera", [[nan, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ("lidar_from_camera", None),
        ("lidar_from_camera", "x"),
        *(("name", name) for name in (3, "", "..", "../x", "a/b", "a\\b", "front\x00")),
        ("smell", 1),
    ):
        yield _rig_case(f"camera {key} {value}"[:70], lambda rig, k=key, v=value: rig["cameras"][0].update({k: v}))
    for what, change in {
        "no camera": lambda rig: rig.update(cameras=[]),
        "two of one name": lambda rig: rig.update(cameras=rig["cameras"] * 2),
        "image_size 0": lambda rig: rig.update(image_size=[0, 0]),
        "image_size -1": lambda rig: rig.update(image_size=[-1, 160]),
        "image_size huge": lambda rig: rig.update(image_size=[10**9, 10**9]),
        "image_size a text": lambda rig: rig.update(image_size="x"),
        "ego_from_lidar zeros": lambda rig: rig.update(ego_from_lidar=[[0.0] * 4] * 4),
        "without cameras": lambda rig: rig.pop("cameras"),
    }.items():
        yield _rig_case(what, change)
    for damage, change_bytes in DAMAGES.items():
        yield Case("6 rigs", f"rig {damage}", _rig_file(lambda rig: None, change_bytes), ("rig.json",))
    yield Case("17 small", "own images of another size", _own_images, ("calibration file",))


def _rig_case(what: str, change: Callable[[dict[str, Any]], Any]) -> Case:
    return Case("6 rigs", f"export: {what}", _rig_file(change, lambda content: content), ("rig.json",))


def _rig_file(change: Callable[[dict[str, Any]], Any], damage: Callable[[bytes], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        plain = rig()
        change(plain)
        path = at.new() / "rig.json"
        path.write_bytes(damage(json.dumps(plain).encode()))
        out = ["--out", str(at.new() / "out"), "--format", "torch"]
        return ["export", str(at.run()), "--calibration", str(path), *out]

    return build


def _own_images(at: Places) -> list[str]:
    folder = at.new()
    (folder / "rig.json").write_text(json.dumps(rig()))
    (folder / "a.png").write_bytes(png(64, 64))
    return ["predict", str(at.run()), "--images", str(folder / "a.png"), "--calibration", str(folder / "rig.json")]
