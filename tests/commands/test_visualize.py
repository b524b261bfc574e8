"""What `visualize` leaves behind."""

import sys
from dataclasses import replace

import pytest
from PIL import Image
from rich.console import Console

from dualdistill.commands import visualize as verb
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate, Visualize
from dualdistill.commands.visualize import visualize_run
from dualdistill.errors import UserError
from dualdistill.report.page import ReportPage
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from dualdistill.train.trained_weights import evaluation_folder


def test_a_page_and_a_png_of_each_drawing_lie_beside_the_evaluation(runs, world, console):
    page = visualize_run(console, Visualize(runs["student"], data=world, samples=2, checkpoint="last", split=None))
    folder = RunFolder(runs["student"]).evaluation("step_000003")
    assert page == folder / "report.html"
    assert "data:image/png" in page.read_text()
    names = sorted(path.name for path in (folder / "drawings").iterdir())
    assert len(names) == 8
    assert {name.split("-")[1] for name in names} == {"bev.png", "cameras.png", "depth.png", "features.png"}
    for name in names:
        with Image.open(folder / "drawings" / name) as image:
            assert min(image.size) > 100


@pytest.mark.parametrize(("frame", "axis"), [("lidar", "y"), ("ego", "x")])
def test_forward_is_up_in_the_frame_of_the_student(runs, world, monkeypatch, frame, axis):
    seen = set()
    for name in ("draw_bev", "draw_features"):
        drawing = getattr(verb, name)

        def noted(*given, drawing=drawing, **options):
            seen.add(options["forward"])
            return drawing(*given, **options)

        monkeypatch.setattr(verb, name, noted)
    loaded = LoadedDetector.load(weights_of(runs["student"], "last"))
    loaded = replace(
        loaded, experiment=replace(loaded.experiment, data=replace(loaded.experiment.data, bev_frame=frame))
    )
    dataset = verb.all_sensors(loaded, world)
    folder = evaluation_folder(loaded.path)
    evaluate_anything(Console(quiet=True), Evaluate(runs["student"], data=world, workers=0))
    facts = {"name": "student", "colour": "student", "loaded": loaded, "run": RunFolder(runs["student"])}
    model = verb.ReportedModel.read(folder, dataset.index, "val", **facts)
    verb.add_scenes(ReportPage("page"), [model], dataset, samples=1)
    assert seen == {axis}


def test_a_recording_holds_annotations_and_detections(runs, world, console):
    pytest.importorskip("rerun")
    run = runs["teacher"]
    visualize_run(console, Visualize(run, data=world, samples=1, checkpoint="last", split=None, rerun=True))
    content = (RunFolder(run).evaluation("step_000003") / "recording.rrd").read_bytes()
    for entity in (b"bev/annotations", b"bev/points", b"bev/CAM_BACK", b"bev/synthetic/teacher-centerpoint"):
        assert entity in content
    assert "recording.rrd" in console.file.getvalue().replace("\n", "")


def test_without_rerun_nothing_is_evaluated_before_it_is_told(runs, world, console, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"dualdistill\[viz\]"):
        visualize_run(
            console, Visualize(runs["student"], data=world, samples=1, checkpoint="last", split=None, rerun=True)
        )
    assert not console.file.getvalue()
