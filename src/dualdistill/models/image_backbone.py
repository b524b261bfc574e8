"""From camera images to one feature map: normalisation, a timm backbone, a neck
(docs/methods/bevdepth.md#image-backbone-and-neck)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dualdistill import hub
from dualdistill.errors import UserError, first_line
from dualdistill.models.checkpoints import differences
from dualdistill.models.layers.second import SecondFpn
from dualdistill.ops.finite import require_finite
from dualdistill.settings import Few, checked

MEAN = (123.675, 116.28, 103.53)
"""ImageNet means of R, G, B, in 0 to 255."""
STD = (58.395, 57.12, 57.375)
"""ImageNet standard deviations of R, G, B."""


@dataclass(frozen=True, kw_only=True)
@checked
class ImageConfig:
    """Image backbone and neck of a camera student."""

    backbone: str = "resnet50"
    """Any name of timm that offers `features_only`; strides 4 to 32."""
    pretrained: str = "none"
    """Source of the weights of `ImageEncoder.load_pretrained`: "none", "hub" (timm's for the backbone: downloaded, or
    from the local cache), the path of a .safetensors or PyTorch file with the names of timm or torchvision, or of a
    student.safetensors, whose image backbone is used; `zoo:NAME` or `hf:owner/name`."""
    neck: Literal["pyramid", "second"] = "pyramid"
    """Fusion of the levels to one map. "pyramid": top-down over the levels from `stride` to 32 (BEVDet); "second":
    SECOND's, over the levels from 4 to 32 (official)."""
    channels: Few = 512
    """Channels of the neck's output."""
    stride: Literal[8, 16] = 16
    """Stride of the neck's output, the map that is lifted: image pixels per cell."""
    frozen_stem: bool = False
    """The first convolution and its norm keep their pretrained state (ResNets only)."""
    checkpointing: bool = False
    """Recompute backbone activations in the backward pass: slower, less memory. Batch norm statistics then
    move twice a step, as in the released training."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the backbone's input. The official code feeds B, G, R with the statistics of R, G, B; its
    weights need "bgr"."""

    def __post_init__(self) -> None:
        if self.neck == "second" and self.channels % 4:
            raise ValueError(f"neck 'second' stacks four levels: channels must be a multiple of 4, got {self.channels}")

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Strides of the backbone levels that enter the neck, fine to coarse."""
        finest = 4 if self.neck == "second" else self.stride
        return tuple(stride for stride in (4, 8, 16, 32) if stride >= finest)


class ImageEncoder(nn.Module):
    """Normalisation, backbone and neck, with random weights.

    `load_pretrained` is a step of its own, so that a checkpoint can be loaded without the file its training started
    from.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageConfig):
        super().__init__()
        self.config = config
        self.backbone = _timm_levels(config)
        channels = self.backbone.feature_info.channels()
        self.neck: nn.Module
        if config.neck == "second":
            scales = [stride / config.stride for stride in config.level_strides]
            self.neck = SecondFpn(channels, [config.channels // 4] * 4, scales)
        else:
            self.neck = FeaturePyramid(channels, config.channels)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        if config.checkpointing:
            self.backbone.set_grad_checkpointing(True)
        if config.frozen_stem:
            if not (hasattr(self.backbone, "conv1") and hasattr(self.backbone, "bn1")):
                raise ValueError(f"frozen_stem needs a ResNet with conv1 and bn1, got backbone {config.backbone!r}")
            self.backbone.conv1.requires_grad_(False)
            self.backbone.bn1.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> "ImageEncoder":
        super().train(mode)
        if self.config.frozen_stem:
            self.backbone.conv1.eval()  # a deep stem has norms of its own
            self.backbone.bn1.eval()
        return self

    def forward(self, images: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images chan h w"]:
        """Features at the config's stride. Raises UserError if the sides of the images are no multiples of the strides
        that must meet."""
        step = 32 if self.config.neck == "second" else self.config.stride
        height, width = images.shape[-2:]
        if height % step or width % step:
            raise UserError(
                f"images of {height}x{width} pixels do not fit this student: with neck {self.config.neck!r} "
                f"and stride {self.config.stride}, both sides must be multiples of {step}"
            )
        return self.neck(self.backbone(self.normalised(images)))

    def normalised(self, images: UInt8[Tensor, "images 3 height width"]) -> Float[Tensor, "images 3 height width"]:
        """Float images in the channel order of the config, stored channels last."""
        if self.config.channel_order == "bgr":
            images = images.flip(1)
        normal = (images.float() - self.mean) / self.std
        return normal.contiguous(memory_format=torch.channels_last)

    def load_pretrained(self) -> None:
        """Load the backbone weights that `config.pretrained` names, or none. Raises UserError if they cannot be had, or
        are not those of this backbone."""
        name, source = self.config.backbone, self.config.pretrained
        if source == "none":
            return
        file = hub.resolve(source)
        if source != "hub" and (state := _students_backbone(file)) is not None:
            if wrong := differences(self.backbone.state_dict(), state):
                raise UserError(f"{source} holds a student whose image backbone is no {name!r}: {wrong[0]}")
            require_finite(state, Path(source))
            self.backbone.load_state_dict(state)
            return
        overlay = None if source == "hub" else {"file": str(_checked_file(file, name))}
        try:
            donor = _timm_levels(self.config, pretrained=True, pretrained_cfg_overlay=overlay)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"no pretrained weights for backbone {name!r} from {source!r}: {first_line(error)}\n"
                f"Without a network, give a file: image.pretrained=PATH/{name}.safetensors (names of timm or "
                "torchvision), or train from scratch with image.pretrained=none."
            ) from error
        require_finite(donor.state_dict(), Path(source))
        self.backbone.load_state_dict(donor.state_dict())


def _timm_levels(config: ImageConfig, **options: object) -> Any:  # a module with timm's `feature_info`
    """The backbone, cut after the last level of the config."""
    try:
        with torch.device("meta"):
            strides = timm.create_model(config.backbone, features_only=True).feature_info.reduction()
    except (RuntimeError, AttributeError) as error:
        raise UserError(
            f"timm has no backbone {config.backbone!r} that gives feature maps: {first_line(error)}"
        ) from error
    missing = set(config.level_strides) - set(strides)
    if missing:
        raise UserError(f"backbone {config.backbone!r} has levels at strides {strides}, none at {sorted(missing)}")
    indices = tuple(strides.index(stride) for stride in config.level_strides)
    return timm.create_model(config.backbone, features_only=True, out_indices=indices, **options)


def _students_backbone(path: Path) -> dict[str, Tensor] | None:
    """Tensors of the image backbone in a student's checkpoint; None for another kind of file."""
    prefix = "image.backbone."
    try:
        state = load_file(path)
    except (OSError, SafetensorError):
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)} or None


def _checked_file(path: Path, backbone: str) -> Path:
    """`path`, if it holds every tensor of the backbone: timm itself would silently leave out missing ones."""
    if not path.is_file():
        raise UserError(
            f"image.pretrained: expected 'none', 'hub' or a file with weights of {backbone!r}, found no file {path}"
        )
    try:
        state = timm.models.load_state_dict(str(path), weights_only=True)
    except Exception as error:  # any of several libraries' complaints about a broken file
        raise UserError(f"{path} is not a safetensors or weights-only PyTorch file: {first_line(error)}") from error
    with torch.device("meta"):
        wanted = timm.create_model(backbone, num_classes=0).state_dict()
    wrong = [
        name
        for name, tensor in wanted.items()
        if not name.endswith("num_batches_tracked") and (name not in state or state[name].shape != tensor.shape)
    ]
    if wrong:
        raise UserError(
            f"{path} does not hold the weights of {backbone!r}: {len(wrong)} of {len(wanted)} tensors are "
            f"missing or have another shape, the first is {wrong[0]!r}"
        )
    return path


class FeaturePyramid(nn.Module):
    """Top-down pyramid that returns its finest level alone; no norm, no activation (BEVDet code base; the official
    neck is `second.SecondFpn`).

    With levels C4 and C5 this is the published two-level neck.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int):
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.output = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        for conv in (*self.laterals, self.output):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, levels: Sequence[Float[Tensor, "images _ _ _"]]) -> Float[Tensor, "images _ _ _"]:
        """Finest map of the pyramid. `levels`: fine to coarse."""
        fine_to_coarse = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=True)]
        merged = fine_to_coarse.pop()
        for finer in reversed(fine_to_coarse):
            merged = finer + F.interpolate(merged, size=finer.shape[-2:], mode="nearest")
        return self.output(merged)
