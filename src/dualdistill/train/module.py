"""The LightningModule: one detector learning, alone or distilled."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dualdistill.experiment.training import TrainingConfig
from dualdistill.structures import Batch, weighted_sum
from dualdistill.train.schedule import learning_rate, momentum, parameter_groups
from dualdistill.train.step import Training


class TrainingModule(pl.LightningModule):
    """One detector and, if it is distilled, its distiller. Step numbers are those of the whole training: a resumed
    run begins at `start_step`, whatever Lightning's own counter says."""

    def __init__(
        self,
        parts: Training,
        config: TrainingConfig,
        *,
        total_steps: int,
        start_step: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        self.parts = parts
        self.config = config
        self.total_steps = total_steps
        self.start_step = start_step
        self.seed = seed
        self.average = (
            AveragedModel(parts.detector, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
            if config.ema_decay
            else None
        )
        self.latest: dict[str, Tensor] = {}
        self.optimiser_state: dict[str, Any] | None = None
        self._data_seconds = 0.0
        self._step_seconds = 0.0
        self._batch_ended = time.perf_counter()

    @property
    def detector(self) -> nn.Module:
        return self.parts.detector

    @property
    def step(self) -> int:
        """Optimiser steps done since training began."""
        return self.start_step + self.global_step

    @property
    def evaluated(self) -> nn.Module:
        """The weights a checkpoint keeps: the average where there is one."""
        return self.average.module if self.average is not None else self.detector

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = self.config.optimiser
        groups = parameter_groups(self.parts.learners, options.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay, fused=True)
        if self.optimiser_state is not None:
            optimiser.load_state_dict(self.optimiser_state)
        return optimiser

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        now = time.perf_counter()
        self._data_seconds += now - self._batch_ended
        self._step_began = now
        # Random layers depend on seed and step alone, so that a resumed run goes on as an unbroken one would.
        torch.manual_seed(hash((self.seed, self.step, batch_idx % self.config.accumulate)) & 0x7FFFFFFF)
        for group in self.optimizers().param_groups:
            group["lr"] = learning_rate(self.config.optimiser, self.step, self.total_steps)
            group["betas"] = (momentum(self.config.optimiser, self.step, self.total_steps), 0.999)

    @property
    def taught(self) -> bool:
        """Whether the step that comes has a teacher."""
        return self.parts.distiller is not None and self.step < self.config.distill_fraction * self.total_steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.parts(batch, distil=self.taught)
        total = weighted_sum(losses, self.parts.weights)
        if self.parts.distiller is not None and not self.taught:
            # Processes that share a batch wait for a gradient of every parameter.
            total = total + 0.0 * sum(p.sum() for p in self.parts.distiller.parameters())
        self.latest = {f"loss/{name}": value.detach() for name, value in losses.items()}
        self.latest["loss"] = total.detach()
        return total

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        if self.step < self.config.distiller_warmup_steps:
            for parameter in self.detector.parameters():
                parameter.grad = None  # left as it is, by the optimiser's averages and weight decay, too
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.config.optimiser.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else float("inf"))
        self.latest["gradient_norm"] = norm.detach()

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        super().optimizer_step(*arguments, **named)
        if self.average is not None:  # here, before any callback saves it
            self.average.update_parameters(self.detector)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        self._batch_ended = time.perf_counter()
        self._step_seconds += self._batch_ended - self._step_began

    def record(self) -> dict[str, float]:
        """What is logged of the last step, with the share of time spent waiting for data since the last record."""
        total = self._data_seconds + self._step_seconds
        record = {name: float(value) for name, value in self.latest.items()}
        record["learning_rate"] = self.optimizers().param_groups[0]["lr"]
        record["data_share"] = self._data_seconds / total if total else 0.0
        record |= {f"diagnostics/{name}": value for name, value in self.parts.diagnostics().items()}
        self._data_seconds = self._step_seconds = 0.0
        return record
