"""Samples of a nuScenes root, read and augmented, as batches of one.

A training sample depends on seed, epoch and item alone, not on who loads it or when: a run that was stopped
goes on with the data it would have seen.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset

from dualdistill.data.augment import ImageView, draw_bev, draw_view
from dualdistill.data.collate import RawDepth, RawPoints, RawSample
from dualdistill.data.config import DataConfig
from dualdistill.data.depth import depth_labels, owners_of_labels, owners_of_points
from dualdistill.data.images import ImageCache, load_image
from dualdistill.data.index import NuscenesIndex, Rows
from dualdistill.data.instances import InstanceTargets
from dualdistill.data.object_sampling import ObjectDatabase, ObjectSampler
from dualdistill.data.splits import class_balanced, sample_boxes, within_reach
from dualdistill.data.sweeps import STAND_IN_GAP, accumulate, choose_sweeps, earlier_frame, key_from_sweeps, read_points
from dualdistill.data.virtual_points.clouds import VirtualClouds
from dualdistill.errors import UserError
from dualdistill.geometry.boxes import transform_boxes
from dualdistill.geometry.transforms import invert_rigid, transform
from dualdistill.structures import Batch, Boxes, Cameras, SampleMeta

Item = tuple[int, int]
"""Epoch and position in the data set: together they fix a sample, augmentation included."""

NEUTRAL_EPOCH = 0
"""Epoch of a sample asked for without one; at test time every epoch is the same."""


class NuscenesDataset(Dataset[Batch]):
    """Key frames of an index, with the sensors and augmentations of a `DataConfig`.

    Annotations are given at test time too (there may be none); what is scored is read from the index.
    """

    def __init__(
        self,
        index: NuscenesIndex,
        config: DataConfig,
        positions: Int[np.ndarray, "samples"],
        *,
        training: bool,
        seed: int,
    ):
        """Data set of some samples.

        Args:
            positions: Samples of the index, see `splits.samples_of_split`.
            training: Whether to augment, to draw, and to resample by class if the config has it.
            seed: Of everything that is drawn.

        Raises:
            UserError: if one of the samples lacks a sensor that is needed, virtual points, or instance masks.
        """
        self.index, self.config, self.training, self.seed = index, config, training, seed
        self.image_cache: ImageCache | None = None
        """May be set; samples are the same with and without."""
        _require_sensors(index, config, positions)
        self.positions = positions
        if training and config.class_balanced:
            self.positions = class_balanced(index, positions, seed)
        self.virtual: VirtualClouds | None = None
        if config.virtual_points is not None:
            self.virtual = VirtualClouds(index, config.virtual_points, positions, config.num_sweeps)
        self.instances: InstanceTargets | None = None
        if training and config.instances is not None:
            self.instances = InstanceTargets(index, config.instances, positions, config.depth_stride)
        self.objects: ObjectSampler | None = None
        if training and config.object_sampling is not None:
            database = ObjectDatabase.open(index, positions, config.num_sweeps, clouds=self.virtual)
            self.objects = ObjectSampler(database, config.object_sampling)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: Item | int) -> Batch:
        """Sample of an (epoch, item) pair as a batch of one; a bare item is one of epoch 0.

        Raises:
            UserError: for a sensor file that is missing or broken.
        """
        epoch, item = key if isinstance(key, tuple) else (NEUTRAL_EPOCH, key)
        return self.raw(item, epoch).finished()

    def __getitems__(self, keys: Sequence[Item]) -> list[RawSample]:
        """Samples for `collate.pack`: loader processes ask for all of a batch at once."""
        return [self.raw(item, epoch) for epoch, item in keys]

    def raw(self, item: int, epoch: int) -> RawSample:
        """A sample without what a GPU computes faster from the points than a loader process."""
        config, position = self.config, int(self.positions[item])
        key_row = int(self.index.sample_lidar[position])
        generator = np.random.default_rng([self.seed, epoch, item]) if self.training else None
        # Drawn first, so that it is the same whatever else the sample holds.
        augmented_from_bev = torch.eye(4, dtype=torch.float64)
        if generator is not None:
            augmented_from_bev = draw_bev(config.bev_augmentation, generator)
        meta = self._meta(position)
        bev_from_global = invert_rigid(meta.global_from_bev)
        boxes = sample_boxes(self.index, position, bev_from_global)

        wants_depth = config.cameras and config.depth
        key_points = read_points(self.index.path(key_row)) if config.points or wants_depth else None
        points = None
        if config.points and key_points is not None:
            augmented_from_key = augmented_from_bev @ bev_from_global @ self._poses(key_row)
            points, boxes = self._points(key_row, key_points, augmented_from_key, boxes, generator, epoch)
        cameras, raw_depth, depth, depth_instance, instances, turns = None, None, None, None, None, None
        if config.cameras:
            sizes = [self.index.image_size(row) for row in self.index.sample_cameras[position]]
            # shared by both frames
            views = [draw_view(config.image_augmentation, config.image_size, size, generator) for size in sizes]
            cameras = self._cameras(position, views, augmented_from_bev, meta, generator)
            if generator is not None:
                turns = torch.tensor([[view.turn() for view in views]], dtype=torch.int32)
            if self.instances is not None:
                instances = self.instances(position, views)
            if key_points is not None and wants_depth:
                raw_depth = self._depth(position, views, key_points)
                if config.depth_instance:  # owners are looked up by label
                    depth = raw_depth.finished()
                    depth_instance = self._depth_owner(raw_depth, depth, bev_from_global @ self._poses(key_row), boxes)
                    raw_depth = None
        batch = Batch(
            boxes=(within_reach(transform_boxes(augmented_from_bev, boxes), config.box_reach),),
            augmented_from_bev=augmented_from_bev[None].float(),
            meta=(meta,),
            cameras=cameras,
            depth=depth,
            depth_instance=depth_instance,
            instances=instances,
        )
        return RawSample(batch=batch, points=points, depth=raw_depth, turns=turns)

    def _poses(self, rows: Rows) -> Float[Tensor, "*rows 4 4"]:
        """`global_from_sensor` of records; float64."""
        return torch.from_numpy(self.index.global_from_sensor(rows))

    def _meta(self, position: int) -> SampleMeta:
        row = int(self.index.sample_lidar[position])
        in_lidar = self.config.bev_frame == "lidar"
        ego_from_bev = torch.from_numpy(self.index.ego_from_sensor(row) if in_lidar else np.eye(4))
        return SampleMeta(
            token=self.index.sample_token[position],
            timestamp_us=int(self.index.sample_timestamp_us[position]),
            global_from_bev=torch.from_numpy(self.index.global_from_ego(row)) @ ego_from_bev,
            ego_from_bev=ego_from_bev,
        )

    def _points(
        self,
        key_row: int,
        key_points: Float[Tensor, "points 5"],
        augmented_from_key: Float[Tensor, "4 4"],
        boxes: Boxes,
        generator: np.random.Generator | None,
        epoch: int,
    ) -> tuple[RawPoints, Boxes]:
        """A key sweep and earlier ones, and the boxes with those of pasted objects."""
        config, sampling = self.config, self.config.object_sampling
        rows = choose_sweeps(self.index, key_row, config.num_sweeps, generator if config.random_sweeps else None)
        pastes = sampling is not None and (sampling.last_epoch is None or epoch <= sampling.last_epoch)
        sampler = self.objects if pastes else None
        if self.virtual is None and sampler is None:  # what `accumulate` does is left to the device
            clouds = [key_points, *(read_points(self.index.path(row)) for row in rows)]
            key_from_clouds = torch.cat([torch.eye(4)[None].double(), key_from_sweeps(self.index, key_row, rows)])
            times = self.index.data_timestamp_us[[key_row, *rows]]
            augmented_from_cloud, lag = augmented_from_key @ key_from_clouds, (times[0] - times) * 1e-6
        else:
            gather = partial(accumulate, self.index) if self.virtual is None else self.virtual.accumulate
            clouds = [gather(key_row, rows, key_points)]
            if sampler is not None and generator is not None:
                clouds[0], boxes = sampler(clouds[0], boxes, generator)
            augmented_from_cloud, lag = augmented_from_key[None], np.array([np.nan])
        points = RawPoints(
            features=clouds[0] if len(clouds) == 1 else torch.cat(clouds),
            size=torch.tensor([len(cloud) for cloud in clouds]),
            clouds=torch.tensor([len(clouds)]),
            augmented_from_cloud=augmented_from_cloud.float(),
            lag=torch.from_numpy(lag).float(),
            point_range=torch.tensor(config.point_range, dtype=torch.float32).view(1, 2, 3),
        )
        return points, boxes

    def _cameras(
        self,
        position: int,
        views: list[ImageView],
        augmented_from_bev: Float[Tensor, "4 4"],
        meta: SampleMeta,
        generator: np.random.Generator | None,
    ) -> Cameras:
        """Images, neither mirrored nor rotated, and matrices of one or two frames."""
        index, config = self.index, self.config
        augmented_from_global = augmented_from_bev @ invert_rigid(meta.global_from_bev)
        frames = [tuple(int(row) for row in index.sample_cameras[position])]
        previous_from_current, gap = torch.eye(4), STAND_IN_GAP
        if config.num_frames == 2:
            earlier = earlier_frame(index, position, config, generator)
            frames.append(frames[0] if earlier is None else earlier.cameras)
            if earlier is not None:  # the ego pose of its reference fixes the BEV frame then
                global_from_previous = torch.from_numpy(index.global_from_ego(earlier.reference)) @ meta.ego_from_bev
                moved = invert_rigid(global_from_previous) @ meta.global_from_bev
                previous_from_current = augmented_from_bev @ moved @ torch.linalg.inv(augmented_from_bev)
                gap = earlier.gap
        # In memory the channels of a pixel lie together, as they are decoded, and as convolutions take them.
        pixels = torch.empty(len(frames), len(views), *config.image_size, 3, dtype=torch.uint8)
        images = pixels.movedim(-1, -3)
        load = partial(load_image, draft=config.draft_decoding, cache=self.image_cache, upright=True)
        for number, rows in enumerate(frames):
            if number and rows == frames[0]:
                images[number] = images[0]
                continue
            for image, row, view in zip(images[number], rows, views, strict=True):
                image.copy_(load(index.path(row), view, index.image_size(row)))
        matrices = torch.stack([view.matrix() for view in views])
        return Cameras(
            images=images[None],
            intrinsics=torch.from_numpy(index.intrinsics(np.array(frames))).float()[None],
            augmented_from_image=matrices.expand(len(frames), -1, -1, -1)[None].contiguous(),
            bev_from_camera=(augmented_from_global @ self._poses(np.array(frames)))[None].float(),
            previous_from_current=previous_from_current[None].float(),
            frame_gap=torch.tensor([gap]),
        )

    def _depth(self, position: int, views: list[ImageView], key_points: Float[Tensor, "points 5"]) -> RawDepth:
        index, config, rows = self.index, self.config, self.index.sample_cameras[position]
        key_row = int(index.sample_lidar[position])
        if self.virtual is not None and self.virtual.config.depth_from_virtual:
            key_points = self.virtual.densified(key_row, key_points)
        return RawDepth(
            points=key_points[:, :3],
            size=torch.tensor([len(key_points)]),
            longest=len(key_points),
            camera_from_points=(invert_rigid(self._poses(rows)) @ self._poses(key_row))[None],
            intrinsics=torch.from_numpy(index.intrinsics(rows))[None],
            augmented_from_image=torch.stack([view.matrix() for view in views])[None],
            label=partial(
                depth_labels,
                stored_size=index.image_size(rows[0]),
                image_size=config.image_size,
                stride=config.depth_stride,
                depth_range=config.depth_range,
                variant=config.depth_variant,
            ),
        )

    def _depth_owner(
        self, raw: RawDepth, depth: Float[Tensor, "1 cam h w"], bev_from_key: Float[Tensor, "4 4"], boxes: Boxes
    ) -> Int[Tensor, "1 cam h w"]:
        """Box of the point that made each label of `raw`."""
        owner = owners_of_points(transform(bev_from_key, raw.points.double()), boxes)
        cameras = raw.camera_from_points[0], raw.intrinsics[0], raw.augmented_from_image[0]
        stride, variant = self.config.depth_stride, self.config.depth_variant
        return owners_of_labels(depth[0], raw.points, owner, *cameras, stride=stride, variant=variant)[None]


def _require_sensors(index: NuscenesIndex, config: DataConfig, positions: Int[np.ndarray, "samples"]) -> None:
    """See that every sample has what the config reads."""
    for sensor, rows in index.key_records(positions, cameras=config.cameras).items():
        if len(lacking := positions[rows < 0]):
            raise UserError(
                f"{len(lacking)} of {len(positions)} samples of {index.root} have no key frame of {sensor} (the first: "
                f"{index.sample_token[lacking[0]]}): complete the table or leave their scenes out of the split"
            )
    if config.cameras:
        sizes = np.unique(index.data_size[index.sample_cameras[positions].ravel()], axis=0)
        if len(sizes) > 1 or not sizes.all():
            raise UserError(
                f"images of one size (height, width) were expected, sample_data.json of {index.root} "
                f"has {sizes.tolist()}: correct the records, or leave their scenes out of the split"
            )
