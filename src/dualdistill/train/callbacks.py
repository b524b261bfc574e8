"""What happens around the steps: the record, the progress, the checkpoints."""

import json
import signal
import time
from collections.abc import Callable
from typing import IO, Any

import pytorch_lightning as pl
import torch

from dualdistill.models.checkpoints import save_weights
from dualdistill.train.module import TrainingModule
from dualdistill.train.run_folder import RunFolder


class MetricsLogger(pl.Callback):
    """One JSON object a record in metrics.jsonl, TensorBoard beside it where installed, and a line of progress."""

    def __init__(self, run: RunFolder, say: Callable[[int, int, str], None], *, resumed_at: int = 0):
        self.run = run
        self.say = say
        self.resumed_at = resumed_at
        self._file: IO[str] | None = None
        self._board: Any = None
        self._began = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:  # one of the processes keeps the record
            self._forget_after(self.resumed_at)
            self._file = self.run.metrics.open("a")
            self._board = _tensorboard(self.run)

    def _forget_after(self, step: int) -> None:
        """Drop records past the checkpoint a resumed run starts from: each step is told once."""
        if self.run.metrics.exists():
            lines = self.run.metrics.read_text().splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            self.run.metrics.write_text("".join(line + "\n" for line in kept))

    def on_train_batch_end(self, trainer: pl.Trainer, module: TrainingModule, *_: Any) -> None:
        step, last = module.step, module.total_steps
        if step == getattr(self, "_told", None) or (step % module.config.log_every and step != last):
            return
        self._told = step
        record = {"step": step, "seconds": round(time.monotonic() - self._began, 2), **module.record()}
        if self._file is None:
            return
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                self._board.add_scalar(name, value, step)
        self.say(step, last, f"loss {record['loss']:.3f}, waiting for data {record['data_share']:.0%}")

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class Checkpointer(pl.Callback):
    """Checkpoints every so many steps, at the end, and when the user interrupts."""

    def __init__(self, run: RunFolder, role: str, facts: dict[str, Any]):
        self.run = run
        self.role = role
        self.facts = facts
        self.interrupted = False
        self._saved: int | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        def stop(*_: Any) -> None:
            self.interrupted = True
            trainer.should_stop = True

        try:
            self._previous = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not the main thread: then nobody presses Ctrl-C at us
            self._previous = None

    def on_train_batch_end(self, trainer: pl.Trainer, module: TrainingModule, *_: Any) -> None:
        if module.step % module.config.save_every == 0 or module.step == module.total_steps:
            self._save(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        self._save(trainer, module)
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _save(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        if module.step == self._saved or not trainer.is_global_zero:
            return
        self._saved = module.step
        name = f"step_{module.step:06d}"
        folder = self.run.checkpoints / name
        facts = self.facts | {"step": module.step, "role": self.role}
        save_weights(folder / f"{self.role}.safetensors", module.evaluated, facts)
        if module.parts.distiller is not None:
            save_weights(folder / "distiller.safetensors", module.parts.distiller, facts)
        state = folder / "training_state"
        state.mkdir(exist_ok=True)
        if module.average is not None:
            save_weights(state / "raw_weights.safetensors", module.detector, facts)
        kept = {"optimiser": trainer.optimizers[0].state_dict(), "step": module.step}
        if module.parts.bound is not None:
            kept["gradient_bound"] = module.parts.bound.state_dict()
        torch.save(kept, state / "optimiser.pt")
        self.run.link("last", name)


def _tensorboard(run: RunFolder) -> Any:
    """A TensorBoard writer, or None where TensorBoard (extra `[tensorboard]`) is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.path / "tensorboard"))
