"""Samples as loader processes pass them on: images are still to be mirrored and rotated, points and depth labels to be
computed, where the batch is used.

On a GPU that takes some launches and no wait; in a loader it was half of a sample's time. `RawSample.finished` computes
the same on every device, except for one thing: on a CPU points out of range are dropped, and elsewhere, where the host
would have to wait for their number, moved to `OUTSIDE`, from where no detector takes a point.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dualdistill.data.augment import turned
from dualdistill.data.sweeps import CLOSE
from dualdistill.geometry.transforms import transform
from dualdistill.structures import Batch, Points, _Movable

OUTSIDE = 1e6
"""Metres: x, y and z of points that are left out but keep their row."""


@dataclass(frozen=True, kw_only=True)
class RawPoints(_Movable):
    """Point clouds as they were read, those of a sample one after the other, and what makes them `Points`.

    A cloud is a sweep in its sensor's frame, or the points of a sample that were gathered already.
    """

    features: Float[Tensor, "points chan"]
    """x, y, z (metres), intensity, and ring or time lag; gathered points may have more channels."""
    size: Int[Tensor, "clouds"]
    """Points of each cloud."""
    clouds: Int[Tensor, "batch"]
    """Clouds of each sample."""
    augmented_from_cloud: Float[Tensor, "clouds 4 4"]
    lag: Float[Tensor, "clouds"]
    """Seconds before the key frame, which become the fifth channel; above 0, points on the car itself (`CLOSE`) are
    left out. NaN: gathered already, the channels and all points stay."""
    point_range: Float[Tensor, "batch 2 3"]
    """Lowest and highest x, y, z of the points that are kept, both excluded, metres; the same for all samples."""

    def finished(self) -> Points:
        """The points in the augmented BEV frame."""
        sample = _numbers(self.clouds, len(self.size))
        return self._dropped(sample) if self.features.device.type == "cpu" else self._moved_out(sample)

    def _dropped(self, sample: Int[Tensor, "clouds"]) -> Points:
        """Cloud by cloud, while one lies in the processor's cache."""
        low, high = self.point_range[0]
        kept_features = []
        for cloud, matrix, lag in zip(
            self.features.split(self.size.tolist()), self.augmented_from_cloud, self.lag, strict=True
        ):
            xyz = transform(matrix, cloud[:, :3])
            inside = (xyz > low) & (xyz < high)
            kept = inside[:, 0] & inside[:, 1] & inside[:, 2]
            if lag > 0:
                kept &= (cloud[:, 0].abs() >= CLOSE) | (cloud[:, 1].abs() >= CLOSE)
            rows = kept.nonzero().squeeze(1)
            features = cloud.index_select(0, rows)
            features[:, :3] = xyz.index_select(0, rows)
            if not lag.isnan():
                features[:, 4] = lag
            kept_features.append(features)
        sizes = self.size.new_tensor([len(features) for features in kept_features])
        return Points(features=torch.cat(kept_features), sample=sample.repeat_interleave(sizes))

    def _moved_out(self, sample: Int[Tensor, "clouds"]) -> Points:
        """All clouds at once, without a wait."""
        cloud = _numbers(self.size, len(self.features))
        matrix, lag = self.augmented_from_cloud.index_select(0, cloud), self.lag.index_select(0, cloud)
        raw = self.features[:, None, :3]
        xyz = (matrix[:, :3, :3] * raw).sum(dim=2) + matrix[:, :3, 3]
        low, high = self.point_range[0]
        close = (self.features[:, :2].abs() < CLOSE).all(dim=1) & (lag > 0)
        inside = ((xyz > low) & (xyz < high)).all(dim=1) & ~close
        features = self.features.clone()
        features[:, :3] = torch.where(inside[:, None], xyz, OUTSIDE)
        features[:, 4] = torch.where(lag.isnan(), features[:, 4], lag)
        return Points(features=features, sample=sample.index_select(0, cloud))


@dataclass(frozen=True, kw_only=True)
class RawDepth(_Movable):
    """The LiDAR points and matrices that depth labels are made from."""

    points: Float[Tensor, "points 3"]
    """Those of a sample one after the other, metres, in any frame."""
    size: Int[Tensor, "batch"]
    """Points of each sample."""
    longest: int
    """Largest of these, so that no host has to ask for it."""
    camera_from_points: Float[Tensor, "batch cam 4 4"]
    """float64."""
    intrinsics: Float[Tensor, "batch cam 3 3"]
    """float64."""
    augmented_from_image: Float[Tensor, "batch cam 4 4"]
    label: Callable[..., Float[Tensor, "cam h w"]]
    """`depth_labels` with the sizes, range and variant of the recipe."""

    def finished(self) -> Float[Tensor, "batch cam h w"]:
        """Labels as `depth_labels` makes them."""
        cameras = self.camera_from_points, self.intrinsics, self.augmented_from_image
        if self.points.device.type == "cpu":
            clouds = self.points.split(self.size.tolist())
            return torch.stack([self.label(*sample) for sample in zip(clouds, *cameras, strict=True)])
        # All samples at once; rows that fill up the shorter clouds are NaN, which no camera sees.
        place = torch.arange(self.longest, device=self.points.device)
        rows = (self.size.cumsum(0) - self.size)[:, None] + place
        padded = self.points.index_select(0, rows.flatten().clamp(max=len(self.points) - 1)).unflatten(0, rows.shape)
        padded = torch.where((place < self.size[:, None])[..., None], padded, torch.nan)
        batch, count = self.camera_from_points.shape[:2]
        padded = padded[:, None].expand(-1, count, -1, -1).flatten(0, 1)
        return self.label(padded, *(each.flatten(0, 1) for each in cameras)).unflatten(0, (batch, count))


@dataclass(frozen=True, kw_only=True)
class RawSample(_Movable):
    """Samples that may have to be finished."""

    batch: Batch
    """Without `points` and `depth` where the following makes them; images may have to be turned."""
    points: RawPoints | None = None
    depth: RawDepth | None = None
    turns: Int[Tensor, "batch cam 6"] | None = None
    """`ImageView.turn` of the cameras; None where nothing is mirrored or rotated."""

    def __len__(self) -> int:
        return len(self.batch)

    def finished(self) -> Batch:
        """The samples as networks take them, on the device where these are."""
        batch = self.batch
        if self.turns is not None and batch.cameras is not None:
            batch = replace(batch, cameras=replace(batch.cameras, images=turned(batch.cameras.images, self.turns)))
        if self.points is not None:
            batch = replace(batch, points=self.points.finished())
        return batch if self.depth is None else replace(batch, depth=self.depth.finished())


def _numbers(size: Int[Tensor, "groups"], total: int) -> Int[Tensor, "total"]:
    """Group of each member where groups of these sizes, `total` members in all, follow each other."""
    return torch.arange(len(size), device=size.device).repeat_interleave(size, output_size=total)
