"""`export`: files that answer as the live student does, and say what they are."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from dualdistill.commands.export import export_student
from dualdistill.commands.options.deployment import Export
from dualdistill.commands.predict import position_of
from dualdistill.deploy.calibration import Rig
from dualdistill.errors import UserError
from dualdistill.train.loaded_detector import LoadedDetector, weights_of

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="the extra [export] is not installed")


def exported(runs, tmp_path, console, **options):
    settings = {"out": tmp_path / "out", "data": None, "formats": ["torch"]} | options
    return export_student(console, Export(runs["student"], **settings))


def test_a_program_is_written_with_its_calibration_and_how_far_it_is_off(runs, tmp_path, console):
    record = exported(runs, tmp_path, console)
    out = tmp_path / "out"
    assert record == json.loads((out / "export.json").read_text())
    facts = record["files"]["model.pt2"]
    assert facts["difference"]["heatmap"]["relative"] <= 1e-4
    assert list(facts["inputs"]) == ["images"]
    rig = Rig.read(out / "calibration.json", "lidar")
    assert len(rig.names) == 6
    assert "torch.export.load" in (out / "README.md").read_text()


@needs_onnx
@pytest.mark.slow
def test_metrics_on_a_split_stay_where_they_are(runs, tmp_path, console):
    record = exported(runs, tmp_path, console, formats=["onnx,torch"], check_metrics=True)
    live = record["metrics"]["live"]
    for name in ("onnx", "torch"):
        assert record["metrics"][name]["NDS"] == pytest.approx(live["NDS"], abs=1e-3)
    assert set(record["files"]) == {"model.onnx", "model.pt2"}


def test_a_rig_of_the_users_own_can_be_frozen_without_data(runs, tmp_path, console):
    exported(runs, tmp_path, console)
    calibration = tmp_path / "out" / "calibration.json"
    record = exported(runs, tmp_path, console, out=tmp_path / "own", calibration=calibration, dtype="bf16")
    assert record["sample"] == "random images"
    assert record["files"]["model.pt2"]["dtype"] == "bf16"
    assert (tmp_path / "own" / "calibration.json").read_text() == calibration.read_text()


def test_without_the_extra_the_message_names_it(runs, tmp_path, console, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'dualdistill\[export\]'"):
        exported(runs, tmp_path, console, formats=["onnx"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["tflite"]}, "--format 'tflite': expected onnx, torch or both"),
        ({"formats": ["onnx"], "dtype": "bf16"}, "no bf16 convolutions"),
        ({"sample": "never"}, "neither the token"),
        ({"data": Path("somewhere"), "calibration": Path("some.json")}, "--data has no effect with --calibration"),
    ],
)
def test_what_cannot_be_exported_is_said_before_anything_is_written(runs, tmp_path, console, options, message):
    with pytest.raises(UserError, match=message):
        exported(runs, tmp_path, console, **options)
    assert not (tmp_path / "out").exists()


def test_a_teacher_is_no_student(runs, tmp_path, console):
    with pytest.raises(UserError, match="LiDAR teacher"):
        export_student(console, Export(runs["teacher"], out=tmp_path / "out", formats=["torch"]))


def test_a_file_that_answers_differently_is_an_error(runs, tmp_path, console, monkeypatch):
    from dualdistill.commands import export

    def wrong(run, student, batch, *, any_rig):
        head = run_truly(run, student, batch, any_rig=any_rig)
        return replace(head, heatmap=head.heatmap + 1)

    run_truly = export.predictions_of
    monkeypatch.setattr(export, "predictions_of", wrong)
    with pytest.raises(UserError, match="differ from those of the live model"):
        exported(runs, tmp_path, console)


def test_a_sample_is_named_by_token_or_number(runs, console):
    trained = LoadedDetector.load(weights_of(runs["student"], "last"))
    index = trained.index(None, None)
    first = position_of(index, "0", None)
    assert position_of(index, index.sample_token[first], None) == first
    with pytest.raises(UserError, match="from 0 to 2"):
        position_of(index, "3", None)
