"""Deployed graphs on samples: inputs, runtimes, and decoding as in the student."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dualdistill.deploy.rig_geometry import cameras_of, rig_geometry
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
