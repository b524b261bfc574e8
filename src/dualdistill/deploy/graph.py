"""From a frozen student to files: a graph with folded norms, written for PyTorch or as ONNX."""

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from dualdistill.deploy.fold import channels_last, fold_norms, inline_regions, lower_precision
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
