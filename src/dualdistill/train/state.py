"""What a training changes (weights, their moving average, optimisers, the number of steps), and its checkpoints:
written whole, found again, restored exactly.

Learning rate, momentum and weight decay are pure functions of the step: nothing to save, nothing to restore.
"""

import copy
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import AdamW

from dualdistill.errors import UserError
from dualdistill.experiment.training import OptimiserConfig, TrainingConfig
from dualdistill.files import problem, remove, require_folder, require_room, size_text, synchronise
from dualdistill.models.checkpoints import load_weights, save_weights
from dualdistill.train.run_folder import RunFolder, step_name, step_of
from dualdistill.train.step import Training


@dataclass(kw_only=True)
class TrainingState:
    """Everything that a checkpoint holds."""

    training: Training
    config: TrainingConfig
    optimisers: list[AdamW]
    """One for each of `training.learners`: the detector's, then the distiller's."""
    average: nn.Module | None
    """Moving average of the detector (`TrainingConfig.ema_decay`); outside `training`, so that processes that train
    together do not wait for its gradients."""
    step: int = 0
    """Optimiser steps that are done."""

    @classmethod
    def initial(cls, training: Training, config: TrainingConfig) -> "TrainingState":
        """The state before the first step, on the device of `training`."""
        options = config.optimiser
        groups = [parameter_groups(learner, options.weight_decay) for learner in training.learners]
        optimisers = [AdamW(each, lr=options.learning_rate, fused=True) for each in groups]
        average = copy.deepcopy(training.detector).requires_grad_(False).eval() if config.ema_decay else None
        return cls(training=training, config=config, optimisers=optimisers, average=average)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that are evaluated and kept: the average where there is one."""
        return self.training.detector if self.average is None else self.average

    def stepping(self, distil: bool) -> list[AdamW]:
        """Optimisers of the coming step: the distiller's alone in its warm-up, the detector's alone without teacher."""
        if not distil:
            return self.optimisers[:1]
        return self.optimisers[1:] if self.step < self.config.distiller_warmup_steps else self.optimisers

    def set_schedule(self, total_steps: int) -> None:
        """Set the learning rate and momentum of the coming step."""
        options = self.config.optimiser
        rate, beta = learning_rate(options, self.step, total_steps), momentum(options, self.step, total_steps)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"], group["betas"] = rate, (beta, 0.999)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average towards the detector, buffers included; after the first step it is a copy."""
        if self.average is None:
            return
        share = 1.0 if self.step == 1 else 1 - self.config.ema_decay
        old, new = (cast(list[Tensor], [*m.parameters(), *m.buffers()]) for m in (self.average, self.training.detector))
        pairs = list(zip(old, new, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], share)
        if counters := [pair for pair in pairs if not pair[0].is_floating_point()]:
            torch._foreach_copy_([a for a, _ in counters], [b for _, b in counters])


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


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Trainable parameters of a module in two groups: decayed, and those its `no_weight_decay()` names, if any."""
    names: set[str] = getattr(module, "no_weight_decay", set)()
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    exempt = [parameter for name, parameter in trained.items() if name in names]
    decayed = [parameter for name, parameter in trained.items() if name not in names]
    groups: list[dict[str, object]] = [{"params": decayed, "weight_decay": weight_decay}]
    return [*groups, {"params": exempt, "weight_decay": 0.0}] if exempt else groups


class Checkpoints:
    """The checkpoints of one run; processes that do not lead write none."""

    def __init__(self, run: RunFolder, *, role: str, facts: dict[str, Any], keep_last: int | None, lead: bool = True):
        """Args:
        role: "student", "teacher" or "label_encoder": the name of the weights file.
        facts: Plain JSON for the metadata of every weights file.
        keep_last: How many of the newest are kept beside the best; None keeps all.
        """
        self.run, self.role, self.facts = run, role, facts
        self.keep_last, self.lead = keep_last, lead
        self.best_score = float("-inf")

    def improves(self, score: float) -> bool:
        """Whether a validation score is the highest so far; it then is the one to beat."""
        before, self.best_score = self.best_score, max(self.best_score, score)
        return score > before

    def require_room(self, state: TrainingState, total: int) -> None:
        """Check that the disk has room for the checkpoints of the steps up to `total`, and nothing is in their way.
        Raises UserError if it has not."""
        require_folder(self.run.checkpoints)
        weights = sum(t.nbytes for module in self._files(state).values() for t in module.state_dict().values())
        groups = [group for optimiser in state.optimisers for group in optimiser.param_groups]
        each = weights + 2 * sum(parameter.nbytes for group in groups for parameter in group["params"])  # two moments
        count = len(range(state.step, total, state.config.save_every)) + 1
        if self.keep_last is not None:
            count = min(count, self.keep_last + 2)  # the best one, and the next before one is removed
        remedy = "Free some, or set training.keep_last=2 or a larger training.save_every."
        what = f"This training ({count} checkpoints of {size_text(each)})"
        require_room(self.run.path, count * each, what, remedy)

    def save(self, state: TrainingState, *, best: bool = False) -> None:
        """Write a checkpoint, then point `last`, and `best` if it is that, at it. Raises UserError if it cannot be
        written; the checkpoints before it are untouched."""
        if not self.lead:
            return
        name, bound = step_name(state.step), state.training.bound
        draft = self.run.checkpoints / f".{name}.new"
        for left in self.run.checkpoints.glob(".*"):  # by a process that was killed
            remove(left)
        try:
            (draft / "training_state").mkdir(parents=True)
            for file, module in self._files(state).items():
                save_weights(draft / file, module, self.facts | {"step": state.step, "role": self.role})
            held: dict[str, Any] = {"optimisers": [optimiser.state_dict() for optimiser in state.optimisers]}
            held["bound"] = bound.state_dict() if bound is not None else None
            torch.save(held, draft / "training_state" / "optimiser.pt")
            for path in [*draft.rglob("*"), draft]:
                synchronise(path)
            remove(self.run.checkpoints / name)  # of a step that is repeated
            draft.rename(self.run.checkpoints / name)
            for pointer in ("last", "best") if best else ("last",):
                self.run.point(pointer, name)
        except (OSError, SafetensorError, RuntimeError, UserError) as error:
            remove(draft)
            why = error if isinstance(error, UserError) else problem(error, draft)
            raise UserError(
                f"The checkpoint {self.run.checkpoints / name} cannot be written: {why}. The last one is "
                f"{self.run.newest() or 'missing'}. Then go on with `dualdistill resume {self.run.path}`."
            ) from None
        spared = {self.run.pointed(name) for name in ("last", "best")}
        for folder in self.run.all_checkpoints()[self.keep_last :] if self.keep_last is not None else ():
            if folder not in spared:
                remove(folder)

    def _files(self, state: TrainingState) -> dict[str, nn.Module]:
        """The networks of a checkpoint by the path of their weights in it."""
        files = {f"{self.role}.safetensors": state.evaluated}
        if state.training.distiller is not None:
            files["distiller.safetensors"] = state.training.distiller
        if state.average is not None:
            files["training_state/raw_weights.safetensors"] = state.training.detector
        return files

    def restore(self, folder: Path, state: TrainingState) -> None:
        """Put a training back to where a checkpoint left it. Raises UserError for a checkpoint that is incomplete,
        damaged, or of another training."""
        for name, module in self._files(state).items():
            load_weights(module, folder / name)
        path, bound = folder / "training_state" / "optimiser.pt", state.training.bound
        try:
            held = torch.load(path, map_location="cpu", weights_only=True)
            for optimiser, saved in zip(state.optimisers, held["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            if bound is not None:
                bound.load_state_dict(held["bound"])
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        state.step = step_of(folder)

    def restore_newest(self, state: TrainingState) -> tuple[Path, list[str]]:
        """Restore the checkpoint that `last` names, or else the newest complete one; returns its folder, and what is
        wrong with those that were tried before. Raises UserError if none can be restored."""
        problems: list[str] = []
        last = self.run.pointed("last")
        for folder in dict.fromkeys([*([last] if last else []), *self.run.all_checkpoints()]):
            try:
                self.restore(folder, state)
                return folder, problems
            except UserError as error:
                problems.append(f"{folder.name}: {error}")
        tried = "".join(f"\n  {problem}" for problem in problems)
        raise UserError(f"No checkpoint of {self.run.path} can be restored:{tried}\nTrain the recipe again.")
