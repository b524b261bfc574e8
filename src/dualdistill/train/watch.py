"""What ends a training early, agreed on by all processes: a stop signal, or numbers that are not finite."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from dualdistill.data.collate import PackedBatch
from dualdistill.errors import DivergedError
from dualdistill.ops.processes import number_of_processes
from dualdistill.structures import Batch, named_tensors
from dualdistill.train.run_folder import RunFolder, step_name
from dualdistill.train.state import TrainingState


class Watch:
    """Joint decision after each step: go on, stop, or fail.

    Every process contributes its signal and whether one of its numbers is not finite; the maximum over processes
    counts, so that all of them stop after the same step. On a GPU the decision is read one step later, when the next
    step is queued (at once where the host waits for the GPU anyway), so that no step waits for it.
    """

    def __init__(self, fabric: Fabric, loader: DataLoader[PackedBatch], run: RunFolder, *, accumulate: int):
        """Args: `accumulate` counts the batches of one step."""
        self.fabric, self.loader, self.run, self.accumulate = fabric, loader, run, accumulate
        self._lag = 1 if fabric.device.type == "cuda" else 0
        self._pending: deque[tuple[int, Mapping[str, Tensor], Tensor, Any]] = deque()

    def after_step(self, step: int, values: Mapping[str, Tensor], signal: int, *, at_once: bool) -> int:
        """Signal that ends the training (0: none), given this process's scalar losses and gradient norm and the signal
        that it received. Raises DivergedError if a number of some process was not finite; the batches are saved in the
        run folder. `at_once`: read all decisions up to this step, the number of those done."""
        numbers = torch.stack([*values.values()])
        flags = torch.stack([(~numbers.isfinite()).any().float(), numbers.new_full((), float(signal))])
        if number_of_processes() > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        event = torch.cuda.Event() if flags.is_cuda else None
        host = flags.to("cpu", non_blocking=True)
        if event is not None:
            event.record()
        self._pending.append((step, values, host, event))
        stop, keep = 0, 0 if at_once else self._lag
        while len(self._pending) > keep:
            number, then, flags, event = self._pending.popleft()
            if event is not None:
                event.synchronize()
            diverged, received = map(int, flags.tolist())
            if diverged:
                self._fail(number, [name for name, value in then.items() if not value.isfinite()])
            if received:  # a checkpoint follows: its step is checked, too
                stop, keep = received, 0
        return stop

    @contextmanager
    def naming(self, state: TrainingState, batch: Batch) -> Iterator[None]:
        """Context of a forward and backward pass: an error from weights that are not finite becomes a DivergedError."""
        try:
            yield
        except (DivergedError, RuntimeError) as error:
            weights = state.training.named_parameters()
            bad = next((name for name, weight in weights if not weight.isfinite().all()), None)
            if bad is None and not isinstance(error, DivergedError):
                raise
            cause = f"{bad} is not finite" if bad is not None else str(error)
            raise self._diverged(state.step + 1, cause, [meta.token for meta in batch.meta]) from None

    def _fail(self, step: int, names: list[str]) -> None:
        """Write this process's batches of a step, read again (samples depend on seed and step alone), and raise."""
        folder = self.run.path / "diverged" / step_name(step)
        folder.mkdir(parents=True, exist_ok=True)
        tokens: list[str] = []
        sampler: Any = self.loader.batch_sampler
        for micro in range(self.accumulate):
            pairs = sampler.batch((step - 1) * self.accumulate + micro)
            batch = self.loader.collate_fn([self.loader.dataset[pair] for pair in pairs]).to("cpu")
            here = [meta.token for meta in batch.meta]
            facts = {"step": step, "not_finite": names, "samples": here, "epoch_and_index": pairs}
            whole = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in named_tensors(batch)}
            path = folder / f"process{self.fabric.global_rank}_batch{micro}.safetensors"
            save_file(whole, path, metadata={"facts": json.dumps(facts)})
            tokens += here
        reports: list[Any] = [(names, tokens)] * number_of_processes()
        if len(reports) > 1:
            dist.all_gather_object(reports, (names, tokens))
        found = sorted({name for names, _ in reports for name in names})
        tokens = [token for names, tokens in reports for token in tokens if names]
        raise self._diverged(step, f"{', '.join(found)} is not finite", tokens, f" The batch is in {folder}.")

    def _diverged(self, step: int, cause: str, tokens: list[str], more: str = "") -> DivergedError:
        kept = self.run.newest()
        last = f"The last checkpoint is {kept}." if kept else "There is no checkpoint yet."
        return DivergedError(
            f"The training diverged in step {step}: {cause}. Samples: {', '.join(tokens)}. {last} Train again with a "
            f"lower training.optimiser.learning_rate or clip_norm, or search these samples for a fault.{more}"
        )
