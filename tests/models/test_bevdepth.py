from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from dualdistill.models.bevdepth import BevDepth, BevDepthConfig, distill_bevdepth, official_bevdepth
from dualdistill.models.bevdepth_config import BevConfig, LiftConfig
from dualdistill.structures import Batch, HeadOutput, weighted_sum
from tests.models.camera_batches import camera_batch, small, students

STUDENTS = pytest.mark.parametrize("config", students().values(), ids=students().keys())


def moved(batch: Batch, **changes: object) -> Batch:
    assert batch.cameras is not None
    return replace(batch, cameras=replace(batch.cameras, **changes))


# ------------------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (distill_bevdepth(), 53_218_078),
        (distill_bevdepth(final_norm=False), 53_217_566),
        (distill_bevdepth(frames=1, final_norm=False), 52_885_214),
        (distill_bevdepth(backbone="resnet101"), 72_210_206),
        (official_bevdepth(frames=1), 75_752_270),
        (official_bevdepth(), 76_384_590),
        (official_bevdepth(refine=True), 76_615_550),
        (official_bevdepth(refine=True, backbone="resnet101"), 95_607_678),
    ],
)
def test_published_students_have_exactly_the_published_number_of_parameters(config, parameters):
    with torch.device("meta"):
        model = BevDepth(config)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_so_has_each_part_of_the_distilled_student():
    with torch.device("meta"):
        model = BevDepth(distill_bevdepth())
    parts = {
        model.image.backbone: 23_508_032,
        model.image.neck: 3_933_696,
        model.depth_net: 5_097_633 - 124_617,
        model.preprocess: 184_896,
        model.encoder.stages: 12_541_824,
        model.encoder.neck: 6_556_928,
        model.head: 1_519_686,
    }
    assert {part: sum(p.numel() for p in part.parameters()) for part in parts} == parts


# --------------------------------------------------------------------------------------------------- contract


@STUDENTS
def test_every_student_keeps_the_contract_of_a_detector(config):
    model, batch = BevDepth(config), camera_batch()
    output = model(batch)
    cells = config.bev.grid.width
    assert output.extent == pytest.approx((-51.2, -51.2, 51.2, 51.2))
    assert output.canvas.shape == (2, 8 * config.temporal.frames, cells, cells)
    assert [tuple(stage.shape[1:]) for stage in output.stages] == [
        (width, cells // 2**level, cells // 2**level) for level, width in enumerate((16, 24, 32), start=1)
    ]
    assert all((stage >= 0).all() for stage in output.stages)
    assert output.neck.shape == (2, 16, cells, cells)
    assert output.camera.features.shape == (2, 6, 16, 4, 12)
    assert output.camera.depth_logits.shape == (2, 6, config.lift.bins, 4, 12)
    assert_close(output.head(output.neck).heatmap.shape, output.predictions.heatmap.shape)
    targets = model.targets(batch)
    assert targets.heatmap.shape == output.predictions.heatmap.shape
    assert targets.depth is batch.depth
    assert len(model.detect(output, batch)) == 2


@STUDENTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_reaches_every_parameter_with_a_finite_gradient(config, dtype):
    model, batch = BevDepth(config), camera_batch()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        losses = model.losses(model(batch), model.targets(batch))
    assert losses.keys() == model.weights.keys()
    weighted_sum(losses, model.weights).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@STUDENTS
def test_samples_of_a_batch_do_not_mix_in_evaluation(config):
    model, batch = BevDepth(config).eval(), camera_batch()
    first = replace(
        batch,
        boxes=batch.boxes[:1],
        augmented_from_bev=batch.augmented_from_bev[:1],
        cameras=replace(batch.cameras, **{name: value[:1] for name, value in vars(batch.cameras).items()}),
        depth=batch.depth[:1],
    )
    with torch.no_grad():
        assert_close(model(first).neck, model(batch).neck[:1], rtol=1e-4, atol=1e-5)


@STUDENTS
def test_the_order_of_the_cameras_does_not_matter(config):
    model, batch = BevDepth(config).eval(), camera_batch()
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    per_camera = ("images", "intrinsics", "augmented_from_image", "bev_from_camera")
    shuffled = moved(batch, **{name: getattr(batch.cameras, name)[:, :, order] for name in per_camera})
    with torch.no_grad():
        assert_close(model(shuffled).canvas, model(batch).canvas, rtol=1e-4, atol=1e-4)


def test_only_the_head_and_depth_have_losses_with_weights_of_the_papers():
    assert BevDepthConfig().weights["depth"] == 100.0
    assert official_bevdepth().weights["depth"] == 3.0
    assert BevDepthConfig() == distill_bevdepth()


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("make", [distill_bevdepth, official_bevdepth])
def test_the_lifted_map_has_the_stride_asked_for(make, stride):
    config = small(make())
    model = BevDepth(replace(config, image=replace(config.image, stride=stride)))
    batch = camera_batch(batch=1, stride=stride)
    output = model.eval()(batch)
    assert output.camera.depth_logits.shape[-2:] == (64 // stride, 192 // stride)
    assert model.losses(output, model.targets(batch))["depth"].isfinite()


def test_the_toy_configuration_of_the_official_code_has_its_shapes():
    config = small(official_bevdepth())
    lift = replace(config.lift, depth_range=(2.0, 22.0), depth_step=1.0, context_channels=10)
    model = BevDepth(replace(config, lift=lift, bev=replace(config.bev, reach=10.0, cell=0.5))).eval()
    output = model(camera_batch(width=64))
    assert output.canvas.shape == (2, 20, 40, 40)
    assert output.camera.depth_logits.shape == (2, 6, 20, 4, 4)


def test_levels_of_odd_width_meet_in_the_pyramid():
    output = BevDepth(small(distill_bevdepth(frames=1))).eval()(camera_batch(frames=1, width=176))
    assert output.camera.features.shape[-2:] == (4, 11)  # and six columns at stride 32


# --------------------------------------------------------------------------------------------------- geometry


def lifted_only(config: BevDepthConfig) -> BevDepth:
    """Without what is not equivariant: the blocks after pooling, and the gate that reads the pose."""
    model = BevDepth(replace(config, temporal=replace(config.temporal, frames=1))).eval()
    torch.nn.init.zeros_(model.depth_net.gate.weight)
    return model


@pytest.mark.parametrize(
    ("linear", "turned"),
    [
        (((-1.0, 0.0), (0.0, 1.0)), lambda canvas: canvas.flip(3)),
        (((1.0, 0.0), (0.0, -1.0)), lambda canvas: canvas.flip(2)),
        (((0.0, -1.0), (1.0, 0.0)), lambda canvas: canvas.rot90(-1, (2, 3))),
    ],
    ids=["flip of x", "flip of y", "quarter turn"],
)
def test_augmenting_the_world_augments_the_map(linear, turned):
    model, batch = lifted_only(small(distill_bevdepth())), camera_batch(frames=1)
    augmentation = torch.eye(4)
    augmentation[:2, :2] = torch.tensor(linear)
    augmented = moved(batch, bev_from_camera=augmentation @ batch.cameras.bev_from_camera)
    with torch.no_grad():
        plain, changed = model(batch).canvas, model(augmented).canvas
    assert_close(changed.sum(), plain.sum(), rtol=1e-3, atol=1e-3)
    differing = ((changed - turned(plain)).abs() > 1e-3).any(dim=1).float().mean()
    assert differing < 0.02  # points that sit on the border of two cells


def test_with_one_hot_depth_a_pixel_lands_where_its_ray_is_that_far():
    model, batch = lifted_only(small(distill_bevdepth())), camera_batch(batch=1, frames=1)
    depth_bin, row, column, camera = 4, 2, 5, 1  # at 17 m, in the middle of the front camera
    logits = torch.full((6, model.config.lift.bins, 4, 12), -1e4)
    logits[:, depth_bin] = 0.0
    context = torch.zeros(6, 8, 4, 12)
    context[camera, :, row, column] = 1.0
    model.depth_net = Recorded(logits, context)
    with torch.no_grad():
        canvas = model(batch).canvas
    assert_close(canvas.sum(), torch.tensor(8.0))
    y, x = canvas[0, 0].nonzero()[0].tolist()
    u, depth = column * 191 / 11, 1.0 + 4.0 * depth_bin
    x_camera = (u / 0.11 - 816.3) / 1266.4 * depth
    assert model.grid.cells(torch.tensor([x_camera, 1.0 + depth])).tolist() == [x, y]


class Recorded(torch.nn.Module):
    def __init__(self, *answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, features: torch.Tensor, vector: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.answer


# --------------------------------------------------------------------------------------------------- temporal


@pytest.mark.parametrize("make", [distill_bevdepth, official_bevdepth])
def test_a_first_frame_standing_in_for_its_predecessor_is_fused_with_itself(make):
    model, batch = BevDepth(small(make())).eval(), camera_batch(same_frames=True)
    with torch.no_grad():
        current, previous = model(batch).canvas.chunk(2, dim=1)
    assert_close(previous, current, rtol=1e-4, atol=1e-4)
    assert current.any()


def test_the_official_student_lifts_the_earlier_frame_to_where_its_cameras_were():
    model, batch = BevDepth(small(official_bevdepth())).eval(), camera_batch()
    same_images = batch.cameras.images[:, :1].expand_as(batch.cameras.images).contiguous()
    with torch.no_grad():
        current, previous = model(moved(batch, images=same_images)).canvas.chunk(2, dim=1)
    # the cameras stood one cell (3.2 m) further back along x: the same content, one column to the left
    assert_close(previous[..., :-1], current[..., 1:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("make", [distill_bevdepth, official_bevdepth])
def test_no_gradient_passes_through_the_earlier_frame(make):
    model, batch = BevDepth(small(make())), camera_batch()
    canvas = model(batch).canvas
    seen = [p for part in (model.image, model.depth_net) for p in part.parameters() if p.requires_grad]
    grads = torch.autograd.grad(canvas[:, 8:].square().sum(), seen, allow_unused=True, retain_graph=True)
    assert all(grad is None or not grad.any() for grad in grads)
    grads = torch.autograd.grad(canvas[:, :8].square().sum(), seen, allow_unused=True)
    assert all(grad is not None for grad in grads)


@pytest.mark.parametrize("make", [distill_bevdepth, official_bevdepth])
def test_batch_norm_learns_from_both_frames(make):
    model, batch = BevDepth(small(make())), camera_batch()
    model(batch)
    norm = model.depth_net.vector_norm
    assert norm.num_batches_tracked == 2


def test_the_distilled_student_learns_displacements_and_reports_velocities():
    model, batch = BevDepth(small(distill_bevdepth())).eval(), camera_batch()
    predictions = perfect(model, batch)
    with torch.no_grad():
        output = replace(model(batch), predictions=predictions)
    losses = model.losses(output, model.targets(batch))
    assert losses["heatmap"] < 0.01
    assert sum(loss for name, loss in losses.items() if name.startswith("box/")) < 1e-4
    cell = model.grid.cells(batch.boxes[0].center[:, :2])[0].tolist()
    for sample, gap in enumerate(batch.cameras.frame_gap):
        learnt = predictions.regression[sample, 0, 8:, cell[1], cell[0]]
        assert_close(learnt, gap * torch.tensor([3.0, 1.0]))
    for boxes in model.detect(output, batch):
        car = boxes.select(boxes.label == 0)
        assert_close(car.velocity, torch.tensor([[3.0, 1.0]]), rtol=1e-3, atol=1e-3)
        assert_close(car.center, torch.tensor([[10.0, 5.0, -1.0]]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("config", [small(distill_bevdepth(frames=1)), small(official_bevdepth())])
def test_the_others_learn_velocities_as_they_are(config):
    model, batch = BevDepth(config), camera_batch()
    cell = model.grid.cells(batch.boxes[0].center[:, :2])[0].tolist()
    learnt = perfect(model, batch).regression[:, 0, 8:, cell[1], cell[0]]
    assert_close(learnt, torch.tensor([[3.0, 1.0]]).expand(2, 2))


def perfect(model: BevDepth, batch: Batch) -> HeadOutput:
    """What the head should have said, as a head output."""
    targets = model.targets(batch).center
    size, tasks = model.grid.width, targets.index.shape[1]
    regression = torch.zeros(len(batch), tasks, 10, size * size)
    for sample, task, slot in targets.mask.nonzero().tolist():
        cell = targets.index[sample, task, slot]
        regression[sample, task, :, cell] = targets.vector[sample, task, slot].nan_to_num()
    heatmap = torch.where(targets.heatmap == 1, 12.0, -12.0)
    return HeadOutput(heatmap=heatmap, regression=regression.unflatten(3, (size, size)))


# ----------------------------------------------------------------------------------------------------- camera


@pytest.mark.parametrize("make", [distill_bevdepth, official_bevdepth])
def test_another_camera_sees_other_depths_and_officially_another_context(make):
    model = BevDepth(small(make())).eval()
    features = torch.randn(6, 16, 4, 11)
    vector = torch.randn(6, model.depth_net.vector_length)
    with torch.no_grad():
        depth, context = model.depth_net(features, vector)
        other_depth, other_context = model.depth_net(features, vector + 1)
    assert not torch.allclose(depth, other_depth)
    assert torch.equal(context, other_context) == (make is distill_bevdepth)


def test_the_official_gate_reads_the_pose_before_bev_augmentation():
    model, batch = BevDepth(small(official_bevdepth())), camera_batch()
    augmentation = torch.diag(torch.tensor([-1.05, 1.05, 1.05, 1.0]))
    augmented = replace(
        moved(batch, bev_from_camera=augmentation @ batch.cameras.bev_from_camera),
        augmented_from_bev=augmentation.expand(2, 4, 4),
    )
    plain = model.camera_vector(batch.cameras, batch.augmented_from_bev, 0)
    changed = model.camera_vector(augmented.cameras, augmented.augmented_from_bev, 0)
    assert_close(changed[:, 15:], plain[:, 15:])
    assert_close(changed[0, 10:15], torch.tensor([-1.05, 0, 0, 1.05, 1.05]))


# ----------------------------------------------------------------------------------------------------- errors


def test_what_a_student_cannot_see_is_an_error():
    model, batch = BevDepth(small(distill_bevdepth())), camera_batch(frames=1)
    with pytest.raises(ValueError, match="takes 2 frames, the batch has 1"):
        model(batch)
    with pytest.raises(ValueError, match=r"needs batch\.cameras"):
        model(replace(batch, cameras=None))


def test_depth_of_another_stride_is_an_error():
    model, batch = BevDepth(small(distill_bevdepth(frames=1))).eval(), camera_batch(stride=8)
    output = model(batch)
    with pytest.raises(ValueError, match="stride 16"):
        model.losses(output, model.targets(batch))
    with pytest.raises(ValueError, match=r"needs targets\.depth"):
        model.losses(output, model.targets(replace(batch, depth=None)))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: BevConfig(cell=0.7), "do not divide"),
        (lambda: BevConfig(reach=50.0, cell=1.0), "multiple of 8"),
        (lambda: BevConfig(encoder="resnet"), "no effect"),
        (lambda: LiftConfig(depth_range=(0.0, 60.0)), "depth_range must be .* above 0"),
        (lambda: LiftConfig(net="squeeze", hidden_channels=10), "multiple of 4"),
        (lambda: LiftConfig(z_range=(3.0, -5.0)), "lower, then an upper"),
    ],
)
def test_a_student_that_cannot_be_is_refused_when_described(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()


def test_bins_are_counted_as_published():
    assert distill_bevdepth().lift.bins == 59
    assert official_bevdepth().lift.bins == 112
    assert LiftConfig(depth_step=5.0).bins == 12  # the last one ends past the range
