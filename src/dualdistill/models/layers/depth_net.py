"""Camera-aware depth networks: image features and a camera vector in, depth logits and context out.

Two designs of the same name: the gate of the BEVDet code base, which DualDistill trains
(docs/methods/bevdepth.md#gated-depth-network), and the official squeeze-and-excitation one
(docs/methods/bevdepth.md#official-depth-network). Below, the supervision of their depth by LiDAR
(docs/methods/bevdepth.md#depth-losses).
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from dualdistill.errors import DivergedError
from dualdistill.ops.blocks import conv_norm_relu, residual_stage
from dualdistill.ops.processes import mean_count

DepthAndContext = tuple[Float[Tensor, "images depth h w"], Float[Tensor, "images chan h w"]]


class GatedDepthNet(nn.Module):
    """Depth network whose depth, not its context, is gated by the camera."""

    vector_length = 33

    def __init__(
        self, in_channels: int, hidden: int, context: int, depths: int, *, blocks: int = 3, deformable: bool = True
    ):
        super().__init__()
        self.context = nn.Conv2d(in_channels, context, 1)
        self.reduce = nn.Conv2d(in_channels, hidden, 1)
        self.vector_norm = nn.BatchNorm1d(self.vector_length)
        self.gate = nn.Linear(self.vector_length, hidden)
        self.trunk = residual_stage(hidden, hidden, blocks=blocks)
        self.mix = (
            DeformableConv(hidden, hidden, modulated=True) if deformable else nn.Conv2d(hidden, hidden, 3, padding=1)
        )
        self.norm = nn.BatchNorm2d(hidden)
        self.depth = nn.Conv2d(hidden, depths, 1)

    def forward(self, x: Float[Tensor, "images _ h w"], camera: Float[Tensor, "images vector"]) -> DepthAndContext:
        gate = self.gate(self.vector_norm(camera)).sigmoid()[..., None, None]
        depth = self.trunk(self.reduce(x) * gate)
        return self.depth(self.norm(self.mix(depth))), self.context(x)


class SqueezeDepthNet(nn.Module):
    """Depth network whose depth and context are both gated by the camera, with a pyramid over the whole image."""

    vector_length = 27

    def __init__(
        self, in_channels: int, hidden: int, context: int, depths: int, *, blocks: int = 3, deformable: bool = True
    ):
        super().__init__()
        self.reduce = conv_norm_relu(in_channels, hidden, bias=True)
        self.vector_norm = nn.BatchNorm1d(self.vector_length)
        self.context_gate = CameraGate(self.vector_length, hidden)
        self.context = nn.Conv2d(hidden, context, 1)
        self.depth_gate = CameraGate(self.vector_length, hidden)
        self.trunk = residual_stage(hidden, hidden, blocks=blocks, shortcut="projection")
        self.pyramid = AtrousPyramid(hidden)
        self.mix = (
            DeformableConv(hidden, hidden, modulated=False, groups=4, bias=False)
            if deformable
            else nn.Conv2d(hidden, hidden, 3, padding=1, groups=4, bias=False)
        )
        self.depth = nn.Conv2d(hidden, depths, 1)

    def forward(self, x: Float[Tensor, "images _ h w"], camera: Float[Tensor, "images vector"]) -> DepthAndContext:
        camera = self.vector_norm(camera)
        x = self.reduce(x)
        context = self.context(x * self.context_gate(camera))
        depth = self.trunk(x * self.depth_gate(camera))
        return self.depth(self.mix(self.pyramid(depth))), context


class CameraGate(nn.Module):
    """Factors in (0, 1), one a channel, from the camera alone; officially an MLP and an SE layer."""

    def __init__(self, vector_length: int, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(vector_length, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels)
        )
        self.excite = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, camera: Float[Tensor, "images vector"]) -> Float[Tensor, "images chan 1 1"]:
        return self.excite(self.mlp(camera)[..., None, None]).sigmoid()


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: four dilations and the global mean, side by side (DeepLabv3)."""

    def __init__(self, channels: int):
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm_relu(channels, channels, kernel=1),
                *(conv_norm_relu(channels, channels, dilation=dilation) for dilation in (6, 12, 18)),
            ]
        )
        self.overview = conv_norm_relu(channels, channels, kernel=1)
        self.merge = conv_norm_relu(5 * channels, channels, kernel=1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Float[Tensor, "images chan h w"]) -> Float[Tensor, "images chan h w"]:
        overview = self.overview(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return self.dropout(self.merge(torch.cat([*(branch(x) for branch in self.branches), overview], dim=1)))


class DepthRefinement(nn.Module):
    """Residual convolutions over the plane of image column and depth, row by row
    (docs/methods/bevdepth.md#depth-refinement).

    Runs in float32.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = conv_norm_relu(channels, channels)
        self.body = nn.Sequential(*conv_norm_relu(channels, channels), *conv_norm_relu(channels, channels))
        self.output = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, volume: Float[Tensor, "images chan depth h w"]) -> Float[Tensor, "images chan depth h w"]:
        images, chan, depth, h, w = volume.shape
        with torch.autocast(volume.device.type, enabled=False):
            rows = volume.float().permute(0, 3, 1, 4, 2).reshape(images * h, chan, w, depth)
            rows = self.reduce(rows)
            rows = self.output(rows + self.body(rows))
        return rows.view(images, h, chan, w, depth).permute(0, 2, 4, 1, 3)


class DeformableConv(nn.Module):
    """3x3 convolution with learnt offsets of its nine taps; it starts as an ordinary one
    (docs/methods/bevdepth.md#deformable-convolution).

    Version 2 (`modulated`) also weights each tap. Runs in float32, also under autocast: offsets
    in bfloat16 would be rounded to whole cells on wide maps.

    Raises:
        DivergedError: on the CPU, for offsets that are not finite: torchvision would read out of bounds there and may
            end the process. (On a GPU they give NaN outputs or gradients; a check there would synchronise every step.)
    """

    def __init__(self, in_channels: int, out_channels: int, *, modulated: bool, groups: int = 1, bias: bool = True):
        super().__init__()
        self.modulated = modulated
        self.offset = nn.Conv2d(in_channels, 27 if modulated else 18, 3, padding=1)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "images _ h w"]) -> Float[Tensor, "images _ h w"]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            # 18 offsets, (dy, dx) a tap in row-major order, then nine mask logits
            offset = self.offset(x)
            if offset.device.type == "cpu" and not torch.compiler.is_compiling() and not offset.isfinite().all():
                raise DivergedError(
                    "The offsets of a deformable convolution are not finite: the weights before it diverged."
                )
            mask = offset[:, 18:].sigmoid() if self.modulated else None
            return deform_conv2d(x, offset[:, :18], self.weight, self.bias, padding=1, mask=mask)


def pose_vector(
    intrinsics: Float[Tensor, "batch cam 3 3"],
    augmented_from_image: Float[Tensor, "batch cam 4 4"],
    bev_from_camera: Float[Tensor, "batch cam 4 4"],
) -> Float[Tensor, "batch*cam 33"]:
    """Camera vector of 33 numbers: intrinsics, image augmentation (3x3, then translation), camera pose in the augmented
    BEV frame (3x3, then translation); matrices row by row (docs/methods/bevdepth.md#gated-depth-network)."""
    parts = (
        intrinsics.flatten(-2),
        augmented_from_image[..., :3, :3].flatten(-2),
        augmented_from_image[..., :3, 3],
        bev_from_camera[..., :3, :3].flatten(-2),
        bev_from_camera[..., :3, 3],
    )
    return torch.cat(parts, dim=-1).flatten(0, 1)


def calibration_vector(
    intrinsics: Float[Tensor, "batch cam 3 3"],
    augmented_from_image: Float[Tensor, "batch cam 4 4"],
    bev_from_camera: Float[Tensor, "batch cam 4 4"],
    augmented_from_bev: Float[Tensor, "batch 4 4"],
) -> Float[Tensor, "batch*cam 27"]:
    """Camera vector of 27 numbers: fx, fy, cx, cy, six of the image augmentation, five of the BEV augmentation, and the
    camera pose before BEV augmentation (3x4, row by row) (docs/methods/bevdepth.md#official-depth-network)."""
    k, a = intrinsics, augmented_from_image
    b = augmented_from_bev[:, None].expand_as(bev_from_camera)
    pose = torch.linalg.solve_ex(b, bev_from_camera)[0]  # `solve` would wait for the device to check for errors
    scalars = (
        *(k[..., 0, 0], k[..., 1, 1], k[..., 0, 2], k[..., 1, 2]),
        *(a[..., 0, 0], a[..., 0, 1], a[..., 0, 3], a[..., 1, 0], a[..., 1, 1], a[..., 1, 3]),
        *(b[..., 0, 0], b[..., 0, 1], b[..., 1, 0], b[..., 1, 1], b[..., 2, 2]),
    )
    return torch.cat([torch.stack(scalars, dim=-1), pose[..., :3, :].flatten(-2)], dim=-1).flatten(0, 1)


EMPTY = -1
"""Bin of a cell without a usable depth."""


def depth_bins(depth: Float[Tensor, "*cells"], *, first: float, step: float, count: int) -> Int[Tensor, "*cells"]:
    """Bin of each depth, metres; bin k starts at `first + k * step`. `EMPTY` below the first and past the last bin.

    The released code one-hot encodes one bin more, which starts a step before `first`, and drops it: the same.
    """
    bins = ((depth - (first - step)) / step).floor() - 1
    return torch.where((bins >= 0) & (bins < count), bins, EMPTY).long()


def sigmoid_depth_loss(logits: Float[Tensor, "images depth h w"], bins: Int[Tensor, "images h w"]) -> Float[Tensor, ""]:
    """Binary cross entropy of each bin on its own, in float32 (BEVDet code base).

    Mean over *all* elements, cells without a depth included, which count zero: a much smaller number than it looks.
    """
    with torch.autocast(logits.device.type, enabled=False):
        target, known = _one_hot(bins, logits.shape[1])
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return (loss * known).mean()


def softmax_depth_loss(
    probability: Float[Tensor, "images depth h w"], bins: Int[Tensor, "images h w"]
) -> Float[Tensor, ""]:
    """Binary cross entropy of the softmax, summed over bins, averaged over cells with a depth, in float32
    (official; in distributed training over those of the whole batch)."""
    with torch.autocast(probability.device.type, enabled=False):
        target, known = _one_hot(bins, probability.shape[1])
        probability = probability.float()
        finite = probability.isfinite()  # elsewhere the loss is NaN; PyTorch's function would end the process
        loss = F.binary_cross_entropy(probability.where(finite, 0.5), target, reduction="none").where(finite, torch.nan)
        return (loss * known).sum() / mean_count(known.sum(), at_least=1.0)


def _one_hot(
    bins: Int[Tensor, "images h w"], count: int
) -> tuple[Float[Tensor, "images depth h w"], Float[Tensor, "images 1 h w"]]:
    known = (bins != EMPTY).unsqueeze(1)
    target = bins.unsqueeze(1) == torch.arange(count, device=bins.device)[:, None, None]
    return target.float(), known.float()
