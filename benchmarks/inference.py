"""The camera student at work, batch 1: the live model beside every form it can be deployed in.

Calibration is fixed everywhere: plans and cells are made before. The reference is the live model as a plain PyTorch
program would run it, float32 in the default layout, with the bag sum as pooling.
"""

import copy
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.references.pooling import cumsum_pool
from dualdistill.data.config import DataConfig
from dualdistill.deploy.freeze import FrozenStudent, rig_geometry
from dualdistill.deploy.graph import deployable
from dualdistill.deploy.runtime import Maps, deployed_forms, frame_inputs, has_bf16
from dualdistill.geometry.cameras import frustum, lift
from dualdistill.models.bevdepth import BevDepth, BevDepthConfig, official_bevdepth
from dualdistill.models.layers.depth_net import calibration_vector, pose_vector
from dualdistill.ops.bev_pool import lift_splat_pool, make_pool_plan, pool_cells
from dualdistill.recipes.catalogue import find
from dualdistill.report.timing import Row, Variant, measure
from dualdistill.structures import Batch
from dualdistill.train.data import random_batch

Pool = Callable[[Tensor, Tensor], Tensor]


def run(quick: bool) -> list[Row]:
    """BEVDepth-R50 at 256x704 (quick: the synthetic student at 64x192)."""
    recipe = find("synthetic/student" if quick else "nuscenes/student").build()
    assert recipe.student is not None
    data = replace(recipe.data, image_size=(64, 192)) if quick else recipe.data
    config = recipe.student if quick else official_bevdepth(frames=1)
    return inference_rows(config, replace(data, num_frames=1), repeats=3, compiled=not quick)


def inference_rows(config: BevDepthConfig, data: DataConfig, *, repeats: int, compiled: bool = True) -> list[Row]:
    """All forms that this machine can run.

    Args:
        config: A student of one frame.
        data: Its images' size.
        compiled: Whether to try the inductor too, where there is a C++ compiler; compiling takes a minute or two.
    """
    torch.manual_seed(0)
    student = BevDepth(config).eval()
    batch = random_batch(data)
    height, width = data.image_size
    setting = f"{config.image.backbone}, 6 cameras, {height}x{width}, one frame, {torch.get_num_threads()} threads"
    with tempfile.TemporaryDirectory() as folder:
        deployed = deployed_forms(student, batch, Path(folder))
        forms = [*_eager_forms(student, batch), *(Variant(name=name, run=run) for name, run in deployed.items())]
        if compiled and shutil.which("c++"):
            forms.append(Variant(name="inductor, frozen, fp32", run=_inductor(student, batch)))
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
    cell = pool_cells(points, *where).flatten().long()
    images = cameras.images[0, 0]

    @torch.no_grad()
    def infer(model: BevDepth, layout: torch.memory_format, pool: Pool) -> Maps:
        normal = model.image.normalised(images).contiguous(memory_format=layout)
        logits, context = model.depth_net(model.image.neck(model.image.backbone(normal)), vector)
        _, neck = model.encoder(pool(logits.float().softmax(dim=1), context))
        output = model.head(neck)
        return output.heatmap, output.regression

    bag, sums = partial(lift_splat_pool, plan=plan), partial(cumsum_pool, cell=cell, shape=plan.shape)
    rows_last = copy.deepcopy(student).to(memory_format=torch.channels_last)

    def autocast() -> Maps:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            heatmap, regression = infer(rows_last, torch.channels_last, bag)
        return heatmap.float(), regression.float()

    plain, last = torch.contiguous_format, torch.channels_last
    return [
        Variant(name="eager fp32", run=lambda: infer(student, plain, bag)),
        Variant(name="eager fp32, cumulative sum pooling (LSS)", run=lambda: infer(student, plain, sums)),
        Variant(name="eager fp32, channels-last", run=lambda: infer(rows_last, last, bag)),
        Variant(name="bf16 autocast, channels-last", run=autocast, repeats=None if has_bf16() else 1),
    ]


def _inductor(student: BevDepth, batch: Batch) -> Callable[[], Maps]:
    import torch._inductor.config as settings

    inputs = frame_inputs(student, batch, any_rig=False)
    torch._dynamo.reset()
    model: Any = torch.compile(deployable(FrozenStudent(student, rig_geometry(student, batch)), inputs).graph)

    @torch.no_grad()
    def run() -> Maps:
        with settings.patch(freezing=True):
            heatmap, regression = model(**inputs)
        return heatmap, regression

    return run
