"""Camera students: DistillBEV, DualDistill and BEVDet's BEVDepth of July 2022, and the official BEVDepth."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from dualdistill.convert.legacy_boxes import in_new_boxes
from dualdistill.convert.mapping import BoxConvention, Conversion, KeyMapping, Renamed
from dualdistill.convert.names import renamed
from dualdistill.convert.student_names import our_name, recognise
from dualdistill.errors import UserError
from dualdistill.geometry.frustum import frustum
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.bevdepth_config import BevDepthConfig

_TRAINING_ONLY = re.compile(r"(channel_wise|teacher|spatial_wise)_adaptations\.")
"""Parts of a distiller in a student's checkpoint."""
_TRANSPOSED = re.compile(r"(image|encoder)\.neck\.deblocks\.\d\.0\.weight")
"""Resizing convolutions of the necks, by our names; those of 1x1 are transposed convolutions in the official code."""
_GEOMETRY = {
    "img_view_transformer.dx": "size",
    "backbone.voxel_size": "size",
    "img_view_transformer.bx": "first",
    "backbone.voxel_coord": "first",
    "img_view_transformer.nx": "count",
    "backbone.voxel_num": "count",
    "img_view_transformer.frustum": "frustum",
    "backbone.frustum": "frustum",
}
"""Stored constants of the view transformer."""


def convert_student(state: dict[str, Tensor], boxes: BoxConvention | None) -> Conversion:
    """A student of the family that its keys show.

    An `Importer`. Geometry is not loaded but compared with that of our network: a wrong size, range or cell shows
    there. The family decides on the boxes; a contradiction is an error.
    """
    official = any(name.startswith("backbone.depth_net.") for name in state)
    own_boxes: BoxConvention = "new" if official else "legacy"
    if boxes not in (None, own_boxes):
        raise UserError(f"Students of this family have {own_boxes} boxes, but --boxes {boxes} was given: leave it out.")
    try:
        config = recognise(state)
        aside = list(_not_weights(state, config))
    except (KeyError, ValueError) as error:
        raise UserError(f"This camera student cannot be converted: {error}.") from None
    left = {entry.key for entry in aside}
    ours = renamed({key: tensor for key, tensor in state.items() if key not in left}, our_name)
    with torch.device("meta"):
        model = BevDepth(config)
    ours = _plain_convolutions(ours).completed(model)
    if not official:
        ours = in_new_boxes(ours)
    entries = {entry.key: entry for entry in (*aside, *ours.mapping)}
    family = "official BEVDepth" if official else "BEVDepth of DistillBEV, DualDistill or BEVDet (July 2022)"
    frames = "two frames" if config.temporal.frames == 2 else "one frame"
    return Conversion(
        family=f"{family}, {config.image.backbone}, {frames}",
        config=config,
        state=ours.state,
        mapping=tuple(entries[key] for key in state),
        boxes=own_boxes,
        notes=tuple(_notes(state, official)),
    )


def _not_weights(state: dict[str, Tensor], config: BevDepthConfig) -> Iterator[KeyMapping]:
    """Mappings of the keys that are no weights of the student; a ValueError for a constant unlike the network's."""
    for key, tensor in state.items():
        if key in _GEOMETRY:
            check_geometry(config, _GEOMETRY[key], tensor)
            yield KeyMapping(key, tuple(tensor.shape), "compared", None, "equal to the network's own")
        elif _TRAINING_ONLY.match(key):
            yield KeyMapping(key, tuple(tensor.shape), "dropped", None, "part of a distiller")


def _plain_convolutions(ours: Renamed) -> Renamed:
    """Transposed 1x1 convolutions, stored (in, out, 1, 1), as plain ones."""
    found = {name: t for name, t in ours.state.items() if _TRANSPOSED.fullmatch(name) and t.shape[2:] == (1, 1)}
    plain = {name: tensor.transpose(0, 1).contiguous() for name, tensor in found.items()}
    return ours.changed(plain, dict.fromkeys(plain, "transposed 1x1 convolution, here a plain one"))


def check_geometry(config: BevDepthConfig, kind: str, found: Tensor) -> None:
    """Compare a stored constant of the view transformer with the network's.

    Args:
        kind: A value of `_GEOMETRY`.

    Raises:
        ValueError: if they differ.
    """
    grid, (low, high) = config.bev.grid, config.lift.z_range
    expected = {
        "size": torch.tensor([grid.cell, grid.cell, high - low]),
        "first": torch.tensor([grid.x_min + grid.cell / 2, grid.y_min + grid.cell / 2, (low + high) / 2]),
        "count": torch.tensor([grid.width, grid.height, 1]),
    }
    if kind == "frustum":
        rows, columns = found.shape[1:3]
        stride = config.image.stride
        own = frustum((rows * stride, columns * stride), (rows, columns), config.lift.depths())
        found = found[..., :3]  # the official one ends in a homogeneous 1
    else:
        own = expected[kind]
    if own.shape != found.shape or not torch.allclose(own.float(), found.float(), atol=1e-3):
        raise ValueError(f"the geometry of this state is another one ({kind}): expected {own}, found {found}")


def _notes(state: dict[str, Tensor], official: bool) -> Iterator[str]:
    if not any(_GEOMETRY.get(key) == "frustum" for key in state):
        yield "The file holds no frustum: image size and depth range could not be compared, published ones apply."
    if official:
        yield "Images are fed blue-green-red, as these weights were trained."
