"""The point clouds of samples with virtual points."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.data.config import VirtualPointsConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import key_from_sweeps, read_points, without_close_points
from dualdistill.data.virtual_points.complete import CompletedSweep
from dualdistill.data.virtual_points.files import mask_options
from dualdistill.data.virtual_points.layout import NO_INTENSITY, laid_out
from dualdistill.data.virtual_points.make import lidar_records, virtual_point_files
from dualdistill.errors import UserError
from dualdistill.geometry.transforms import transform


class VirtualClouds:
    """Accumulated sweeps with painted and virtual points; the counterpart of `sweeps.accumulate`."""

    def __init__(
        self,
        index: NuscenesIndex,
        config: VirtualPointsConfig,
        positions: Int[np.ndarray, "samples"],
        num_sweeps: int,
    ):
        """
        Args:
            positions: Samples whose clouds may be read.
            num_sweeps: Number of accumulated sweeps, with the key frame's.

        Raises:
            UserError: if a sweep that may be read has no cached points.
        """
        self.index, self.config = index, config
        self.files = virtual_point_files(index, config.masks, config.noise)
        rows = lidar_records(index, positions, num_sweeps if config.sweeps else 1)
        missing = self.files.missing(index.data_filename[row] for row in rows)
        if missing and config.missing == "error":
            raise UserError(self._missing_points(missing, len(rows)))
        self._lacking = frozenset(missing)

    def accumulate(
        self, key_row: int, rows: Sequence[int], key_points: Float[Tensor, "points 5"] | None = None
    ) -> Float[Tensor, "all_points chan"]:
        """Points of a key sweep and of earlier ones in the key frame's sensor frame, laid out as configured.

        Points on the car itself are left out of earlier sweeps (virtual points too), and kept in the key frame.

        Raises:
            UserError: for a file that is missing, broken, or of another sweep.
        """
        points = read_points(self.index.path(key_row)) if key_points is None else key_points
        clouds = [laid_out(points, self.completed(key_row, points), 0.0, self.config.layout)]
        key_us = int(self.index.data_timestamp_us[key_row])
        for row, key_from_sweep in zip(rows, key_from_sweeps(self.index, key_row, rows).float(), strict=True):
            points = read_points(self.index.path(row))
            completed = self.completed(row, points) if self.config.sweeps else CompletedSweep.none()
            lag = (key_us - int(self.index.data_timestamp_us[row])) * 1e-6
            cloud = laid_out(points, completed, lag, self.config.layout, ring_leak=self.config.ring_leak)
            cloud = without_close_points(cloud)
            cloud[:, :3] = transform(key_from_sweep, cloud[:, :3])
            clouds.append(cloud)
        return torch.cat(clouds)

    def densified(self, row: int, points: Float[Tensor, "points 5"]) -> Float[Tensor, "more_points 5"]:
        """Raw points of a record followed by its virtual ones with intensity and ring -1, for depth labels."""
        virtual = self.completed(row, points).virtual[:, :3]
        return torch.cat([points, F.pad(virtual, (0, 2), value=NO_INTENSITY)])

    @property
    def identity(self) -> str:
        """Description that, with the root, determines the clouds: configuration and origin of the cache."""
        return f"{self.config} {self.files.made_from}"

    def completed(self, row: int, points: Float[Tensor, "points 5"]) -> CompletedSweep:
        """Painted and virtual points of a record, checked against its raw points.

        Raises:
            UserError: for a file that is missing, broken, or made from another sweep.
        """
        filename = self.index.data_filename[row]
        if filename in self._lacking:
            return CompletedSweep.none()
        completed = self.files.read(filename)
        rows = completed.painted_rows
        fits = len(rows) == len(completed.painted) and bool(((rows >= 0) & (rows < len(points))).all())
        if not fits or not torch.equal(points[rows, :4], completed.painted[:, :4]):
            raise UserError(
                f"virtual points {self.files.path(filename)} were not made from {self.index.path(row)}: their painted "
                "points differ from its points. Delete the former and run `dualdistill data virtual-points`."
            )
        return completed

    def _missing_points(self, missing: list[str], count: int) -> str:
        root = self.index.root
        where = f"{len(missing)} of {count} LiDAR sweeps have no virtual points, such as {self.files.path(missing[0])}"
        if self.config.masks == "official":
            return (
                f"{where}: unpack the official cache into {root}, or set data.virtual_points.missing=unpainted to "
                "take the raw points alone where it has gaps"
            )
        return f"{where}: run `dualdistill data virtual-points {root} {mask_options(self.config)}`"
