"""Records that lie one field a line, as nuScenes publishes its tables, cut into columns without a parser.

`json.dump(..., indent=0)` gives each number and each text a line of its own, and what lies between the values is the
same in every record of a table. The first record tells what that is; every other one is compared with it byte for
byte, and its values are taken from where they stand, some thousand records at a time. A table that is laid out
otherwise anywhere is `UnsupportedLayout`: nothing need be wrong with it, but a parser has to read it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int, Num, Shaped, UInt8

from dualdistill.data.tables import Kind, kinds_of

PIECE = 1 << 21
"""Bytes read at once: few enough to stay in a processor's cache while they are cut up."""

LONGEST = 512
"""Bytes of a text, or between two values."""

MOST_SHAPES = 16
"""Records of one table differ in how many lines a list of texts takes: in so many ways."""

_PADDING = b" " * LONGEST
_END = b"\n},\n"
_LINE = re.compile(
    rb'(?:"(?P<key>\w+)": ?)?(?:(?P<bracket>\[\]|[\[\]{}])|"(?P<text>[^"]*)"|(?P<bare>[^"\[\]{},\s]+)),?'
)

Value = Literal["text", "truth", "number"]
Columns = dict[str, np.ndarray]
Area = UInt8[np.ndarray, "bytes"]
Places = Int[np.ndarray, "records"]


class Choice(NamedTuple):
    """Records that are wanted, by what they say in one of the wanted fields."""

    field: str
    """Of texts."""
    wanted: Callable[[np.ndarray], np.ndarray]
    """Which of some texts are wanted, as truths."""

    def of(self, columns: Columns) -> Int[np.ndarray, "chosen"]:
        """Rows of the wanted records."""
        return np.flatnonzero(self.wanted(columns[self.field]))


class UnsupportedLayout(Exception):
    """A table is laid out otherwise than expected here."""


def cut_records(path: Path, record: type[msgspec.Struct], choice: Choice | None = None) -> Iterator[Columns]:
    """The fields of some thousand records after another, in the order of the table; see `tables.Kind`.

    Args:
        record: Names the wanted fields and what they hold.
        choice: Of records; None wants all. Of those that are not wanted only the layout is looked at, and a column
            `row` tells where the others stand in the table.

    Raises:
        UnsupportedLayout: at the first record that is not as expected, whatever was given out before.
    """
    shapes: dict[int, _Shape] = {}
    before = 0
    for text, size in _pieces(path):
        columns, records = _cut_piece(text, size, shapes, record, choice)
        if choice is None:
            del columns["row"]
        else:
            columns["row"] += before
        yield columns
        before += records


def _pieces(path: Path) -> Iterator[tuple[bytearray, int]]:
    """Texts that begin with whole records, each ending in a comma and a line break; and how many bytes these are.

    A text is there until the next is asked for: all of them come in the same memory.
    """
    text = bytearray(2 * PIECE + len(_PADDING))
    view = memoryview(text)
    with path.open("rb", buffering=0) as file:
        if file.read(2) != b"[\n":
            raise UnsupportedLayout
        held = 0
        while more := file.readinto(view[held : held + PIECE]):
            held += more
            end = text.rfind(_END + b"{\n", 0, held) + len(_END)
            if end >= len(_END):
                yield text, end
                view[: held - end] = view[end:held]
                held -= end
            elif held > PIECE:
                raise UnsupportedLayout
    last = bytes(view[:held]).rstrip(b" \t\r\n")
    if not last.endswith(b"\n}\n]"):
        raise UnsupportedLayout
    yield bytearray(last[:-2] + b",\n" + _PADDING), len(last)


def _cut_piece(
    text: bytearray, size: int, shapes: dict[int, "_Shape"], record: type[msgspec.Struct], choice: Choice | None
) -> tuple[Columns, int]:
    """Wanted fields of the wanted records, with the `row` of each in the piece, and how many records it holds."""
    area = np.frombuffer(text, np.uint8)
    breaks = np.concatenate([[-1], np.flatnonzero(area[:size] < ord(" "))])
    if text.find(b"\\", 0, size) >= 0 or area[:size].max() >= 128 or (area.take(breaks[1:]) != ord("\n")).any():
        raise UnsupportedLayout  # no JSON, or a text does not say what its bytes say
    first = np.flatnonzero(np.diff(breaks) == 2)  # lines of one character
    first = first[area[breaks[first] + 1] == ord("{")]
    if not len(first) or first[0] != 0:
        raise UnsupportedLayout
    lines = np.diff(first, append=len(breaks) - 1)
    parts: list[Columns] = []
    quotes = 0
    for count in np.flatnonzero(np.bincount(lines)).tolist():
        rows = np.flatnonzero(lines == count)
        starts = first[rows]
        if count not in shapes:
            if len(shapes) == MOST_SHAPES:
                raise UnsupportedLayout
            shapes[count] = _shape(bytes(text[breaks[starts[0]] + 1 : breaks[starts[0] + count] + 1]), record)
        kept, columns = shapes[count].cut(area, breaks, starts, choice)
        parts.append(columns | {"row": rows[kept]})
        quotes += len(starts) * shapes[count].quotes
    if np.count_nonzero(area[:size] == ord('"')) != quotes:
        raise UnsupportedLayout  # one is part of a text
    if len(parts) == 1:
        return parts[0], len(first)
    order = np.argsort(np.concatenate([part["row"] for part in parts]))
    return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}, len(first)


@dataclass(frozen=True)
class _Between:
    """What stands between two values, or before the first, or after the last."""

    line: int
    """In which it begins, counted in the record."""
    before: int
    """Bytes of it in that line, the line break not counted."""
    text: bytes


@dataclass(frozen=True)
class _Shape:
    """What the records of a table that have equally many lines have in common."""

    between: list[_Between]
    """One more than there are values."""
    values: list[Value]
    fields: dict[str, tuple[Kind, list[int]]]
    """Of each wanted field, what it holds and which values are its own."""
    quotes: int

    def cut(
        self, area: Area, breaks: Int[np.ndarray, "breaks"], first: Places, choice: Choice | None
    ) -> tuple[slice | Int[np.ndarray, "chosen"], Columns]:
        """Which of some records are wanted, and the wanted fields of these.

        Args:
            breaks: Before the first line, and after each.
            first: First line of each record.
        """
        begins = [breaks[first + part.line + 1] - part.before for part in self.between]
        for part, begin in zip(self.between, begins, strict=True):
            if not _stands(area, begin, part.text):
                raise UnsupportedLayout
        starts = [begin + len(part.text) for part, begin in zip(self.between[:-1], begins[:-1], strict=True)]
        stops = begins[1:]
        kept: slice | np.ndarray = slice(None)
        if choice is not None:
            (place,) = self.fields[choice.field][1]
            kept = choice.of({choice.field: _texts(area, starts[place], stops[place])})
            starts, stops = [each[kept] for each in starts], [each[kept] for each in stops]
        of_fields = {place for _, places in self.fields.values() for place in places}
        read: dict[int, np.ndarray] = {}
        for place, value in enumerate(self.values):
            if value == "text" and place in of_fields:
                read[place] = _texts(area, starts[place], stops[place])
            elif value == "text" and (stops[place] < starts[place]).any():
                raise UnsupportedLayout
            elif value == "truth":
                read[place] = _truths(area, starts[place], stops[place])
            elif (
                value == "number" and place not in of_fields
            ):  # not wanted, yet no JSON if it were anything but a number
                _numbers(area, starts[place], stops[place], pa.float64())

        def numbers(places: list[int], kind: pa.DataType) -> Num[np.ndarray, "records places"]:
            each = [np.stack([these[place] for place in places], axis=1) for these in (starts, stops)]
            return _numbers(area, each[0].reshape(-1), each[1].reshape(-1), kind).reshape(-1, len(places))

        def column(kind: Kind, places: list[int]) -> np.ndarray:
            if kind == "integer":
                return integers[:, whole.index(places[0])]
            if kind in ("vector", "quaternion"):
                return numbers(places, pa.float64())
            return read[places[0]] if places else np.zeros(len(starts[0]), "S1")

        whole = sorted(places[0] for kind, places in self.fields.values() if kind == "integer")
        if whole:
            integers = numbers(whole, pa.int64())
        return kept, {name: column(*field) for name, field in self.fields.items()}


def _shape(content: bytes, record: type[msgspec.Struct]) -> _Shape:
    """What a record has in common with those that have as many lines.

    Args:
        content: The record, up to the comma and the line break behind it.
    """
    try:
        msgspec.json.decode(content[: -len(b",\n")], type=record)
    except ValueError:  # what msgspec raises, and for bytes that are no UTF-8 Python
        raise UnsupportedLayout from None
    between: list[_Between] = []
    values: list[Value] = []
    fields: dict[str, list[int]] = {}
    text, line, before, name, in_list = b"", 0, len(b"{"), "", False
    for number, each in enumerate(content.split(b"\n")[:-1]):
        match = _LINE.fullmatch(each)
        if match is None or (match["key"] and in_list):
            raise UnsupportedLayout
        if match["key"]:
            name = match["key"].decode()
            if name in fields:
                raise UnsupportedLayout
            fields[name] = []
        if match["bracket"]:
            if match["bracket"] not in ((b"[", b"[]") if match["key"] else (b"{", b"]", b"}")):
                raise UnsupportedLayout  # a list of lists, or of objects
            in_list = match["bracket"] == b"["
            text += each + b"\n"
            continue
        begin, end = match.span("bare" if match["text"] is None else "text")
        between.append(_Between(line, before, text + each[:begin]))
        text, line, before = each[end:] + b"\n", number, len(each) - end
        fields[name].append(len(values))
        values.append(
            "text" if match["bare"] is None else "truth" if match["bare"] in (b"true", b"false") else "number"
        )
    between.append(_Between(line, before, text))
    kinds = kinds_of(record)
    if not kinds.keys() <= fields.keys() or any(len(part.text) > LONGEST for part in between):
        raise UnsupportedLayout
    return _Shape(between, values, {name: (kind, fields[name]) for name, kind in kinds.items()}, content.count(b'"'))


def _taken(area: Area, places: Places, width: int) -> Shaped[np.ndarray, "records"]:
    """So many bytes from each place on."""
    everywhere = np.ndarray((len(area) - width + 1,), f"S{width}", buffer=area, strides=(1,))
    return everywhere[places]


def _stands(area: Area, places: Places, text: bytes) -> bool:
    """Whether a text stands at each place."""
    if text == b",\n":  # of which the line break is known
        return bool((area.take(places) == text[0]).all())
    return _taken(area, places, len(text)).tobytes() == text * len(places)


def _texts(area: Area, starts: Places, stops: Places) -> Shaped[np.ndarray, "records"]:
    widths = stops - starts
    shortest, longest = int(widths.min(initial=LONGEST)), int(widths.max(initial=0))
    if shortest < 0 or longest > LONGEST:
        raise UnsupportedLayout
    if shortest == longest > 0:
        texts = _taken(area, starts, longest)
    else:
        texts = np.zeros(len(starts), f"S{max(longest, 1)}")
        for width in np.flatnonzero(np.bincount(widths)).tolist():
            rows = np.flatnonzero(widths == width)
            texts[rows] = _taken(area, starts[rows], width) if width else b""
    return texts


def _truths(area: Area, starts: Places, stops: Places) -> Bool[np.ndarray, "records"]:
    texts = _texts(area, starts, stops)
    true = texts == b"true"
    if not (true | (texts == b"false")).all():
        raise UnsupportedLayout
    return true


def _numbers(area: Area, starts: Places, stops: Places, kind: pa.DataType) -> Num[np.ndarray, "records"]:
    """Numbers as JSON writes them; places in rising order."""
    widths = stops - starts
    if (widths < 1).any():
        raise UnsupportedLayout
    begins = starts + (area.take(starts) == ord("-"))
    lead, follow, last = area.take(begins), area.take(begins + 1), area.take(stops - 1)
    # Arrow also reads what JSON does not know: +1, .5, nan; 01, 0x1; 1.
    odd = (lead < ord("0")) | (lead > ord("9")) | ((lead == ord("0")) & (follow >= ord("0"))) | (last < ord("0"))
    if odd.any():
        raise UnsupportedLayout
    if not len(starts):
        return np.zeros(0, kind.to_pandas_dtype())
    # The texts lie in the file as they are: every second entry is a number, those between are declared missing.
    places = np.empty((len(starts), 2), np.int64)
    places[:, 0], places[:, 1] = starts, stops
    count = 2 * len(starts) - 1
    present = pa.py_buffer(np.full(count // 8 + 1, 0b01010101, np.uint8))
    texts = pa.LargeStringArray.from_buffers(count, pa.py_buffer(places), pa.py_buffer(area), present)
    try:
        numbers = texts.cast(kind)
    except pa.ArrowInvalid:
        raise UnsupportedLayout from None
    values = np.frombuffer(numbers.buffers()[1], kind.to_pandas_dtype(), count)[::2]
    # -0 is the integer zero to a parser; what is too large for a float64 is an error to it.
    if not np.isfinite(values).all() or ((values == 0) & (widths == 2)).any():
        raise UnsupportedLayout
    return values
