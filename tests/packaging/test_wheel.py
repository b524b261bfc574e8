"""What is built for users: a wheel with the package alone, and a source archive that stays small."""

import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAX_SDIST_MB = 6.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(REPOSITORY), "--wheel-dir", str(folder), "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-build-isolation", "--no-index"], check=True)
    (file,) = folder.glob("dualdistill-*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"dualdistill", next(top for top in tops if top.endswith(".dist-info"))}


def test_the_package_never_imports_what_is_not_installed():
    imports = re.compile(r"^\s*(?:from|import) (?:benchmarks|studies|tests)\b", re.MULTILINE)
    sources = (REPOSITORY / "src" / "dualdistill").rglob("*.py")
    assert not [path.name for path in sources if imports.search(path.read_text())]


def test_the_wheel_holds_every_file_of_the_package_also_data(wheel):
    source = REPOSITORY / "src"
    files = [path for path in (source / "dualdistill").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    missing = {path.relative_to(source).as_posix() for path in files} - {*wheel.namelist()}
    assert not missing
    assert "dualdistill/py.typed" in wheel.namelist()
    assert "dualdistill/data/official_splits.json" in wheel.namelist()


def test_the_base_install_needs_no_ray_caster_and_the_synthetic_extra_does(metadata):
    required = metadata.get_all("Requires-Dist", [])
    base = [line for line in required if "extra ==" not in line]
    assert not any(line.startswith("embreex") for line in base)
    assert any("embreex" in line and "synthetic" in line for line in required)


def test_the_licences_travel_with_the_wheel(wheel, metadata):
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {name.rsplit("/", 1)[-1] for name in wheel.namelist() if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_unpacked_wheel_runs_from_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    wheel.extractall(site)
    script = f"import sys; sys.path.insert(0, {str(site)!r}); "
    script += "import dualdistill; print(dualdistill.__file__); "
    script += "[getattr(dualdistill, name) for name in dualdistill.__all__]; from dualdistill.cli import main; "
    script += "sys.argv = ['dualdistill', '--help']; main()"
    environment = {"PATH": "", "HOME": str(empty), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site / "dualdistill"))
    assert "train" in done.stdout


def test_the_source_archive_is_small_and_holds_what_a_build_needs(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.stat().st_size < MAX_SDIST_MB * 1e6
    with tarfile.open(archive) as files:
        inside = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "src/dualdistill/__init__.py"} <= inside
