"""The label encoder, and the detector made of it that trains it (docs/methods/labeldistill.md#label-encoder)."""

from dataclasses import replace

import pytest
import torch

from dualdistill.distill.label_encoder import LabelDetector, LabelEncoderConfig
from dualdistill.distill.shapes import BevShapes
from dualdistill.models.center_head import CenterHeadConfig
from dualdistill.models.centerpoint import CenterPoint, CenterPointConfig
from dualdistill.models.checkpoints import load_weights, save_weights
from dualdistill.structures import Batch, Detector, Points, weighted_sum
from dualdistill.train.step import Training
from tests.distill.conftest import random_boxes

TEACHER = CenterPointConfig(
    reach=6.4,
    pillar=0.2,
    pillar_channels=(4,),
    stage_channels=(4, 8, 8),
    stage_layers=(0, 0, 0),
    neck_channels=8,
    head=CenterHeadConfig(shared_channels=8, head_channels=4),
)


def scene(boxes: int = 4, seed: int = 0) -> Batch:
    """Annotations only."""
    generator = torch.Generator().manual_seed(seed)
    annotations = tuple(random_boxes(boxes, generator) for _ in range(2))
    return Batch(boxes=annotations, augmented_from_bev=torch.eye(4).expand(2, 4, 4), meta=())


def shapes_of(teacher: CenterPoint) -> BevShapes:
    """Shapes of a teacher's maps, which do not depend on the input."""
    nothing = Points(features=torch.zeros(0, 5), sample=torch.zeros(0, dtype=torch.long))
    with torch.no_grad():
        return BevShapes.of(teacher.eval()(replace(scene(0), points=nothing)))


@pytest.fixture
def teacher() -> CenterPoint:
    torch.manual_seed(0)
    return CenterPoint(TEACHER)


@pytest.fixture
def detector(teacher) -> LabelDetector:
    torch.manual_seed(1)
    encoder = LabelEncoderConfig(hidden_channels=16).build(teacher=shapes_of(teacher))
    return LabelDetector(encoder, teacher)


def test_at_its_published_size_it_has_8626304_parameters():
    shapes = BevShapes(
        canvas=(256, 128, 128),
        stages=((128, 128, 128), (256, 64, 64)),
        neck=(512, 128, 128),
        extent=(-51.2, -51.2, 51.2, 51.2),
    )
    encoder = LabelEncoderConfig().build(teacher=shapes)
    assert sum(p.numel() for p in encoder.parameters()) == 8_626_304


def test_it_answers_in_the_shapes_of_the_teachers_stages(detector, teacher):
    stages = detector.encoder(scene().boxes)
    assert tuple(tuple(stage.shape[1:]) for stage in stages) == shapes_of(teacher).stages
    assert all((stage >= 0).all() for stage in stages)


def test_a_map_that_is_no_whole_part_of_the_finest_is_refused():
    shapes = BevShapes(
        canvas=(1, 16, 16), stages=((4, 16, 16), (4, 6, 6)), neck=(4, 16, 16), extent=(-6.4, -6.4, 6.4, 6.4)
    )
    with pytest.raises(ValueError, match="no whole stride"):
        LabelEncoderConfig().build(teacher=shapes)


def test_the_detector_keeps_the_contract_of_detectors(detector):
    assert isinstance(detector, Detector)
    losses = Training(detector)(scene())
    assert losses.keys() == detector.weights.keys()
    found = detector.detect(detector(scene()), scene())
    assert len(found) == 2


def test_gradients_reach_all_of_the_encoder_and_none_of_the_teacher(detector, teacher):
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    training = Training(detector.train())
    weighted_sum(training(scene()), training.weights).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert {id(p) for p in detector.parameters()} == {id(p) for p in detector.encoder.parameters()}
    assert all(p.grad is None for p in teacher.parameters())
    assert not teacher.training
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_training_it_finds_the_objects_an_untrained_one_does_not(detector):
    """A few boxes learnt by heart: the frozen head, random as it is, can be made to answer them."""
    batch = scene(boxes=2)
    optimiser = torch.optim.AdamW(detector.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        total = weighted_sum(Training(detector)(batch), detector.weights)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] / 2


def test_its_weights_file_holds_the_encoder_alone_and_loads_into_another(detector, teacher, tmp_path):
    save_weights(tmp_path / "label_encoder.safetensors", detector, {"role": "label_encoder"})
    torch.manual_seed(2)
    other = LabelDetector(LabelEncoderConfig(hidden_channels=16).build(teacher=shapes_of(teacher)), teacher)
    load_weights(other, tmp_path / "label_encoder.safetensors")
    assert all(name.startswith("encoder.") for name in other.state_dict())
    for ours, theirs in zip(detector.eval()(scene()).stages, other.eval()(scene()).stages, strict=True):
        assert torch.equal(ours, theirs)


def test_the_hidden_teacher_moves_along(detector, teacher):
    detector.double()
    assert next(teacher.parameters()).dtype == torch.float64


def test_parameters_spared_from_weight_decay_exist(detector):
    assert detector.no_weight_decay() <= dict(detector.named_parameters()).keys()
