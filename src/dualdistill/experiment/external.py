"""Recipes and methods outside this package, named by where they stand: `path/to/file.py:name` or `module:name`.

Their code runs when a training needs it and at no other time: a weights file that names a method is read without.
"""

import importlib
import importlib.util
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dualdistill.distill.method import DistillerInputs, Requires
from dualdistill.errors import UserError

_NOT_THE_USERS = (str(Path(__file__).parents[1]), sysconfig.get_paths()["purelib"])
"""Folders of this package and of installed ones."""


def is_reference(name: str) -> bool:
    """Whether this names something outside the package; names of ours have no colon."""
    return ":" in name


def load(reference: str) -> Any:
    """What a reference names; its module is run if it was not before. Raises UserError if there is no such file or
    module, or nothing of that name in it."""
    where, _, name = reference.rpartition(":")
    module = _of_file(Path(where)) if where.endswith(".py") else _of_package(where)
    if not hasattr(module, name):
        own = sorted(key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
        raise UserError(f"{where} has no {name!r}. It defines: {', '.join(own) or 'nothing'}.")
    return getattr(module, name)


def _of_file(path: Path) -> ModuleType:
    """The module of a file; its name is the file's absolute path, by which its classes are found from anywhere."""
    name = str(path.resolve())
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, name)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"There is no file {name}. Expected a Python file, given as path/to/file.py:name.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses search sys.modules for it
    try:
        with explained(name):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _of_package(name: str) -> ModuleType:
    found = None
    with suppress(ImportError, ValueError, TypeError):  # a name that is empty, begins with a dot, or lies in no package
        found = importlib.util.find_spec(name)
    if found is None:
        raise UserError(f"There is no module {name!r}. A file is given as path/to/file.py:name.")
    with explained(name):
        return importlib.import_module(name)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Context in which an error of a user's code becomes a UserError with the place where it was raised."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit would end this program as if it had succeeded
        frames = traceback.extract_tb(error.__traceback__)
        place = next((each for each in reversed(frames) if not each.filename.startswith(_NOT_THE_USERS)), frames[-1])
        line = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
        raise UserError(f"{name} cannot be run: {type(error).__name__}: {error}{line}. Correct it.") from error


@dataclass(frozen=True, kw_only=True)
class UnloadedMethod:
    """A method outside this package as a record names it; `plain.with_method` loads its code."""

    reference: str
    settings: str
    """Its configuration as JSON."""

    @property
    def weights(self) -> dict[str, float]:
        return {}

    @property
    def requires(self) -> Requires:
        """Unknown: see `Experiment.requires`."""
        return Requires()

    def build(self, inputs: DistillerInputs) -> nn.Module:
        raise ValueError(f"{self.reference} was not loaded: see `dualdistill.experiment.plain.with_method`")
