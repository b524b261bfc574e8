"""Our names of the tensors of a foreign checkpoint."""

import re
from collections.abc import Callable

from torch import Tensor

from dualdistill.convert.mapping import KeyMapping, Renamed, listing
from dualdistill.errors import UserError


def renamed(state: dict[str, Tensor], our_name: Callable[[str], str | None]) -> Renamed:
    """The tensors by our names, and a mapping of each key as renamed.

    Args:
        our_name: Our name of a key; None if the family has no such key.

    Raises:
        UserError: for keys without a name of ours, and for two with the same one.
    """
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
            + listing(problems)
        )
    return Renamed(ours, mapping)


def by_patterns(key: str, patterns: dict[str, str]) -> str | None:
    """Our name of a foreign key, by the first pattern that matches its beginning; None if none does."""
    for pattern, replacement in patterns.items():
        if match := re.match(pattern, key):
            return match.expand(replacement) + key[match.end() :]
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


def count(state: dict[str, Tensor], pattern: str) -> int:
    """Number of parts in a state: one more than the highest number that `pattern` finds in the names."""
    return 1 + max((int(match[1]) for name in state if (match := re.match(pattern, name))), default=-1)
