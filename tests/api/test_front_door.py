"""`import dualdistill`: its names exist, are documented and typed, and cost nothing until they are used."""

import inspect
import pkgutil
import subprocess
import sys
from typing import get_type_hints

import pytest

import dualdistill


@pytest.mark.parametrize("name", dualdistill.__all__)
def test_every_name_is_documented_and_typed(name):
    thing = getattr(dualdistill, name)
    assert (inspect.getdoc(thing) or "").strip()
    if inspect.isfunction(thing):
        assert get_type_hints(thing).keys() == {*inspect.signature(thing).parameters, "return"}


def test_names_are_found_by_completion_and_others_are_not():
    assert {*dualdistill.__all__} <= {*dir(dualdistill)}
    with pytest.raises(AttributeError, match="no_such_name"):
        dualdistill.no_such_name  # noqa: B018


def test_the_import_alone_loads_no_library():
    heavy = "{'torch', 'numpy', 'rich', 'typer'} & {*sys.modules}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, dualdistill; print({heavy})"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_no_name_is_that_of_a_package_which_would_replace_it_on_import():
    packages = {module.name for module in pkgutil.iter_modules(dualdistill.__path__)}
    assert not packages & {*dualdistill.__all__}
