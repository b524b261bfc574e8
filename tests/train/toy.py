"""A training of a few numbers, for laws of the loop; `python -m tests.train.toy FOLDER` runs it in processes."""

import argparse
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import Dataset

from dualdistill.data.collate import pack
from dualdistill.experiment.training import OptimiserConfig, TrainingConfig
from dualdistill.files import write_json
from dualdistill.structures import Batch, Boxes, Losses, SampleMeta
from dualdistill.train.data import StepSampler, training_loader
from dualdistill.train.launch import StopSignals, launch, on_leader
from dualdistill.train.loop import Validate, fit
from dualdistill.train.metrics import JsonLines, MetricsLogger
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.state import Checkpoints, TrainingState
from dualdistill.train.step import Training

STEPS = 6
CONFIG = TrainingConfig(
    optimiser=OptimiserConfig(learning_rate=0.01, warmup_steps=2),
    epochs=None,
    steps=STEPS,
    batch_size=4,
    ema_decay=0.5,
    save_every=1,
    log_every=1,
)


class Detector(nn.Module):
    """Predicts the sum of a matrix from its entries."""

    weights = {"sum": 2.0}  # noqa: RUF012

    def __init__(self, dropout: float):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Tensor:
        return self.layer(batch.augmented_from_bev.flatten(1))

    def targets(self, batch: Batch) -> Tensor:
        return batch.augmented_from_bev.sum((1, 2))[:, None]

    def losses(self, output: Tensor, targets: Tensor) -> Losses:
        return {"sum": (output - targets).square().mean()}


class Samples(Dataset[Batch]):
    """Random matrices; in epoch 1 the one at `bad` is not finite, and the first one sends `signal` if that is given."""

    def __init__(self, bad: int | None = None, signal: int = 0):
        self.bad, self.signal = bad, signal

    def __len__(self) -> int:
        return 10

    def __getitem__(self, pair: tuple[int, int]) -> Batch:
        epoch, index = pair
        if epoch == 1 and self.signal:
            os.kill(os.getpid(), self.signal)
            self.signal = 0
        matrix = torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(100 * epoch + index))
        if index == self.bad and epoch == 1:
            matrix = matrix / 0
        frame = torch.eye(4, dtype=torch.float64)
        meta = SampleMeta(token=f"sample{index}", timestamp_us=0, global_from_bev=frame, ego_from_bev=frame)
        return Batch(boxes=(Boxes.empty(),), augmented_from_bev=matrix, meta=(meta,))


def new_run(folder: Path) -> RunFolder:
    run = RunFolder.create(folder, "toy", 0)
    write_json(run.path / "experiment.json", {})
    return run


def train(
    run: RunFolder,
    config: TrainingConfig = CONFIG,
    *,
    samples: Dataset[Batch] | None = None,
    validate: Validate | None = None,
    fabric: Fabric | None = None,
    dropout: float = 0.3,
) -> tuple[int, TrainingState]:
    """Start or go on; returns the signal that stopped it and the state."""
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    state = TrainingState.initial(Training(Detector(dropout)), config)
    facts = {"recipe": "toy"}
    checkpoints = Checkpoints(run, role="student", facts=facts, keep_last=config.keep_last, lead=fabric.is_global_zero)
    if run.all_checkpoints():
        checkpoints.restore_newest(state)
    total = config.total_steps(10)
    first, last = state.step * config.accumulate, total * config.accumulate
    rank, world = fabric.global_rank, fabric.world_size
    order = StepSampler(10, config.batch_size, first=first, last=last, seed=0, rank=rank, world=world)
    loader = training_loader(samples or Samples(), pack, order, workers=0)
    metrics = MetricsLogger([JsonLines()] if fabric.is_global_zero else [])
    metrics.start(run, facts, state.step)
    with StopSignals() as signals:
        try:
            stopped = fit(
                fabric,
                state,
                loader,
                total_steps=total,
                seed=0,
                metrics=metrics,
                checkpoints=checkpoints,
                signals=signals,
                validate=validate,
                validate_every=config.validation_interval(10) or 0,
            )
        finally:
            metrics.close()
    return stopped, state


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--signal-in", type=int, help="process that gets a signal")
    parser.add_argument("--signal", type=int, default=signal.SIGTERM)
    parser.add_argument("--bad", type=int, help="sample that is not finite")
    options = parser.parse_args()
    fabric = launch(options.devices, options.nodes)
    run = RunFolder(on_leader(fabric, lambda: new_run(options.folder).path))
    mine = options.signal_in == fabric.global_rank
    samples = Samples(bad=options.bad, signal=options.signal if mine else 0)
    config = replace(CONFIG, accumulate=2, steps=STEPS)
    stopped, state = train(run, config, samples=samples, fabric=fabric, dropout=0.0)
    write = options.folder / f"process{fabric.global_rank}.json"
    write.write_text(json.dumps({"stopped": stopped, "step": state.step, "rank": fabric.global_rank}))


if __name__ == "__main__":
    main()
