"""`compare`: one table of many evaluated runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from dualdistill.commands.options.training import Compare
from dualdistill.errors import UserError
from dualdistill.experiment.plain import from_plain
from dualdistill.files import read_json, write_atomically
from dualdistill.models.checkpoints import fingerprint
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.report.comparison import Comparison, RunRecord, TeacherRecord, compare
from dualdistill.report.page import ReportPage
from dualdistill.train.run_folder import DataRecord, RunFolder, read_scores, step_of
from dualdistill.train.trained_weights import evaluation_folder


def compare_runs(console: Console, options: Compare) -> list[dict[str, Any]]:
    """Print one table per data set, and write it in the forms asked for; returns the rows as JSON values. Raises
    UserError for no run, and for a run that is not finished or not evaluated."""
    runs, unfinished = find_runs(options.runs)
    for run in unfinished:
        console.print(f"not finished, left out: {run.path}")
    folders = {run.path: run.evaluation(run.checkpoint(options.checkpoint).name) for run in runs}
    if missing := [path for path, folder in folders.items() if not (folder / "evaluated.json").is_file()]:
        option = "" if options.checkpoint == "last" else f" --checkpoint {options.checkpoint}"
        commands = "".join(f"\n  dualdistill evaluate {path}{option}" for path in missing)
        many = f"{len(missing)} of {len(runs)} runs"
        raise UserError(f"{many} have not been evaluated at {options.checkpoint!r}. Run:{commands}")
    found = compare([read_run(run, options.checkpoint) for run in runs])
    for part in found:
        console.print(part.data, style="bold")
        console.print(part.table().to_rich(console.width))
        for note in part.notes:
            console.print(note)
    for path, form in ((options.markdown, to_markdown), (options.latex, to_latex), (options.html, to_html)):
        if path is not None:
            write_atomically(path, form(found))
            console.print(f"wrote {path}")
    return [row.plain() for part in found for row in part.rows]


def find_runs(paths: list[Path]) -> tuple[list[RunFolder], list[RunFolder]]:
    """The finished runs at or below `paths`, each once, and the unfinished ones below. Raises UserError for a path
    without any run, and for one that is itself an unfinished run."""
    finished: dict[Path, RunFolder] = {}
    unfinished: dict[Path, RunFolder] = {}
    for path in paths:
        is_run = (path / "experiment.json").is_file()
        below = [path] if is_run else sorted(found.parent for found in path.rglob("experiment.json"))
        if not below:
            raise UserError(f"{path} is no run folder and holds none: give one that `train` printed, or runs/.")
        for folder in below:
            is_finished = (folder / "finished.json").is_file()
            if is_run and not is_finished:
                raise UserError(
                    f"{folder} is not finished: continue with `dualdistill resume {folder}`, or leave it out."
                )
            (finished if is_finished else unfinished)[folder.resolve()] = RunFolder(folder)
    if not finished:
        raise UserError(f"No run below {', '.join(map(str, paths))} is finished.")
    return list(finished.values()), list(unfinished.values())


def read_run(run: RunFolder, checkpoint: str = "last") -> RunRecord:
    """The record of an evaluated run."""
    plain = run.experiment
    folder = run.checkpoint(checkpoint)
    results = run.evaluation(folder.name)
    known = RECIPES[plain["recipe"]].published if plain["recipe"] in RECIPES else None
    return RunRecord(
        path=str(run.path),
        recipe=plain["recipe"],
        overrides=tuple(plain["overrides"]),
        seed=plain["seed"],
        role=from_plain(plain["experiment"]).role,
        experiment=plain["experiment"],
        data=_data(plain["data"], results),
        metrics=read_scores(results / "metrics.json"),
        step=step_of(folder),
        finished=(run.path / "finished.json").stat().st_mtime,
        teacher=_teacher(plain["teacher"]) if plain["teacher"] else None,
        label_encoder=_teacher(plain["label_encoder"]) if plain["label_encoder"] else None,
        published=(known.mean_ap / 100, known.nds / 100, known.source) if known else None,
    )


def to_markdown(parts: list[Comparison]) -> str:
    """The tables as Markdown, each with its notes as a list."""
    lines = ([f"## {part.data}", "", part.table().to_markdown(), *(f"- {n}" for n in part.notes), ""] for part in parts)
    return "\n".join(map("\n".join, lines))


def to_latex(parts: list[Comparison]) -> str:
    """The tables for LaTeX's booktabs package, with their notes as comments."""
    return "\n".join(
        "".join(f"% {line}\n" for line in (part.data, *part.notes)) + part.table().to_latex() for part in parts
    )


def to_html(parts: list[Comparison]) -> str:
    """The tables as one page."""
    page = ReportPage("Comparison of runs", "mAP, NDS and gains in percent, errors in their own units.")
    for part in parts:
        page.section(part.data).table(part.table(), "Means over seeds ± standard deviation.")
        page.text("\n\n".join(part.notes))
    return page.html()


def _data(trained: dict[str, str], results: Path) -> str:
    """The data of training and evaluation, in words."""
    what = "what was evaluated: `dualdistill evaluate` writes it"
    evaluated = read_json(results / "evaluated.json", DataRecord, what)
    home = f"{trained['root']} ({trained['version']})"
    elsewhere = any(trained[key] != evaluated[key] for key in ("root", "version"))
    where = f" of {evaluated['root']} ({evaluated['version']})" if elsewhere else ""
    return f"{home}: trained on {trained['split']}, evaluated on {evaluated['split']}{where}"


def _teacher(identity: dict[str, Any]) -> TeacherRecord:
    """A teacher or label encoder with its score at the start of the run, or else one evaluated later."""
    known = TeacherRecord(recipe=identity["recipe"], step=identity["step"])
    if score := identity["score"]:
        return replace(known, mean_ap=score["mAP"], nd_score=score["NDS"])
    weights = Path(identity["path"])
    metrics = evaluation_folder(weights) / "metrics.json"
    if weights.is_file() and metrics.is_file() and fingerprint(weights) == identity["sha256"]:
        values = read_scores(metrics)
        known = replace(known, mean_ap=values["mean_ap"], nd_score=values["nd_score"])
    return known
