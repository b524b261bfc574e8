"""Every form a student can be deployed in on the CPU, ready to run on one sample."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from dualdistill.deploy.freeze import Format, FrozenStudent
from dualdistill.deploy.graph import Deployable, Precision, deployable, write_onnx
from dualdistill.deploy.rig_geometry import rig_geometry
from dualdistill.deploy.runtime import OnnxRun, Run, frame_inputs
from dualdistill.models.bevdepth import BevDepth
from dualdistill.structures import Batch

Maps = tuple[Tensor, Tensor]
"""Heat maps and regression maps of a head."""


def deployed_forms(student: BevDepth, batch: Batch, folder: Path) -> dict[str, Callable[[], Maps]]:
    """The frozen student for one rig, by name: as a PyTorch graph, in ONNX Runtime and in OpenVINO, if installed.

    A student of two frames gets the map of the earlier frame, as in a drive: one frame's images are processed.

    Args:
        batch: One sample.
        folder: Exported files are written there.

    Raises:
        UserError: for a student that cannot be exported.
    """
    rig, inputs = rig_geometry(student, batch), frame_inputs(student, batch, any_rig=False)

    def frozen(format: Format, precision: Precision = "fp32") -> Deployable:
        return deployable(FrozenStudent(student, rig, format=format), inputs, precision)

    folded = frozen("torch")
    if "previous_map" in inputs:
        earlier = folded(frame_inputs(student, batch, any_rig=False, frame=1))["map"]
        inputs = frame_inputs(student, batch, any_rig=False, previous_map=earlier)
    forms: dict[str, Run] = {"folded, channels-last (model.pt2)": folded}
    if has_bf16():
        forms["folded, bf16 weights (model.pt2)"] = frozen("torch", "bf16")
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        write_onnx(folder / "model.onnx", frozen("onnx"))
        forms["ONNX Runtime (model.onnx)"] = OnnxRun(folder / "model.onnx")
    if find_spec("openvino"):
        for hint in ("f32", "bf16") if has_bf16() else ("f32",):
            forms[f"OpenVINO {hint} (model.pt2)"] = _openvino(folded, hint)

    def maps(form: Run) -> Maps:
        outputs = form(inputs)
        return outputs["heatmap"], outputs["regression"]

    return {name: partial(maps, form) for name, form in forms.items()}


def _openvino(graph: Deployable, hint: str) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.Core().compile_model(openvino.convert_model(graph.program()), "CPU", settings)

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        results = model([value.numpy() for value in inputs.values()]).values()
        return dict(zip(graph.outputs, (torch.from_numpy(value.copy()) for value in results), strict=True))

    return run


def has_bf16() -> bool:
    """Whether this CPU has bfloat16 instructions; without them it is emulated, several times slower than float32."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
