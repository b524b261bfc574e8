"""`compare`: run folders in, one table out."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Role
from dualdistill.models.checkpoints import fingerprint
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.report.compare import Comparison, RunRecord, TaughtBy, compare
from dualdistill.report.page import ReportPage
from dualdistill.train.assemble import split_names
from dualdistill.train.run_folder import RunFolder, step_of, write_atomically
from dualdistill.train.trained_weights import evaluation_folder


def compare_runs(
    console: Console,
    paths: list[Path],
    *,
    checkpoint: str = "last",
    markdown: Path | None = None,
    latex: Path | None = None,
    html: Path | None = None,
) -> list[dict[str, Any]]:
    """Print the runs as a table, for each data set its own; returns its rows as JSON values.

    Args:
        paths: Run folders, or folders with finished runs somewhere below.

    Raises:
        UserError: if there is no run, or one is not finished or not evaluated.
    """
    runs, unfinished = find_runs(paths)
    for run in unfinished:
        console.print(f"not finished, left out: {escape(str(run.path))}")
    found = compare([read_run(run, checkpoint) for run in _evaluated(runs, checkpoint)])
    for part in found:
        console.rule(escape(part.data))
        console.print(part.table().to_rich(console.width))
        for note in part.notes:
            console.print(escape(note))
    for path, form in ((markdown, to_markdown), (latex, to_latex), (html, to_html)):
        if path is not None:
            write_atomically(path, form(found))
            console.print(f"wrote {path}")
    return [row.plain() for part in found for row in part.rows]


def find_runs(paths: list[Path]) -> tuple[list[RunFolder], list[RunFolder]]:
    """The finished runs that are named or lie below, each once, and the unfinished ones that only lie below.

    Raises:
        UserError: if a folder has none, or a run that is named is not finished.
    """
    finished: dict[Path, RunFolder] = {}
    unfinished: dict[Path, RunFolder] = {}
    for path in paths:
        named = (path / "experiment.json").is_file()
        below = [path] if named else sorted(found.parent for found in path.rglob("experiment.json"))
        if not below:
            raise UserError(
                f"{path} is no run folder and has none below. Give what `dualdistill train` printed, or runs/."
            )
        for folder in below:
            if (folder / "finished.json").is_file():
                finished[folder.resolve()] = RunFolder(folder)
            elif named:
                raise UserError(f"{folder} is not finished. Go on with `dualdistill resume {folder}`, or leave it out.")
            else:
                unfinished[folder.resolve()] = RunFolder(folder)
    if not finished:
        raise UserError(f"No run is finished below {', '.join(map(str, paths))}.")
    return list(finished.values()), list(unfinished.values())


def read_run(run: RunFolder, checkpoint: str = "last") -> RunRecord:
    """The record of an evaluated run."""
    plain = run.experiment
    folder = run.checkpoint(checkpoint)
    results = run.evaluation(folder.name)
    return RunRecord(
        path=str(run.path),
        recipe=plain["recipe"],
        overrides=tuple(plain["overrides"]),
        seed=plain["seed"],
        role=_role(plain["experiment"]),
        experiment=plain["experiment"],
        data=_data(plain["data"], results),
        metrics=json.loads((results / "metrics.json").read_text()),
        step=step_of(folder),
        finished=(run.path / "finished.json").stat().st_mtime,
        teacher=_teacher(plain["teacher"]) if plain["teacher"] else None,
        label_encoder=_teacher(plain["label_encoder"]) if plain.get("label_encoder") else None,
        published=_published(plain["recipe"]),
    )


def to_markdown(parts: list[Comparison]) -> str:
    return "\n".join(
        "\n".join([f"## {part.data}", "", part.table().to_markdown(), *(f"- {note}" for note in part.notes), ""])
        for part in parts
    )


def to_latex(parts: list[Comparison]) -> str:
    """Tabulars for the booktabs package, what to know about them as comments."""
    return "\n".join(
        "".join(f"% {line}\n" for line in (part.data, *part.notes)) + part.table().to_latex() for part in parts
    )


def to_html(parts: list[Comparison]) -> str:
    page = ReportPage("Comparison of runs", "mAP, NDS and gains in percent, errors in their own units.")
    for part in parts:
        page.section(part.data).table(part.table(), "Means over seeds ± standard deviation.")
        page.text("\n\n".join(part.notes))
    return page.html()


def _evaluated(runs: Iterable[RunFolder], checkpoint: str) -> list[RunFolder]:
    """The runs, if all have been evaluated; otherwise an error with what to type."""
    runs = list(runs)
    missing = [run for run in runs if not (run.evaluation(run.checkpoint(checkpoint).name) / "metrics.json").is_file()]
    if missing:
        option = "" if checkpoint == "last" else f" --checkpoint {checkpoint}"
        commands = "\n".join(f"  dualdistill evaluate {run.path}{option}" for run in missing)
        raise UserError(
            f"{len(missing)} of {len(runs)} runs have not been evaluated at {checkpoint!r}. Do:\n{commands}"
        )
    return runs


def _role(experiment: dict[str, Any]) -> Role:
    if experiment["student"] is not None:
        return "student"
    return "teacher" if experiment.get("label_encoder") is None else "label_encoder"


def _data(trained: dict[str, str], results: Path) -> str:
    """Trained and evaluated on what, in words."""
    record = results / "evaluated.json"
    if record.is_file():
        evaluated = json.loads(record.read_text())
    else:  # evaluated before this was recorded: on the validation split, unless someone asked for another
        evaluated = trained | {"split": split_names(trained["version"])[1]}
    home = f"{trained['root']} ({trained['version']})"
    elsewhere = any(trained[key] != evaluated[key] for key in ("root", "version"))
    where = f" of {evaluated['root']} ({evaluated['version']})" if elsewhere else ""
    return f"{home}: trained on {trained['split']}, evaluated on {evaluated['split']}{where}"


def _teacher(identity: dict[str, Any]) -> TaughtBy:
    """A teacher or label encoder with the score it had when the run began, or else what its weights have got since."""
    known = TaughtBy(recipe=identity["recipe"], step=identity["step"])
    score = identity["score"]
    if score is not None:
        return replace(known, mean_ap=score["mAP"], nd_score=score["NDS"])
    weights = Path(identity["path"])
    metrics = evaluation_folder(weights) / "metrics.json"
    if weights.is_file() and metrics.is_file() and fingerprint(weights) == identity["sha256"]:
        values = json.loads(metrics.read_text())
        return replace(known, mean_ap=values["mean_ap"], nd_score=values["nd_score"])
    return known


def _published(recipe: str) -> tuple[float, float, str] | None:
    found = RECIPES[recipe].published if recipe in RECIPES else None
    return (found.mean_ap / 100, found.nds / 100, found.source) if found else None
