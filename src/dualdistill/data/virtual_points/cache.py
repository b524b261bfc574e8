"""Files with the painted and virtual points of each sweep, in our own format or that of the official code."""

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
        """The cache of a root's virtual points, which may still be empty."""
        own = source == "official"
        return cls(folder=index.root if own else folder_of("virtual_points", index, source, noise), source=source)

    @property
    def files(self) -> ArrayFiles:
        """Files in our own format; those of the official code have another reader."""
        return ArrayFiles(folder=self.folder, what="virtual points", verb="virtual-points")

    def path(self, filename: str) -> Path:
        """File of a sweep."""
        if self.source != "official":
            return self.files.path(filename)
        lidar = PurePosixPath(filename)
        return self.folder / lidar.parent.parent / f"{lidar.parent.name}_VIRTUAL" / f"{lidar.name}.pkl.npy"

    def missing(self, filenames: Iterable[str]) -> list[str]:
        """The `filenames` without a file in the cache."""
        return missing_files(self.path, filenames)

    def read(self, filename: str) -> CompletedSweep:
        """Painted and virtual points of one sweep.

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
        except (KeyError, TypeError) as error:
            raise self.files.broken(filename, error) from error

    def write(self, filename: str, sweep: CompletedSweep) -> None:
        """Write the points of a sweep in one step: the file is complete or absent."""
        arrays = {
            "virtual_points": sweep.virtual.numpy(),
            "real_points": sweep.painted.numpy(),
            "real_points_indice": sweep.painted_rows.numpy(),
        }
        self.files.write(filename, arrays)

    @property
    def made_from(self) -> dict[str, Any] | None:
        """Origin of the files; None if there are none."""
        return self.files.made_from

    def begin(self, made_from: dict[str, Any]) -> None:
        """Record the origin of the files to be written.

        Raises:
            UserError: for existing files of another origin, and for a folder that cannot be written.
        """
        self.files.begin(made_from)
