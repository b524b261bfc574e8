"""What a case is, and what cases of several classes share."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.robust.places import STEP, STUDENT, TEACHER, Places, sets

Build = Callable[[Places], list[str]]
Target = Callable[[Places], Path]
"""Makes a path, and what is there."""

RECIPE = "synthetic/dualdistill-centerpoint"
"""A recipe with every kind of setting."""


@dataclass(frozen=True)
class Case:
    """One bad input to the command line."""

    group: str
    """Its class."""
    name: str
    build: Build
    """Makes the files and returns the command."""
    words: tuple[str, ...]
    """Regular expressions of what the message must name."""


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "not UTF-8": lambda content: content[:10] + b"\xff\xfe\x80" + content[10:],
    "a list": lambda content: b"[]",
    "a number": lambda content: b"3",
    "nested deeply": lambda content: b"[" * 100_000,
    "a huge number": lambda content: b'{"seed": ' + b"9" * 10_000 + b"}",
    "zeros": lambda content: bytes(len(content)),
}
"""What can become of a file of JSON or weights."""

MATRICES: tuple[list[list[Any]], ...] = (
    [],
    [[1.0, 0.0], [0.0, 1.0]],
    [[0.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[-120.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[1e300, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[float("nan"), 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[120.0, 0.0, 8000.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[120.0, 0.0, -1.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[120.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 0.0]],
    [[120.0, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 1.0, 1.0]],
    [[1e-30, 0.0, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[0.5, 0.0, 80.0], [0.0, 0.5, 45.0], [0.0, 0.0, 1.0]],
    [[120.0, 1e9, 80.0], [0.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
    [[120.0, 0.0, 80.0], [5.0, 120.0, 45.0], [0.0, 0.0, 1.0]],
)
"""Intrinsics that no camera has."""


def train(root: Path, out: Path, *changes: str) -> list[str]:
    """A training of one step."""
    argv = ["train", "synthetic/student", "--data", str(root), "--out", str(out), "--workers", "0"]
    return [*argv, *sets(*STUDENT, *STEP, *changes)]


def distil(at: Places, out: Path, *more: str) -> list[str]:
    """A distillation of one step."""
    argv = ["train", RECIPE, "--data", str(at.base / "root"), "--out", str(out), "--workers", "0"]
    return [*argv, *sets(*STUDENT, *TEACHER, *STEP), *more]


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Let `change` edit the JSON value of a file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG of that size, which is all that a reader sees before it allocates."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return head + struct.pack(">I", 10) + b"IDAT" + bytes(14)


def file(at: Places) -> Path:
    path = at.new() / "file.txt"
    path.write_text("text")
    return path


def replace(path: Path, what: str) -> None:
    """Put a pipe, a folder or a loop of links where a file or folder was; or nothing, for another word."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "loop":
        path.symlink_to(path)


def pipe(at: Places) -> Path:
    path = at.new() / "pipe"
    os.mkfifo(path)
    return path


def broken_link(at: Places) -> Path:
    path = at.new() / "link"
    path.symlink_to(at.base / "nothing" / "there")
    return path


def missing(at: Places) -> Path:
    return at.new() / "nothing"


def loop(at: Places) -> Path:
    path = at.new() / "loop"
    path.symlink_to(path)
    return path
