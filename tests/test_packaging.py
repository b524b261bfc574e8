"""Contents of the installed package."""

import re
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from tests.conftest import REPOSITORY


def test_the_wheel_holds_the_package_alone():
    files = {Path(file.distribution_path) for file in WheelBuilder(str(REPOSITORY)).recurse_included_files()}
    assert Path("dualdistill/cli/__init__.py") in files
    assert {path.parts[0] for path in files} == {"dualdistill"}  # neither benchmarks nor studies


def test_the_package_never_imports_what_is_not_installed():
    imports = re.compile(r"^\s*(?:from|import) (?:benchmarks|studies|tests)\b", re.MULTILINE)
    sources = (REPOSITORY / "src" / "dualdistill").rglob("*.py")
    assert not [path.name for path in sources if imports.search(path.read_text())]
