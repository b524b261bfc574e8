"""The point clouds of samples with virtual points: raw, painted and virtual ones in one array
(docs/methods/mvp.md#columns).

    distillbev:  x y z | intensity, -1 for virtual | ten classes | score | flag | time lag
    centerpoint: x y z | ten classes (raw: intensity, nine ones) | score | flag | time lag

Raw points have ones for classes and score. The flag is 1 for virtual points and 0 for all others.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.data.config import MaskSource, VirtualPointsConfig
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.sweeps import accumulate
from dualdistill.data.virtual_points.complete import CACHE_NAMES, CompletedSweep, lidar_records
from dualdistill.data.virtual_points.files import ArrayFiles, folder_of, mask_options
from dualdistill.data.virtual_points.masks import LABEL_CHANNELS
from dualdistill.data.virtual_points.official import OfficialFiles
from dualdistill.errors import UserError

NO_INTENSITY = -1.0
"""Intensity of virtual points."""


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

        def lay_out(row: int, points: Tensor, lag: float) -> Tensor:
            is_key = row == key_row
            completed = self.completed(row, points) if is_key or self.config.sweeps else CompletedSweep.none()
            return laid_out(points, completed, lag, self.config.layout, ring_leak=self.config.ring_leak and not is_key)

        return accumulate(self.index, key_row, rows, key_points, lay_out)

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


def laid_out(
    points: Float[Tensor, "points 5"],
    completed: CompletedSweep,
    lag: float,
    layout: Literal["distillbev", "centerpoint"],
    *,
    ring_leak: bool = False,
) -> Float[Tensor, "all_points chan"]:
    """Raw, painted and virtual points of one sweep, in this order, still in the sweep's own frame.

    Painted points are copies: the raw points stay.

    Args:
        points: x, y, z (metres), intensity, ring, from `read_points`.
        lag: Seconds before the key frame.
        ring_leak: Keep the ring index in the first class column of raw points, as the sweeps of the released
            DistillBEV do by accident (not its key frames).
    """
    ones = points.new_ones(len(points), LABEL_CHANNELS)
    if ring_leak:
        ones[:, 0] = points[:, 4]
    virtual, painted = completed.virtual, completed.painted
    if layout == "distillbev":
        raw = torch.cat([points[:, :4], ones], dim=1)
        no_intensity = virtual.new_full((len(virtual), 1), NO_INTENSITY)
        virtual = torch.cat([virtual[:, :3], no_intensity, virtual[:, 3:]], dim=1)
    else:
        raw = torch.cat([points[:, :4], ones[:, 1:]], dim=1)
        painted = torch.cat([painted[:, :3], painted[:, 4:]], dim=1)
    return torch.cat([_flagged(raw, 0.0, lag), _flagged(painted, 0.0, lag), _flagged(virtual, 1.0, lag)])


def _flagged(points: Float[Tensor, "points _"], flag: float, lag: float) -> Float[Tensor, "points chan"]:
    return torch.cat([points, points.new_tensor([[flag, lag]]).expand(len(points), 2)], dim=1)


def virtual_point_files(
    index: NuscenesIndex, source: MaskSource, noise: float = 0.0
) -> ArrayFiles[CompletedSweep] | OfficialFiles:
    """Files with the painted and virtual points of a root's sweeps; there may be none yet."""
    return OfficialFiles(folder=index.root) if source == "official" else own_files(index, source, noise)


def own_files(index: NuscenesIndex, source: MaskSource, noise: float = 0.0) -> ArrayFiles[CompletedSweep]:
    """`virtual_point_files` in our own format."""
    folder = folder_of("virtual_points", index, source, noise)
    return ArrayFiles(
        folder=folder, kind=CompletedSweep, names=CACHE_NAMES, what="virtual points", verb="virtual-points"
    )
