"""The distiller as a whole: what is switched, refused, shared and reported."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dualdistill.distill.dualdistill import CrdConfig, DualDistillConfig, MfdConfig
from dualdistill.distill.method import DistillerInputs
from dualdistill.distill.mfd import FalsePositiveConfig
from dualdistill.structures import weighted_sum

MFD = {
    f"mfd/{level}/{term}" for level in ("stage1", "stage2", "neck") for term in ("foreground", "background", "spatial")
}
CRD = {"crd/heatmap", "crd/box/xy", "crd/box/z", "crd/box/size", "crd/box/yaw", "crd/box/velocity"}


def test_the_defaults_are_the_released_terms_and_weights():
    weights = DualDistillConfig().weights
    assert weights.keys() == MFD | {"mfd/neck/false_positive"} | CRD
    by_term = {"foreground": 6e-3, "background": 4e-2, "false_positive": 6e-2, "spatial": 2.5e-3}
    assert all(weights[name] == by_term[name.split("/")[2]] for name in weights if name.startswith("mfd/"))
    assert weights["crd/heatmap"] == 1.0
    assert weights["crd/box/xy"] == 0.25
    assert weights["crd/box/velocity"] == pytest.approx(0.05)


def test_mfd_and_crd_share_one_alignment_of_the_map_before_the_head(make_pair):
    pair = make_pair()
    distiller = pair.build(DualDistillConfig())
    assert sorted(distiller.align) == ["neck", "stage1", "stage2"]
    losses = distiller(pair.teacher, pair.student, pair.targets)
    weight = distiller.align["neck"].weight
    for part in ("mfd/neck/background", "crd/heatmap"):
        (gradient,) = torch.autograd.grad(losses[part], weight, retain_graph=True)
        assert gradient.any(), part


def test_crd_alone_needs_no_stage_and_mfd_alone_no_judge(make_pair):
    pair = make_pair()
    assert sorted(pair.build(DualDistillConfig(mfd=None)).align) == ["neck"]
    DualDistillConfig(crd=None).build(DistillerInputs(**pair.shapes))
    with pytest.raises(ValueError, match="criterion"):
        DualDistillConfig().build(DistillerInputs(**pair.shapes))


def test_switched_parts_do_not_change_the_others(make_pair):
    pair = make_pair()
    whole, crd = pair.build(DualDistillConfig()), pair.build(DualDistillConfig(mfd=None))
    crd.load_state_dict({k: v for k, v in whole.state_dict().items() if k in crd.state_dict()})
    everything = whole(pair.teacher, pair.student, pair.targets)
    for name, loss in crd(pair.teacher, pair.student, pair.targets).items():
        assert torch.equal(loss, everything[name]), name


def test_zero_weights_leave_the_student_without_a_gradient(make_pair):
    pair = make_pair()
    distiller = pair.build(DualDistillConfig())
    losses = distiller(pair.teacher, pair.student, pair.targets)
    weighted_sum(losses, dict.fromkeys(losses, 0.0)).backward()
    assert not pair.student.neck.grad.any()
    assert not pair.student.stages[1].grad.any()


def test_a_teacher_with_other_stages_is_paired_by_place(make_pair):
    pair = make_pair()
    coarse_teacher = replace(pair.teacher, stages=pair.teacher.stages[1:])
    config = DualDistillConfig(mfd=MfdConfig(teacher_stages=(0, 1)))
    pair = replace(pair, teacher=coarse_teacher)
    losses = pair.build(config)(pair.teacher, pair.student, pair.targets)
    assert losses.keys() == config.weights.keys() == DualDistillConfig().weights.keys()


def test_false_positives_can_be_told_apart_at_every_level(make_pair):
    config = DualDistillConfig(mfd=MfdConfig(false_positives=FalsePositiveConfig(levels=("stage1", "stage2", "neck"))))
    pair = make_pair()
    losses = pair.build(config)(pair.teacher, pair.student, pair.targets)
    assert sum(name.endswith("false_positive") for name in losses) == 3
    assert all(loss > 0 for name, loss in losses.items() if name.endswith("false_positive"))


def test_health_tells_a_live_projector_from_a_dead_one(make_pair):
    distiller = make_pair().build(DualDistillConfig(mfd=MfdConfig(alignment="aoa-released")))
    levels = ("stage1", "stage2")
    assert distiller.diagnostics().keys() == {
        f"{a}/{b}" for a in levels for b in ("orthogonality_error", "projector_max")
    }
    assert all(distiller.diagnostics()[f"{level}/orthogonality_error"] < 1e-5 for level in levels)
    with torch.no_grad():
        for level in levels:  # what the first weight decay that float32 can see does
            distiller.align[level].projector.raw.mul_(1 - 2**-24)
    assert all(distiller.diagnostics()[f"{level}/projector_max"] == 0 for level in levels)
    assert make_pair().build(DualDistillConfig(mfd=MfdConfig(alignment="upsample-conv"))).diagnostics() == {}


def test_a_dead_projector_passes_nothing_on_to_the_encoder_of_the_student(make_pair):
    pair = make_pair()
    distiller = pair.build(DualDistillConfig(mfd=MfdConfig(alignment="aoa-released"), crd=None))
    with torch.no_grad():
        for level in ("stage1", "stage2"):
            distiller.align[level].projector.raw.mul_(1 - 2**-24)
    weighted_sum(distiller(pair.teacher, pair.student, pair.targets), distiller.config.weights).backward()
    assert not pair.student.stages[1].grad.any()
    assert not pair.student.stages[2].grad.any()
    assert pair.student.neck.grad.any()


def test_weight_decay_spares_the_projector_but_not_the_released_one(make_pair):
    pair = make_pair()
    spared = pair.build(DualDistillConfig()).no_weight_decay()
    assert {"align.stage1.projector.raw", "align.stage2.attention.query", "align.neck.bias"} <= spared
    assert "align.neck.weight" not in spared
    assert pair.build(DualDistillConfig(mfd=MfdConfig(alignment="aoa-released"))).no_weight_decay() == set()


def test_a_criterion_that_is_a_module_is_refused(make_pair):
    class Module(nn.Module):
        def pseudo_boxes(self, predictions, temperature):
            raise NotImplementedError

        def losses_of_features(self, head, neck, boxes):
            raise NotImplementedError

    with pytest.raises(ValueError, match="must not be a module"):
        DualDistillConfig().build(DistillerInputs(**make_pair().shapes, criterion=Module()))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (DualDistillConfig, {"mfd": None, "crd": None}, "nothing to distil"),
        (CrdConfig, {"labels": "ground_truth", "temperature": 0.5}, "temperature has no effect"),
        (CrdConfig, {"temperature": 0.0}, "temperature must be a number above 0"),
        (CrdConfig, {"box_weight": -1.0}, "box_weight must be a number from 0"),
        (MfdConfig, {"student_stages": (), "teacher_stages": (), "alignment": "attention"}, "alignment has no effect"),
        (MfdConfig, {"alignment": "upsample-conv", "attention_heads": 4}, "attention_heads has no effect"),
        (MfdConfig, {"alignment": "aoa-released", "attention_residual": True}, "has no remedies"),
        (
            MfdConfig,
            {"false_positives": FalsePositiveConfig(levels=("stage0",))},
            r"among \('stage1', 'stage2', 'neck'\)",
        ),
        (MfdConfig, {"student_stages": (1,)}, "must pair up"),
        (MfdConfig, {"student_stages": (1, 1)}, "each student stage once"),
        (MfdConfig, {"background_weight": -1.0}, "background_weight must be a number from 0"),
        (FalsePositiveConfig, {"levels": ()}, "set false_positives to none"),
        (FalsePositiveConfig, {"truth_threshold": 1.5}, "truth_threshold must be a number above 0 to 1"),
        (FalsePositiveConfig, {"channel_temperature": 0.0}, "channel_temperature must be a number above 0"),
    ],
)
def test_configs_that_cannot_be_meant_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_detectors_that_do_not_fit_are_refused(make_pair):
    shapes = make_pair().shapes
    with pytest.raises(ValueError, match="the teacher has stages 0 to 1"):
        DualDistillConfig(crd=None).build(
            DistillerInputs(**shapes | {"teacher": replace(shapes["teacher"], stages=((8, 16, 16),) * 2)})
        )
    with pytest.raises(ValueError, match="one rectangle"):
        DualDistillConfig(crd=None).build(
            DistillerInputs(**shapes | {"teacher": replace(shapes["teacher"], extent=(-1.0, -1.0, 1.0, 1.0))})
        )
    with pytest.raises(ValueError, match="must have one size"):
        DualDistillConfig(crd=None).build(
            DistillerInputs(**shapes | {"teacher": replace(shapes["teacher"], neck=(24, 32, 32))})
        )
