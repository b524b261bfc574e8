"""Runs that cannot be gone on with; code and data of strangers; teachers of something else."""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.robust.cases.case import Build, Case, distil, edit_json, replace, train
from tests.robust.cases.weights import rewrite_weights
from tests.robust.places import Places, edit_table


def runs() -> Iterator[Case]:
    """Runs that cannot be gone on with, and code and data of strangers."""
    for what, change in {
        "the newest weights missing": lambda run: next((run / "checkpoints/step_000001").glob("student*")).unlink(),
        "the optimiser cut off": lambda run: _cut(run / "checkpoints/step_000001/training_state/optimiser.pt"),
        "the optimiser a pickle": lambda run: _pickle(run / "checkpoints/step_000001/training_state/optimiser.pt"),
    }.items():
        yield Case("4 resume", what, _changed_run(change), ("optimiser|weights", "restored"))
    for name in ("experiment.json", "metrics.jsonl", "log.txt", ".lock", "finished.json", "checkpoints"):
        for what in ("pipe", "folder", "loop"):
            if (name, what) != ("checkpoints", "folder"):
                group = "4 resume" if what == "folder" else "8 hangs"
                words = (name, "cannot|not a run|expected|circle")
                yield Case(group, f"{name} a {what}", _changed_run(_replaced(name, what)), words)
    yield Case("10 code", "a method file", _with_method("file"), ("--trust", "method.py"))
    yield Case("10 code", "a method of a module", _with_method("module"), ("--trust", "stranger"))
    yield Case("10 code", "gradients of a method file", _with_method("gradients"), ("--trust", "method.py"))
    yield Case("13 changed", "tables", _changed_tables, ("annotations", "changed"))
    yield Case("13 changed", "teacher", _changed_teacher, ("changed",))
    yield Case("13 changed", "teacher gone", _gone_teacher, ("gone",))
    yield Case("15 teacher", "of other data", _teacher_of("data"), ("trained on",))
    yield Case("15 teacher", "of another split", _teacher_of("split"), ("trained on",))
    yield Case("15 teacher", "of other settings", _teacher_of("settings"), ("settings",))
    yield Case("8 hangs", "machines that nobody starts", _on_two_machines, ("--nodes", "MASTER_ADDR"))
    yield Case("8 hangs", "an absurd batch", _train_more("training.batch_size=4000"), ("batch_size", "samples"))
    yield Case("17 small", "resume --devices 2 of batch 1", _resumed_on_two, ("devices",))


def _replaced(name: str, what: str) -> Callable[[Path], None]:
    return lambda run: replace(run / name, what)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


class _Payload:
    """A pickle that would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Payload(path.parents[5] / "RAN")))


def _changed_run(change: Callable[[Path], Any]) -> Build:
    def build(at: Places) -> list[str]:
        run = at.run(finished=False)
        change(run)
        return ["resume", str(run), "--workers", "0"]

    return build


def _with_method(kind: str) -> Build:
    def build(at: Places) -> list[str]:
        run = at.run(finished=kind == "gradients")
        (run / "method.py").write_text(f"open({str(run.parents[1] / 'RAN')!r}, 'w')")
        where = "stranger_module" if kind == "module" else str(run / "method.py")
        plain = json.loads((run / "experiment.json").read_text())
        change = {"distiller": {"method": f"{where}:Config"}, "teacher_recipe": "synthetic/teacher-centerpoint"}
        teacher = at.weights(at.original("teacher-centerpoint"))
        other = json.loads((at.original("teacher-centerpoint") / "experiment.json").read_text())["experiment"]
        change |= {"teacher": other["teacher"]}
        plain["experiment"] |= change
        plain["experiment"]["data"] |= {"points": True, "bev_frame": "lidar"}
        plain["teacher"] = _record(teacher)
        (run / "experiment.json").write_text(json.dumps(plain))
        if kind != "gradients":
            return ["resume", str(run), "--workers", "0"]
        rewrite_weights(at.weights(run), lambda facts: facts.update(experiment=plain["experiment"]))
        return ["gradients", str(run)]

    return build


def _record(weights: Path) -> dict[str, Any]:
    """What experiment.json records of a teacher."""
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {"path": str(weights), "sha256": sha256, "recipe": "x", "step": 1, "score": None}


def _changed_tables(at: Places) -> list[str]:
    root, run = at.root(), at.run(finished=False)
    edit_table(root, "sample_annotation", lambda records: records[0].update(size=[2.0, 2.0, 2.0]))
    edit_json(run / "experiment.json", lambda plain: plain["data"].update(root=str(root)))
    return ["resume", str(run), "--workers", "0"]


def _found_run(at: Places) -> Path:
    """Folder of runs in which the teacher is found."""
    out = at.new()
    run = at.run("teacher-centerpoint")
    (out / "synthetic" / "teacher-centerpoint").mkdir(parents=True)
    run.rename(out / "synthetic" / "teacher-centerpoint" / "run")
    return out


def _teacher_of(what: str) -> Build:
    def build(at: Places) -> list[str]:
        out = _found_run(at)
        path = at.weights(out / "synthetic" / "teacher-centerpoint" / "run")
        if what == "data":
            rewrite_weights(path, lambda facts: facts["data"].update(tables={"samples": "other"}, root="/other"))
        elif what == "split":
            rewrite_weights(path, lambda facts: facts["data"].update(split="mini_val"))
        else:
            rewrite_weights(path, lambda facts: facts["experiment"]["training"].update(steps=20))
        return distil(at, out)

    return build


def _with_teacher(at: Places, change: Callable[[Path], Any]) -> list[str]:
    run = at.run(finished=False)
    teacher = at.weights(at.run("teacher-centerpoint"))
    edit_json(run / "experiment.json", lambda plain: plain.update(teacher=_record(teacher)))
    change(teacher)
    return ["resume", str(run), "--workers", "0"]


def _changed_teacher(at: Places) -> list[str]:
    return _with_teacher(at, lambda path: path.write_bytes(path.read_bytes() + b" "))


def _gone_teacher(at: Places) -> list[str]:
    return _with_teacher(at, Path.unlink)


def _train_more(assignment: str) -> Build:
    return lambda at: train(at.root(), at.new(), assignment)


def _on_two_machines(at: Places) -> list[str]:
    return [*train(at.root(), at.new(), "training.batch_size=2"), "--nodes", "2"]


def _resumed_on_two(at: Places) -> list[str]:
    return ["resume", str(at.run(finished=False)), "--workers", "0", "--devices", "2"]
