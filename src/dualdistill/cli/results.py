"""The verbs that score, draw and compare trained detectors."""

from pathlib import Path
from typing import Annotated

import typer

from dualdistill.cli.shared import JsonFile, Trust, Version, Workers, console, require_effect, write_json

Checkpoint = Annotated[str | None, typer.Option(help="Checkpoint of a run: last, best or step_000400; default: last.")]


def evaluate(
    what: Annotated[
        Path, typer.Argument(help="A run folder, a weights file, zoo:NAME, hf:owner/name, or a results_nusc.json.")
    ],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Default: val, or mini_val for v1.0-mini.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and results_nusc.json.")] = None,
    checkpoint: Checkpoint = None,
    workers: Workers = None,
    devices: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Processes (GPUs) that share the samples; default: 1.")
    ] = None,
    official: Annotated[
        bool, typer.Option(help="Compute the metrics with nuscenes-devkit, which must be installed.")
    ] = False,
    scenes: Annotated[
        str | None, typer.Option(help="Score only these scenes of the split: names, separated by commas.")
    ] = None,
    fraction: Annotated[float, typer.Option(help="Score a fraction of the scenes, evenly spread.")] = 1.0,
    slices: Annotated[
        bool,
        typer.Option("--slices", help="Also score by distance, and night and rain if scene descriptions mention them."),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Compute the nuScenes detection metrics of a run, a weights file or a result file."""
    from dualdistill.commands.evaluate import evaluate_anything

    if what.suffix == ".json":
        require_effect("on a result file", checkpoint=checkpoint, workers=workers, devices=devices)
    if what.is_file():
        require_effect("on a weights file", checkpoint=checkpoint)
    metrics = evaluate_anything(
        console,
        what,
        data=data,
        version=version,
        split=split,
        out=out,
        checkpoint="last" if checkpoint is None else checkpoint,
        workers=workers,
        devices=devices or 1,
        official=official,
        scenes=scenes.split(",") if scenes else (),
        fraction=fraction,
        sliced=slices,
    )
    write_json(json_file, metrics)


def submit(
    what: Annotated[Path, typer.Argument(help="A results_nusc.json, or a run folder or weights file to run first.")],
    data: Annotated[
        Path | None, typer.Option(help="The nuScenes root; without it sample tokens are not checked.")
    ] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Default: test for v1.0-test, else val.")] = None,
    out: Annotated[Path, typer.Option(help="Submission file to write.")] = Path("submission.json"),
    checkpoint: Checkpoint = None,
    workers: Workers = None,
    json_file: JsonFile = None,
) -> None:
    """Write and check a submission file for the nuScenes test server, without computing scores."""
    from dualdistill.commands.submit import submit_results

    if what.suffix == ".json":
        require_effect("on a result file", checkpoint=checkpoint, workers=workers)
    if data is None:
        require_effect("without --data", version=version, split=split)
    facts = submit_results(
        console,
        what,
        data=data,
        version=version,
        split=split,
        out=out,
        checkpoint="last" if checkpoint is None else checkpoint,
        workers=workers,
    )
    write_json(json_file, facts)


def visualize(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=1000, help="Samples to draw, spread over the split.")] = 4,
    checkpoint: Annotated[str, typer.Option(help="last, best or step_000400.")] = "last",
    split: Annotated[str | None, typer.Option(help="Default: val, or mini_val for v1.0-mini.")] = None,
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Also write a recording for the viewer of rerun (extra viz).")
    ] = False,
) -> None:
    """Draw the detections of a run: report.html and PNG files beside its evaluation. Needs no display."""
    from dualdistill.commands.visualize import visualize_run

    visualize_run(console, run, data=data, samples=samples, checkpoint=checkpoint, split=split, rerun=rerun)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders with runs below, such as runs/.")],
    checkpoint: Annotated[str, typer.Option(help="Checkpoint of each run: last, best or step_000400.")] = "last",
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as Markdown to this file.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Also write it as LaTeX, for the booktabs package.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write it as an HTML page.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Compare evaluated runs in one table: mean and spread over seeds, gain over the student without a teacher."""
    from dualdistill.commands.compare import compare_runs

    rows = compare_runs(console, runs, checkpoint=checkpoint, markdown=markdown, latex=latex, html=html)
    write_json(json_file, rows)


def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A weights file, a run folder, zoo:NAME or hf:owner/name.")],
    more_images: Annotated[list[Path] | None, typer.Argument(help="More files of --images.", hidden=True)] = None,
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one the run was trained on.")] = None,
    sample: Annotated[
        str | None, typer.Option(help="Token of a sample, or its number in the split; default: 0.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Your images: a folder, or one file per camera in the order of the calibration file."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration of those cameras, a JSON file: see docs/export.md.")
    ] = None,
    version: Version = None,
    split: Annotated[str | None, typer.Option(help="Split of --sample; default: val, or mini_val.")] = None,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out boxes with lower scores; default: keep all, draw those from 0.2."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the boxes: a .png in bird's-eye view, and one of the cameras.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="A .gif or .webp of the sample's whole scene, or of all images of the folder.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Detect boxes in one sample of a root, or in your own images with a calibration file."""
    from dualdistill.commands.predict import predict_sample

    if calibration is not None:
        require_effect("with images of your own", sample=sample, version=version, split=split)
    predicted = predict_sample(
        console,
        checkpoint,
        data=data,
        sample="0" if sample is None else sample,
        images=[*(images or []), *(more_images or [])],
        calibration=calibration,
        version=version,
        split=split,
        min_score=min_score,
        picture=picture,
        video=video,
    )
    write_json(json_file, predicted)


def gradients(
    run: Annotated[Path, typer.Argument(help="A student's run folder.")],
    data: Annotated[Path | None, typer.Option(help="A nuScenes root; default: the one it was trained on.")] = None,
    checkpoint: Annotated[str, typer.Option(help="last, best, or step_000400.")] = "last",
    batches: Annotated[int, typer.Option(min=1, max=10_000, help="Number of batches to average over.")] = 8,
    trust: Trust = False,
    json_file: JsonFile = None,
) -> None:
    """Show the share of each loss in the gradient of a student, and its cosine with the gradient of detection."""
    from dualdistill.commands.gradients import show_gradient_shares

    shares = show_gradient_shares(console, run, data=data, batches=batches, checkpoint=checkpoint, trust=trust)
    write_json(json_file, shares)
