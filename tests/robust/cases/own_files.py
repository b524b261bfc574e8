"""Files that this package writes, damaged, without a key, or with a value of another type."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.robust.cases.case import DAMAGES, Build, Case, edit_json
from tests.robust.places import Places


def own_files() -> Iterator[Case]:
    """Files that this package writes, damaged, without a key, or with a value of another type."""
    for damage, change in DAMAGES.items():
        for verb in ("resume", "compare", "recipes show"):
            yield _damaged(verb, "experiment.json", damage, change)
        for verb, name in (("compare", "metrics.json"), ("compare", "evaluated.json")):
            yield _damaged(verb, f"evaluation/step_000001/{name}", damage, change)
        yield Case("11 own files", f"splits.json {damage}", _damaged_split(change), ("splits.json",))
    record = dict.fromkeys(("recipe", "overrides", "seed", "data", "teacher", "experiment", "log"))
    for key in record:
        yield _edited("resume", "experiment.json", f"without {key}", lambda plain, key=key: plain.pop(key, None))
        yield _edited("resume", "experiment.json", f"{key} a number", lambda plain, key=key: plain.update({key: 3.5}))
    for key in ("data", "training", "student"):
        yield _edited("resume", "experiment.json", f"experiment.{key} a text", _inner(key, "x"))
        yield _edited("compare", "experiment.json", f"experiment.{key} a list", _inner(key, [1]))
    for key in ("mean_ap", "nd_score", "mean_dist_aps"):
        name = "evaluation/step_000001/metrics.json"
        if key != "mean_dist_aps":
            yield _edited("compare", name, f"without {key}", lambda plain, key=key: plain.pop(key, None))
        yield _edited("compare", name, f"{key} a text", lambda plain, key=key: plain.update({key: "x"}))
    for key in ("root", "version", "split"):
        name = "evaluation/step_000001/evaluated.json"
        yield _edited("compare", name, f"without {key}", lambda plain, key=key: plain.pop(key, None))


def _command_of(verb: str, run: Path) -> list[str]:
    return [*verb.split(), str(run), *(["--workers", "0"] if verb == "resume" else [])]


def _damaged(verb: str, name: str, damage: str, change: Callable[[bytes], bytes]) -> Case:
    def build(at: Places) -> list[str]:
        run = at.run(finished=verb != "resume")
        path = run / name
        path.write_bytes(change(path.read_bytes()))
        return _command_of(verb, run)

    return Case("11 own files", f"{verb}: {name} {damage}", build, (Path(name).name, "damaged|cannot be read|written"))


def _edited(verb: str, name: str, what: str, change: Callable[[dict[str, Any]], Any]) -> Case:
    def build(at: Places) -> list[str]:
        run = at.run(finished=verb != "resume")
        edit_json(run / name, change)
        return _command_of(verb, run)

    return Case("11 own files", f"{verb}: {name} {what}", build, ("damaged|not written by this version",))


def _inner(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda plain: plain["experiment"].update({key: value})


def _damaged_split(change: Callable[[bytes], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        root = at.root()
        content = json.dumps({"mine": ["scene-0061"], "other": ["scene-0103"]}).encode()
        (root / "v1.0-mini" / "splits.json").write_bytes(change(content))
        return ["data", "check", str(root)]

    return build
