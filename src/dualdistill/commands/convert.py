"""`dualdistill convert`: from a checkpoint of an official code base to a weights file."""

import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from dualdistill.commands.options.deployment import Convert
from dualdistill.convert.checkpoint_file import Foreign, convert, read_foreign
from dualdistill.convert.mapping import BoxConvention, Conversion, KeyMapping
from dualdistill.data.config import VirtualPointsConfig
from dualdistill.errors import UserError
from dualdistill.experiment.experiment import Experiment
from dualdistill.experiment.plain import to_plain
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig
from dualdistill.models.checkpoints import fingerprint, save_weights
from dualdistill.recipes.catalogue import find
from dualdistill.recipes.nuscenes import IMAGE_SIZES

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_RELEASED_MVP = VirtualPointsConfig(masks="official", missing="unpainted", ring_leak=True)
"""Virtual points as the released MVP weights were trained on (docs/methods/mvp.md#ring-index)."""


def convert_checkpoint(console: Console, options: Convert) -> dict[str, Any]:
    """Convert a file, print the mapping of every key, write the weights; returns the JSON record. Raises UserError if
    the file cannot be converted completely; nothing is written then."""
    path, out = options.foreign, options.out
    if out.suffix != ".safetensors":
        raise UserError(f"--out names the weights file to write and ends in .safetensors, got {out}.")
    if out.resolve() == path.resolve():
        raise UserError(f"--out {out} is the checkpoint itself: give another name, so that it is kept.")
    foreign = read_foreign(path)
    conversion = convert(foreign.state, _boxes(foreign, options.boxes), _voxel(foreign, options.voxel))
    experiment = experiment_for(conversion, foreign.state)
    facts = {
        "recipe": f"converted/{path.stem}",
        "role": experiment.role,
        "step": foreign.step,
        "seed": 0,  # nothing is drawn where these weights are used
        "data": None,
        "teacher": None,
        "experiment": to_plain(experiment),
        "converted": {"file": path.name, "sha256": fingerprint(path), "family": conversion.family},
    }
    config = conversion.config
    network = CenterPoint(config) if isinstance(config, CenterPointConfig) else BevDepth(config)
    network.load_state_dict(conversion.state)
    save_weights(out, network, facts)
    _print(console, path, foreign, conversion)
    using = "evaluate it with" if experiment.role == "student" else "evaluate it, or distil from it:"
    console.print(f"wrote {out} ({experiment.role}); {using}\n  dualdistill evaluate {out} --data ROOT")
    if experiment.role == "teacher":
        console.print(f"  dualdistill train RECIPE --data ROOT --teacher {out}")
    return {
        "file": str(path),
        "out": str(out),
        "family": conversion.family,
        "boxes": conversion.boxes,
        "prefix": foreign.prefix,
        "left_out": list(foreign.left_out),
        "notes": list(conversion.notes),
        "keys": [asdict(entry) | {"shape": list(entry.shape)} for entry in conversion.mapping],
    }


def experiment_for(conversion: Conversion, state: dict[str, Tensor]) -> Experiment:
    """The full-size recipe the weights belong to, with the network that fits them. `state`: the foreign tensors; a
    student's frustum has its image size."""
    config = conversion.config
    if isinstance(config, CenterPointConfig):
        voxels = "" if config.voxel is None else "-voxel" if config.voxel.size == 0.1 else "-voxel-0.075"
        base = find(f"nuscenes/teacher-centerpoint{voxels}").build()  # whose data have the range of the voxels
        virtual = _RELEASED_MVP if config.point_channels == 17 else None
        return replace(base, data=replace(base.data, virtual_points=virtual), teacher=config)
    official = config.lift.net == "squeeze"
    base = find("nuscenes/student-official" if official else "nuscenes/student").build()
    image_size = IMAGE_SIZES[config.image.backbone]
    for frustum in (state.get(f"{place}.frustum") for place in ("backbone", "img_view_transformer")):
        if frustum is not None:
            rows, columns = frustum.shape[1:3]
            image_size = rows * config.image.stride, columns * config.image.stride
    data = replace(base.data, image_size=image_size, num_frames=config.temporal.frames)
    return replace(base, data=data, student=config)


def _boxes(foreign: Foreign, asked: BoxConvention | None) -> BoxConvention | None:
    """The box convention, from the option or the file, which must agree."""
    recorded = foreign.boxes
    if asked is None:
        return recorded
    if recorded is not None and recorded != asked:
        version = foreign.meta.get("mmdet3d_version") or f"mmengine {foreign.meta.get('mmengine_version')}"
        raise UserError(f"--boxes {asked} contradicts the file: it was written by version {version}, {recorded} boxes.")
    return asked


def _voxel(foreign: Foreign, asked: float | None) -> float | None:
    """The voxel size, from the option or the file, which must agree."""
    if asked is not None and asked not in (0.1, 0.075):
        raise UserError(f"--voxel is 0.1 or 0.075 (metres), got {asked}.")
    if not any(name.startswith(("pts_middle_encoder.", "backbone.conv_input.")) for name in foreign.state):
        return asked
    if asked is not None and foreign.voxel not in (None, asked):
        raise UserError(f"--voxel {asked} contradicts the file: its configuration has {foreign.voxel} m.")
    return foreign.voxel if asked is None else asked


def _print(console: Console, path: Path, foreign: Foreign, conversion: Conversion) -> None:
    """Print one line a layer; the JSON form has one entry a key."""
    counts = Counter(entry.fate for entry in conversion.mapping)
    summary = ", ".join(f"{count} {fate}" for fate, count in counts.items())
    for key, fate, into, why in _by_layer(conversion.mapping):
        words = f"{key}: {fate}{f' -> {into}' if into else ''}{f' ({why})' if why else ''}"
        console.print(words, soft_wrap=True)  # names are read and copied whole
    console.print(f"{path}: {conversion.family}, {conversion.boxes} boxes")
    console.print(f"{len(conversion.mapping)} keys: {summary}")
    if foreign.prefix:
        console.print(f"prefix taken off every key: {foreign.prefix}")
    if foreign.left_out:
        console.print(f"left out beside the weights: {', '.join(foreign.left_out)}")
    for note in conversion.notes:
        console.print(f"note: {note}", style="yellow")


def _by_layer(mapping: tuple[KeyMapping, ...]) -> list[tuple[str, ...]]:
    """Tensors of one layer with the same fate, as one line: `norm.{weight,bias}`."""
    lines: dict[tuple[str, str, str, str], list[str]] = {}
    for entry in mapping:
        layer, _, tensor = entry.key.rpartition(".")
        into = entry.into or ""
        target = re.sub(rf"\.{tensor}$", ".*", into) if entry.fate in ("renamed", "changed") else into
        lines.setdefault((layer, entry.fate, target, entry.why), []).append(tensor)

    def joined(tensors: list[str]) -> str:
        several = "*" if set(tensors) == set(_NORM) else f"{{{','.join(tensors)}}}"
        return several if len(tensors) > 1 else tensors[0]

    return [(f"{layer}.{joined(tensors)}", *rest) for (layer, *rest), tensors in lines.items()]
