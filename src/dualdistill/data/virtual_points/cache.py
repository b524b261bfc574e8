"""Where the painted and virtual points of each sweep lie: our own files, or those of the official code.

Ours are one `.npz` without pickles per LiDAR file, below `virtual_points/<root>/<source>` of the cache folder
(`$DUALDISTILL_CACHE`, else `~/.cache/dualdistill`): the root itself is only read. `made_from.json` beside them
says what they were made from.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from dualdistill.data.cache import cache_root
from dualdistill.data.config import MaskSource
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.complete import CompletedSweep
from dualdistill.data.virtual_points.official import read_official
from dualdistill.errors import UserError

MADE_FROM = "made_from.json"


@dataclass(frozen=True, kw_only=True)
class VirtualPointsCache:
    """Completed sweeps of one root from one source, by the name of the LiDAR file in the tables."""

    folder: Path
    source: MaskSource

    @classmethod
    def of(cls, index: NuscenesIndex, source: MaskSource) -> "VirtualPointsCache":
        """The place for a root's virtual points; nothing need be there yet."""
        if source == "official":
            return cls(folder=index.root, source=source)
        where = hashlib.sha256(str(index.root).encode()).hexdigest()[:16]
        return cls(folder=cache_root() / "virtual_points" / f"{index.root.name}-{where}" / source, source=source)

    def path(self, filename: str) -> Path:
        """File of a sweep."""
        if self.source != "official":
            return self.folder / f"{filename}.npz"
        lidar = PurePosixPath(filename)
        return self.folder / lidar.parent.parent / f"{lidar.parent.name}_VIRTUAL" / f"{lidar.name}.pkl.npy"

    def missing(self, filenames: Iterable[str]) -> list[str]:
        """Those without a file; each folder is listed once, however many sweeps it holds."""
        there: dict[Path, set[str]] = {}
        lacking = []
        for filename in filenames:
            path = self.path(filename)
            if path.parent not in there:
                there[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
            if path.name not in there[path.parent]:
                lacking.append(filename)
        return lacking

    def read(self, filename: str) -> CompletedSweep:
        """
        Raises:
            UserError: for a file that is missing or broken.
        """
        path = self.path(filename)
        if self.source == "official":
            return read_official(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return CompletedSweep(
                    virtual=torch.from_numpy(arrays["virtual_points"]),
                    painted=torch.from_numpy(arrays["real_points"]),
                    painted_rows=torch.from_numpy(arrays["real_points_indice"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                f"cannot read virtual points {path} ({error}); delete the file, then run "
                "`dualdistill data virtual-points`"
            ) from error

    def write(self, filename: str, sweep: CompletedSweep) -> None:
        """Store a sweep: its file is there completely or not at all."""
        path = self.path(filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("wb") as file:
            np.savez(
                file,
                virtual_points=sweep.virtual.numpy(),
                real_points=sweep.painted.numpy(),
                real_points_indice=sweep.painted_rows.numpy(),
            )
        draft.replace(path)

    @property
    def made_from(self) -> dict[str, Any] | None:
        """What the files were made from; None where nothing was made."""
        path = self.folder / MADE_FROM
        return json.loads(path.read_text()) if path.is_file() else None

    def begin(self, made_from: dict[str, Any]) -> None:
        """Say what the files to come are made from.

        Raises:
            UserError: if there are files made from something else, or the folder cannot be written.
        """
        before = self.made_from
        if before is not None and before != made_from:
            raise UserError(
                f"{self.folder} holds virtual points made from {before}, not from {made_from}. "
                "Delete the folder to make them anew."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MADE_FROM).write_text(json.dumps(made_from, indent=1) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self.folder} ({error}): set DUALDISTILL_CACHE") from error
