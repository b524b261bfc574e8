"""Recipes of a user's own: files of Python that cannot be run, or give something else."""

from collections.abc import Iterator

from tests.robust.cases.case import Build, Case
from tests.robust.places import Places

SOURCES = {
    "syntax": ("def f(:\n", "SyntaxError"),
    "raises": ("raise RuntimeError('no')", "RuntimeError: no .*line 1"),
    "ends the program": ("import sys; sys.exit(0)", "SystemExit"),
    "imports nothing": ("import nothing_of_this_name", "nothing_of_this_name.*line 1"),
    "calls itself": ("def f():\n return f()\nf()", "RecursionError.*line 2"),
    "without the function": ("def g(): pass", "has no 'f'"),
    "empty": ("", "has no 'f'"),
    "another encoding": ("# \xff\nf = 1 +", "cannot be run"),
    "with an argument": ("def f(a): return a", "TypeError.*argument"),
    "gives None": ("def f(): return None", "expected a function that returns Experiment"),
    "a number": ("f = 3", "expected a function that returns Experiment"),
    "a class": ("class f: pass", "expected a function that returns Experiment"),
    "fails when called": ("\n\ndef f(): return 1 / 0", "ZeroDivisionError.*line 3"),
    "calls itself when called": ("def f(): return f()", "RecursionError"),
    "ends the program when called": ("import sys\ndef f(): sys.exit(0)", "SystemExit.*line 2"),
    "a setting out of range": (
        "from dualdistill.experiment.training import TrainingConfig\ndef f(): return TrainingConfig(steps=-1)",
        "steps must be a whole number.*line 2",
    ),
}


def own_code() -> Iterator[Case]:
    """A recipe given as file.py:function."""
    for what, (source, word) in SOURCES.items():
        for verb in ("train", "recipes show"):
            yield Case("10 own code", f"{verb}: {what}", _file(verb, source), ("recipe.py", word))


def _file(verb: str, source: str) -> Build:
    def build(at: Places) -> list[str]:
        path = at.new() / "recipe.py"
        path.write_bytes(source.encode("latin1"))
        more = ["--data", str(at.root()), "--out", str(at.new())] if verb == "train" else []
        return [*verb.split(), f"{path}:f", *more]

    return build
