"""From a frozen student to files: a graph with folded norms, written for PyTorch or as ONNX.

The passes over the graph work on the operators of `torch.export`, not on modules, so that they apply to any backbone of
timm.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import getitem
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision  # noqa: F401  (registers the deformable convolution)
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import Graph, GraphModule, Node

from dualdistill.deploy.freeze import Format, FrozenStudent
from dualdistill.errors import optional

Precision = Literal["fp32", "bf16"]

SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx"}


@dataclass(frozen=True, kw_only=True)
class Deployable:
    """A student as a graph without classes, batch norm folded, convolutions channels last."""

    graph: GraphModule
    inputs: dict[str, Tensor]
    """Inputs of one sample by name, in the graph's order."""
    outputs: tuple[str, ...]
    any_rig: bool
    """True if the cameras' `RigGeometry` is an input, with any number of points."""

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            return dict(zip(self.outputs, self.graph(**inputs), strict=True))

    def program(self) -> ExportedProgram:
        """The graph as `torch.export` saves it."""
        return _traced(self.graph, self.inputs, self.any_rig)


def deployable(student: FrozenStudent, inputs: dict[str, Tensor], precision: Precision = "fp32") -> Deployable:
    """Graph of a frozen student, traced on one sample's inputs, with norms folded.

    Args:
        inputs: By the names of `FrozenStudent.forward`, a `RigGeometry` among them unless it is fixed.
        precision: "bf16" stores and runs convolutions in bfloat16; faster only on CPUs with such instructions.
    """
    any_rig = not student.fixed
    with torch.no_grad():
        graph = _traced(student, inputs, any_rig).module()
    inline_regions(graph)
    fold_norms(graph)
    if precision == "bf16":
        lower_precision(graph, torch.bfloat16)
    channels_last(graph)
    return Deployable(graph=graph, inputs=inputs, outputs=student.outputs, any_rig=any_rig)


def write_torch(path: Path, deployable: Deployable) -> None:
    """Write a program for `torch.export.load`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # channels-last weights do not tile their storage: no loss
        torch.export.save(deployable.program(), path)


def write_onnx(path: Path, deployable: Deployable) -> None:
    """Write an ONNX file with the names of the graph's inputs and outputs. Raises UserError where the extra is not
    installed."""
    require_onnx()
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        # Its optimiser takes minutes and changes nothing that the runtimes' own would not.
        program = torch.onnx.export(
            deployable.program(),
            kwargs=deployable.inputs,
            output_names=deployable.outputs,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        program.save(path)


def require_onnx() -> None:
    """Raises UserError where a package of the extra is missing."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        optional(module, "export", "ONNX", ", or write the PyTorch form alone with --format torch")


def _traced(module: torch.nn.Module, inputs: dict[str, Tensor], any_rig: bool) -> ExportedProgram:
    kept = Dim("kept", min=2)
    shapes = {name: {0: kept} if any_rig and name in ("point", "cell") else None for name in inputs}
    return torch.export.export(module, (), inputs, dynamic_shapes=shapes)


_CONV = torch.ops.aten.conv2d.default
_TRANSPOSED = torch.ops.aten.conv_transpose2d.input
_NORM = torch.ops.aten.batch_norm.default
_AUTOCAST_REGION = torch.ops.higher_order.wrap_with_autocast

_EXACT = "dualdistill_exact"
"""Mark of nodes that compute in float32 at any precision."""

_BIAS_AT: dict[Any, int] = {_CONV: 2, _TRANSPOSED: 2, torch.ops.torchvision.deform_conv2d.default: 4}
"""Position of the bias among the arguments of each convolution; the weight is argument 1."""


def fold_norms(module: GraphModule) -> int:
    """Fold every batch norm that is the only user of a convolution (plain, transposed or deformable) into its weights.

    Changes the module in place; returns the number of norms left.
    """
    graph = module.graph
    left = 0
    for norm in _calls(graph, [_NORM]):
        conv = norm.args[0]
        if not isinstance(conv, Node) or conv.target not in _BIAS_AT or len(conv.users) > 1:
            left += 1
            continue
        position = _BIAS_AT[conv.target]
        _, gain, shift, mean_node, variance, _, _, eps, *_ = norm.args
        assert isinstance(eps, float)
        mean = _value(module, mean_node).double()
        scale = (_value(module, variance).double() + eps).rsqrt()
        if gain is not None:
            scale = scale * _value(module, gain).double()
        weight_node = conv.args[1]
        weight = _value(module, weight_node)
        # A transposed convolution has its outputs second; those of the necks have one group.
        shape = (1, -1, 1, 1) if conv.target == _TRANSPOSED else (-1, 1, 1, 1)
        args = list(conv.args) + [None] * (position + 1 - len(conv.args))
        bias = torch.zeros_like(mean) if args[position] is None else _value(module, args[position]).double()
        bias = (bias - mean) * scale
        if shift is not None:
            bias = bias + _value(module, shift).double()
        with graph.inserting_before(conv):
            args[1] = _constant(module, (weight.double() * scale.view(shape)).to(weight.dtype), f"{weight_node}_folded")
            args[position] = _constant(module, bias.to(weight.dtype), f"{weight_node}_bias")
        conv.args = tuple(args)
        norm.replace_all_uses_with(conv)
        graph.erase_node(norm)
    _tidy(module)
    return left


def channels_last(module: GraphModule) -> None:
    """Store the weights of plain convolutions channels last, like the images; faster on CPUs."""
    for conv in _calls(module.graph, [_CONV]):
        weight = _value(module, conv.args[1])
        weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def lower_precision(module: GraphModule, dtype: torch.dtype) -> None:
    """Let plain and transposed convolutions compute in `dtype`: their weights stored so, their inputs cast.

    What the model computes in float32 under autocast stays in float32 (`inline_regions` marks it): the softmax over
    depths, the sums into cells, deformable convolutions, whose offsets are in cells, the warp of the earlier map. So do
    norms that could not be folded, and the outputs.
    """
    graph = module.graph
    for conv in _calls(graph, [_CONV, _TRANSPOSED]):
        if conv.meta.get(_EXACT):
            continue
        bias = conv.args[2] if len(conv.args) > 2 else None
        with graph.inserting_before(conv):
            args = [_cast(graph, conv.args[0], dtype), *conv.args[1:]]
            args[1] = _constant(module, _value(module, conv.args[1]).to(dtype), f"{conv.args[1]}_low")
            if bias is not None:
                args[2] = _constant(module, _value(module, bias).to(dtype), f"{bias}_low")
        conv.args = tuple(args)
    for norm in _calls(graph, [_NORM]):
        with graph.inserting_before(norm):
            norm.update_arg(0, _cast(graph, norm.args[0], torch.float32))
    (output,) = graph.find_nodes(op="output")
    with graph.inserting_before(output):
        output.args = torch.fx.map_arg(output.args, lambda arg: _cast(graph, arg, torch.float32))
    _tidy(module)


def inline_regions(module: GraphModule) -> None:
    """Inline the regions in which the model switches autocast off, marked as exact, and remove checks of the
    tracing."""
    graph = module.graph
    for region in _calls(graph, [_AUTOCAST_REGION]):
        inner, given = region.args[4], region.args[5:]
        assert isinstance(inner, Node)
        body = module.get_submodule(str(inner.target))
        assert isinstance(body, GraphModule)
        places: Any = dict(zip(body.graph.find_nodes(op="placeholder"), given, strict=True))
        before = set(graph.nodes)
        with graph.inserting_before(region):
            results: Any = graph.graph_copy(body.graph, places)
        for node in set(graph.nodes) - before:
            node.meta[_EXACT] = True
        for user in list(region.users):
            assert user.target is getitem
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
        graph.erase_node(region)
    for check in _calls(graph, [torch.ops.aten._assert_tensor_metadata.default]):
        graph.erase_node(check)
    for guard in graph.find_nodes(op="call_module"):
        graph.erase_node(guard)
    _tidy(module)


def _calls(graph: Graph, targets: Iterable[Callable[..., Any]]) -> list[Node]:
    return [node for target in targets for node in graph.find_nodes(op="call_function", target=target)]


def _value(module: GraphModule, node: Any) -> Tensor:
    """Weight or buffer of a node."""
    assert isinstance(node, Node)
    assert node.op == "get_attr", f"{node} is computed, not stored"
    path, _, name = str(node.target).rpartition(".")
    return getattr(module.get_submodule(path), name)


def _constant(module: GraphModule, value: Tensor, name: str) -> Node:
    """A new buffer of the module, as a node at the graph's insertion point."""
    module.register_buffer(name, value.detach())
    return module.graph.get_attr(name)


def _cast(graph: Graph, node: Any, dtype: torch.dtype) -> Node:
    return graph.call_function(torch.ops.aten.to.dtype, (node, dtype))


def _tidy(module: GraphModule) -> None:
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    used = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    for name, _ in [*module.named_parameters(), *module.named_buffers()]:
        if name not in used:
            path, _, last = name.rpartition(".")
            delattr(module.get_submodule(path), last)
    module.recompile()


def storage_mib(module: nn.Module) -> float:
    """Size of all weights and constants, MiB."""
    return sum(tensor.nbytes for tensor in module.state_dict().values()) / 2**20
