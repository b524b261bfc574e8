"""What `visualize` leaves behind."""

import sys

import pytest
from PIL import Image

from dualdistill.commands.visualize import visualize_run
from dualdistill.errors import UserError
from dualdistill.train.run_folder import RunFolder


def test_a_page_and_a_png_of_each_drawing_lie_beside_the_evaluation(runs, world, console):
    page = visualize_run(console, runs["student"], data=world, samples=2, checkpoint="last", split=None)
    folder = RunFolder(runs["student"]).evaluation("step_000003")
    assert page == folder / "report.html"
    assert "data:image/png" in page.read_text()
    names = sorted(path.name for path in (folder / "drawings").iterdir())
    assert len(names) == 6
    assert {name.split("-")[1] for name in names} == {"bev.png", "cameras.png", "features.png"}
    for name in names:
        with Image.open(folder / "drawings" / name) as image:
            assert min(image.size) > 100


def test_a_recording_holds_annotations_and_detections(runs, world, console):
    pytest.importorskip("rerun")
    run = runs["teacher"]
    visualize_run(console, run, data=world, samples=1, checkpoint="last", split=None, rerun=True)
    content = (RunFolder(run).evaluation("step_000003") / "recording.rrd").read_bytes()
    for entity in (b"bev/annotations", b"bev/points", b"bev/CAM_BACK", b"bev/synthetic/teacher-centerpoint"):
        assert entity in content
    assert "recording.rrd" in console.file.getvalue().replace("\n", "")


def test_without_rerun_nothing_is_evaluated_before_it_is_told(runs, world, console, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"dualdistill\[viz\]"):
        visualize_run(console, runs["student"], data=world, samples=1, checkpoint="last", split=None, rerun=True)
    assert not console.file.getvalue()
