"""Folders of arrays made from a root's sensor files: one `.npz` without pickles for each of them.

They are in the cache folder (`$DUALDISTILL_CACHE`, else `~/.cache/dualdistill`), because the root itself is only read.
`made_from.json` beside them describes their origin.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from dualdistill.data.config import InstancesConfig, MaskSource, VirtualPointsConfig
from dualdistill.data.index import NuscenesIndex, Progress
from dualdistill.errors import UserError
from dualdistill.files import ROOM_REMEDY, cache_root, draft, read_json, require_room_for_rest, write_json

MADE_FROM = "made_from.json"


def folder_of(kind: str, index: NuscenesIndex, source: MaskSource, noise: float) -> Path:
    """Folder of the arrays made from a root and masks of one source."""
    where = hashlib.sha256(str(index.root).encode()).hexdigest()[:16]
    masks = f"{source}-noise-{noise:g}" if noise else source
    return cache_root() / kind / f"{index.root.name}-{where}" / masks


def mask_options(config: VirtualPointsConfig | InstancesConfig) -> str:
    """Options of `dualdistill data` that make the files a configuration needs."""
    noise = f" --noise {config.noise:g}" if config.noise else ""
    weights = {"maskrcnn": " --weights FILE", "semantic": " --weights FOLDER"}.get(config.masks, "")
    return f"--masks {config.masks}{noise}{weights}"


def missing_files(path_of: Callable[[str], Path], filenames: Iterable[str]) -> list[str]:
    """The `filenames` without a file; each folder is listed only once."""
    there: dict[Path, set[str]] = {}
    lacking = []
    for filename in filenames:
        path = path_of(filename)
        if path.parent not in there:
            there[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        if path.name not in there[path.parent]:
            lacking.append(filename)
    return lacking


Content = TypeVar("Content", bound=Any)


@dataclass(frozen=True, kw_only=True)
class ArrayFiles(Generic[Content]):
    """Contents of one kind, by the name of the sensor file in the tables that each was made from."""

    folder: Path
    kind: type[Content]
    """A record of tensors."""
    names: tuple[str, ...]
    """Names of the arrays in a file, in the order of the record's fields."""
    what: str
    """Description of the content, for messages."""
    verb: str
    """Verb of `dualdistill data` that makes the files."""
    compressed: bool = False

    def path(self, filename: str) -> Path:
        """File with the content made from one sensor file."""
        return self.folder / f"{filename}.npz"

    def missing(self, filenames: Iterable[str]) -> list[str]:
        """The `filenames` without a file."""
        return missing_files(self.path, filenames)

    def read(self, filename: str) -> Content:
        """Content made from one sensor file; raises UserError for a file that is missing or broken."""
        path = self.path(filename)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                tensors = [torch.from_numpy(arrays[name]) for name in self.names]
                return self.kind(**{f.name: value for f, value in zip(fields(self.kind), tensors, strict=True)})
        except Exception as error:  # any of several libraries' complaints about a broken file
            advice = f"delete the file, then run `dualdistill data {self.verb}`"
            raise UserError(f"cannot read {self.what} {path} ({error}); {advice}") from error

    def write(self, filename: str, content: Content) -> None:
        """Write the content made from one sensor file in one step: the file is complete or absent."""
        save = np.savez_compressed if self.compressed else np.savez
        values = (getattr(content, field.name).numpy() for field in fields(content))
        arrays: dict[str, Any] = dict(zip(self.names, values, strict=True))
        with draft(self.path(filename), sync=False) as temporary, temporary.open("wb") as file:
            save(file, **arrays)

    def make(
        self,
        index: NuscenesIndex,
        rows: Sequence[int],
        content: Callable[[int], Content],
        made_from: dict[str, Any],
        progress: Progress = iter,
    ) -> int:
        """Write the content of the sensor records without a file; returns their number.

        May be interrupted and called again.

        Args:
            rows: Rows of sensor records.
            content: Content of one of them.
            made_from: Origin of the files, recorded beside them.
            progress: Wraps the loop over records, to show its progress.

        Raises:
            UserError: for existing files of another origin, and for a folder that cannot be written or has no room.
        """
        self.begin(made_from)
        wanted = set(self.missing(index.data_filename[row] for row in rows))
        todo = [row for row in rows if index.data_filename[row] in wanted]
        written = 0
        for done, row in enumerate(progress(todo), start=1):
            self.write(index.data_filename[row], content(row))
            written += self.path(index.data_filename[row]).stat().st_size
            require_room_for_rest(self.folder, done, len(todo), written, f"Files of {self.what}", ROOM_REMEDY)
        return len(todo)

    @property
    def made_from(self) -> dict[str, Any] | None:
        """Origin of the files; None if there are none."""
        path = self.folder / MADE_FROM
        return read_json(path, dict[str, Any], f"the origin of {self.what}") if path.is_file() else None

    def begin(self, made_from: dict[str, Any]) -> None:
        """Record the origin of the files to be written; raises as `make`."""
        before = self.made_from
        if before is not None and before != made_from:
            raise UserError(
                f"{self.folder} holds {self.what} made from {before}, not from {made_from}. "
                "Delete the folder to make them again."
            )
        write_json(self.folder / MADE_FROM, made_from)
