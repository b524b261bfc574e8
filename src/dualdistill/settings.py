"""Records of settings: dataclasses whose values are checked against their types and ranges when they are made."""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from msgspec import Meta

from dualdistill.errors import UserError

LARGEST = 10**9
"""Magnitude up to which a setting can be meant."""

Natural = Annotated[int, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=1, le=LARGEST)]
Few = Annotated[int, Meta(ge=1, le=4096)]
"""Numbers of what fills memory each: channels, layers, samples of a batch."""
NonNegative = Annotated[float, Meta(ge=0, le=LARGEST)]
Positive = Annotated[float, Meta(gt=0, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]
Inside = Annotated[float, Meta(gt=0, lt=1)]
"""Neither 0 nor 1."""
Side = Annotated[int, Meta(ge=8, le=8192)]
"""Side of an image, pixels."""
Workers = Annotated[int, Meta(ge=0, le=256)]
"""Loader processes."""

Record = TypeVar("Record")


def checked(cls: type[Record]) -> type[Record]:
    """Decorator below `@dataclass`: before the class's own `__post_init__`, each value must fit its annotation.

    Numbers are finite and at most `LARGEST`, whatever their annotation. Fields that hold records check themselves.
    """
    own = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        for name, hint in _plain_fields(self.__class__).items():
            convert(getattr(self, name), hint, name, strict=True)
        if own is not None:
            own(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return cls


def convert(value: Any, hint: Any, name: str, *, strict: bool = False) -> Any:
    """`value` as the type of an annotation. `strict`: refuse texts that spell a number. Raises ValueError for another
    type, a number out of range, and one that is not finite."""
    try:
        converted = msgspec.convert(value, hint, strict=strict)
    except msgspec.ValidationError:
        converted = math.nan
    if all(abs(number) <= LARGEST for number in _numbers(converted)):  # NaN is not
        return converted
    raise ValueError(f"{name} must be {describe(hint)}, got {repr(value)[:60]}")


def require(value: Any, hint: Any, name: str) -> None:
    """Check an argument of a function against its annotation; of containers, the kind alone. Raises UserError with what
    was expected."""
    plain = value.item() if isinstance(value, np.generic) else value
    for kind in alternatives(hint):
        if _is_plain(kind):
            with suppress(ValueError):
                convert(plain, kind, name, strict=True)
                return
        elif isinstance(value, get_origin(kind) or kind):
            return
    kinds = alternatives(hint)
    records = {
        kind: f"a {kind.__name__}" for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    }
    expected = " or ".join(records.get(kind) or describe(kind) for kind in kinds)
    raise UserError(f"{name} must be {expected}, got {repr(value)[:60]}.")


def describe(hint: Any) -> str:
    """What a field takes, in words."""
    return " or ".join(map(_describe, alternatives(hint)))


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union; the type itself, if it is none."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """Annotation of each field of a record, with its range."""
    return get_type_hints(kind, include_extras=True)


@cache
def _plain_fields(kind: type) -> dict[str, Any]:
    """The fields of a record that hold numbers, texts and tuples of them."""
    hints = {field.name: hints_of(kind)[field.name] for field in dataclasses.fields(kind)}
    return {name: hint for name, hint in hints.items() if all(map(_is_plain, alternatives(hint)))}


def _is_plain(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return kind in (int, float, bool, str, tuple, Literal, Annotated, types.NoneType)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        each = list(dict.fromkeys(describe(argument) for argument in arguments if argument is not ...))
        many = "" if ... in arguments else f"{len(arguments)} "
        return f"{many}values separated by commas, each {' or '.join(each)}"
    if origin is Annotated:
        kind, meta = arguments
        low = f"from {meta.ge:g}" if meta.ge is not None else f"above {meta.gt:g}" if meta.gt is not None else ""
        high = f" to {meta.le:g}" if meta.le not in (None, LARGEST) else f" below {meta.lt:g}" if meta.lt else ""
        on = " on" if meta.ge is not None and not high else ""
        return f"{_describe(kind)} {low}{high}{on}"
    if dataclasses.is_dataclass(hint):
        return f"default (then .{', '.join(field.name for field in dataclasses.fields(hint))} can be set)"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", types.NoneType: "none"}
    words |= {Path: "a path", Sequence: "a sequence", Mapping: "a dictionary"}
    return words.get(origin or hint, getattr(hint, "__name__", str(hint)))
