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
science_app = typer.Typer(help="The paper's experiments on a synthetic world.", no_args_is_help=True)
app.add_typer(science_app, name="science")

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
    recipe: Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`, or file.py:function.")],
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
    label_encoder: Annotated[
        Path | None,
        typer.Option(help="Of LabelDistill: run folder or weights; default: the newest in OUT with this teacher."),
    ] = None,
    teacher_cache: Annotated[
        Path | None,
        typer.Option(help="Folder that remembers what the teacher says of each sample: filled first, then reused."),
    ] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Trained on; default: train, or mini_train for v1.0-mini.")] = None,
    workers: Workers = None,
    devices: Annotated[int, typer.Option(help="Processes; more than one trains distributed.")] = 1,
    check: Annotated[bool, typer.Option(help="Look at every sensor file before training.")] = True,
) -> None:
    """Train a teacher, a label encoder, or a student, alone or distilled."""
    from dualdistill.workflows.training import start_training

    start_training(
        console,
        recipe,
        data=data,
        out=out,
        overrides=overrides or [],
        seed=seed,
        teacher=teacher,
        label_encoder=label_encoder,
        teacher_cache=teacher_cache,
        version=version,
        split=split,
        workers=workers,
        devices=devices,
        check=check,
    )


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A name from `dualdistill recipes list`.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the official train split.")] = None,
    overrides: Overrides = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Trained on; default: train, or mini_train for v1.0-mini.")] = None,
    devices: Annotated[int, typer.Option(help="Processes that share each batch.")] = 1,
    measure: Annotated[bool, typer.Option(help="Take two steps here and tell how long it all will last.")] = False,
    json_file: JsonFile = None,
) -> None:
    """What a recipe will cost: parameters, arithmetic, memory, steps, files, disk, time; before anything is spent."""
    from dualdistill.workflows.plan import plan as make_plan

    facts = make_plan(
        console,
        recipe,
        overrides=overrides or [],
        data=data,
        version=version,
        split=split,
        devices=devices,
        measure=measure,
    )
    _write_json(json_file, facts)


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
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A weights file or a run folder.")],
    more_images: Annotated[list[Path] | None, typer.Argument(help="More files of --images.", hidden=True)] = None,
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    sample: Annotated[str, typer.Option(help="Token, or number in the split.")] = "0",
    images: Annotated[
        list[Path] | None, typer.Option(help="Own images, one a camera, in the order of the calibration file.")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="JSON file of those cameras: see docs/export.md.")] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="That --sample counts in; default: val, or mini_val.")] = None,
    min_score: Annotated[float, typer.Option(help="Boxes that score less are left out.")] = 0.0,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the boxes: a .png from above, and one of six cameras.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Boxes for one sample of a root, or for your own images with a calibration file."""
    from dualdistill.workflows.predict import predict_sample

    answer = predict_sample(
        console,
        checkpoint,
        data=data,
        sample=sample,
        images=[*(images or []), *(more_images or [])],
        calibration=calibration,
        version=version,
        split=split,
        min_score=min_score,
        picture=picture,
    )
    _write_json(json_file, answer)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A student's weights file or run folder.")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, model.pt2, calibration.json, export.json.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    sample: Annotated[str, typer.Option(help="Whose calibration is frozen: token, or number in the split.")] = "0",
    calibration: Annotated[Path | None, typer.Option(help="Freeze this rig instead: see docs/export.md.")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="onnx, torch or both, separated by a comma; default: both.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="fp32, or bf16 (torch alone).")] = "fp32",
    geometry: Annotated[
        str, typer.Option(help="fixed: one rig, inside the file; input: any rig, as inputs.")
    ] = "fixed",
    version: Version = None,
    split: Annotated[
        str | None, typer.Option(help="Of --sample and --check-metrics; default: val, or mini_val.")
    ] = None,
    check_metrics: Annotated[
        bool, typer.Option(help="Score the split with live model and files; takes a while.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """The student alone, as ONNX and torch.export, checked against the live model."""
    from dualdistill.workflows.export import export_student

    record = export_student(
        console,
        checkpoint,
        out=out,
        data=data,
        sample=sample,
        calibration=calibration,
        formats=formats,
        dtype=dtype,
        geometry=geometry,
        version=version,
        split=split,
        check_metrics=check_metrics,
    )
    _write_json(json_file, record)


@app.command()
def convert(
    foreign: Annotated[Path, typer.Argument(help="A checkpoint of an official code base (.pth, .ckpt, .safetensors).")],
    out: Annotated[Path, typer.Option(help="The weights file to write, .safetensors.")],
    boxes: Annotated[
        str | None,
        typer.Option(help="Box convention of the file, legacy or new: only where the file cannot tell (it asks then)."),
    ] = None,
    voxel: Annotated[
        float | None,
        typer.Option(help="Side of the file's voxels, 0.1 or 0.075 m: only where the file cannot tell (it asks then)."),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Turn an official checkpoint into weights that `evaluate` and `train --teacher` take; every key accounted for."""
    from dualdistill.workflows.convert import convert_checkpoint

    _write_json(json_file, convert_checkpoint(console, foreign, out, boxes, voxel))


StudyName = Annotated[str, typer.Argument(help="paper, or smoke: a tiny one that shows the command works.")]
Results = Annotated[Path | None, typer.Option(help="Folder of the result files; default: docs/results/STUDY.")]


@science_app.command("run")
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
    plan: Annotated[bool, typer.Option(help="Only say what there is to do.")] = False,
) -> None:
    """Train, evaluate and record every row and seed that is not recorded yet; may be killed and run again."""
    from dualdistill.science.run import run_study
    from dualdistill.science.study import find_study, parse_seeds

    found = find_study(study)
    run_study(
        console,
        found,
        data=data or Path("data") / f"synthetic-{found.world.name}",
        out=out or Path("runs/science") / study,
        results=results or Path("docs/results") / study,
        seeds=parse_seeds(seeds),
        only=only or [],
        workers=workers,
        threads=threads,
        limit_minutes=limit_minutes,
        plan=plan,
    )


@science_app.command("table")
def science_table(study: StudyName = "paper", results: Results = None, json_file: JsonFile = None) -> None:
    """Print the study's tables from its result files."""
    from dualdistill.science.page import print_tables
    from dualdistill.science.study import find_study

    _write_json(json_file, print_tables(console, find_study(study), results or Path("docs/results") / study))


@science_app.command("page")
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


@app.command()
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; none lists them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    quick: Annotated[bool, typer.Option(help="Small sizes: seconds each, to look at, not to judge by.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Also write this page, such as docs/performance.md; rows are kept beside it.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Leave out what the JSON file or the page has already.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Time and memory of every fast form beside its reference, measured in the same run, results compared."""
    from dualdistill.bench.catalogue import BENCHMARKS
    from dualdistill.bench.run import list_benchmarks, run_benchmarks

    chosen = list(BENCHMARKS) if every else names or []
    if chosen:
        run_benchmarks(console, chosen, quick=quick, json_file=json_file, page_file=page, resume=resume)
    else:
        _write_json(json_file, list_benchmarks(console))


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
