"""The command line: one verb a function. Exit codes: 0 done, 2 the user's input is wrong, 1 our fault."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dualdistill.errors import UserError

app = typer.Typer(
    help="LiDAR-to-camera distillation for bird's-eye-view 3D object detection.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make, index and check data roots.", no_args_is_help=True)
recipes_app = typer.Typer(help="What can be run.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(recipes_app, name="recipes")

console = Console(soft_wrap=True, highlight=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

Root = Annotated[Path, typer.Option("--data", help="A nuScenes root: the folder that holds v1.0-*, samples, sweeps.")]
Version = Annotated[
    str | None, typer.Option(help="Folder of tables, such as v1.0-mini; needed where a root has several.")
]
Out = Annotated[Path, typer.Option(help="Where run folders go.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting of the recipe: a.b=c. May be given many times."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write what is printed as JSON to this file.")]
Seed = Annotated[int, typer.Option(help="Of initial weights, order and augmentation.")]
Workers = Annotated[int | None, typer.Option(help="Processes that load data; default: one less than there are cores.")]


def _write_json(path: Path | None, value: object) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=2) + "\n")


# The work lives in `workflows`, imported inside each verb so that `--help` answers at once.


@app.command()
def doctor(data: Annotated[Path | None, typer.Option(help="A data root to look at too.")] = None) -> None:
    """Look at the environment, devices, disk and data; each problem with its remedy."""
    from dualdistill.workflows.doctor import examine

    raise typer.Exit(examine(console, data))


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    data: Annotated[Path, typer.Option(help="Where the synthetic world is made.")] = Path("data/synthetic-demo"),
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option(help="A tiny world and a few steps: shows the path, proves nothing.")] = False,
) -> None:
    """Teacher, student and distilled student on a synthetic world: from nothing to a table and a page, in minutes."""
    from dualdistill.workflows.demo import run_demo

    run_demo(console, out=out, data=data, seed=seed, quick=quick)


@data_app.command("make-synthetic")
def make_synthetic(
    root: Annotated[Path, typer.Argument(help="New folder for the world.")],
    size: Annotated[str, typer.Option(help="tiny, demo or bench.")] = "demo",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    workers: Workers = None,
) -> None:
    """Write a synthetic driving world in the nuScenes format."""
    from dualdistill.workflows.data import synthesise

    synthesise(console, root, size, seed, workers)


@data_app.command("prepare")
def prepare(root: Annotated[Path, typer.Argument(help="A nuScenes root.")], version: Version = None) -> None:
    """Index the tables of a root, so that trainings open it in an instant."""
    from dualdistill.workflows.data import prepare_index

    prepare_index(console, root, version)


@data_app.command("check")
def check(
    root: Annotated[Path, typer.Argument(help="A nuScenes root.")],
    version: Version = None,
    json_file: JsonFile = None,
) -> None:
    """Verify the tables of a root and every sensor file it will need."""
    from dualdistill.workflows.data import check_data

    _write_json(json_file, check_data(console, root, version))


@data_app.command("virtual-points")
def virtual_points(
    root: Annotated[Path, typer.Argument(help="A nuScenes root.")],
    masks: Annotated[str, typer.Option(help="Instance masks: synthetic (that world's own) or maskrcnn.")] = "synthetic",
    weights: Annotated[Path | None, typer.Option(help="Local COCO weights of torchvision's Mask R-CNN.")] = None,
    version: Version = None,
) -> None:
    """Make the virtual points an MVP teacher reads, once for each LiDAR sweep."""
    from dualdistill.workflows.data import make_virtual

    make_virtual(console, root, version, masks, weights)


@recipes_app.command("list")
def recipes_list(json_file: JsonFile = None) -> None:
    """Every recipe, with the published result of its row where there is one."""
    from dualdistill.workflows.recipes import list_recipes

    _write_json(json_file, list_recipes(console))


@recipes_app.command("show")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A recipe, or a run folder.")],
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """The resolved experiment of a recipe or of a run."""
    from dualdistill.workflows.recipes import show_recipe

    _write_json(json_file, show_recipe(console, name, overrides or []))


@recipes_app.command("diff")
def recipes_diff(a: str, b: str, json_file: JsonFile = None) -> None:
    """What differs between two recipes or runs."""
    from dualdistill.workflows.recipes import diff_recipes

    _write_json(json_file, diff_recipes(console, a, b))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`.")],
    data: Root,
    out: Out = Path("runs"),
    overrides: Overrides = None,
    seed: Seed = 0,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or weights of the teacher; default: the newest finished run of its recipe in OUT."
        ),
    ] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Trained on; default: train, or mini_train for v1.0-mini.")] = None,
    workers: Workers = None,
    devices: Annotated[int, typer.Option(help="Processes; more than one trains distributed.")] = 1,
    check: Annotated[bool, typer.Option(help="Look at every sensor file before training.")] = True,
) -> None:
    """Train a teacher or a student, alone or distilled."""
    from dualdistill.workflows.training import start_training

    start_training(
        console,
        recipe,
        data=data,
        out=out,
        overrides=overrides or [],
        seed=seed,
        teacher=teacher,
        version=version,
        split=split,
        workers=workers,
        devices=devices,
        check=check,
    )


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="Run folder of an interrupted training.")],
    workers: Workers = None,
    devices: Annotated[int, typer.Option(help="Processes; more than one trains distributed.")] = 1,
) -> None:
    """Go on with a training exactly where its last checkpoint left it."""
    from dualdistill.workflows.training import resume_training

    resume_training(console, run, workers=workers, devices=devices)


@app.command()
def evaluate(
    what: Annotated[Path, typer.Argument(help="A run folder, a weights file, or a results_nusc.json.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Default: val, or mini_val for v1.0-mini.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and results_nusc.json.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Of a run: last, best or step_000400.")] = "last",
    workers: Workers = None,
    official: Annotated[bool, typer.Option(help="Let nuscenes-devkit judge (must be installed).")] = False,
    json_file: JsonFile = None,
) -> None:
    """Score with the nuScenes detection metrics; write the submission file."""
    from dualdistill.workflows.evaluation import evaluate_anything

    metrics = evaluate_anything(
        console,
        what,
        data=data,
        version=version,
        split=split,
        out=out,
        checkpoint=checkpoint,
        workers=workers,
        official=official,
    )
    _write_json(json_file, metrics)


@app.command()
def visualize(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    samples: Annotated[int, typer.Option(help="How many samples to draw, spread over the split.")] = 4,
    checkpoint: Annotated[str, typer.Option(help="last, best or step_000400.")] = "last",
    split: Annotated[str | None, typer.Option(help="Default: val, or mini_val for v1.0-mini.")] = None,
) -> None:
    """Draw what a run detects: report.html beside its evaluation, no display needed."""
    from dualdistill.workflows.drawing import visualize_run

    visualize_run(console, run, data=data, samples=samples, checkpoint=checkpoint, split=split)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders with runs below, such as runs/.")],
    checkpoint: Annotated[str, typer.Option(help="Of each run: last, best or step_000400.")] = "last",
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as Markdown to this file.")] = None,
    latex: Annotated[Path | None, typer.Option(help="As LaTeX, for the booktabs package.")] = None,
    html: Annotated[Path | None, typer.Option(help="As a page.")] = None,
    json_file: JsonFile = None,
) -> None:
    """One table of many evaluated runs: means and spreads over seeds, gains over the student without a teacher."""
    from dualdistill.workflows.compare import compare_runs

    rows = compare_runs(console, runs, checkpoint=checkpoint, markdown=markdown, latex=latex, html=html)
    _write_json(json_file, rows)


@app.command()
def convert(
    foreign: Annotated[Path, typer.Argument(help="A checkpoint of an official code base (.pth, .ckpt, .safetensors).")],
    out: Annotated[Path, typer.Option(help="The weights file to write, .safetensors.")],
    boxes: Annotated[
        str | None,
        typer.Option(help="Box convention of the file, legacy or new: only where the file cannot tell (it asks then)."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Turn an official checkpoint into weights that `evaluate` and `train --teacher` take; every key accounted for."""
    from dualdistill.workflows.convert import convert_checkpoint

    _write_json(json_file, convert_checkpoint(console, foreign, out, boxes))


def main() -> None:
    """Entry point: a user's mistake is a message and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        # One raised in a loader process comes wrapped in that process's traceback; only its last word is for the user.
        message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
        errors.print(f"[bold red]Error:[/] {escape(message)}")
        sys.exit(2)


if __name__ == "__main__":
    main()
