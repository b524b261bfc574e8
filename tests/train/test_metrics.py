"""Records of a training and where they go."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from dualdistill.errors import UserError
from dualdistill.train.metrics import JsonLines, MetricsLogger, make_sinks, read_metrics
from tests.train.toy import new_run

RECORD = {"loss": 2.0, "data_share": 0.5}


def test_half_a_line_at_the_end_is_left_out_and_rewritten(tmp_path):
    run = new_run(tmp_path)
    run.metrics.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    assert [record["step"] for record in read_metrics(run.metrics)] == [1, 2]
    sink = JsonLines()
    sink.start(run, {}, step=1)
    sink.log(2, RECORD)
    sink.close()
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1, 2]


def test_metrics_are_always_kept_and_nobody_else_is_told_unasked():
    assert [type(sink) for sink in make_sinks(())] == [JsonLines]


@pytest.mark.parametrize(
    ("name", "library"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_sink_whose_library_is_missing_names_its_extra(monkeypatch, name, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"pip install 'dualdistill\[{name}\]'"):
        make_sinks([name])


def test_an_unknown_sink_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="expected one of tensorboard, wandb, mlflow"):
        make_sinks(["comet"])


def log_two(run, names):
    """Two steps, and a third in a resumed training."""
    for steps in ((1, 2), (3,)):
        logger = MetricsLogger(make_sinks(names))
        logger.start(run, {"recipe": "toy", "seed": 0}, steps[0] - 1)
        for step in steps:
            logger.log(step, 3, RECORD)
        logger.close()


def test_tensorboard_gets_every_number_of_every_step(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = new_run(tmp_path)
    log_two(run, ["tensorboard"])
    found = events.EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_weights_and_biases_gets_every_step_of_one_run(tmp_path, monkeypatch):
    calls = []

    def init(**options):
        calls.append(("init", options["id"], options["resume"], options["config"]["recipe"]))
        return SimpleNamespace(
            log=lambda record, step: calls.append((step, record["loss"])), finish=lambda: calls.append("finish")
        )

    library = ModuleType("wandb")
    library.init = init
    monkeypatch.setitem(sys.modules, "wandb", library)
    run = new_run(tmp_path)
    log_two(run, ["wandb"])
    begin = ("init", f"toy-{run.path.name}", "allow", "toy")
    assert calls == [begin, (1, 2.0), (2, 2.0), "finish", begin, (3, 2.0), "finish"]


def test_mlflow_gets_every_step_of_one_run(tmp_path, monkeypatch):
    calls = []

    def start_run(run_id, run_name):
        calls.append(("start", run_id))
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    fake = ModuleType("mlflow")
    vars(fake).update(
        set_experiment=lambda name: calls.append(("experiment", name)),
        start_run=start_run,
        log_dict=lambda facts, file: calls.append((file, facts["seed"])),
        log_metrics=lambda record, step: calls.append((step, record["loss"])),
        end_run=lambda: calls.append("end"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    log_two(new_run(tmp_path), ["mlflow"])
    first = [("experiment", "toy"), ("start", None), ("experiment.json", 0), (1, 2.0), (2, 2.0), "end"]
    again = [("experiment", "toy"), ("start", "abc"), ("experiment.json", 0), (3, 2.0), "end"]
    assert calls == first + again
