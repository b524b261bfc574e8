"""What all pillar CenterPoints share once their tensors carry our names: sizes, box convention, assembly."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from dualdistill.convert.account import BoxConvention, Conversion, KeyMapping, completed, listing
from dualdistill.convert.student_names import from_legacy_codes
from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig

FIRST = "encoder.layers.0.linear.weight"
"""Weight of the first point layer: its columns tell what a point is made of."""
_PADDED = (
    "Trained with hard pillars, of at most 20 points and filled up with empty rows: the network does the same "
    "(pillar_points=20), but has no limit on the number of pillars."
)
_SWAPPED = re.compile(r"\.(dim|rot)\.1\.(weight|bias)$")
"""Last convolutions of the head whose channels depend on the box convention."""


def renamed(
    state: dict[str, Tensor], our_name: Callable[[str], str | None]
) -> tuple[dict[str, Tensor], list[KeyMapping]]:
    """The tensors by our names, each accounted for as renamed.

    Raises:
        UserError: for keys that `our_name` does not know, and for two that mean the same tensor.
    """
    ours: dict[str, Tensor] = {}
    account: list[KeyMapping] = []
    problems = []
    for key, tensor in state.items():
        name = our_name(key)
        if name is None:
            problems.append(f"unknown: {key} {tuple(tensor.shape)}")
        elif name in ours:
            problems.append(f"twice: {key} would become {name} once more")
        else:
            ours[name] = tensor
            account.append(KeyMapping(key, tuple(tensor.shape), "renamed", name))
    if problems:
        raise UserError(
            f"{len(problems)} of {len(state)} keys have no place in this family of checkpoints; nothing was converted:"
            + listing(problems)
        )
    return ours, account


def by_patterns(key: str, patterns: dict[str, str]) -> str | None:
    """Our name of a foreign key, by the first pattern that matches its beginning; None if none does."""
    for pattern, replacement in patterns.items():
        if match := re.match(pattern, key):
            return match.expand(replacement) + key[match.end() :]
    return None


def pillar_config(state: dict[str, Tensor], point_channels: int, *, hard: bool) -> CenterPointConfig:
    """Widths and depths of the network a state is of; range, pillar size, strides and points of a hard pillar, which no
    tensor tells, are the published ones (51.2 m, 0.2 m, 2 a stage, 20).

    Args:
        state: By our names.

    Raises:
        UserError: if there are not the parts of a pillar CenterPoint.
    """
    try:
        sizes = bev_sizes(state)
        return CenterPointConfig(
            point_channels=point_channels,
            pillar_channels=tuple(
                len(state[f"encoder.layers.{layer}.linear.weight"])
                for layer in range(count(state, r"encoder\.layers\.(\d+)\."))
            ),
            pillar_points=20 if hard else None,
            pillar_height=state[FIRST].shape[1] > point_channels + 5,
            stage_strides=(2,) * len(sizes["stage_channels"]),
            **sizes,
        )
    except KeyError as error:
        raise UserError(f"This is no whole pillar CenterPoint: nothing in the file becomes {error.args[0]}.") from None
    except ValueError as error:
        raise UserError(f"The sizes of this checkpoint make no CenterPoint: {error}.") from None


def bev_sizes(state: dict[str, Tensor]) -> dict[str, Any]:
    """What a state tells of backbone, neck and head, as fields of `CenterPointConfig`.

    Raises:
        KeyError: if one of them is not there.
    """
    stages = count(state, r"backbone\.blocks\.(\d+)\.")
    layers = [count(state, rf"backbone\.blocks\.{stage}\.(\d+)\.") for stage in range(stages)]
    return {
        "stage_channels": tuple(len(state[f"backbone.blocks.{stage}.0.weight"]) for stage in range(stages)),
        # Convolution, norm and ReLU in turn; the first convolution is the strided one.
        "stage_layers": tuple((entries + 1) // 3 - 1 for entries in layers),
        "neck_channels": len(state["neck.deblocks.0.1.weight"]),
        "head": CenterHeadConfig(
            shared_channels=len(state["head.shared.0.weight"]),
            head_channels=len(state["head.tasks.0.reg.0.0.weight"]),
        ),
    }


def pillar_conversion(
    *,
    family: str,
    ours: dict[str, Tensor],
    account: Iterable[KeyMapping],
    point_channels: int,
    boxes: BoxConvention,
    hard: bool,
    notes: tuple[str, ...] = (),
) -> Conversion:
    """The last steps, the same for each family: fit, then say boxes our way.

    Args:
        ours: By our names, biases and columns already folded.
        account: A renamed tensor whose channels the box convention moves becomes a changed one.
        hard: Whether pillars were padded with empty rows while it was trained.
    """
    entries = list(account)
    config = pillar_config(ours, point_channels, hard=hard)
    with torch.device("meta"):
        model = CenterPoint(config)
    state = completed(model, ours, {entry.into: entry.key for entry in entries if entry.into is not None})
    if boxes == "legacy":
        state, entries = in_new_boxes(state, entries)
    if hard:
        notes = (*notes, _PADDED)
    published = CenterPointConfig(
        point_channels=point_channels,
        **{name: getattr(config, name) for name in ("pillar_channels", "pillar_points", "pillar_height")},
    )
    if config != published:
        notes = (*notes, "Its widths are not the published ones: range ±51.2 m and 0.2 m pillars are assumed.")
    return Conversion(family=family, config=config, state=state, account=tuple(entries), boxes=boxes, notes=notes)


def in_new_boxes(state: dict[str, Tensor], account: list[KeyMapping]) -> tuple[dict[str, Tensor], list[KeyMapping]]:
    """A head that says legacy boxes, by our names, changed so that it says ours."""
    return from_legacy_codes(state), [_moved(entry) for entry in account]


def _moved(entry: KeyMapping) -> KeyMapping:
    match = entry.into and _SWAPPED.search(entry.into)
    if not match:
        return entry
    why = "length before width" if match[1] == "dim" else "sin yaw = -cos theta, cos yaw = -sin theta"
    return KeyMapping(entry.key, entry.shape, "changed", entry.into, f"legacy to new boxes: {why}")


def count(state: dict[str, Tensor], pattern: str) -> int:
    """How many parts a state numbers: one more than the highest number that `pattern` finds in the names."""
    return 1 + max((int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1)
