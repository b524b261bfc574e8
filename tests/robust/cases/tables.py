"""Tables that are damaged, contradict each other, or hold impossible geometry."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.robust.cases.case import DAMAGES, MATRICES, Build, Case
from tests.robust.places import Places, edit_table


def tables() -> Iterator[Case]:
    """Tables that are damaged, contradict each other, or hold impossible geometry."""
    for table in (
        "sample",
        "sample_data",
        "ego_pose",
        "calibrated_sensor",
        "sample_annotation",
        "instance",
        "category",
    ):
        for damage, change in DAMAGES.items():
            yield Case("7 tables", f"{table} {damage}", _damaged_table(table, change), (f"{table}.json",))
        yield Case("7 tables", f"{table} missing", _without_table(table), (f"{table}.json",))
    nan, inf = float("nan"), float("inf")
    front, car = "scene-0061-CAM_FRONT-1", "scene-0061-vehicle.car-1"
    for group, table, token, change in (
        *(
            ("6 geometry", "calibrated_sensor", "calibrated-CAM_FRONT", {"camera_intrinsic": matrix})
            for matrix in MATRICES
        ),
        *(
            ("6 geometry", table, token, {"rotation": rotation})
            for table, token in (
                ("calibrated_sensor", "calibrated-LIDAR_TOP"),
                ("ego_pose", front),
                ("sample_annotation", car),
            )
            for rotation in ([0, 0, 0, 0], [nan, 0, 0, 0], [inf, 0, 0, 0], [1, 0, 0], [1e300, 0, 0, 0], ["x", 0, 0, 0])
        ),
        *(
            ("6 geometry", table, token, {"translation": translation})
            for table, token in (
                ("calibrated_sensor", "calibrated-LIDAR_TOP"),
                ("ego_pose", front),
                ("sample_annotation", car),
            )
            for translation in ([nan, 0, 0], [1e300, 0, 0], [0, 0], None, [1e7, 0, 0])
        ),
        *(
            ("7 boxes", "sample_annotation", car, {"size": size})
            for size in ([0, 1, 1], [-1, 1, 1], [nan, 1, 1], [10_000, 1, 1], [1e300, 1, 1], [1, 1], "big")
        ),
        *(("8 hangs", "sample_data", front, {"prev": other}) for other in (front, "scene-0061-CAM_FRONT-2")),
        *(("8 hangs", "sample", "scene-0061-1", {"prev": other}) for other in ("scene-0061-1", "scene-0061-2")),
        *(("8 hangs", "sample", "scene-0061-1", {"next": other}) for other in ("scene-0061-1", "scene-0061-0")),
        ("8 hangs", "sample_annotation", car, {"prev": car}),
        ("8 hangs", "sample_annotation", car, {"next": "scene-0061-vehicle.car-0"}),
        *(("9 outside", "sample_data", front, {"filename": name}) for name in OUTSIDE),
        *(
            ("9 outside", "sample", "scene-0061-1", {"token": token})
            for token in ("../x", "a/b", "/x", "..", "", "a\\b")
        ),
        *(("7 tables", "sample_data", front, {"height": value}) for value in (0, -1, 10**9, None)),
        *(("7 tables", "sample_data", front, {"timestamp": value}) for value in (nan, 2**70, -(2**70), "x", 10**400)),
        *(
            ("7 tables", "sample_data", front, {key: "lost"})
            for key in ("ego_pose_token", "sample_token", "calibrated_sensor_token")
        ),
        ("7 tables", "sample_data", front, {"token": "scene-0061-CAM_FRONT-0"}),
        ("7 tables", "sample_annotation", car, {"instance_token": "lost"}),
        ("7 tables", "category", "category-vehicle.car", {"name": "car"}),
        ("7 tables", "category", "category-vehicle.car", {"name": "vehicle.cars"}),
    ):
        words = (f"{table}|{token}|boxes|ego poses|categor",)
        yield Case(group, f"{table} {token} {change}"[:90], _changed_record(table, token, change), words)
    yield Case(
        "7 boxes", "no box with points", _every_annotation({"num_lidar_pts": 0, "num_radar_pts": 0}), ("no box",)
    )
    yield Case(
        "7 boxes", "boxes far away", _every_annotation({"translation": [9000.0, 1610.0, 1.0]}), ("from the car",)
    )
    yield Case("7 tables", "no scene of a split", _every_scene_renamed, ("split",))
    yield Case("7 tables", "no sample", _emptied("sample"), ("sample",))
    yield Case("7 tables", "no sensor data", _emptied("sample_data"), ("sample",))


OUTSIDE = (
    "/etc/passwd",
    "../outside.jpg",
    "samples/../../outside.jpg",
    "..",
    "",
    "samples\\x.jpg",
    "C:/x.jpg",
    "a\x00b",
)


def _damaged_table(table: str, change: Callable[[bytes], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        path = root / "v1.0-mini" / f"{table}.json"
        path.write_bytes(change(path.read_bytes()))
        return ["data", "check", str(root)]

    return build


def _without_table(table: str) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        (root / "v1.0-mini" / f"{table}.json").unlink()
        return ["data", "prepare", str(root)]

    return build


def _changed_record(table: str, token: str, change: dict[str, Any]) -> Build:
    def edit(records: list[dict[str, Any]]) -> None:
        (record,) = (record for record in records if record["token"] == token)
        record.update(change)

    return _edited_root(table, edit)


def _every_annotation(change: dict[str, Any]) -> Build:
    return _edited_root("sample_annotation", lambda records: [record.update(change) for record in records] and None)


def _every_scene_renamed(at: Places) -> list[str]:
    rename = _edited_root(
        "scene", lambda records: [record.update(name=f"my {i}") for i, record in enumerate(records)] and None
    )
    return rename(at)


def _emptied(table: str) -> Build:
    return _edited_root(table, list.clear)


def _edited_root(table: str, edit: Callable[[list[dict[str, Any]]], None]) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        edit_table(root, table, edit)
        return ["data", "check", str(root)]

    return build
