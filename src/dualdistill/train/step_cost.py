"""What one training step of an experiment takes, counted without spending it.

The step really runs, forward and backward, on a stand-in batch of one sample, but convolutions and matrix products
return zeros of the right shape at once: their arithmetic is counted, what autograd keeps of them is weighed, and
everything that depends on data (pooling plans, masks, pseudo boxes) takes its true course.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from dualdistill.distill.label_encoder import LabelEncoder
from dualdistill.experiment.experiment import Experiment
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.centerpoint import CenterPoint
from dualdistill.structures import Batch, BevOutput, weighted_sum
from dualdistill.train.assemble import build_detector, build_distillation, shapes_of
from dualdistill.train.random_batch import random_batch
from dualdistill.train.step import Detector, Distillation, channels_last, freeze, training_losses

_ADAM = 4 * 4
"""Bytes a trained parameter takes in float32: itself, its gradient, and AdamW's two moments."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """Of one sample in one training step, optimiser apart."""

    flops_forward: int
    """Of convolutions and matrix products, a multiplication and an addition being two; teacher included."""
    flops_backward: int
    activation_bytes: int
    """What autograd keeps from forward to backward."""
    parameters: dict[str, int]
    """Of the learner, the distiller, and the frozen teacher and label encoder, as far as there are any."""
    parameter_bytes: int
    """Of all of them, with gradients and AdamW's state."""
    answer: BevOutput | None
    """Of the shapes the teacher gives; None without one."""

    @property
    def flops(self) -> int:
        return self.flops_forward + self.flops_backward


class DummyStep:
    """The parts of a training, freshly initialised, and a stand-in batch for them.

    Args:
        samples: Of the batch.
        cameras: Of a sample.
        points: Of a sample; as many as the sweeps of the experiment hold, if not given.
    """

    def __init__(self, experiment: Experiment, samples: int = 1, *, cameras: int = 6, points: int | None = None):
        torch.manual_seed(0)
        self.experiment = experiment
        self.batch: Batch = random_batch(experiment.data, samples, cameras=cameras, points=points)
        self.teacher = CenterPoint(experiment.teacher) if experiment.teacher and experiment.teacher_recipe else None
        if self.teacher is not None:
            freeze(self.teacher)
        self.detector: nn.Module = build_detector(experiment, self.teacher)
        self.distillation: Distillation | None = None
        self.label_encoder: LabelEncoder | None = None
        """Frozen, beside the teacher."""
        if self.teacher is not None and isinstance(self.detector, BevDepth):
            if experiment.label_encoder is not None:
                self.label_encoder = experiment.label_encoder.build(teacher=shapes_of(self.teacher))
            self.distillation = build_distillation(
                experiment, self.detector, self.teacher, self.batch, self.label_encoder
            )
            self.distillation.train()
        channels_last(self.detector.train())

    def forward(self) -> Tensor:
        """The sum of all losses, in the recipe's precision."""
        assert isinstance(self.detector, Detector)
        weights = self.detector.weights | (self.distillation.weights if self.distillation else {})
        half = self.experiment.training.precision == "bf16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return weighted_sum(training_losses(self.detector, self.distillation, self.batch), weights)

    def step(self) -> None:
        """Forward and backward; leaves no gradients behind."""
        self.forward().backward()
        for module in (self.detector, self.distillation):
            if module is not None:
                module.zero_grad()


def step_cost(experiment: Experiment, *, cameras: int = 6, points: int | None = None) -> StepCost:
    """Count one step of one sample; arguments as of `DummyStep`."""
    with _Weightless():
        rehearsal = DummyStep(experiment, cameras=cameras, points=points)
        answer = rehearsal.distillation.taught(rehearsal.batch, "cpu") if rehearsal.distillation else None
    kept: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in _parameters(rehearsal)}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    remembering = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as forward, _Weightless() as extra, remembering:
        loss = rehearsal.forward()
    flops_forward = forward.get_total_flops() + extra.flops
    with FlopCounterMode(display=False) as backward, _Weightless() as extra:
        loss.backward()
    flops_backward = backward.get_total_flops() + extra.flops
    counts: dict[str, int] = {experiment.role: _count(rehearsal.detector, trained=True)}
    if rehearsal.distillation is not None:
        counts["distiller"] = _count(rehearsal.distillation, trained=True)
    taught_by = {"teacher": rehearsal.teacher, "label_encoder": rehearsal.label_encoder}
    frozen = {name: _count(module) for name, module in taught_by.items() if module is not None}
    average = 4 * counts[experiment.role] if experiment.training.ema_decay else 0
    return StepCost(
        flops_forward=flops_forward,
        flops_backward=flops_backward,
        activation_bytes=sum(kept.values()),
        parameters=counts | frozen,
        parameter_bytes=_ADAM * sum(counts.values()) + 4 * sum(frozen.values()) + average,
        answer=answer,
    )


def _parameters(rehearsal: DummyStep) -> list[nn.Parameter]:
    modules = [rehearsal.detector, rehearsal.distillation, rehearsal.teacher, rehearsal.label_encoder]
    return [p for module in modules if module is not None for p in module.parameters()]


def _count(module: nn.Module, *, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


_aten, _vision = torch.ops.aten, torch.ops.torchvision
_HEAVY = {
    *(_aten.convolution, _aten.convolution_backward, _aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm),
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward,
}


def _is_geometry(operation: Any, args: Any) -> bool:
    """Whether a product is one with small matrices: poses and intrinsics, whose result decides where things are."""
    return operation in {_aten.mm, _aten.bmm} and min(side for arg in args[:2] for side in arg.shape[-2:]) <= 4


class _Weightless(TorchDispatchMode):
    """Convolutions and matrix products give zeros (and their bias) without arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        """Of deformable convolutions, which PyTorch's counter does not know."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = func._overloadpacket
        if operation is _vision.deform_conv2d:
            image, weight = args[0], args[1]
            self.flops += 2 * image[:, 0].numel() * weight.numel()
            return image.new_zeros(len(image), len(weight), *image.shape[2:])
        if operation is _vision._deform_conv2d_backward:
            # gradient, input, weight, offset, mask, bias, …
            self.flops += 4 * args[1][:, 0].numel() * args[2].numel()
            return tuple(torch.zeros_like(args[number]) for number in (1, 2, 3, 4, 5))
        if operation not in _HEAVY or "out" in kwargs or _is_geometry(operation, args):
            return func(*args, **kwargs)
        shapes = func(*tree_map_only(Tensor, lambda t: t.to("meta"), args), **kwargs)
        results = tree_map_only(Tensor, lambda t: torch.zeros(t.shape, dtype=t.dtype), shapes)
        if operation is _aten.convolution and args[2] is not None:
            results = results.add_(args[2].to(results.dtype).view(-1, *[1] * (results.ndim - 2)))
        return results
