"""Samples of a nuScenes root, read and augmented, as batches of one.

A training sample depends on seed, epoch and item alone, not on who loads it or when: a run that was stopped
goes on with the data it would have seen.
"""

import math
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
from dualdistill.data.frames import STAND_IN_GAP, EarlierFrame, earlier_frame
from dualdistill.data.images import ImageCache, load_image
from dualdistill.data.index import NuscenesIndex, Rows
from dualdistill.data.instances import InstanceTargets
from dualdistill.data.object_sampling import ObjectDatabase, ObjectSampler
from dualdistill.data.splits import class_balanced, sample_boxes, within_reach
from dualdistill.data.sweeps import accumulate, choose_sweeps, key_from_sweeps, read_points
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
        position = int(self.positions[item])
        generator = np.random.default_rng([self.seed, epoch, item]) if self.training else None
        meta = self._meta(position)
        # Drawn first, so that it is the same whatever else the sample holds.
        augmented_from_bev = torch.eye(4, dtype=torch.float64)
        if generator is not None:
            augmented_from_bev = draw_bev(self.config.bev_augmentation, generator)
        bev_from_global = invert_rigid(meta.global_from_bev)
        boxes = sample_boxes(self.index, position, bev_from_global)

        key_row = int(self.index.sample_lidar[position])
        wants_depth = self.config.cameras and self.config.depth
        key_points = read_points(self.index.path(key_row)) if self.config.points or wants_depth else None
        points = None
        if self.config.points and key_points is not None:
            sweeps = generator if self.config.random_sweeps else None
            rows = choose_sweeps(self.index, key_row, self.config.num_sweeps, sweeps)
            augmented_from_key = augmented_from_bev @ bev_from_global @ self._poses(key_row)
            sampling = self.config.object_sampling
            pastes = sampling is not None and (sampling.last_epoch is None or epoch <= sampling.last_epoch)
            sampler = self.objects if pastes else None
            if self.virtual is None and sampler is None:
                points = self._sweeps(key_row, rows, key_points, augmented_from_key)
            else:
                gather = partial(accumulate, self.index) if self.virtual is None else self.virtual.accumulate
                features = gather(key_row, rows, key_points)
                if sampler is not None and generator is not None:
                    features, boxes = sampler(features, boxes, generator)
                points = self._clouds([features], augmented_from_key[None], [math.nan])
        cameras, raw_depth, depth, depth_instance, instances, turns = None, None, None, None, None, None
        if self.config.cameras:
            ranges, size = self.config.image_augmentation, self.config.image_size
            stored = [self.index.image_size(row) for row in self.index.sample_cameras[position]]
            views = [draw_view(ranges, size, each, generator) for each in stored]  # shared by both frames
            cameras = self._cameras(position, views, augmented_from_bev, meta, generator)
            if generator is not None:
                turns = torch.tensor([[view.turn() for view in views]], dtype=torch.int32)
            if self.instances is not None:
                instances = self.instances(position, views)
            if key_points is not None and wants_depth:
                if self.virtual is not None and self.virtual.config.depth_from_virtual:
                    key_points = self.virtual.densified(key_row, key_points)
                raw_depth = self._depth(position, views, key_points)
                if self.config.depth_instance:  # owners are looked up by label
                    depth = raw_depth.finished()
                    depth_instance = self._depth_owner(raw_depth, depth, bev_from_global @ self._poses(key_row), boxes)
                    raw_depth = None
        batch = Batch(
            boxes=(within_reach(transform_boxes(augmented_from_bev, boxes), self.config.box_reach),),
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
        ego_from_bev = torch.eye(4, dtype=torch.float64)
        if self.config.bev_frame == "lidar":
            ego_from_bev = torch.from_numpy(self.index.ego_from_sensor(row))
        return SampleMeta(
            token=self.index.sample_token[position],
            timestamp_us=int(self.index.sample_timestamp_us[position]),
            global_from_bev=torch.from_numpy(self.index.global_from_ego(row)) @ ego_from_bev,
            ego_from_bev=ego_from_bev,
        )

    def _sweeps(
        self,
        key_row: int,
        rows: Sequence[int],
        key_points: Float[Tensor, "points 5"],
        augmented_from_key: Float[Tensor, "4 4"],
    ) -> RawPoints:
        """A key sweep and earlier ones; the points are those of `accumulate`."""
        clouds = [key_points, *(read_points(self.index.path(row)) for row in rows)]
        key_from_clouds = torch.cat([torch.eye(4)[None].double(), key_from_sweeps(self.index, key_row, rows)])
        times = self.index.data_timestamp_us[[key_row, *rows]]
        return self._clouds(clouds, augmented_from_key @ key_from_clouds, ((times[0] - times) * 1e-6).tolist())

    def _clouds(
        self, clouds: Sequence[Tensor], augmented_from_cloud: Float[Tensor, "clouds 4 4"], lag: Sequence[float]
    ) -> RawPoints:
        return RawPoints(
            features=clouds[0] if len(clouds) == 1 else torch.cat([*clouds]),
            size=torch.tensor([len(cloud) for cloud in clouds]),
            clouds=torch.tensor([len(clouds)]),
            augmented_from_cloud=augmented_from_cloud.float(),
            lag=torch.tensor(lag),
            point_range=torch.tensor(self.config.point_range, dtype=torch.float32).view(1, 2, 3),
        )

    def _cameras(
        self,
        position: int,
        views: list[ImageView],
        augmented_from_bev: Float[Tensor, "4 4"],
        meta: SampleMeta,
        generator: np.random.Generator | None,
    ) -> Cameras:
        """Images, neither mirrored nor rotated, and matrices of one or two frames."""
        augmented_from_global = augmented_from_bev @ invert_rigid(meta.global_from_bev)
        frames = [tuple(int(row) for row in self.index.sample_cameras[position])]
        previous_from_current, gap = torch.eye(4), STAND_IN_GAP
        if self.config.num_frames == 2:
            earlier = earlier_frame(self.index, position, self.config, generator)
            frames.append(frames[0] if earlier is None else earlier.cameras)
            if earlier is not None:
                previous_from_current = self._motion(earlier, augmented_from_bev, meta)
                gap = earlier.gap
        # In memory the channels of a pixel lie together, as they are decoded, and as convolutions take them.
        pixels = torch.empty(len(frames), len(views), *self.config.image_size, 3, dtype=torch.uint8)
        images = pixels.movedim(-1, -3)
        for number, rows in enumerate(frames):
            if number and rows == frames[0]:
                images[number] = images[0]
                continue
            for image, row, view in zip(images[number], rows, views, strict=True):
                path, size, draft = self.index.path(row), self.index.image_size(row), self.config.draft_decoding
                image.copy_(load_image(path, view, size, draft=draft, cache=self.image_cache, upright=True))
        records = np.array(frames)
        poses = augmented_from_global @ self._poses(records)
        intrinsics = torch.from_numpy(self.index.intrinsics(records)).float()
        matrices = torch.stack([view.matrix() for view in views])
        return Cameras(
            images=images[None],
            intrinsics=intrinsics[None],
            augmented_from_image=matrices.expand(len(frames), -1, -1, -1)[None].contiguous(),
            bev_from_camera=poses[None].float(),
            previous_from_current=previous_from_current[None],
            frame_gap=torch.tensor([gap]),
        )

    def _motion(
        self, earlier: EarlierFrame, augmented_from_bev: Float[Tensor, "4 4"], meta: SampleMeta
    ) -> Float[Tensor, "4 4"]:
        """`previous_from_current`; the ego pose of the earlier frame's reference fixes the BEV frame then."""
        global_from_ego = torch.from_numpy(self.index.global_from_ego(earlier.reference))
        global_from_previous = global_from_ego @ meta.ego_from_bev
        previous_from_current = invert_rigid(global_from_previous) @ meta.global_from_bev
        return (augmented_from_bev @ previous_from_current @ torch.linalg.inv(augmented_from_bev)).float()

    def _depth(self, position: int, views: list[ImageView], key_points: Float[Tensor, "points _"]) -> RawDepth:
        rows = self.index.sample_cameras[position]
        global_from_lidar = self._poses(int(self.index.sample_lidar[position]))
        return RawDepth(
            points=key_points[:, :3],
            size=torch.tensor([len(key_points)]),
            longest=len(key_points),
            camera_from_points=(invert_rigid(self._poses(rows)) @ global_from_lidar)[None],
            intrinsics=torch.from_numpy(self.index.intrinsics(rows))[None],
            augmented_from_image=torch.stack([view.matrix() for view in views])[None],
            label=partial(
                depth_labels,
                stored_size=self.index.image_size(rows[0]),
                image_size=self.config.image_size,
                stride=self.config.depth_stride,
                depth_range=self.config.depth_range,
                variant=self.config.depth_variant,
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
    """See that every sample has what the config reads.

    Raises:
        UserError: naming the first sample that has not.
    """
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
