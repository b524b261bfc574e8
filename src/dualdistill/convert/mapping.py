"""What every conversion shares: our names for a foreign checkpoint's tensors, what happened to each, new boxes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from dualdistill.errors import UserError
from dualdistill.models.bevdepth_config import BevDepthConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.models.checkpoints import differences, listing

BoxConvention = Literal["legacy", "new"]
"""Boxes that a head was trained to predict (docs/methods/centerpoint.md#boxes). "legacy": width before length,
theta = -yaw - pi/2 (mmdetection3d before 1.0, the original CenterPoint); "new": length before width, yaw."""

Fate = Literal["renamed", "changed", "folded", "compared", "dropped"]
"""Fate of a tensor. renamed: the same numbers under our name; changed: rearranged, see the reason; folded: its
effect went into another tensor; compared: a constant, equal to the network's own; dropped: no part of the detector."""


@dataclass(frozen=True, slots=True)
class KeyMapping:
    """One key of the foreign file."""

    key: str
    shape: tuple[int, ...]
    fate: Fate
    into: str | None = None
    """Our tensor that holds it or its effect."""
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """A foreign checkpoint as one of ours."""

    family: str
    """Code base and model, in words."""
    config: CenterPointConfig | BevDepthConfig
    state: dict[str, Tensor]
    """By our names, complete: it loads strictly into `config`'s network."""
    mapping: tuple[KeyMapping, ...]
    """Every key of the file once, in its order."""
    boxes: BoxConvention
    """Boxes of the file; ours are always new."""
    notes: tuple[str, ...] = ()
    """Limits of the conversion, which the user should read before trusting the numbers."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """The tensors of a foreign checkpoint by our names."""

    state: dict[str, Tensor]
    mapping: list[KeyMapping]
    """What happened so far to each key of the file."""

    def changed(self, tensors: dict[str, Tensor], why: Mapping[str, str]) -> "Renamed":
        """With `tensors` in the place of those of the same names, for these reasons."""
        fates = [
            replace(entry, fate="changed", why=why[entry.into]) if entry.into and entry.into in why else entry
            for entry in self.mapping
        ]
        return Renamed(self.state | tensors, fates)

    def completed(self, model: nn.Module) -> "Renamed":
        """The state in the order of the model, with the batch counters it lacks; everything else must be there.
        `model` gives names and shapes only: it may live on the meta device. Raises UserError with a line for each
        missing or additional tensor, and for each of another shape."""
        own = model.state_dict()
        counters = {name for name in own.keys() - self.state.keys() if name.endswith("num_batches_tracked")}
        state = self.state | {name: torch.zeros((), dtype=torch.long) for name in sorted(counters)}
        origin = {entry.into: entry.key for entry in self.mapping if entry.into is not None}
        problems = []
        for line in differences(own, state):
            name = re.sub("^(shape of|unexpected:|missing:) ", "", line).split(":")[0].split()[0]
            problems.append(line + (f" (in the file: {origin[name]})" if name in origin else ""))
        if problems:
            raise UserError("This checkpoint does not fit the network its keys describe:" + listing(problems, most=20))
        return Renamed({name: state[name] for name in own}, self.mapping)


_LAST = re.compile(r"head\.tasks\.\d+\.(dim|rot)\.1\.(?:weight|bias)")
"""Last convolutions whose output channels depend on the box convention, by our names."""
_REASONS = {
    "dim": "legacy to new boxes: length before width",
    "rot": "legacy to new boxes: sin yaw = -cos theta, cos yaw = -sin theta",
}


def in_new_boxes(ours: Renamed) -> Renamed:
    """A network whose head predicts legacy boxes, changed to predict ours; exact."""
    state, kinds = ours.state, {name: match[1] for name in ours.state if (match := _LAST.fullmatch(name))}
    new = {name: state[name][[1, 0, 2]] if kind == "dim" else -state[name][[1, 0]] for name, kind in kinds.items()}
    return ours.changed(new, {name: _REASONS[kind] for name, kind in kinds.items()})


def agreed_boxes(known: BoxConvention | None, asked: BoxConvention | None) -> BoxConvention:
    """The convention that the keys prove, or else the one asked for. Raises UserError if the two contradict each other,
    or nothing is known."""
    if known and asked and known != asked:
        raise UserError(f"The keys of this file prove {known} boxes, but --boxes {asked} was given: leave it out.")
    found = known or asked
    if found is None:
        raise UserError(
            "This file does not record the box convention of its head, and keys and shapes are the same in both. Give "
            "--boxes legacy for mmdetection3d before 1.0 (also for the teachers of DistillBEV and DualDistill), or "
            "--boxes new for 1.0 and later."
        )
    return found


def renamed(state: dict[str, Tensor], our_name: Callable[[str], str | None]) -> Renamed:
    """The tensors by our names, and a mapping of each key as renamed. `our_name`: our name of a key; None if the family
    has no such key. Raises UserError for keys without a name of ours, and for two with the same one."""
    ours: dict[str, Tensor] = {}
    mapping: list[KeyMapping] = []
    problems = []
    for key, tensor in state.items():
        name = our_name(key)
        if name is None:
            problems.append(f"unknown: {key} {tuple(tensor.shape)}")
        elif name in ours:
            problems.append(f"twice: {key} would become {name} once more")
        else:
            ours[name] = tensor
            mapping.append(KeyMapping(key, tuple(tensor.shape), "renamed", name))
    if problems:
        raise UserError(
            f"{len(problems)} of {len(state)} keys have no place in this family of checkpoints; nothing was converted:"
            + listing(problems, most=20)
        )
    return Renamed(ours, mapping)


def by_patterns(key: str, patterns: dict[str, str]) -> str | None:
    """Our name of a foreign key, by the first pattern that matches its beginning; None if none does. Differences in a
    replacement, such as `<\\1-1>`, are computed."""
    for pattern, replacement in patterns.items():
        if match := re.match(pattern, key):
            name = re.sub(r"<(\d+)-(\d+)>", lambda m: str(int(m[1]) - int(m[2])), match.expand(replacement))
            return name + key[match.end() :]
    return None


def head_patterns(prefix: str) -> dict[str, str]:
    """Patterns for mmdetection3d's CenterPoint head below `prefix`, a regular expression."""
    branch = rf"{prefix}task_heads\.(\d+)\.(\w+)"
    return {
        rf"{prefix}shared_conv\.conv\.": "head.shared.0.",
        rf"{prefix}shared_conv\.bn\.": "head.shared.1.",
        rf"{branch}\.0\.conv\.": r"head.tasks.\1.\2.0.0.",
        rf"{branch}\.0\.bn\.": r"head.tasks.\1.\2.0.1.",
        rf"{branch}\.1\.": r"head.tasks.\1.\2.1.",
    }
