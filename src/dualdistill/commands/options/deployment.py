"""Options of `export`, `push` and `convert`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from dualdistill.commands.options.shared import Checkpoint, RootOfRun, Version, WritesJson, require_effect


@dataclass(frozen=True)
class Export(WritesJson):
    """Export the student as ONNX and torch.export, checked against the live model."""

    checkpoint: Annotated[
        Path, typer.Argument(help="A student's weights file or run folder, zoo:NAME or hf:owner/name.")
    ]
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, model.pt2, calibration.json, export.json.")]
    data: RootOfRun = None
    sample: Annotated[
        str | None, typer.Option(help="Sample whose calibration is frozen: token, or number in the split; default: 0.")
    ] = None
    calibration: Annotated[Path | None, typer.Option(help="Freeze this rig instead: see docs/export.md.")] = None
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="onnx, torch or both, separated by a comma; default: both.")
    ] = None
    dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="bf16: with --format torch only.")] = "fp32"
    geometry: Annotated[
        Literal["fixed", "input"], typer.Option(help="fixed: one rig, stored in the file; input: the rig is an input.")
    ] = "fixed"
    version: Version = None
    split: Annotated[
        str | None, typer.Option(help="Split of --sample and --check-metrics; default: val, or mini_val.")
    ] = None
    check_metrics: Annotated[
        bool, typer.Option(help="Also score the split with the live model and each file (slow).")
    ] = False

    def __post_init__(self) -> None:
        if self.calibration is not None:
            require_effect("with --calibration", data=self.data, sample=self.sample)
            if not self.check_metrics:
                require_effect("with --calibration", version=self.version, split=self.split)


@dataclass(frozen=True)
class Push:
    """Upload a detector with a model card to the Hugging Face hub (extra hub)."""

    what: Annotated[Path, typer.Argument(help="A run folder or a weights file.")]
    repo: Annotated[str, typer.Argument(help="Repository on the Hugging Face hub: owner/name.")]
    checkpoint: Checkpoint = "last"
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False


@dataclass(frozen=True)
class Convert(WritesJson):
    """Convert an official checkpoint into weights for `evaluate` and `train --teacher`, and list every key."""

    foreign: Annotated[Path, typer.Argument(help="A checkpoint of an official code base (.pth, .ckpt, .safetensors).")]
    out: Annotated[Path, typer.Option(help="The weights file to write, .safetensors.")]
    boxes: Annotated[
        Literal["legacy", "new"] | None,
        typer.Option(help="Box convention of the file: needed only if the file does not record it."),
    ] = None
    voxel: Annotated[
        float | None,
        typer.Option(help="Side of the file's voxels, 0.1 or 0.075 m: needed only if the file does not record it."),
    ] = None
