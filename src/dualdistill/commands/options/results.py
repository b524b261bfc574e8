"""Options of the verbs that score, draw and compare trained detectors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dualdistill.commands.options.shared import (
    Checkpoint,
    RootOfRun,
    Trust,
    ValSplit,
    Version,
    Workers,
    WritesJson,
    require_effect,
)
from dualdistill.errors import UserError

CheckpointOfRun = Annotated[
    str | None, typer.Option(help="Checkpoint of a run: last, best or step_000400; default: last.")
]


@dataclass(frozen=True)
class Evaluate(WritesJson):
    """Compute the nuScenes detection metrics of a run, a weights file or a result file."""

    what: Annotated[
        Path, typer.Argument(help="A run folder, a weights file, zoo:NAME, hf:owner/name, or a results_nusc.json.")
    ]
    data: RootOfRun = None
    version: Version = None
    split: ValSplit = None
    out: Annotated[Path | None, typer.Option(help="Folder for metrics.json and results_nusc.json.")] = None
    checkpoint: CheckpointOfRun = None
    workers: Workers = None
    devices: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Processes (GPUs) that share the samples; default: 1.")
    ] = None
    official: Annotated[
        bool, typer.Option(help="Compute the metrics with nuscenes-devkit, which must be installed.")
    ] = False
    scenes: Annotated[
        str | None, typer.Option(help="Score only these scenes of the split: names, separated by commas.")
    ] = None
    fraction: Annotated[float, typer.Option(help="Score a fraction of the scenes, evenly spread.")] = 1.0
    slices: Annotated[
        bool,
        typer.Option("--slices", help="Also score by distance, and night and rain if scene descriptions mention them."),
    ] = False

    def __post_init__(self) -> None:
        if self.what.suffix == ".json":
            given = {"checkpoint": self.checkpoint, "workers": self.workers, "devices": self.devices}
            require_effect("on a result file", **given)
        if self.what.is_file():
            require_effect("on a weights file", checkpoint=self.checkpoint)
        if self.official and self.partly:
            raise UserError("nuscenes-devkit scores whole splits: leave out --official, or --scenes and --fraction.")

    @property
    def partly(self) -> bool:
        """Whether only some scenes of the split are scored."""
        return self.scenes is not None or self.fraction != 1


@dataclass(frozen=True)
class Submit(WritesJson):
    """Write and check a submission file for the nuScenes test server, without computing scores."""

    what: Annotated[Path, typer.Argument(help="A results_nusc.json, or a run folder or weights file to run first.")]
    data: Annotated[Path | None, typer.Option(help="The nuScenes root; without it sample tokens are not checked.")] = (
        None
    )
    version: Version = None
    split: Annotated[str | None, typer.Option(help="Default: test for v1.0-test, else val.")] = None
    out: Annotated[Path, typer.Option(help="Submission file to write.")] = Path("submission.json")
    checkpoint: CheckpointOfRun = None
    workers: Workers = None

    def __post_init__(self) -> None:
        if self.what.suffix == ".json":
            require_effect("on a result file", checkpoint=self.checkpoint, workers=self.workers)
        if self.data is None:
            require_effect("without --data", version=self.version, split=self.split)


@dataclass(frozen=True)
class Visualize:
    """Draw the detections of a run: report.html and PNG files beside its evaluation. Needs no display."""

    run: Annotated[Path, typer.Argument(help="A run folder.")]
    data: RootOfRun = None
    samples: Annotated[int, typer.Option(min=1, max=1000, help="Samples to draw, spread over the split.")] = 4
    checkpoint: Checkpoint = "last"
    split: ValSplit = None
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Also write a recording for the viewer of rerun (extra viz).")
    ] = False


@dataclass(frozen=True)
class Compare(WritesJson):
    """Compare evaluated runs in one table: mean and spread over seeds, gain over the student without a teacher."""

    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders with runs below, such as runs/.")]
    checkpoint: Checkpoint = "last"
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as Markdown to this file.")] = None
    latex: Annotated[Path | None, typer.Option(help="Also write it as LaTeX, for the booktabs package.")] = None
    html: Annotated[Path | None, typer.Option(help="Also write it as an HTML page.")] = None


@dataclass(frozen=True)
class Predict(WritesJson):
    """Detect boxes in one sample of a root, or in your own images with a calibration file."""

    checkpoint: Annotated[Path, typer.Argument(help="A weights file, a run folder, zoo:NAME or hf:owner/name.")]
    more_images: Annotated[list[Path] | None, typer.Argument(help="More files of --images.", hidden=True)] = None
    data: RootOfRun = None
    sample: Annotated[str | None, typer.Option(help="Token of a sample, or its number in the split; default: 0.")] = (
        None
    )
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Your images: a folder, or one file per camera in the order of the calibration file."),
    ] = None
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration of those cameras, a JSON file: see docs/export.md.")
    ] = None
    version: Version = None
    split: Annotated[str | None, typer.Option(help="Split of --sample; default: val, or mini_val.")] = None
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out boxes with lower scores; default: keep all, draw those from 0.2."),
    ] = None
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the boxes: a .png in bird's-eye view, and one of the cameras.")
    ] = None
    video: Annotated[
        Path | None, typer.Option(help="A .gif or .webp of the sample's whole scene, or of all images of the folder.")
    ] = None

    def __post_init__(self) -> None:
        if self.calibration is not None:
            given = {"data": self.data, "sample": self.sample, "version": self.version, "split": self.split}
            require_effect("with images of your own", **given)
        if self.picture is not None and self.picture.suffix != ".png":
            raise UserError(f"--picture writes PNG: expected a name that ends in .png, got {self.picture.name}")
        if bool(self.all_images) != (self.calibration is not None):
            raise UserError(
                "Own images need both --images and --calibration FILE.json (docs/export.md shows the form)."
            )

    @property
    def all_images(self) -> list[Path]:
        """The user's images; the shell may have expanded --images *.jpg to arguments."""
        return [*(self.images or []), *(self.more_images or [])]


@dataclass(frozen=True)
class Gradients(WritesJson):
    """Show the share of each loss in the gradient of a student, and its cosine with the gradient of detection."""

    run: Annotated[Path, typer.Argument(help="A student's run folder.")]
    data: RootOfRun = None
    checkpoint: Checkpoint = "last"
    batches: Annotated[int, typer.Option(min=1, max=10_000, help="Number of batches to average over.")] = 8
    trust: Trust = False
