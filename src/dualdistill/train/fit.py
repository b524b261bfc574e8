"""Run the steps: a Trainer around the module, the loader and the callbacks."""

import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from dualdistill.models.checkpoints import load_weights
from dualdistill.train.callbacks import Checkpointer, MetricsLogger
from dualdistill.train.module import TrainingModule
from dualdistill.train.run_folder import RunFolder


def fit(
    module: TrainingModule,
    loader: DataLoader[Any],
    run: RunFolder,
    *,
    role: str,
    facts: dict[str, Any],
    say: Callable[[int, int, str], None],
    devices: int = 1,
) -> bool:
    """Take the steps that are left and keep the run folder up to date.

    Args:
        role: "student", "teacher" or "label_encoder": the name of the weights file.
        facts: Plain JSON that goes into the metadata of every weights file.
        say: Told the step, the number of steps, and a line about the last one.
        devices: Processes; more than one means distributed data parallel.

    Returns:
        Whether training came to its end (False: the user interrupted it; the last checkpoint is where to go on).
    """
    keeper = Checkpointer(run, role, facts)
    recorder = MetricsLogger(run, say, resumed_at=module.start_step)
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = pl.Trainer(
        accelerator="auto",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision="bf16-mixed" if module.config.precision == "bf16" else "32-true",
        max_steps=module.total_steps - module.start_step,
        accumulate_grad_batches=module.config.accumulate,
        callbacks=[recorder, keeper],  # what a checkpoint has seen is on record before it is there
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        # Advice of Lightning that does not hold here: workers are chosen by the caller, the log interval is ours.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of PyTorch
        trainer.fit(module, loader)
    return not keeper.interrupted


def rank() -> int:
    """Number of this process in a distributed training, as its launcher says (Lightning's own, torchrun, SLURM); 0
    leads: it alone keeps a run folder and talks."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def restore(module: TrainingModule, checkpoint: Path, role: str) -> None:
    """Put a module back to where a checkpoint left it: weights, average and optimiser."""
    state = checkpoint / "training_state"
    kept = checkpoint / f"{role}.safetensors"
    if module.average is not None:
        load_weights(module.average.module, kept)
        module.average.n_averaged.fill_(module.start_step)
        kept = state / "raw_weights.safetensors"
    load_weights(module.detector, kept)
    if module.parts.distiller is not None:
        load_weights(module.parts.distiller, checkpoint / "distiller.safetensors")
    saved = torch.load(state / "optimiser.pt", map_location="cpu", weights_only=True)
    module.optimiser_state = saved["optimiser"]
    if module.parts.bound is not None:
        module.parts.bound.load_state_dict(saved["gradient_bound"])


def step_of(checkpoint: Path) -> int:
    """Number of steps done at a checkpoint folder `step_000400`."""
    return int(checkpoint.resolve().name.removeprefix("step_"))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]
