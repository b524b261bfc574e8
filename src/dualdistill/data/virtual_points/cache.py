"""Where the painted and virtual points of each sweep lie: our own files, see `files`, or the official code's."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from dualdistill.data.config import MaskSource
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.complete import CompletedSweep
from dualdistill.data.virtual_points.files import ArrayFiles, folder_of, missing_files
from dualdistill.data.virtual_points.official import read_official


@dataclass(frozen=True, kw_only=True)
class VirtualPointsCache:
    """Completed sweeps of one root from one source, by the name of the LiDAR file in the tables."""

    folder: Path
    source: MaskSource

    @classmethod
    def of(cls, index: NuscenesIndex, source: MaskSource, noise: float = 0.0) -> "VirtualPointsCache":
        """The place for a root's virtual points; nothing need be there yet."""
        own = source == "official"
        return cls(folder=index.root if own else folder_of("virtual_points", index, source, noise), source=source)

    @property
    def files(self) -> ArrayFiles:
        """Our own; the official ones are read in another way."""
        return ArrayFiles(folder=self.folder, what="virtual points", verb="virtual-points")

    def path(self, filename: str) -> Path:
        """File of a sweep."""
        if self.source != "official":
            return self.files.path(filename)
        lidar = PurePosixPath(filename)
        return self.folder / lidar.parent.parent / f"{lidar.parent.name}_VIRTUAL" / f"{lidar.name}.pkl.npy"

    def missing(self, filenames: Iterable[str]) -> list[str]:
        """Those without a file."""
        return missing_files(self.path, filenames)

    def read(self, filename: str) -> CompletedSweep:
        """
        Raises:
            UserError: for a file that is missing or broken.
        """
        if self.source == "official":
            return read_official(self.path(filename))
        arrays = self.files.read(filename)
        try:
            return CompletedSweep(
                virtual=torch.from_numpy(arrays["virtual_points"]),
                painted=torch.from_numpy(arrays["real_points"]),
                painted_rows=torch.from_numpy(arrays["real_points_indice"]),
            )
        except KeyError as error:
            raise self.files.broken(filename, error) from error

    def write(self, filename: str, sweep: CompletedSweep) -> None:
        """Store a sweep: its file is there completely or not at all."""
        arrays = {
            "virtual_points": sweep.virtual.numpy(),
            "real_points": sweep.painted.numpy(),
            "real_points_indice": sweep.painted_rows.numpy(),
        }
        self.files.write(filename, arrays)

    @property
    def made_from(self) -> dict[str, Any] | None:
        """What the files were made from; None where nothing was made."""
        return self.files.made_from

    def begin(self, made_from: dict[str, Any]) -> None:
        """Say what the files to come are made from.

        Raises:
            UserError: if there are files made from something else, or the folder cannot be written.
        """
        self.files.begin(made_from)
