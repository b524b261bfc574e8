"""The training loop. Devices, processes and gradients between them are Lightning Fabric's."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dualdistill.data.collate import PackedBatch
from dualdistill.structures import weighted_sum
from dualdistill.train.launch import StopSignals
from dualdistill.train.metrics import MetricsLogger
from dualdistill.train.state import Checkpoints, TrainingState
from dualdistill.train.watch import Watch

Validate = Callable[[nn.Module], Mapping[str, float]]
"""Scores of a detector by name, "NDS" among them."""


def fit(
    fabric: Fabric,
    state: TrainingState,
    loader: DataLoader[PackedBatch],
    *,
    total_steps: int,
    seed: int,
    metrics: MetricsLogger,
    checkpoints: Checkpoints,
    signals: StopSignals,
    validate: Validate | None = None,
    validate_every: int = 0,
    after_step: Callable[[], None] = lambda: None,
) -> int:
    """Take the steps that are left; returns the number of the signal that stopped the training, 0 at its end. Raises
    DivergedError for a loss or gradient that is not finite; the last checkpoint stays.

    Args:
        state: On the device of `fabric`; changed in place.
        loader: The batches of this process for the steps that are left.
        validate: Called by all processes every `validate_every` steps and after the last one.
        after_step: Called after every step, as a profiler asks for.
    """
    config, training = state.config, state.training
    model = fabric.setup_module(training.train())
    watch = Watch(fabric, loader, checkpoints.run, accumulate=config.accumulate)
    batches = TimedIterator(loader)
    while state.step < total_steps:
        distil = training.distiller is not None and state.step < config.distill_fraction * total_steps
        state.set_schedule(total_steps)
        numbers: list[Tensor] = []
        for micro in range(config.accumulate):
            batch = next(batches).to(fabric.device, non_blocking=True)
            seed_random_layers(seed, state.step, micro, fabric.global_rank)
            with watch.naming(state, batch), fabric.no_backward_sync(model, enabled=micro + 1 < config.accumulate):
                with torch.autocast(fabric.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                    losses = model(batch, distil=distil)
                    loss = weighted_sum(losses, training.weights)
                fabric.backward(loss / config.accumulate)
            numbers.append(torch.stack([*losses.values(), loss]).detach().float())

        optimisers = state.stepping(distil)
        norm = clip_gradients(optimisers, config.optimiser.clip_norm)
        for optimiser in optimisers:
            optimiser.step()
        for optimiser in state.optimisers:
            optimiser.zero_grad()
        state.step += 1
        state.update_average()

        last = state.step == total_steps
        validating = validate is not None and (last or state.step % validate_every == 0)
        logging = last or validating or state.step % config.log_every == 0
        saving = last or state.step % config.save_every == 0
        values = dict(zip([*(f"loss/{name}" for name in losses), "loss"], torch.stack(numbers).mean(0), strict=True))
        stop = watch.after_step(
            state.step, values | {"gradient_norm": norm}, signals.received, at_once=logging or saving
        )
        improved = False
        if logging:
            record = mean_over_processes(fabric, values | {"gradient_norm": norm})
            record |= {"learning_rate": optimisers[0].param_groups[0]["lr"], "data_share": batches.share()}
            record |= {f"diagnostics/{name}": value for name, value in training.diagnostics().items()}
            if validate is not None and validating:
                scores = validate(state.evaluated)
                record |= {f"validation/{name}": value for name, value in scores.items()}
                improved = checkpoints.improves(scores["NDS"])
            metrics.log(state.step, total_steps, record)  # before its checkpoint: each step is recorded once
        if saving or improved or stop:
            checkpoints.save(state, best=improved)
        after_step()
        if stop and not last:
            return stop
    return 0


def seed_random_layers(seed: int, step: int, micro: int, rank: int) -> None:
    """Random layers depend on these alone, so that a resumed run goes on as an unbroken one would."""
    torch.manual_seed(hash((seed, step, micro, rank) if rank else (seed, step, micro)) & 0x7FFFFFFF)


def clip_gradients(optimisers: list[torch.optim.AdamW], limit: float) -> Tensor:
    """Clip the gradients of these optimisers' parameters together; returns their norm before, on their device."""
    parameters = [p for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
    return torch.nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else float("inf")).detach()


def mean_over_processes(fabric: Fabric, values: Mapping[str, Tensor]) -> dict[str, float]:
    """Averages of scalar tensors over all processes, in one transfer."""
    mean = fabric.all_reduce(torch.stack([*values.values()]), reduce_op="mean")
    assert isinstance(mean, Tensor)
    return dict(zip(values, mean.tolist(), strict=True))


class TimedIterator(Iterator[Any]):
    """An iterator over a loader that measures the time spent waiting for it."""

    def __init__(self, loader: DataLoader[Any]):
        self._batches = iter(loader)
        self._waited, self._since = 0.0, time.perf_counter()

    def __next__(self) -> Any:
        began = time.perf_counter()
        batch = next(self._batches)
        self._waited += time.perf_counter() - began
        return batch

    def share(self) -> float:
        """Share of the time since the last call that was spent waiting."""
        now = time.perf_counter()
        share = self._waited / max(now - self._since, 1e-9)
        self._waited, self._since = 0.0, now
        return share
