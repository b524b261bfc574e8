"""The camera student at work, batch 1: the live model beside every form it can be deployed in.

Calibration is fixed everywhere: plans and cells are made before. The reference is the live model as a plain PyTorch
program would run it, float32 in the default layout, its pooling the fast one already.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import Row, Variant, measure
from benchmarks.pooling import Size, rig
from benchmarks.references.pooling import cumsum_pool
from dualdistill.deploy.freeze import Format, FrozenStudent
from dualdistill.deploy.graph import Deployable, Precision, deployable, write_onnx
from dualdistill.deploy.rig_geometry import rig_geometry
from dualdistill.deploy.runtime import OnnxRun, frame_inputs
from dualdistill.geometry.frustum import frustum, lift
from dualdistill.models.bevdepth import BevDepth, BevDepthConfig, official_bevdepth
from dualdistill.models.layers.camera_vector import calibration_vector, pose_vector
from dualdistill.ops.bev_pool import lift_splat_pool, make_pool_plan, pool_cells
from dualdistill.recipes import synthetic
from dualdistill.structures import Batch, Boxes, Cameras

Maps = tuple[Tensor, Tensor]
Pool = Callable[[Tensor, Tensor], Tensor]


def run(quick: bool) -> list[Row]:
    """BEVDepth-R50 at 256x704 (quick: the synthetic student at 64x192)."""
    if quick:
        config = synthetic.student().student
        assert config is not None
        return inference_rows(config, (64, 192), repeats=3, compiled=False)
    return inference_rows(official_bevdepth(frames=1), (256, 704), repeats=3)


def inference_rows(
    config: BevDepthConfig, image_size: tuple[int, int], *, repeats: int, compiled: bool = True
) -> list[Row]:
    """All forms that this machine can run.

    Args:
        config: Of a student of one frame.
        compiled: Whether to try the inductor too, where there is a C++ compiler; compiling takes a minute or two.
    """
    torch.manual_seed(0)
    student = BevDepth(config).eval()
    batch = _random_sample(config, image_size)
    height, width = image_size
    setting = f"{config.image.backbone}, 6 cameras, {height}x{width}, one frame, {torch.get_num_threads()} threads"
    with tempfile.TemporaryDirectory() as folder:
        forms = [*_eager_forms(student, batch), *_deployed_forms(student, batch, Path(folder), compiled)]
        return measure(f"inference ({setting})", forms, repeats=repeats)


def _eager_forms(student: BevDepth, batch: Batch) -> list[Variant]:
    """The live model's parts, in both layouts, with the pooling of the papers and ours, and under autocast."""
    cameras = batch.cameras
    assert cameras is not None
    matrices = (cameras.intrinsics[:, 0], cameras.augmented_from_image[:, 0], cameras.bev_from_camera[:, 0])
    gated = student.config.lift.net == "gated"
    vector = pose_vector(*matrices) if gated else calibration_vector(*matrices, batch.augmented_from_bev)
    height, width = cameras.images.shape[-2:]
    stride = student.config.image.stride
    points = lift(frustum((height, width), (height // stride, width // stride), student.depths), *matrices)
    where = (student.grid, student.config.lift.z_range, student.config.lift.index)
    plan = make_pool_plan(points, *where)
    _, row, column = pool_cells(points, *where).view(-1, 3).unbind(dim=1)
    cell = torch.where(row >= 0, row * student.grid.width + column, -1)
    images = cameras.images[0, 0]

    @torch.no_grad()
    def look(model: BevDepth, layout: torch.memory_format, pool: Pool) -> Maps:
        normal = model.image.normalised(images).contiguous(memory_format=layout)
        logits, context = model.depth_net(model.image.neck(model.image.backbone(normal)), vector)
        _, neck = model.encoder(pool(logits.float().softmax(dim=1), context))
        answer = model.head(neck)
        return answer.heatmap, answer.regression

    def bag(depth: Tensor, context: Tensor) -> Tensor:
        return lift_splat_pool(depth, context, plan)

    def sums(depth: Tensor, context: Tensor) -> Tensor:
        return cumsum_pool(depth, context, cell, plan.shape)

    rows_last = copy.deepcopy(student).to(memory_format=torch.channels_last)

    def autocast() -> Maps:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            heatmap, regression = look(rows_last, torch.channels_last, bag)
        return heatmap.float(), regression.float()

    plain, last = torch.contiguous_format, torch.channels_last
    return [
        Variant(name="eager fp32", run=lambda: look(student, plain, bag)),
        Variant(name="eager fp32, cumulative sum pooling (LSS)", run=lambda: look(student, plain, sums)),
        Variant(name="eager fp32, channels-last", run=lambda: look(rows_last, last, bag)),
        Variant(name="bf16 autocast, channels-last", run=autocast, repeats=None if has_bf16() else 1),
    ]


def _deployed_forms(student: BevDepth, batch: Batch, folder: Path, compiled: bool) -> list[Variant]:
    """The frozen graph: in PyTorch, through the compiler, and in the runtimes that are installed."""

    def frozen(format: Format, precision: Precision = "fp32") -> Deployable:
        graph = FrozenStudent(student, rig_geometry(student, batch), format=format)
        return deployable(graph, frame_inputs(student, batch, any_rig=False), precision)

    folded, low = frozen("torch"), frozen("torch", "bf16")
    inputs = folded.inputs
    once = None if has_bf16() else 1
    forms = [
        Variant(name="folded, channels-last (model.pt2)", run=lambda: _maps(folded(inputs))),
        Variant(name="folded, bf16 weights (model.pt2)", run=lambda: _maps(low(inputs)), repeats=once),
    ]
    if compiled and shutil.which("c++"):
        precisions = [("fp32", folded), ("bf16", low)] if has_bf16() else [("fp32", folded)]
        for name, graph in precisions:
            forms.append(Variant(name=f"inductor, frozen, {name}", run=_inductor(graph)))
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        write_onnx(folder / "model.onnx", frozen("onnx"))
        session = OnnxRun(folder / "model.onnx")
        forms.append(Variant(name="ONNX Runtime (model.onnx)", run=lambda: _maps(session(inputs))))
    if find_spec("openvino"):
        hints = ("f32", "bf16") if has_bf16() else ("f32",)
        forms += [Variant(name=f"OpenVINO {hint} (model.pt2)", run=_openvino(folded, hint)) for hint in hints]
    return forms


def _inductor(graph: Deployable) -> Callable[[], Maps]:
    import torch._inductor.config as settings

    torch._dynamo.reset()
    model: Any = torch.compile(graph.graph)

    @torch.no_grad()
    def run() -> Maps:
        with settings.patch(freezing=True):
            heatmap, regression = model(**graph.inputs)
        return heatmap, regression

    return run


def _openvino(graph: Deployable, hint: str) -> Callable[[], Maps]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.Core().compile_model(openvino.convert_model(graph.program()), "CPU", settings)
    images = graph.inputs["images"].numpy()

    def run() -> Maps:
        heatmap, regression = (torch.from_numpy(value.copy()) for value in model([images]).values())
        return heatmap, regression

    return run


def _maps(outputs: dict[str, Tensor]) -> Maps:
    return outputs["heatmap"], outputs["regression"]


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers by itself; elsewhere they are emulated, slower than float32."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _random_sample(config: BevDepthConfig, image_size: tuple[int, int]) -> Batch:
    """Six cameras around a car, and noise for images."""
    stride = config.image.stride
    size = Size(feature=(image_size[0] // stride, image_size[1] // stride), stride=stride)
    intrinsics, augmented_from_image, bev_from_camera = rig(size)
    cameras = Cameras(
        images=torch.randint(0, 256, (1, 1, size.cameras, 3, *image_size), dtype=torch.uint8),
        intrinsics=intrinsics[None],
        augmented_from_image=augmented_from_image[None],
        bev_from_camera=bev_from_camera[None],
        previous_from_current=torch.eye(4)[None],
        frame_gap=torch.ones(1),
    )
    return Batch(boxes=(Boxes.empty(),), augmented_from_bev=torch.eye(4)[None], meta=(), cameras=cameras)
