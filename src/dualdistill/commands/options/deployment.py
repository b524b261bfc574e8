"""Options of the verbs that use a trained detector: `predict`, `export`, `push`, `convert` and `zoo`."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from dualdistill.commands.options import Checkpoint, Options, RootOfRun, Version, WritesJson, require_effect
from dualdistill.errors import UserError


class Predict(WritesJson, frozen=True):
    """Detect boxes in one sample of a root, or in your own images with a calibration file."""

    checkpoint: Annotated[Path, "A weights file, a run folder, zoo:NAME or hf:owner/name."]
    more_images: Annotated[list[Path] | None, Argument(help="More files of --images.", hidden=True)] = None
    data: RootOfRun = None
    sample: Annotated[str | None, "Token of a sample, or its number in the split; default: 0."] = None
    images: Annotated[list[Path] | None, "Your images: a folder, or one per camera in the calibration's order."] = None
    calibration: Annotated[Path | None, "Calibration of those cameras, a JSON file: see docs/export.md."] = None
    version: Version = None
    split: Annotated[str | None, "Split of --sample; default: val, or mini_val."] = None
    min_score: Annotated[
        float | None,
        Option(min=0, max=1, help="Leave out boxes with lower scores; default: keep all, draw those from 0.2."),
    ] = None
    picture: Annotated[Path | None, "Also draw the boxes: a .png in bird's-eye view, and one of the cameras."] = None
    video: Annotated[Path | None, "A .gif or .webp of the sample's whole scene, or of all images of the folder."] = None

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


class Export(WritesJson, frozen=True):
    """Export the student as ONNX and torch.export, checked against the live model."""

    checkpoint: Annotated[Path, "A student's weights file or run folder, zoo:NAME or hf:owner/name."]
    out: Annotated[Path, Option(help="Folder for model.onnx, model.pt2, calibration.json, export.json.")]
    data: RootOfRun = None
    sample: Annotated[str | None, "Sample whose rig is frozen: token, or number in the split; default: 0."] = None
    calibration: Annotated[Path | None, "Freeze this rig instead: see docs/export.md."] = None
    formats: Annotated[list[str] | None, Option("--format", help="onnx, torch or onnx,torch; default: both.")] = None
    dtype: Annotated[Literal["fp32", "bf16"], "bf16: with --format torch only."] = "fp32"
    geometry: Annotated[Literal["fixed", "input"], "fixed: one rig, in the file; input: the rig is an input."] = "fixed"
    version: Version = None
    split: Annotated[str | None, "Split of --sample and --check-metrics; default: val, or mini_val."] = None
    check_metrics: Annotated[bool, "Also score the split with the live model and each file (slow)."] = False

    def __post_init__(self) -> None:
        if self.calibration is not None:
            require_effect("with --calibration", data=self.data, sample=self.sample)
            if not self.check_metrics:
                require_effect("with --calibration", version=self.version, split=self.split)


class Push(Options, frozen=True):
    """Upload a detector with a model card to the Hugging Face hub (extra hub)."""

    what: Annotated[Path, "A run folder or a weights file."]
    repo: Annotated[str, "Repository on the Hugging Face hub: owner/name."]
    checkpoint: Checkpoint = "last"
    private: Annotated[bool, "Make a new repository private."] = False


class Convert(WritesJson, frozen=True):
    """Convert an official checkpoint into weights for `evaluate` and `train --teacher`, and list every key."""

    foreign: Annotated[Path, "A checkpoint of an official code base (.pth, .ckpt, .safetensors)."]
    out: Annotated[Path, Option(help="The weights file to write, .safetensors.")]
    boxes: Annotated[Literal["legacy", "new"] | None, "Box convention: needed if the file does not record it."] = None
    voxel: Annotated[float | None, "Voxel size, 0.1 or 0.075 m: needed if the file does not record it."] = None


class Zoo(WritesJson, frozen=True):
    """List the trained models that ship with the package; `zoo:NAME` can be used wherever weights are expected."""

    name: Annotated[str | None, Argument(help="Show the full card of this model.")] = None
