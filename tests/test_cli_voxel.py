"""Voxels on the command line: what `doctor` says of spconv, and `convert --voxel`."""

import importlib
import json
import sys
from importlib.util import find_spec

import pytest
import torch

from dualdistill.cli import main
from dualdistill.models.checkpoints import read_facts
from tests.convert.foreign import mmdet3d_pillars, mmdet3d_voxels


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line in this process: exit code, what it printed, what it complained of; white space as one blank."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dualdistill", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, " ".join(captured.out.split()), " ".join(captured.err.split())

    return run


@pytest.fixture
def foreign(tmp_path):
    """Files of voxels, of voxels whose configuration was recorded, and of pillars."""
    recorded = {"mmdet3d_version": "0.17.2", "config": "voxel_size = [0.075, 0.075, 0.2]"}
    files = {
        "voxels": (mmdet3d_voxels(), {}),
        "recorded": (mmdet3d_voxels(), recorded),
        "pillars": (mmdet3d_pillars(), {}),
    }
    for name, (state, meta) in files.items():
        torch.save({"state_dict": dict(state), "meta": meta}, tmp_path / f"{name}.pth")
    return tmp_path


def test_doctor_tells_whether_spconv_is_there_and_how_to_get_it(run):
    code, out, _ = run("doctor")
    assert code == 0
    there = "is installed" if find_spec("spconv") else "is not installed (pip install 'dualdistill[voxel]')"
    assert f"spconv (optional, for voxel CenterPoint at full speed) {there}" in out


def test_doctor_finds_a_spconv_of_any_wheel(run, tmp_path, monkeypatch):
    (tmp_path / "spconv").mkdir()  # the wheels of GPUs have other names, their package has not
    (tmp_path / "spconv" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert "spconv (optional, for voxel CenterPoint at full speed) is installed" in run("doctor")[1]


@pytest.mark.parametrize(("size", "reach"), [(0.1, 51.2), (0.075, 54.0)])
def test_convert_takes_the_size_of_the_voxels_that_the_user_names(run, foreign, size, reach):
    out = foreign / "teacher.safetensors"
    code, said, _ = run(
        *("convert", foreign / "voxels.pth", "--out", out, "--boxes", "legacy"),
        *("--voxel", size, "--json", foreign / "account.json"),
    )
    assert code == 0
    assert f"wrote {out} (teacher)" in said
    teacher = read_facts(out)["experiment"]["teacher"]
    assert (teacher["voxel"]["size"], teacher["reach"]) == (size, reach)
    account = json.loads((foreign / "account.json").read_text())
    assert [entry["key"] for entry in account["keys"]] == list(mmdet3d_voxels())


def test_convert_reads_the_size_of_the_voxels_where_the_file_records_it(run, foreign):
    code, *_ = run("convert", foreign / "recorded.pth", "--out", foreign / "teacher.safetensors")
    assert code == 0
    assert read_facts(foreign / "teacher.safetensors")["experiment"]["teacher"]["voxel"]["size"] == 0.075


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("voxels", ("--boxes", "legacy"), "Give --voxel 0.1 (range ±51.2 m) or --voxel 0.075"),
        ("voxels", ("--boxes", "legacy", "--voxel", "0.2"), "--voxel is 0.1 or 0.075 (metres), got 0.2"),
        ("recorded", ("--voxel", "0.1"), "--voxel 0.1 contradicts the file: its configuration has 0.075 m"),
        ("pillars", ("--boxes", "legacy", "--voxel", "0.1"), "has no voxels: leave out --voxel"),
    ],
)
def test_a_size_of_voxels_that_is_missing_or_wrong_ends_with_code_2_and_no_file(run, foreign, name, options, message):
    code, _, complaint = run("convert", foreign / f"{name}.pth", "--out", foreign / "teacher.safetensors", *options)
    assert code == 2
    assert message in complaint
    assert not (foreign / "teacher.safetensors").exists()
