"""Result files of the benchmark."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.robust.cases.case import DAMAGES, Build, Case
from tests.robust.places import Places

_BOX: dict[str, Any] = {
    "sample_token": "scene-0103-0",
    "translation": [600.0, 1600.0, 1.0],
    "size": [1.9, 4.5, 1.6],
    "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.0, 0.0],
    "detection_name": "car",
    "detection_score": 0.5,
    "attribute_name": "",
}


def results() -> Iterator[Case]:
    """Result files of the benchmark."""
    nan, inf = float("nan"), float("inf")
    for key, value in (
        ("translation", [nan, 0, 0]),
        ("translation", [0, 0]),
        ("size", [0, 1, 1]),
        ("size", [-1, 1, 1]),
        ("size", [inf, 1, 1]),
        ("rotation", [nan, 0, 0, 0]),
        ("rotation", [1, 0, 0]),
        ("velocity", [inf, 0]),
        ("velocity", [-inf, inf]),
        ("detection_score", nan),
        ("detection_score", "high"),
        ("detection_name", "cars"),
        ("attribute_name", "asleep"),
        ("sample_token", "another"),
        ("translation", None),
    ):
        yield Case(
            "17 results",
            f"{key} {value}",
            _result(lambda f, k=key, v=value: _first(f).update({k: v})),
            ("scene-0103-0",),
        )
    for what, change in {
        "no meta": lambda file: file.pop("meta"),
        "no results": lambda file: file.pop("results"),
        "results a list": lambda file: file.update(results=[]),
        "a sample missing": lambda file: file["results"].pop("scene-0103-1"),
        "a foreign sample": lambda file: file["results"].update(x=[]),
        "501 boxes": lambda file: file["results"].update({"scene-0103-0": [_BOX] * 501}),
    }.items():
        yield Case("17 results", what, _result(change), ("results",))
    for damage, change_bytes in DAMAGES.items():
        yield Case("17 results", damage, _result(lambda file: None, change_bytes), ("results.json",))


def _first(file: dict[str, Any]) -> dict[str, Any]:
    return file["results"]["scene-0103-0"][0]


def _result(change: Callable[[dict[str, Any]], Any], damage: Callable[[bytes], bytes] = bytes) -> Build:
    def build(at: Places) -> list[str]:
        file = {"meta": {"use_camera": True}, "results": {f"scene-0103-{i}": [] for i in range(3)}}
        file["results"]["scene-0103-0"] = [dict(_BOX)]
        change(file)
        path = at.new() / "results.json"
        path.write_bytes(damage(json.dumps(file).encode()))
        return ["evaluate", str(path), "--data", str(at.root())]

    return build
