"""Checkpoints of a training: written whole, found again, restored exactly."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dualdistill.errors import UserError
from dualdistill.files import problem, remove, require_folder, require_room, size_text, synchronise
from dualdistill.models.checkpoints import load_weights, save_weights
from dualdistill.train.run_folder import RunFolder, step_name, step_of
from dualdistill.train.state import TrainingState


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
        better = score > self.best_score
        self.best_score = max(self.best_score, score)
        return better

    def require_room(self, state: TrainingState, total: int) -> None:
        """Check that the disk has room for the checkpoints of the steps up to `total`, and nothing is in their way.
        Raises UserError if it has not."""
        require_folder(self.run.checkpoints)
        count = len(range(state.step, total, state.config.save_every)) + 1
        if self.keep_last is not None:
            count = min(count, self.keep_last + 2)  # the best one, and the next before one is removed
        remedy = "Free some, or set training.keep_last=2 or a larger training.save_every."
        what = f"This training ({count} checkpoints of {size_text(state.num_bytes)})"
        require_room(self.run.path, count * state.num_bytes, what, remedy)

    def save(self, state: TrainingState, *, best: bool = False) -> None:
        """Write a checkpoint, then point `last`, and `best` if it is that, at it. Raises UserError if it cannot be
        written; the checkpoints before it are untouched."""
        if not self.lead:
            return
        name = step_name(state.step)
        draft = self.run.checkpoints / f".{name}.new"
        for left in self.run.checkpoints.glob(".*"):  # by a process that was killed
            remove(left)
        try:
            self._write(draft, state)
            for path in [*draft.rglob("*"), draft]:
                synchronise(path)
            remove(self.run.checkpoints / name)  # of a step that is repeated
            draft.rename(self.run.checkpoints / name)
            for pointer in ("last", "best") if best else ("last",):
                self.run.point(pointer, name)
        except (OSError, SafetensorError, RuntimeError, UserError) as error:
            remove(draft)
            kept = self.run.newest()
            why = error if isinstance(error, UserError) else problem(error, draft)
            raise UserError(
                f"The checkpoint {self.run.checkpoints / name} cannot be written: {why}. The last one is "
                f"{kept or 'missing'}. Then go on with `dualdistill resume {self.run.path}`."
            ) from None
        self._prune()

    def _write(self, folder: Path, state: TrainingState) -> None:
        training, facts = state.training, self.facts | {"step": state.step, "role": self.role}
        inner = folder / "training_state"
        inner.mkdir(parents=True)
        save_weights(folder / f"{self.role}.safetensors", state.evaluated, facts)
        if training.distiller is not None:
            save_weights(folder / "distiller.safetensors", training.distiller, facts)
        if state.average is not None:
            save_weights(inner / "raw_weights.safetensors", training.detector, facts)
        held: dict[str, Any] = {"optimisers": [optimiser.state_dict() for optimiser in state.optimisers]}
        held["bound"] = training.bound.state_dict() if training.bound is not None else None
        torch.save(held, inner / "optimiser.pt")

    def restore(self, folder: Path, state: TrainingState) -> None:
        """Put a training back to where a checkpoint left it. Raises UserError for a checkpoint that is incomplete,
        damaged, or of another training."""
        training, inner = state.training, folder / "training_state"
        kept = folder / f"{self.role}.safetensors"
        if state.average is not None:
            load_weights(state.average, kept)
            kept = inner / "raw_weights.safetensors"
        load_weights(training.detector, kept)
        if training.distiller is not None:
            load_weights(training.distiller, folder / "distiller.safetensors")
        try:
            held = torch.load(inner / "optimiser.pt", map_location="cpu", weights_only=True)
            for optimiser, saved in zip(state.optimisers, held["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            if training.bound is not None:
                training.bound.load_state_dict(held["bound"])
        except (OSError, RuntimeError, EOFError, KeyError, ValueError, TypeError, pickle.UnpicklingError) as error:
            raise UserError(f"{inner / 'optimiser.pt'} cannot be read: {error}") from None
        state.step = step_of(folder)

    def restore_newest(self, state: TrainingState) -> tuple[Path, list[str]]:
        """Restore the checkpoint that `last` names, or else the newest complete one.

        Returns:
            Its folder, and what is wrong with those that were tried before.

        Raises:
            UserError: if none can be restored.
        """
        problems = []
        last = self.run.pointed("last")
        for folder in dict.fromkeys([*([last] if last else []), *self.run.all_checkpoints()]):
            try:
                self.restore(folder, state)
            except UserError as error:
                problems.append(f"{folder.name}: {error}")
            else:
                return folder, problems
        raise UserError(
            f"No checkpoint of {self.run.path} can be restored:\n  "
            + "\n  ".join(problems)
            + "\nTrain the recipe again."
        )

    def _prune(self) -> None:
        if self.keep_last is None:
            return
        spared = {self.run.pointed(name) for name in ("last", "best")}
        for folder in self.run.all_checkpoints()[self.keep_last :]:
            if folder not in spared:
                remove(folder)
