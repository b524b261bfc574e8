"""`gradients`: the share of each loss in the gradient of a student, and its direction relative to detection."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from dualdistill.commands.options.training import Gradients
from dualdistill.data.collate import pack
from dualdistill.errors import UserError
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.checkpoints import load_weights
from dualdistill.report.progress import progress
from dualdistill.report.table import Column, Table
from dualdistill.structures import Losses, weighted_sum
from dualdistill.train.assemble import assemble, open_dataset
from dualdistill.train.data import StepSampler, training_loader
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.session import Job

DETECTION = "detection"
"""Group of the student's own losses, without depth."""


@dataclass(frozen=True, kw_only=True)
class GradientShare:
    """One group of losses and its gradient with respect to the student's parameters; means over the batches."""

    losses: str
    """Name of the group: that of its losses without the last part."""
    loss: float
    """Weighted sum of the losses."""
    norm: float
    """Euclidean norm of the gradient."""
    share: float
    """Norm divided by the sum of the norms of all groups."""
    along_detection: float
    """Cosine between the gradient and that of the detection losses, in [-1, 1]."""


def gradient_shares(
    options: Gradients, report: Callable[[int, int], None] = lambda done, total: None
) -> list[GradientShare]:
    """Gradient shares of each group of a run's losses at a checkpoint, on the first batches of its training data, in
    training mode. No parameter is changed. `report`: called after each batch with the number of finished batches and of
    all. Raises UserError for a run of a teacher or label encoder, and where the teacher's weights are missing."""
    path, checkpoint, batches = options.run, options.checkpoint, options.batches
    run = RunFolder.open(path)
    trained = LoadedDetector.load(weights_of(path, checkpoint))
    if not isinstance(trained.detector, BevDepth):
        raise UserError(f"{path} is no run of a student: expected one, with or without a teacher.")
    job = Job.of(run, trust=options.trust)
    split, index = job.data["split"], trained.index(options.data, None)
    dataset = open_dataset(job.experiment, index, split=split, training=True, seed=job.seed)
    training = assemble(job.experiment, teacher=job.teacher, label_encoder=job.label_encoder).train()
    load_weights(training.detector, trained.path)
    if training.distiller is not None:
        load_weights(training.distiller, run.checkpoint(checkpoint) / "distiller.safetensors")
    student = training.detector
    assert isinstance(student, BevDepth)
    order = StepSampler(len(dataset), job.experiment.training.batch_size, first=0, last=batches, seed=job.seed)
    taken: dict[str, list[tuple[float, float, float]]] = {}
    for done, batch in enumerate(training_loader(dataset, pack, order, workers=0), start=1):
        for group, values in _gradients_of(training(batch.to("cpu")), training.weights, student):
            taken.setdefault(group, []).append(values)
        report(done, batches)
    means = {group: [sum(each) / batches for each in zip(*values, strict=True)] for group, values in taken.items()}
    every = sum(norm for _, norm, _ in means.values())
    return [
        GradientShare(losses=group, loss=loss, norm=norm, share=norm / every, along_detection=cosine)
        for group, (loss, norm, cosine) in means.items()
    ]


def group_of(name: str, own: dict[str, float]) -> str:
    """The group of a loss: "mfd/neck" for "mfd/neck/foreground"; the student's `own` are "detection" and "depth"."""
    if name in own:
        return "depth" if name == "depth" else DETECTION
    return name.rpartition("/")[0] or name


def _gradients_of(
    losses: Losses, weights: dict[str, float], student: BevDepth
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Weighted loss, gradient norm and cosine with the gradient of detection, by group."""
    groups: dict[str, Losses] = {}
    for name, loss in losses.items():
        groups.setdefault(group_of(name, student.weights), {})[name] = loss
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    detection: Tensor | None = None
    for group, members in groups.items():
        total = weighted_sum(members, weights)
        if not total.requires_grad:
            yield group, (float(total), 0.0, 0.0)
            continue
        each = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in each])
        detection = gradient if group == DETECTION else detection
        norm = float(gradient.norm())
        cosine = 0.0
        if detection is not None and norm > 0:
            cosine = float(gradient @ detection) / (norm * float(detection.norm()))
        yield group, (float(total.detach()), norm, cosine)


COLUMNS = (
    Column(key="losses", title="Losses"),
    Column(key="loss", title="Weighted", digits=2),
    Column(key="norm", title="Gradient norm", digits=2),
    Column(key="share", title="Share (%)", digits=0, scale=100.0),
    Column(key="along_detection", title="Cosine with detection", digits=2, signed=True),
)


def show_gradient_shares(console: Console, options: Gradients) -> list[dict[str, Any]]:
    """Print the gradient shares of a student's run and return their rows."""
    with progress(console, "gradients") as report:
        shares = gradient_shares(options, report)
    rows = [asdict(share) for share in shares]
    console.print(Table(columns=COLUMNS, rows=tuple(rows)).to_rich(console.width))
    return rows
