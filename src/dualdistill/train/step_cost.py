"""Arithmetic and memory of one training step, counted without taking it, and steps that are taken and timed.

To be counted, the step really runs, forward and backward, on a random batch of one sample, but convolutions and matrix
products return zeros of the right shape at once: their arithmetic is counted, what autograd keeps of them is weighed,
and everything that depends on data (pooling plans, masks, pseudo boxes) takes its true course.
Peak arithmetic and memory of GPUs are from NVIDIA's data sheets and architecture white papers.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from dualdistill.distill.label_encoder import LabelEncoder
from dualdistill.experiment.experiment import Experiment
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.ops.frozen import FrozenModule
from dualdistill.structures import Batch, BevOutput, weighted_sum
from dualdistill.train.assemble import assemble
from dualdistill.train.data import random_batch
from dualdistill.train.launch import configure

_ADAM = 4 * 4  # bytes of a trained parameter in float32: itself, its gradient, and AdamW's two moments


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Cost of one sample in one training step, without the optimiser."""

    flops_forward: int
    """Operations of convolutions and matrix products, a multiplication and an addition being two; teacher included."""
    flops_backward: int
    activation_bytes: int
    """Memory that autograd keeps from forward to backward."""
    parameters: dict[str, int]
    """Number by role: the trained network, "distiller", and the frozen "teacher" and "label_encoder"."""
    parameter_bytes: int
    """Memory of all of them, with gradients and AdamW's state."""
    teacher_output: BevOutput | None
    """Zeros in the shapes of the teacher's output for a sample; None without a teacher."""

    @property
    def flops(self) -> int:
        return self.flops_forward + self.flops_backward


class DummyStep:
    """An experiment's training, freshly initialised, and a random batch for it: `points` are those of a sample."""

    def __init__(self, experiment: Experiment, samples: int = 1, *, cameras: int = 6, points: int | None = None):
        torch.manual_seed(0)
        self.experiment = experiment
        self.batch: Batch = random_batch(experiment.data, samples, cameras=cameras, points=points)
        self.training = assemble(experiment)

    def forward(self, distil: bool = True) -> Tensor:
        """The sum of all losses, in the recipe's precision."""
        half = self.experiment.training.precision == "bf16"
        with torch.autocast(self.batch.augmented_from_bev.device.type, torch.bfloat16, enabled=half):
            return weighted_sum(self.training(self.batch, distil), self.training.weights)

    def step(self) -> None:
        """Forward and backward; leaves no gradients behind."""
        self.forward().backward()
        self.training.zero_grad()


def step_cost(experiment: Experiment, *, cameras: int = 6, points: int | None = None) -> StepCost:
    """Count one step of one sample; arguments as of `DummyStep`."""
    with _Weightless():
        dummy = DummyStep(experiment, cameras=cameras, points=points)
        training = dummy.training
        output = training.teacher(dummy.batch) if training.teacher is not None else None
    roles = {CenterPoint: "teacher", LabelEncoder: "label_encoder"}
    held = [each.module for each in training.modules() if isinstance(each, FrozenModule)]
    frozen = {role: module for kind, role in roles.items() for module in held if isinstance(module, kind)}
    saved: dict[int, int] = {}
    modules = [*training.learners, *frozen.values()]
    parameters = {p.untyped_storage().data_ptr() for module in modules for p in module.parameters()}

    def weigh(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    saving = torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor)
    with _Weightless(), flop_counter() as forward, saving:
        loss = dummy.forward()
    with _Weightless(), flop_counter() as backward:
        loss.backward()
    learners = zip((experiment.role, "distiller"), training.learners, strict=False)
    learnt = {n: sum(p.numel() for p in module.parameters() if p.requires_grad) for n, module in learners}
    fixed = {name: sum(p.numel() for p in module.parameters()) for name, module in frozen.items()}
    average = 4 * learnt[experiment.role] if experiment.training.ema_decay else 0
    return StepCost(
        flops_forward=forward.get_total_flops(),
        flops_backward=backward.get_total_flops(),
        activation_bytes=sum(saved.values()),
        parameters=learnt | fixed,
        parameter_bytes=_ADAM * sum(learnt.values()) + 4 * sum(fixed.values()) + average,
        teacher_output=output,
    )


_aten, _vision = torch.ops.aten, torch.ops.torchvision
_HEAVY = {
    *(_aten.convolution, _aten.convolution_backward, _aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm),
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward,
}


class _Weightless(TorchDispatchMode):
    """Convolutions and matrix products give zeros (and their bias) without arithmetic."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = func._overloadpacket
        if operation is _vision.deform_conv2d:
            return args[0].new_zeros(len(args[0]), len(args[1]), *args[0].shape[2:])
        if operation is _vision._deform_conv2d_backward:
            # gradient, input, weight, offset, mask, bias, …
            return tuple(torch.zeros_like(args[number]) for number in (1, 2, 3, 4, 5))
        product = operation in {_aten.mm, _aten.bmm}
        # Small matrices are poses and intrinsics, whose product decides where things are.
        geometry = product and min(side for arg in args[:2] for side in arg.shape[-2:]) <= 4
        if operation not in _HEAVY or "out" in kwargs or geometry:
            return func(*args, **kwargs)
        shapes = func(*tree_map_only(Tensor, lambda t: t.to("meta"), args), **kwargs)
        results = tree_map_only(Tensor, lambda t: torch.zeros_like(t, device="cpu"), shapes)
        if operation is _aten.convolution and args[2] is not None:
            results = results.add_(args[2].to(results.dtype).view(-1, *[1] * (results.ndim - 2)))
        return results


class TimedStep:
    """Training steps of an experiment on a random batch that is on the device: forward, backward, clipping, AdamW."""

    def __init__(self, experiment: Experiment, samples: int, device: str):
        self.dummy = dummy = DummyStep(experiment)
        dummy.batch = random_batch(experiment.data, samples).to(device)  # only now: the parts were built on one sample
        configure(dummy.training.to(device), experiment.training)
        self.parameters = [p for module in dummy.training.learners for p in module.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=1e-6, fused=True)

    def __call__(self, distil: bool = True) -> None:
        self.dummy.forward(distil).backward()
        nn.utils.clip_grad_norm_(self.parameters, 5.0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of the operations of convolutions and matrix products, a multiplication and an addition being
    two, and of deformable convolutions of stride 1, which it leaves out."""

    def taps(image: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        batch, _chan, height, width = image
        return 2 * batch * height * width * math.prod(weight)

    backward = _vision._deform_conv2d_backward
    deformable: dict[Any, Any] = {_vision.deform_conv2d: taps, backward: lambda _, *shapes, **__: 2 * taps(*shapes)}
    return FlopCounterMode(display=False, custom_mapping=deformable)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU model."""

    name: str
    bf16_tflops: float
    """10^12 operations a second of dense (not sparse) bf16 matrix products with float32 accumulation."""
    memory_gb: int
    pattern: str
    """Regular expression of the name that CUDA reports for it."""

    def peak_tflops(self, precision: str) -> float:
        """Peak of a training in "bf16" or "32", where matrix products run in TF32 at half the rate of bf16."""
        return self.bf16_tflops if precision == "bf16" else self.bf16_tflops / 2


GPUS = (
    Gpu(name="RTX 3090", bf16_tflops=71, memory_gb=24, pattern=r"RTX 3090$"),
    Gpu(name="RTX 4090", bf16_tflops=165, memory_gb=24, pattern=r"RTX 4090$"),
    Gpu(name="L40S", bf16_tflops=362, memory_gb=48, pattern=r"L40S"),
    Gpu(name="A100 40 GB", bf16_tflops=312, memory_gb=40, pattern=r"A100.*40GB"),
    Gpu(name="A100 80 GB", bf16_tflops=312, memory_gb=80, pattern=r"A100.*80GB"),
    Gpu(name="H100 SXM", bf16_tflops=989, memory_gb=80, pattern=r"H100.*HBM3$"),
    Gpu(name="H200 SXM", bf16_tflops=989, memory_gb=141, pattern=r"H200$"),
)


def gpu_named(cuda_name: str) -> Gpu | None:
    """The GPU that CUDA reports under this name, such as "NVIDIA A100-SXM4-80GB"; None if it is not in the table."""
    return next((gpu for gpu in GPUS if re.search(gpu.pattern, cuda_name)), None)
