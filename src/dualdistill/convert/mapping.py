"""Records of a conversion: what happened to each tensor of a foreign checkpoint, and the network they now fill."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from dualdistill.errors import UserError
from dualdistill.models.bevdepth_config import BevDepthConfig
from dualdistill.models.centerpoint import CenterPointConfig
from dualdistill.models.checkpoints import differences

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

        Args:
            model: Gives names and shapes only: it may live on the meta device.

        Raises:
            UserError: with a line for each missing or additional tensor, and for each of another shape.
        """
        own = model.state_dict()
        counters = {name for name in own.keys() - self.state.keys() if name.endswith("num_batches_tracked")}
        state = self.state | {name: torch.zeros((), dtype=torch.long) for name in sorted(counters)}
        origin = {entry.into: entry.key for entry in self.mapping if entry.into is not None}
        problems = [f"{line}{_from(line, origin)}" for line in differences(own, state)]
        if problems:
            raise UserError("This checkpoint does not fit the network its keys describe:" + listing(problems))
        return Renamed({name: state[name] for name in own}, self.mapping)


def listing(lines: list[str], most: int = 20) -> str:
    """Lines set below a message, the rest counted."""
    more = f"\n  … and {len(lines) - most} more" if len(lines) > most else ""
    return "".join(f"\n  {line}" for line in lines[:most]) + more


def _from(line: str, origin: dict[str, str]) -> str:
    """The foreign name of the tensor in a line of `differences`."""
    name = re.sub("^(shape of|unexpected:|missing:) ", "", line).split(":")[0].split()[0]
    return f" (in the file: {origin[name]})" if name in origin else ""
