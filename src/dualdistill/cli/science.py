"""The verbs of `dualdistill science`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualdistill.cli.shared import JsonFile, console, write_json

if TYPE_CHECKING:
    from dualdistill.science.study import Study

app = typer.Typer(help="The paper's experiments on a synthetic world.", no_args_is_help=True)

StudyName = Annotated[str, typer.Argument(help="paper, or smoke: a tiny one that shows the command works.")]
Results = Annotated[Path | None, typer.Option(help="Folder of the result files; default: docs/results/STUDY.")]


def _places(study: "Study", data: Path | None, out: Path | None, results: Path | None) -> dict[str, Path]:
    """Folders of a study's world, runs and results, with defaults where none are given."""
    return {
        "data": data or Path("data") / f"synthetic-{study.world.name}",
        "out": out or Path("runs/science") / study.name,
        "results": results or Path("docs/results") / study.name,
    }


@app.command("run")
def science_run(
    study: StudyName = "paper",
    data: Annotated[
        Path | None, typer.Option(help="Root of the world, made if it is not there; default: data/synthetic-SIZE.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where run folders go; default: runs/science/STUDY.")] = None,
    results: Results = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2; default: the study's.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A table or row. May be given many times.")] = None,
    workers: Annotated[int, typer.Option(help="Runs side by side.")] = 2,
    threads: Annotated[int, typer.Option(help="Of each run.")] = 1,
    limit_minutes: Annotated[
        float | None, typer.Option(help="Stop after so long; running ones save a checkpoint.")
    ] = None,
    plan: Annotated[bool, typer.Option(help="Only print the runs to do.")] = False,
) -> None:
    """Train, evaluate and record every row and seed that is not recorded yet; may be killed and run again."""
    from dualdistill.science.run import run_study
    from dualdistill.science.study import find_study, parse_seeds

    found = find_study(study)
    run_study(
        console,
        found,
        **_places(found, data, out, results),
        seeds=parse_seeds(seeds),
        only=only or [],
        workers=workers,
        threads=threads,
        limit_minutes=limit_minutes,
        plan=plan,
    )


@app.command("keep")
def science_keep(
    study: StudyName = "paper",
    data: Annotated[Path | None, typer.Option(help="As of `run`.")] = None,
    out: Annotated[Path | None, typer.Option(help="As of `run`.")] = None,
    results: Results = None,
) -> None:
    """Keep the weights that students share (teachers, the first student) beside the results, to add rows elsewhere."""
    from dualdistill.science.run import keep_shared
    from dualdistill.science.study import find_study

    found = find_study(study)
    keep_shared(console, found, **_places(found, data, out, results))


@app.command("gradients")
def science_gradients(
    run: Annotated[Path, typer.Argument(help="A student's run folder.")],
    data: Annotated[Path | None, typer.Option(help="Root of its data; default: where it was trained.")] = None,
    checkpoint: Annotated[str, typer.Option(help="last, best, or step_000400.")] = "last",
    batches: Annotated[int, typer.Option(min=1, help="To take the mean of.")] = 8,
    json_file: JsonFile = None,
) -> None:
    """Share of each loss in the gradient of a student, and its direction relative to detection."""
    from dataclasses import asdict

    from dualdistill.report.progress import progress
    from dualdistill.train.gradient_shares import gradient_shares, gradient_table

    with progress(console, "gradients") as report:
        shares = gradient_shares(run, data=data, batches=batches, checkpoint=checkpoint, report=report)
    console.print(gradient_table(shares).to_rich(console.width))
    write_json(json_file, [asdict(share) for share in shares])


@app.command("table")
def science_table(study: StudyName = "paper", results: Results = None, json_file: JsonFile = None) -> None:
    """Print the study's tables from its result files."""
    from dualdistill.science.page import print_tables
    from dualdistill.science.study import find_study

    write_json(json_file, print_tables(console, find_study(study), results or Path("docs/results") / study))


@app.command("page")
def science_page(
    study: StudyName = "paper",
    results: Results = None,
    page: Annotated[Path, typer.Option(help="The page to write; pictures go beside the result files.")] = Path(
        "docs/results.md"
    ),
    readme: Annotated[
        Path | None, typer.Option(help="Also put the main table into this file, between its results markers.")
    ] = None,
) -> None:
    """Write the results page and its pictures from the result files alone."""
    from dualdistill.science.page import write_page, write_readme_table
    from dualdistill.science.study import find_study

    folder = results or Path("docs/results") / study
    console.print(f"wrote {write_page(find_study(study), folder, page)}")
    if readme is not None:
        write_readme_table(find_study(study), folder, readme)
        console.print(f"wrote the table in {readme}")
