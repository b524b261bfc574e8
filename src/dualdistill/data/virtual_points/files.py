"""Folders of arrays made from a root's sensor files: one `.npz` without pickles for each of them.

They are in the cache folder (`$DUALDISTILL_CACHE`, else `~/.cache/dualdistill`), because the root itself is only read.
`made_from.json` beside them describes their origin.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualdistill.data.cache import cache_root
from dualdistill.data.config import InstancesConfig, MaskSource, VirtualPointsConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.files import draft, read_json, write_json

MADE_FROM = "made_from.json"


def folder_of(kind: str, index: NuscenesIndex, source: MaskSource, noise: float) -> Path:
    """Folder of the arrays made from a root and masks of one source."""
    where = hashlib.sha256(str(index.root).encode()).hexdigest()[:16]
    masks = f"{source}-noise-{noise:g}" if noise else source
    return cache_root() / kind / f"{index.root.name}-{where}" / masks


def mask_options(config: VirtualPointsConfig | InstancesConfig) -> str:
    """Options of `dualdistill data` that make the files a configuration needs."""
    noise = f" --noise {config.noise:g}" if config.noise else ""
    weights = " --weights FILE" if config.masks == "maskrcnn" else ""
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


@dataclass(frozen=True, kw_only=True)
class ArrayFiles:
    """Arrays by name of the sensor file they were made from."""

    folder: Path
    what: str
    """Description of the content, for messages."""
    verb: str
    """Verb of `dualdistill data` that makes the files."""

    def path(self, filename: str) -> Path:
        """File with the arrays of one sensor file."""
        return self.folder / f"{filename}.npz"

    def read(self, filename: str) -> dict[str, np.ndarray]:
        """The arrays of one sensor file, by name.

        Raises:
            UserError: for a file that is missing or broken.
        """
        path = self.path(filename)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception as error:  # any of several libraries' complaints about a broken file
            raise self.broken(filename, error) from error

    def broken(self, filename: str, why: Exception) -> UserError:
        """The error for a file that cannot be read."""
        return UserError(
            f"cannot read {self.what} {self.path(filename)} ({why}); delete the file, then run `dualdistill data "
            f"{self.verb}`"
        )

    def write(self, filename: str, arrays: dict[str, np.ndarray], *, compressed: bool = False) -> None:
        """Write the arrays of one sensor file in one step: the file is complete or absent."""
        save = np.savez_compressed if compressed else np.savez
        columns: dict[str, Any] = {**arrays}
        with draft(self.path(filename), sync=False) as temporary, temporary.open("wb") as file:
            save(file, **columns)

    @property
    def made_from(self) -> dict[str, Any] | None:
        """Origin of the files; None if there are none."""
        path = self.folder / MADE_FROM
        return read_json(path, dict[str, Any], f"the origin of {self.what}") if path.is_file() else None

    def begin(self, made_from: dict[str, Any]) -> None:
        """Record the origin of the files to be written.

        Raises:
            UserError: for existing files of another origin, and for a folder that cannot be written.
        """
        before = self.made_from
        if before is not None and before != made_from:
            raise UserError(
                f"{self.folder} holds {self.what} made from {before}, not from {made_from}. "
                "Delete the folder to make them again."
            )
        write_json(self.folder / MADE_FROM, made_from)
