"""Calls with arguments that cannot be, and how they end. A program, since under pytest types are checked before.

python -m tests.api.bad_arguments    # JSON: the error of each call
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch

import dualdistill as dd

SHAPES = dd.Shapes(stages=((8, 16, 16), (16, 8, 8)), neck=(10, 16, 16), extent=(-8.0, -8.0, 8.0, 8.0))
METHODS = (dd.DualDistill, dd.DistillBev, dd.TigBev, dd.X3kd, dd.LabelDistill)
NAN, INF = float("nan"), float("inf")

Call = tuple[str, Callable[[], object], str]
"""Name, call, and a regular expression of what the message must name."""


def calls() -> Iterator[Call]:
    """All calls."""
    for part in (functions, rigs, shapes, losses, maps, boxes):
        yield from part()


def functions() -> Iterator[Call]:
    """Those that load, predict, train and evaluate."""
    given = {"weights": "nowhere", "recipe": "synthetic/student", "data": "/nowhere", "what": "nowhere", "images": []}
    given["rig"] = rig()
    for function, needed, wrong in (
        (
            dd.load,
            ("weights",),
            {
                "weights": (
                    None,
                    3,
                    b"x",
                    ["x"],
                    True,
                    "",
                    "zoo:",
                    "zoo:nothing",
                    "hf:",
                    "hf:a",
                    "hf:a/b/c",
                    "a" * 5000,
                ),
                "checkpoint": (None, 3, ["last"]),
                "device": (3, ["cpu"]),
            },
        ),
        (
            dd.fit,
            ("recipe", "data"),
            {
                "recipe": (None, 3, "", ":", "nothing"),
                "data": (None, 3, "/nowhere"),
                "out": (None, 3),
                "settings": ("a=1", 3, ["a=1"], {3: 2}, {"training.steps": [1]}, {"training.steps": NAN}),
                "workers": (-1, 1.5, "x", 10**9),
                "seed": (-1, 2**32, 1.5, "0", None, True),
                "split": (3, ["train"]),
                "version": (3,),
                "teacher": (3, True, "x"),
                "quiet": ("no",),
            },
        ),
        (dd.score, ("what",), {"what": (None, 3, "x.json"), "data": (3,), "out": (3,), "workers": (-1, 1.5)}),
        (
            dd.predict,
            ("weights", "images", "rig"),
            {"images": (None, 3, {}), "rig": (None, "rig.json", 3), "min_score": (NAN, -1, 2, "x", None)},
        ),
    ):
        for name, values in wrong.items():
            for value in values:
                arguments = {each: given[each] for each in needed} | {name: value}
                word = f"{name}|weights|--set|zoo|hf:|recipe|module|folder|has no effect|--data|long"
                yield f"{function.__name__} {name}={value!r}"[:50], lambda f=function, a=arguments: f(**a), word


def rig(**change: object) -> dd.Rig:
    """A rig of one camera."""
    good = {"intrinsics": [[[120.0, 0, 80], [0, 120, 45], [0, 0, 1]]], "bev_from_camera": np.eye(4)[None]}
    return dd.Rig.of_matrices(**(good | {"image_size": (90, 160)} | change))  # type: ignore[arg-type]


def rigs() -> Iterator[Call]:
    """Rigs, and images for one."""
    for name, values in {
        "intrinsics": (None, "x", [[1], [1, 2]], [["a"]], 1j, {}, 3.0, [], np.eye(3)),
        "bev_from_camera": (None, np.eye(4), np.eye(3)[None], np.eye(4)[None].repeat(2, axis=0)),
        "image_size": (None, (90,), (90, 160, 3), (90.5, 160), "90x160", (NAN, 1), (10**30, 1)),
        "frame": (None, "camera", 3),
        "names": ("a", (1,), 3, (None,), ("a", "b"), ("../a",)),
    }.items():
        for value in values:
            yield f"Rig {name}={value!r}", lambda n=name, v=value: rig(**{n: v}), f"{name}|same cameras|without slashes"
    for intrinsics, poses in (([[1.0]], torch.eye(4)[None]), (torch.eye(3)[None], torch.eye(4)[None, :3])):
        made = {"intrinsics": intrinsics, "bev_from_camera": poses, "image_size": (90, 160)}
        yield f"Rig() {poses.shape}", lambda m=made: dd.Rig(**m), "matrix for each camera"  # type: ignore[arg-type]
    image = np.zeros((90, 160, 3), np.uint8)
    student = dd.load("zoo:student-distilled")
    for given in (None, [], [image, image], [image.astype(float)], [image[..., 0]], ["x.jpg"], [None], 3, [image[:0]]):
        yield f"views {str(given)[:30]}", lambda g=given: rig().views(g, student.experiment.data), "image"
    for rigged in (None, "rig.json", rig(frame="ego")):
        yield f"predict {str(rigged)[:20]}", lambda r=rigged: student.predict([image], r), "rig"


def shapes() -> Iterator[Call]:
    """Shapes that no map has."""
    for name, values in {
        "neck": (None, "abc", (8, 8), (8, 8, 8, 8), (0, 8, 8), (-1, 8, 8), (8.5, 8, 8)),
        "stages": (None, 8, (8, 8, 8), ((8, 8),)),
        "extent": (None, "x", (0, 0, 1), (8, 8, -8, -8), (0, 0, 0, 0), (NAN, 0, 1, 1), (-1e300, 0, 1e300, 1)),
        "frames": (0, "x", 1.5),
        "canvas": ((1,),),
    }.items():
        for value in values:
            yield f"Shapes {name}={value!r}", lambda n=name, v=value: replace(SHAPES, **{n: v}), name


def losses() -> Iterator[Call]:
    """Losses of other arguments."""
    good = {"teacher": SHAPES, "student": SHAPES, "classes": 3}
    for method in METHODS:
        for name, values in {
            "teacher": (None, "x", (8, 16, 16)),
            "student": (None, "x"),
            "classes": (0, -1, [], "x", 1.5, True, [0, 1], [1, -1], None, 10**9),
            "config": ("x", 3, {}, object),
        }.items():
            for value in values:
                arguments = good | {name: value}
                call = f"{method.__name__} {name}={value!r}"
                yield call, lambda m=method, a=arguments: m(**a), f"{name}|task_classes"
        if method is not dd.TigBev:
            bare = good | {"teacher": replace(SHAPES, stages=())}
            yield f"{method.__name__} without stages", lambda m=method, a=bare: m(**a), "stages"


def head(neck: torch.Tensor, classes: int = 3, codes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of a head that learns nothing."""
    return neck[:, :classes], neck.mean() + torch.zeros(len(neck), codes, *neck.shape[2:])


def some_maps(**change: object) -> dd.Maps:
    """Maps of two samples."""
    stages = tuple(torch.rand(2, *shape) for shape in SHAPES.stages)
    good = {"stages": stages, "neck": torch.rand(2, *SHAPES.neck), "head": head}
    return dd.Maps(**(good | change))  # type: ignore[arg-type]


def some_boxes(**change: torch.Tensor) -> dd.Boxes:
    """Four boxes."""
    good = {"center": torch.rand(4, 3), "size": 1 + torch.rand(4, 3), "yaw": torch.rand(4)}
    good |= {"velocity": torch.full((4, 2), NAN), "label": torch.arange(4) % 3}
    return dd.Boxes(**(good | change))


def maps() -> Iterator[Call]:
    """Maps and heads that do not fit."""
    loss = dd.DualDistill(teacher=SHAPES, student=SHAPES, classes=3)
    for name, change, word in (
        ("of another batch", {"neck": torch.rand(3, 10, 16, 16)}, "3 samples of the teacher, 2 of the student"),
        ("of whole numbers", {"neck": torch.zeros(2, 10, 16, 16, dtype=torch.int32)}, "floating point"),
        ("lists", {"neck": [[0.0], [0.0]]}, "floating point"),
        ("without a head", {"head": None}, "give its Maps a head"),
        ("a head of nothing", {"head": lambda neck: None}, "a head gives heat maps and codes"),
        ("a head of one", {"head": lambda neck: neck}, "a head gives heat maps and codes"),
        ("a head of 4 classes", {"head": lambda neck: head(neck, classes=4)}, "have 4 classes"),
        ("a head of 3 codes", {"head": lambda neck: head(neck, codes=3)}, "codes must be .* 10 or 8"),
        ("a head of 12 codes", {"head": lambda neck: head(neck, codes=12)}, "codes must be .* 10 or 8"),
    ):
        yield f"maps {name}", lambda c=change: loss(some_maps(**c), some_maps(), [some_boxes()] * 2), word
    for value in (None, 3, torch.rand(2, 10, 16, 16)):
        yield f"maps {type(value).__name__}", lambda v=value: loss(v, some_maps(), [some_boxes()] * 2), "teacher"


def boxes() -> Iterator[Call]:
    """Boxes that are not those of the samples."""
    loss = dd.DualDistill(teacher=SHAPES, student=SHAPES, classes=3)
    good = some_boxes()
    for name, given, word in (
        ("none", None, "targets must be a sequence"),
        ("of one sample", good, "targets must be a sequence"),
        ("of no sample", [], "Boxes of each of 2 samples, got 0"),
        ("of fewer samples", [good], "Boxes of each of 2 samples, got 1"),
        ("and none", [good, None], "NoneType"),
        ("beyond the classes", [good, some_boxes(label=torch.full((4,), 3))], "labels below 3 .* got 0 to 3"),
        ("of class -1", [good, some_boxes(label=torch.full((4,), -1))], "got -1 to 2"),
        ("of class 0.5", [good, some_boxes(label=torch.zeros(4))], "whole numbers as labels"),
        ("of other columns", [good, some_boxes(yaw=torch.zeros(3))], "of as many"),
        ("nowhere", [good, some_boxes(center=torch.full((4, 3), NAN))], "finite"),
        ("without an end", [good, some_boxes(size=torch.full((4, 3), INF))], "finite"),
        ("without a size", [good, some_boxes(size=torch.zeros(4, 3))], "sizes above 0"),
        ("turned inside out", [good, some_boxes(size=-torch.ones(4, 3))], "sizes above 0"),
    ):
        yield f"boxes {name}", lambda g=given: loss(some_maps(), some_maps(), g), word


def outcome(call: Callable[[], object]) -> str:
    """The error of a call, with its kind."""
    try:
        return f"nothing: {call()}"[:200]
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    print(json.dumps([(name, outcome(call), word) for name, call, word in calls()]))
