"""Passes over the graph of a frozen student: batch norms folded into the convolutions before them, lower precision.

They work on the operators of `torch.export`, not on modules, so that they apply to any backbone of timm.
"""

from collections.abc import Callable, Iterable
from operator import getitem
from typing import Any

import torch
import torchvision  # noqa: F401  (registers the deformable convolution)
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

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
