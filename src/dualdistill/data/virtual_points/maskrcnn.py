"""Masks of real images from torchvision's Mask R-CNN, trained on COCO (docs/methods/mvp.md#mask-sources).

COCO has six of the ten classes: trailers, construction vehicles, cones and barriers get neither paint nor virtual
points.
"""

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

from dualdistill.data.config import MASK_RCNN_SCORE
from dualdistill.data.images import stored_image
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.virtual_points.masks import ImageInstances
from dualdistill.errors import UserError
from dualdistill.ops.finite import require_finite

NAME_OF_COCO = {1: "pedestrian", 2: "bicycle", 3: "car", 4: "motorcycle", 6: "bus", 8: "truck"}
"""Category ids of COCO as torchvision numbers them; all others are ignored."""

CATEGORIES = 91
"""Number of categories of the model, with the background."""

WANTED = (
    "the COCO weights of torchvision's maskrcnn_resnet50_fpn_v2 "
    "(https://download.pytorch.org/models/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth, or their safetensors copy)"
)


class MaskRcnn:
    """Instance masks of camera images, from weights in a local file. Nothing is downloaded."""

    def __init__(self, index: NuscenesIndex, weights: Path, *, short_side: int = 800, device: str = "cpu"):
        """
        Args:
            weights: A `.pth` state dict of torchvision, or the same as `.safetensors`.
            short_side: Length in pixels to which the image's shorter side is resized; torchvision's default.

        Raises:
            UserError: for a missing file, and for one of another model.
        """
        self.index, self.device = index, device
        state = _read_state(weights)
        require_finite(state, weights)
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.identity = f"maskrcnn_resnet50_fpn_v2, score {MASK_RCNN_SCORE:g}, side {short_side}, sha256 {digest}"
        self.model = maskrcnn_resnet50_fpn_v2(
            weights=None,
            weights_backbone=None,
            num_classes=CATEGORIES,
            box_score_thresh=MASK_RCNN_SCORE,
            min_size=short_side,
        )
        try:
            self.model.load_state_dict(state)
        except RuntimeError as error:
            raise UserError(f"{weights} holds the weights of another model; expected {WANTED}.") from error
        self.model.eval().to(device)

    def __call__(self, row: int) -> ImageInstances:
        image = stored_image(self.index.path(row), self.index.image_size(row))
        with torch.inference_mode():
            (found,) = self.model([image.to(self.device).float() / 255])
        names = [NAME_OF_COCO.get(label, "") for label in found["labels"].tolist()]
        # Best first, as the model returns them: where two masks overlap, the one with the higher score counts.
        return ImageInstances.of(found["masks"].cpu()[:, 0] >= 0.5, names, found["scores"].cpu())


def _read_state(weights: Path) -> dict[str, Tensor]:
    if not weights.is_file():
        raise UserError(f"There is no weights file {weights}. Give {WANTED}.")
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        return torch.load(weights, map_location="cpu", weights_only=True)  # tensors only: no code is run
    except (OSError, RuntimeError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(f"{weights} cannot be read ({type(error).__name__}); expected {WANTED}.") from error
