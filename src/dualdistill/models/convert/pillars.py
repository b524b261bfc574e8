"""What all pillar CenterPoints share once their tensors carry our names: sizes, box convention, assembly."""

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dualdistill.errors import UserError
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig
from dualdistill.models.convert.account import BoxConvention, Conversion, KeyFate, completed, listing
from dualdistill.models.official_names import from_legacy_codes

FIRST = "encoder.layers.0.linear.weight"
"""Weight of the first point layer: its columns tell what a point is made of."""
_SWAPPED = re.compile(r"\.(dim|rot)\.1\.(weight|bias)$")
"""Last convolutions of the head whose channels depend on the box convention."""


def renamed(state: dict[str, Tensor], our_name: Callable[[str], str | None]) -> tuple[dict[str, Tensor], list[KeyFate]]:
    """The tensors by our names, each accounted for as renamed.

    Raises:
        UserError: for keys that `our_name` does not know, and for two that mean the same tensor.
    """
    ours: dict[str, Tensor] = {}
    account: list[KeyFate] = []
    problems = []
    for key, tensor in state.items():
        name = our_name(key)
        if name is None:
            problems.append(f"unknown: {key} {tuple(tensor.shape)}")
        elif name in ours:
            problems.append(f"twice: {key} would become {name} once more")
        else:
            ours[name] = tensor
            account.append(KeyFate(key, tuple(tensor.shape), "renamed", name))
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


def pillar_config(state: dict[str, Tensor], point_channels: int) -> CenterPointConfig:
    """Widths and depths of the network a state is of; range, pillar size and strides, which no tensor tells, are the
    published ones (51.2 m, 0.2 m, 2 a stage).

    Args:
        state: By our names.

    Raises:
        UserError: if there are not the parts of a pillar CenterPoint.
    """
    stages = _count(state, r"backbone\.blocks\.(\d+)\.")
    layers = [_count(state, rf"backbone\.blocks\.{stage}\.(\d+)\.") for stage in range(stages)]
    try:
        return CenterPointConfig(
            point_channels=point_channels,
            pillar_channels=tuple(
                len(state[f"encoder.layers.{layer}.linear.weight"])
                for layer in range(_count(state, r"encoder\.layers\.(\d+)\."))
            ),
            stage_channels=tuple(len(state[f"backbone.blocks.{stage}.0.weight"]) for stage in range(stages)),
            # Convolution, norm and ReLU in turn; the first convolution is the strided one.
            stage_layers=tuple((entries + 1) // 3 - 1 for entries in layers),
            stage_strides=(2,) * stages,
            neck_channels=len(state["neck.deblocks.0.1.weight"]),
            head=CenterHeadConfig(
                shared_channels=len(state["head.shared.0.weight"]),
                head_channels=len(state["head.tasks.0.reg.0.0.weight"]),
            ),
        )
    except KeyError as error:
        raise UserError(f"This is no whole pillar CenterPoint: nothing in the file becomes {error.args[0]}.") from None
    except ValueError as error:
        raise UserError(f"The sizes of this checkpoint make no CenterPoint: {error}.") from None


def pillar_conversion(
    *,
    family: str,
    ours: dict[str, Tensor],
    account: Iterable[KeyFate],
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
    account = list(account)
    config = pillar_config(ours, point_channels)
    with torch.device("meta"):
        model = CenterPoint(config)
    state = completed(model, ours, {entry.into: entry.key for entry in account if entry.into is not None})
    if boxes == "legacy":
        state = from_legacy_codes(state)
        account = [_moved(entry) for entry in account]
    if hard:
        notes = (*notes, padding_note(state))
    if config != CenterPointConfig(point_channels=point_channels, pillar_channels=config.pillar_channels):
        notes = (*notes, "Its widths are not the published ones: range ±51.2 m and 0.2 m pillars are assumed.")
    return Conversion(family=family, config=config, state=state, account=tuple(account), boxes=boxes, notes=notes)


def padding_note(state: dict[str, Tensor]) -> str:
    """How much the empty rows that fill up a hard pillar show in its maximum (spec centerpoint 8, 19.3): in a single
    layer, a channel where an empty row answers zero does not notice them."""
    if "encoder.layers.1.linear.weight" in state:
        return (
            "Trained with hard pillars of at most 20 points, filled up with empty rows that take part in the maximum. "
            "Our pillars have no such rows and no cap, so that results differ somewhat from the original's: evaluate "
            "before use."
        )
    norm = "encoder.layers.0.norm"
    scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + 1e-3).sqrt()
    answer = state[f"{norm}.bias"] - scale * state[f"{norm}.running_mean"]
    showing = int((answer > 0).sum())
    if not showing:
        return "Trained with hard pillars; their padding shows in no channel: results are those of the original."
    return (
        f"Trained with hard pillars of at most 20 points, filled up with empty rows: in {showing} of {len(answer)} "
        "channels these rows answer above zero and take part in the maximum. Our pillars have no such rows and no cap, "
        "so that results differ somewhat from the original's: evaluate before use."
    )


def _moved(entry: KeyFate) -> KeyFate:
    match = entry.into and _SWAPPED.search(entry.into)
    if not match:
        return entry
    why = "length before width" if match[1] == "dim" else "sin yaw = -cos theta, cos yaw = -sin theta"
    return KeyFate(entry.key, entry.shape, "changed", entry.into, f"legacy to new boxes: {why}")


def _count(state: dict[str, Tensor], pattern: str) -> int:
    """One more than the highest number that `pattern` finds in the names."""
    return 1 + max((int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1)
