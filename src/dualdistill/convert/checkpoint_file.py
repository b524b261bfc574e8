"""Foreign checkpoint files: read without running code of the file, and converted by the family that their keys show
(docs/methods/centerpoint.md#checkpoints, docs/methods/bevdepth.md#checkpoints)."""

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dualdistill.convert.mapping import BoxConvention, Conversion
from dualdistill.convert.students import convert_student
from dualdistill.convert.teachers import convert_teacher
from dualdistill.errors import UserError
from dualdistill.models.checkpoints import read_tensors
from dualdistill.ops.finite import require_finite
from dualdistill.structures import CLASSES

_WRAPPERS = ("module.", "model.")
"""Prefixes of data-parallel wrappers and of the official BEVDepth's training module, stripped where every key has
one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Foreign:
    """A foreign checkpoint: its tensors and its metadata."""

    state: dict[str, Tensor]
    prefix: str
    """Prefix removed from every key of `state`."""
    meta: dict[str, Any]
    """The container's `meta`; empty without one."""
    left_out: tuple[str, ...]
    """Parts of the container beside the weights, such as the optimiser."""
    step: int | None
    """Iterations it was trained for, if recorded."""

    @property
    def boxes(self) -> BoxConvention | None:
        """The box convention that the recorded version of mmdetection3d had; None where none is recorded."""
        version = self.meta.get("mmdet3d_version")
        if isinstance(version, str) and version[:1].isdigit():
            return "legacy" if version.startswith("0.") else "new"
        return "new" if "mmengine_version" in self.meta else None

    @property
    def voxel(self) -> float | None:
        """Side of the voxels, metres, by the configuration that mmdetection3d records; None where none is."""
        text = str(self.meta.get("config", "")) + str(self.meta.get("cfg", ""))
        sizes = {float(size) for size in re.findall(r"voxel_size\s*=\s*[\[(]\s*([\d.]+)", text)}
        return sizes.pop() if len(sizes) == 1 else None


def read_foreign(path: Path) -> Foreign:
    """Read a .pth, .pt, .ckpt or .safetensors file. Raises UserError if it is missing, damaged, holds anything but
    tensors and plain values, or other classes than nuScenes' ten in the order of the detection task."""
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    content = _load(path)
    wrapped = "state_dict" in content
    state = content["state_dict"] if wrapped else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        kinds = sorted({type(value).__name__ for value in content.values()})
        raise UserError(
            f"{path} holds no state dict: expected tensors by name, or a dictionary with 'state_dict'; its "
            f"{len(content)} entries ({', '.join(map(str, list(content)[:8]))}) are of type {', '.join(kinds)}."
        )
    require_finite(state, path)
    meta = content.get("meta", {}) if wrapped else {}
    meta = meta if isinstance(meta, dict) else {}
    data = meta.get("dataset_meta")
    classes = meta.get("CLASSES") or (data.get("classes") if isinstance(data, dict) else None)
    if isinstance(classes, list | tuple) and tuple(classes) != CLASSES:
        raise UserError(
            f"{path} detects other classes, or in another order: expected {', '.join(CLASSES)}; came "
            f"{', '.join(map(str, classes))}."
        )
    step = content.get("global_step", meta.get("iter")) if wrapped else None
    state, prefix = {str(name): tensor.detach() for name, tensor in state.items()}, ""
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state, prefix = {name.removeprefix(wrapper): t for name, t in state.items()}, prefix + wrapper
    return Foreign(
        state=state,
        prefix=prefix,
        meta=meta,
        left_out=tuple(str(key) for key in content if key not in ("state_dict", "meta")) if wrapped else (),
        step=step if isinstance(step, int) else None,
    )


def _load(path: Path) -> dict[Any, Any]:
    if path.suffix == ".safetensors":
        return dict(read_tensors(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles: they are read, or refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a broken file leads to
        if isinstance(error, pickle.UnpicklingError) and re.search("weights_only|unsupported", str(error), re.I):
            raise UserError(_refusal(path)) from None
        raise UserError(f"{path} is not a readable PyTorch file ({error}). Was it copied completely?") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, expected a dictionary of weights.")
    return content


def _refusal(path: Path) -> str:
    """Message for a file with Python objects: the reason, and how to extract the weights."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # whatever a file leads to that is broken besides
        names = []
    what = f" ({', '.join(sorted(names)[:6])})" if names else ""
    return (
        f"{path} holds Python objects beside its weights{what}. Loading them could run any code: nothing was loaded. "
        "If you trust the file, keep its weights only, in a Python that may load it:\n"
        "  import torch\n"
        f"  weights = torch.load({str(path)!r}, map_location='cpu', weights_only=False)['state_dict']\n"
        "  torch.save({'state_dict': weights}, 'weights.pth')\n"
        "and convert weights.pth (the recorded box convention is lost then: give --boxes)."
    )


_VOXELS = ("pts_middle_encoder.", "backbone.conv_input.", "backbone.middle_conv.")
_IMPORTERS: dict[tuple[str, ...], Callable[..., Conversion]] = {
    ("img_view_transformer.", "backbone.depth_net."): convert_student,
    ("pts_voxel_encoder.pfn_layers.", "reader.pfn_layers.", *_VOXELS): convert_teacher,
}
"""Importers by beginnings of keys that only their family has; the first one found decides."""


def convert(state: dict[str, Tensor], boxes: BoxConvention | None = None, voxel: float | None = None) -> Conversion:
    """A foreign checkpoint as one of ours. Raises UserError for an unknown family, for unknown or missing keys, another
    shape or geometry, and unknown or contradicting boxes.

    Args:
        state: Without prefixes of wrappers.
        boxes: The box convention of the file, None if it must follow from the keys.
        voxel: Side of the voxels, metres, None for other families or if unknown.
    """
    if voxel is not None and not any(name.startswith(_VOXELS) for name in state):
        raise UserError("This checkpoint has no voxels: leave out --voxel.")
    for beginnings, importer in _IMPORTERS.items():
        if any(name.startswith(beginnings) for name in state):
            return importer(state, boxes, voxel)
    parts = Counter(".".join(name.split(".")[:2]) for name in state)
    seen = ", ".join(f"{part} ({count})" for part, count in parts.most_common(10))
    raise UserError(
        "No known family of checkpoints has these keys. Known are pillar and voxel CenterPoints of mmdetection3d and "
        "of the original code, MVP of DistillBEV and DualDistill, their BEVDepth students, and the official BEVDepth. "
        f"Found parts: {seen}."
    )
