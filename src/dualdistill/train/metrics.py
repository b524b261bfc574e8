"""The record of a training: metrics.jsonl always, other sinks (extras) where `--log` names them."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dualdistill.errors import UserError, optional
from dualdistill.files import append_to, decode_json, read_bytes, write_atomically, writing
from dualdistill.train.run_folder import RunFolder


@runtime_checkable
class Sink(Protocol):
    """Where records go."""

    def start(self, run: RunFolder, facts: Mapping[str, Any], step: int) -> None:
        """Open it. `facts`: recipe, seed and experiment, plain JSON. `step`: steps done before; what is recorded of
        later ones is dropped where the sink can."""

    def log(self, step: int, record: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


@dataclass
class MetricsLogger:
    """Passes each record to all sinks and to the progress line; without effect in processes that do not lead."""

    sinks: Sequence[Sink]
    progress: Callable[[int, int, str], None] = lambda *_: None
    _began: float = field(default_factory=time.monotonic, init=False)

    def start(self, run: RunFolder, facts: Mapping[str, Any], step: int) -> None:
        for sink in self.sinks:
            sink.start(run, facts, step)

    def log(self, step: int, total: int, record: Mapping[str, float]) -> None:
        record = {"seconds": round(time.monotonic() - self._began, 2), **record}
        for sink in self.sinks:
            sink.log(step, record)
        line = f"loss {record['loss']:.3f}, waiting for data {record['data_share']:.0%}"
        if "validation/NDS" in record:
            line += f", mAP {record['validation/mAP']:.4f}, NDS {record['validation/NDS']:.4f}"
        self.progress(step, total, line)

    def close(self) -> None:
        for sink in self.sinks:
            sink.close()


class JsonLines:
    """metrics.jsonl: one JSON object a record."""

    def start(self, run: RunFolder, facts: Mapping[str, Any], step: int) -> None:
        if run.metrics.exists():
            kept = [record for record in read_metrics(run.metrics) if record["step"] <= step]
            write_atomically(run.metrics, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = append_to(run.metrics)

    def log(self, step: int, record: Mapping[str, float]) -> None:
        with writing(Path(self._file.name)):
            self._file.write(json.dumps({"step": step, **record}) + "\n")
            self._file.flush()

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


class TensorBoard:
    """Event files in the run folder's `tensorboard`."""

    def __init__(self) -> None:
        _extra("tensorboard")

    def start(self, run: RunFolder, facts: Mapping[str, Any], step: int) -> None:
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer = writer(str(run.path / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, record: Mapping[str, float]) -> None:
        for name, value in record.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases in project "dualdistill" (WANDB_* variables as usual); resumed under the same id."""

    def __init__(self) -> None:
        self._library = _extra("wandb")

    def start(self, run: RunFolder, facts: Mapping[str, Any], step: int) -> None:
        name = f"{run.path.parent.name}-{run.path.name}"
        project = os.environ.get("WANDB_PROJECT", "dualdistill")
        names = {"project": project, "name": name, "id": name, "resume": "allow"}
        self._run = self._library.init(**names, dir=str(run.path), config=dict(facts))

    def log(self, step: int, record: Mapping[str, float]) -> None:
        self._run.log(dict(record), step=step)

    def close(self) -> None:
        self._run.finish()


class MlFlow:
    """A run of MLflow (MLFLOW_TRACKING_URI as usual) in the experiment of the recipe's name; resumed under its id."""

    def __init__(self) -> None:
        self._library = _extra("mlflow")

    def start(self, run: RunFolder, facts: Mapping[str, Any], step: int) -> None:
        kept = run.path / "mlflow_run_id"
        self._library.set_experiment(str(facts["recipe"]))
        known = kept.read_text(errors="replace").strip() if kept.is_file() else None
        started = self._library.start_run(run_id=known, run_name=run.path.name)
        write_atomically(kept, started.info.run_id + "\n")
        self._library.log_dict(dict(facts), "experiment.json")

    def log(self, step: int, record: Mapping[str, float]) -> None:
        self._library.log_metrics(dict(record), step=step)

    def close(self) -> None:
        self._library.end_run()


_SINKS: dict[str, Callable[[], Sink]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MlFlow}


def make_sinks(names: Sequence[str]) -> list[Sink]:
    """metrics.jsonl and the named sinks, none of them started. Raises UserError for an unknown name, or a library that
    is not installed."""
    unknown = [name for name in names if name not in _SINKS]
    if unknown:
        raise UserError(f"--log {unknown[0]}: expected one of {', '.join(_SINKS)}; metrics.jsonl is always written.")
    return [JsonLines(), *(_SINKS[name]() for name in dict.fromkeys(names))]


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of metrics.jsonl; a half line at its end, of a run that was killed, is left out."""
    records, lines = [], read_bytes(path).decode(errors="replace").splitlines()
    with suppress(UserError):
        for line in lines:
            record = decode_json(line, dict[str, float], str(path))
            if "step" not in record:
                break
            records.append(record)
    return records


def _extra(library: str) -> Any:
    """The library of a sink, which is its extra, too."""
    return optional(library, library, f"--log {library}", ", or leave the option out (metrics.jsonl is always written)")
