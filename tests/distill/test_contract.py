"""The contract of every distiller. A new one adds a line to `DISTILLERS`."""

import json
from dataclasses import asdict

import pytest
import torch
from torch.testing import assert_close

from dualdistill.distill.distillbev import DistillBevConfig
from dualdistill.distill.dualdistill import CrdConfig, DualDistillConfig, MfdConfig
from dualdistill.distill.labeldistill import LabelDistillConfig, ResponseConfig
from dualdistill.distill.tig_bev import TigBevConfig
from dualdistill.distill.x3kd import X3kdConfig, XfdConfig, XisConfig, XodConfig
from dualdistill.structures import weighted_sum

DISTILLERS = {
    "dualdistill": DualDistillConfig(),
    "dualdistill-mfd": DualDistillConfig(crd=None),
    "dualdistill-crd": DualDistillConfig(mfd=None),
    "dualdistill-neck": DualDistillConfig(mfd=MfdConfig(student_stages=(), teacher_stages=())),
    "dualdistill-ground-truth": DualDistillConfig(crd=CrdConfig(labels="ground_truth")),
    "dualdistill-released": DualDistillConfig(mfd=MfdConfig(alignment="aoa-released")),
    "dualdistill-attention": DualDistillConfig(mfd=MfdConfig(alignment="attention")),
    "dualdistill-orthogonal": DualDistillConfig(mfd=MfdConfig(alignment="orthogonal")),
    "dualdistill-upsample": DualDistillConfig(mfd=MfdConfig(alignment="upsample-conv")),
    "distillbev": DistillBevConfig(),
    "tig-bev": TigBevConfig(keypoints=6),
    "labeldistill": LabelDistillConfig(),
    "labeldistill-switches": LabelDistillConfig(partition="key_frame", response=ResponseConfig(target="soft")),
    "labeldistill-no-partition": LabelDistillConfig(partition="none"),
    "x3kd": X3kdConfig(refine_channels=8),
    "x3kd-canvas": X3kdConfig(
        refine_channels=8, level="canvas", xfd=XfdConfig(reduce="balanced"), xod=XodConfig(positives="peak")
    ),
    "x3kd-neck-instances": X3kdConfig(level="neck", xis=XisConfig()),
}

each_distiller = pytest.mark.parametrize("config", DISTILLERS.values(), ids=DISTILLERS)


def maps(output) -> list[torch.Tensor]:
    """Everything of a detector that a gradient could reach."""
    found = [
        output.canvas,
        *output.stages,
        output.neck,
        output.predictions.heatmap,
        output.predictions.regression,
    ]
    return found + ([output.camera.features, output.camera.depth_logits] if output.camera else [])


@each_distiller
def test_losses_are_finite_float32_scalars_named_as_the_weights(config, make_pair):
    pair = make_pair()
    losses = pair.build(config)(pair.teacher, pair.student, pair.targets)
    assert losses.keys() == config.weights.keys()
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert loss.dtype == torch.float32, name
        assert loss.isfinite(), name


@each_distiller
def test_gradients_reach_every_own_parameter_and_the_student_but_never_the_teacher(config, make_pair):
    pair = make_pair()
    distiller = pair.build(config)
    weighted_sum(distiller(pair.teacher, pair.student, pair.targets), config.weights).backward()
    for name, parameter in distiller.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert any(m.grad is not None and m.grad.any() for m in maps(pair.student))
    assert all(m.grad is None for m in maps(pair.teacher))


@each_distiller
def test_it_owns_nothing_of_the_detectors(config, make_pair):
    pair = make_pair()
    before = {name: tensor.clone() for name, tensor in pair.teacher.head.state_dict().items()}
    distiller = pair.build(config).train()
    weighted_sum(distiller(pair.teacher, pair.student, pair.targets), config.weights).backward()
    heads = {id(p) for output in (pair.teacher, pair.student) for p in output.head.parameters()}
    assert not heads & {id(p) for p in distiller.parameters()}
    for name, tensor in pair.teacher.head.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@each_distiller
@pytest.mark.parametrize(("batch", "boxes"), [(1, 4), (2, 0), (1, 0)])
def test_one_sample_and_empty_scenes_are_legal(config, batch, boxes, make_pair):
    pair = make_pair(batch=batch, boxes=boxes)
    losses = pair.build(config)(pair.teacher, pair.student, pair.targets)
    weighted_sum(losses, config.weights).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(m.grad is None or m.grad.isfinite().all() for m in maps(pair.student))


@each_distiller
def test_half_precision_detectors_change_nothing_but_their_rounding(config, make_pair):
    full, half = make_pair(), make_pair(dtype=torch.bfloat16)
    distiller = full.build(config).eval()
    expected = distiller(full.teacher, full.student, full.targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses = distiller(half.teacher, half.student, half.targets)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32, name
        assert_close(loss, expected[name], rtol=1e-4, atol=1e-6)


@each_distiller
def test_saved_and_loaded_it_is_the_same(config, make_pair):
    pair = make_pair()
    distiller, other = pair.build(config).eval(), pair.build(config).eval()
    other.load_state_dict(distiller.state_dict())
    expected = distiller(pair.teacher, pair.student, pair.targets)
    for name, loss in other(pair.teacher, pair.student, pair.targets).items():
        assert torch.equal(loss, expected[name]), name


@each_distiller
def test_its_config_is_plain_values(config):
    assert json.loads(json.dumps(asdict(config))).keys() == asdict(config).keys()


@each_distiller
def test_parameters_spared_from_weight_decay_exist(config, make_pair):
    distiller = make_pair().build(config)
    assert distiller.no_weight_decay() <= dict(distiller.named_parameters()).keys()
