"""Camera students: DistillBEV, DualDistill and BEVDet's BEVDepth of July 2022, and the official BEVDepth.

The names are those of `models.official_names`; here they become an account.
"""

import re

from torch import Tensor

from dualdistill.convert.account import BoxConvention, Conversion, KeyMapping
from dualdistill.convert.student_names import load_official_student, recognise
from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth

_LEGACY = re.compile(r"pts_bbox_head\.task_heads\.\d+\.(dim|rot)\.1\.")


def is_official(state: dict[str, Tensor]) -> bool:
    """Whether a student is the official BEVDepth's, not one of the BEVDet code base."""
    return any(name.startswith("backbone.depth_net.") for name in state)


def convert_student(state: dict[str, Tensor], boxes: BoxConvention | None) -> Conversion:
    """A student, in the family that its keys show.

    Args:
        state: Without the prefixes "module." and "model.".
        boxes: The family tells; a contradiction is an error.

    Raises:
        UserError: for a key nobody knows, a gap or another shape, another geometry, or the wrong boxes.
    """
    official = is_official(state)
    found: BoxConvention = "new" if official else "legacy"
    if boxes not in (None, found):
        raise UserError(f"Students of this family have {found} boxes, but --boxes {boxes} was given: leave it out.")
    try:
        config = recognise(state)
        model = BevDepth(config)
        words = load_official_student(model, state)
    except (KeyError, ValueError) as error:
        raise UserError(f"This camera student cannot be converted: {error}.") from None
    family = "official BEVDepth" if official else "BEVDepth of DistillBEV, DualDistill or BEVDet (July 2022)"
    frames = "two frames" if config.temporal.frames == 2 else "one frame"
    return Conversion(
        family=f"{family}, {config.image.backbone}, {frames}",
        config=config,
        state=model.state_dict(),
        account=tuple(_fate(key, tensor, words[key]) for key, tensor in state.items()),
        boxes=found,
        notes=tuple(_notes(state, official)),
    )


def _fate(key: str, tensor: Tensor, words: str) -> KeyMapping:
    """An entry from the words of `load_official_student`."""
    shape = tuple(tensor.shape)
    if words.startswith("loaded as "):
        name = words.removeprefix("loaded as ")
        if _LEGACY.match(key):
            return KeyMapping(key, shape, "changed", name, "legacy to new boxes")
        if name.startswith(("image.neck.deblocks.", "encoder.neck.deblocks.")) and shape[2:] == (1, 1):
            return KeyMapping(key, shape, "changed", name, "transposed 1x1 convolution, here a plain one")
        return KeyMapping(key, shape, "renamed", name)
    verb, _, why = words.partition(": ")
    return KeyMapping(key, shape, "compared" if verb == "compared" else "dropped", None, why)


def _notes(state: dict[str, Tensor], official: bool) -> list[str]:
    constants = "backbone.frustum" if official else "img_view_transformer.frustum"
    notes = []
    if constants not in state:
        notes.append(
            "The file holds no frustum: image size and depth range could not be compared, published ones apply."
        )
    if official:
        notes.append("Images are fed blue-green-red, as these weights were trained.")
    return notes
