"""Learning rate, momentum and weight decay as pure functions of the step: nothing to save, nothing to restore."""

import math

from torch import nn

from dualdistill.experiment.training import OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Rate used by the update number `step` (from 0) of `total_steps`."""
    fraction = step / total_steps
    base = config.learning_rate
    if config.schedule == "cyclic":
        return _cycle(config, fraction, base, base * config.cycle_peak, base * 1e-4)
    rate = base * 0.1 ** sum(fraction >= drop for drop in config.drops)
    if step < config.warmup_steps:
        rate *= 1 - (1 - step / config.warmup_steps) * (1 - config.warmup_ratio)
    return rate


def momentum(config: OptimiserConfig, step: int, total_steps: int) -> float:
    """Adam's first beta at `step`: 0.9, or mirrored to the rate between 0.9 and 0.9 * 0.85 / 0.95 in a cycle."""
    if config.schedule == "step":
        return 0.9
    return _cycle(config, step / total_steps, 0.9, 0.9 * 0.85 / 0.95, 0.9)


def _cycle(config: OptimiserConfig, fraction: float, start: float, turn: float, end: float) -> float:
    """Half a cosine from `start` to `turn` during the rise, another one to `end` after it."""
    rise = config.cycle_rise
    if fraction < rise:
        end, progress = turn, fraction / rise
    else:
        start, progress = turn, (fraction - rise) / (1 - rise)
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * progress))


def parameter_groups(modules: list[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters of `modules` in two groups: decayed, and those a `no_weight_decay()` method exempts."""
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for module in modules:
        names: set[str] = getattr(module, "no_weight_decay", set)()
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                (exempt if name in names else decayed).append(parameter)
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": weight_decay}]
    return [*groups, {"params": exempt, "weight_decay": 0.0}] if exempt else groups
