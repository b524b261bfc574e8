"""The pictures of a study's page: where a method gains, and what became of depth and features."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dualdistill.science.plots import draw_gains, draw_values, write_picture
from dualdistill.science.record import Result
from dualdistill.science.study import BASELINE, Study
from dualdistill.science.summary import lines_of


def draw_pictures(study: Study, results: Sequence[Result], folder: Path) -> list[tuple[Path, str]]:
    """Pictures of the first table, and of the similarity of all rows; with their captions."""
    table = study.tables[0]
    lines = lines_of(table, results)
    compared = [line for line in lines if line.difference("mean_ap") is not None]
    if not compared:
        return []
    (reference,) = (row.name for row in table.rows if row.key == table.reference)
    pictures = []

    def draw(name: str, caption: str, figure: Any) -> None:
        write_picture(figure, folder / f"{name}.png")
        pictures.append((folder / f"{name}.png", caption))

    def gains(of: dict[str, Callable[[Result], float | None]]) -> dict[str, dict[str, list[float]]]:
        return {
            line.row.name: {key: [100 * gain for gain in line.paired(value).values()] for key, value in of.items()}
            for line in compared
        }

    first = compared[0].results[0].scores
    draw(
        "gain_per_class",
        f"Gain in AP of each class over “{reference}”: bars are means, dots are seeds.",
        draw_gains(gains({name: _class_ap(name) for name in first.class_ap}), "points of AP"),
    )
    draw(
        "gain_per_distance",
        f"Gain in mAP over “{reference}” by distance from the ego vehicle: bars are means, dots are seeds.",
        draw_gains(
            gains({f"{band.low:.0f}–{band.high:.0f} m": _band_ap(k) for k, band in enumerate(first.bands)}),
            "points of mAP",
        ),
    )
    depth = {line.row.name: line.values(_depth_error) for line in lines}
    draw(
        "depth_error",
        "Mean absolute error of the depth a student expects, cells with a LiDAR label: diamonds are means, dots seeds.",
        draw_values({"depth": depth}, "metres (less is better)"),
    )
    before, after = _likeness(study, results)
    if after:
        draw(
            "similarity",
            "Likeness of the student's neck map to its teacher's (linear CKA on object cells, no adapter), of the same "
            "student without and with distillation.",
            draw_values(
                {"without distillation": before, "distilled": after}, "CKA (1: equal up to rotation and scale)"
            ),
        )
    return pictures


def _depth_error(result: Result) -> float | None:
    return result.depth.mean_absolute if result.depth is not None else None


def _likeness(study: Study, results: Sequence[Result]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """CKA of the undistilled student with each row's teacher, and of the row, by row name and seed."""
    alone = [result for result in results if result.row == BASELINE]
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    for key in study.rows():
        own = [result for result in results if result.row == key and result.teacher is not None]
        values = [result.similarity[t]["objects"] for result in own for t in result.similarity if _known(result, t)]
        if values:
            teacher = own[0].teacher.recipe if own[0].teacher else ""
            after[key] = values
            before[key] = [result.similarity[teacher]["objects"] for result in alone if _known(result, teacher)]
    return before, after


def _known(result: Result, teacher: str) -> bool:
    return "objects" in result.similarity.get(teacher, {})


def _class_ap(name: str) -> Callable[[Result], float | None]:
    return lambda result: result.scores.class_ap.get(name)


def _band_ap(number: int) -> Callable[[Result], float | None]:
    return lambda result: result.scores.bands[number].mean_ap if number < len(result.scores.bands) else None
