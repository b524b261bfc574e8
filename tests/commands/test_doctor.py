"""What `doctor` tells, and what it asks for."""

import shutil

import pytest
import torch
from packaging.requirements import Requirement

from dualdistill.commands import doctor
from dualdistill.commands.doctor import package, run_checks
from dualdistill.commands.options.data import Doctor


def exit_code(console, data):
    try:
        run_checks(console, Doctor(data))
    except SystemExit as stop:
        return stop.code
    return 0


def test_a_package_is_missing_too_old_or_good():
    assert not package(Requirement(f"torch>={torch.__version__.split('+')[0]}")).remedy
    assert package(Requirement("torch>=99")).remedy == "pip install 'torch>=99'"
    assert "is missing" in package(Requirement("no-such-package>=1")).what


def test_every_version_of_a_root_is_told_and_missing_files_too(console, world, tmp_path):
    (version,) = [path.name for path in world.glob("v1.0-*")]
    shutil.copytree(world / version, tmp_path / version)
    (tmp_path / "v1.0-test").mkdir()
    assert exit_code(console, tmp_path) == 2
    said = console.file.getvalue()
    assert "v1.0-test" in said
    assert f"({version})" in said
    assert "is missing" in said
    assert "unpack samples and sweeps there" in said


def test_a_good_root_is_no_problem(console, world):
    assert exit_code(console, world) == 0
    assert "key frames" in console.file.getvalue()
    assert "bad" not in console.file.getvalue()


@pytest.mark.parametrize("free", [1e9, 1e12])
def test_a_full_disk_is_a_problem(console, monkeypatch, free):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage._replace(free=int(free)))
    assert exit_code(console, None) == (2 if free < 5e9 else 0)


def test_a_driver_that_torch_cannot_use_is_a_problem(console, monkeypatch, tmp_path):
    (tmp_path / "version").touch()
    monkeypatch.setattr(doctor, "_NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert exit_code(console, None) == 2
    assert "nvidia-smi" in console.file.getvalue()


def test_no_root_is_told_how_to_get_one(console, tmp_path):
    assert exit_code(console, tmp_path) == 2
    assert "make-synthetic" in console.file.getvalue()
