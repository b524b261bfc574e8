"""Settings with values of wrong types, out of range, and not finite."""

import json
from collections.abc import Iterator
from typing import Any

from tests.robust.cases.case import RECIPE, Build, Case, train
from tests.robust.outcome import run_command

_WRONG: dict[type, tuple[str, ...]] = {
    bool: ("maybe", "2", "nan"),
    int: ("-1", "1.5", "nan", "1e400", "x", "9" * 30),
    float: ("nan", "-inf", "1e400", "x", "true"),
    list: ("nan", "x,y", "1e400,1e400"),
    str: (),
}
_EXPECTED = (
    "expected|must|needs|is no|unknown|did you mean|none|wants|cannot|has no effect|divide|larger|positive cells|takes|"
    "single value|known here",
)
_MAY_BE_NEGATIVE = ("rotation", "range", "bias", "norm_momentum")


def leaves(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of each setting of a plain experiment."""
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def settings() -> Iterator[Case]:
    """Every setting with values of wrong types, out of range, and not finite."""
    plain = json.loads(json.dumps(shown(RECIPE)))
    for key, value in leaves(plain):
        if key == "distiller.method" or value is None:
            continue
        for text in _WRONG[type(value)]:
            if text == "-1" and any(part in key for part in _MAY_BE_NEGATIVE):
                continue
            yield _setting(f"{key}={text}", key.rsplit(".")[-1])
    for assignment, word in (
        ("training.steps=0", "steps"),
        ("training.batch_size=100000", "batch_size"),
        ("training.accumulate=0", "accumulate"),
        ("training.epochs=3", "epochs.*steps"),
        ("training.precision=64", "32 or bf16"),
        ("training.optimiser.drops=2", "drops"),
        ("training.ema_decay=1", "ema_decay"),
        ("data.image_size=32", "image_size"),
        ("data.image_size=33,97", "depth_stride"),
        ("data.image_size=0,0", "image_size"),
        ("data.point_range=1,2,3", "point_range"),
        ("data.point_range=1,1,1,1,1,1", "point_range"),
        ("data.depth_range=60,1", "depth_range"),
        ("data.num_frames=3", "num_frames"),
        ("data.bev_augmentation.scale=0,0", "scale"),
        ("data.bev_augmentation.flip_x=1.5", "flip_x"),
        ("student.bev.cell=0", "cell"),
        ("student.bev.cell=0.7", "cells"),
        ("student.bev.reach=1e9", "cells|reach"),
        ("student.bev.cell=0.00001", "cells"),
        ("student.bev.widths=8,8", "widths"),
        ("student.bev.widths=8,8,0", "widths"),
        ("student.lift.depth_step=1e-9", "depth"),
        ("student.head.scale_factors=1,2", "scale_factors"),
        ("student.head.task_classes=", "task_classes"),
        ("student.image.backbone=", "backbone|timm"),
        ("student.pretrained=/no/such/file", "no such|no file|no weights file"),
        ("teacher.stage_channels=8,8", "stage"),
        ("teacher.stage_strides=3,3,3", "cells|merged"),
        ("distiller.mfd.student_stages=1,1", "stages"),
        ("distiller.mfd.levels=9", "has no"),
        ("distiller.crd.temperature=0", "temperature"),
        ("student.temporal.frames=2", "num_frames|frames"),
        ("nothing=1", "nothing"),
        ("training.stps=1", "did you mean steps"),
        ("training.steps", "key=value"),
        ("=", "no ''"),
        ("training.steps.more=1", "single value"),
        (".=1", "no ''"),
    ):
        if "pretrained" in assignment or "backbone" in assignment:
            yield Case("11 settings", f"train {assignment}", _training(assignment), (word,))
        else:
            yield _setting(assignment, word)


def shown(recipe: str) -> dict[str, Any]:
    """A recipe's experiment as `recipes show` prints it."""
    lines = run_command(["recipes", "show", recipe]).text
    return json.loads(lines[lines.index("{") :])


def _setting(assignment: str, word: str) -> Case:
    argv = ["recipes", "show", RECIPE, "--set", assignment]
    return Case("11 settings", assignment[:60], lambda at: argv, (word, *_EXPECTED))


def _training(assignment: str) -> Build:
    return lambda at: train(at.root(), at.new() / "runs", assignment)
