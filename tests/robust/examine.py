"""One case from its files to its verdict."""

from dataclasses import dataclass
from pathlib import Path

from tests.robust.cases import Case
from tests.robust.outcome import Kind, judge, run_command
from tests.robust.places import Places


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    text: str
    """What the command printed."""
    new_runs: tuple[Path, ...]
    """Run folders it made."""


def examine(case: Case, places: Places) -> Verdict:
    """Make the files of a case, run its command, judge its ending."""
    argv = case.build(places)
    before = _runs(argv)
    ending = run_command(argv)
    kind = judge(ending, case.words)
    if (places.base / "RAN").exists():  # code of a stranger
        (places.base / "RAN").unlink()
        kind = "security"
    verdict = Verdict(kind, ending.text, tuple(sorted(_runs(argv) - before)))
    places.clear()
    return verdict


def _runs(argv: list[str]) -> set[Path]:
    """Run folders below --out of a training."""
    if argv[0] != "train" or "--out" not in argv:
        return set()
    return {path.parent for path in Path(argv[argv.index("--out") + 1]).glob("*/*/*/experiment.json")}
