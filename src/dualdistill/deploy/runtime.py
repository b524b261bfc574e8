"""Deployed graphs on samples: inputs, every form and runtime, and decoding as in the student."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from dualdistill.deploy.freeze import Format, FrozenStudent, cameras_of, rig_geometry
from dualdistill.deploy.graph import Deployable, Precision, deployable, write_onnx
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.center_decode import decode
from dualdistill.structures import Batch, Boxes, HeadOutput

Run = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""A graph: named inputs of one sample to named outputs."""


def frame_inputs(
    student: BevDepth, batch: Batch, *, any_rig: bool, frame: int = 0, previous_map: Tensor | None = None
) -> dict[str, Tensor]:
    """Inputs of the graph of `student` for one frame of a sample.

    Args:
        any_rig: True if the graph takes the cameras' `RigGeometry`.
        frame: 1 is the earlier one.
        previous_map: Map of the earlier frame, for a student that takes one; None is an empty map.
    """
    cameras = cameras_of(batch)
    inputs = {"images": cameras.images[0, frame].contiguous()}
    if student.config.temporal.warps:
        if previous_map is None:
            previous_map = torch.zeros(1, student.config.lift.context_channels, *student.grid.shape)
        inputs |= {"previous_map": previous_map, "previous_from_current": cameras.previous_from_current}
    return inputs | (vars(rig_geometry(student, batch, frame)) if any_rig else {})


def predictions_of(run: Run, student: BevDepth, batch: Batch, *, any_rig: bool) -> HeadOutput:
    """Maps of the head for one sample, by a graph of `student`; of two frames the earlier one is processed first."""
    previous = None
    if student.config.temporal.warps:
        previous = run(frame_inputs(student, batch, any_rig=any_rig, frame=1))["map"]
    outputs = run(frame_inputs(student, batch, any_rig=any_rig, previous_map=previous))
    return HeadOutput(heatmap=outputs["heatmap"], regression=outputs["regression"])


def decode_boxes(student: BevDepth, head: HeadOutput, batch: Batch) -> Boxes:
    """Detections of one sample as of `BevDepth.detect`, velocities in metres a second."""
    (boxes,) = decode(head, student.grid, student.config.head)
    if not student.config.temporal.warps:
        return boxes
    return replace(boxes, velocity=boxes.velocity / cameras_of(batch).frame_gap[0])


class OnnxRun:
    """An ONNX file in ONNX Runtime, on the CPU."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = self.session.run(self.outputs, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(self.outputs, arrays, strict=True)}


Maps = tuple[Tensor, Tensor]
"""Heat maps and regression maps of a head."""


def deployed_forms(student: BevDepth, batch: Batch, folder: Path) -> dict[str, Callable[[], Maps]]:
    """The frozen student for one rig, by name: as a PyTorch graph, in ONNX Runtime and in OpenVINO, if installed.

    A student of two frames gets the map of the earlier frame, as in a drive: one frame's images are processed. `batch`
    is one sample; exported files are written to `folder`. Raises UserError for a student that cannot be exported.
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
