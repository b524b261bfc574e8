"""`visualize`: report.html and drawings of one run."""

from contextlib import nullcontext
from pathlib import Path

from rich.console import Console

from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.report_sections import ReportedModel, Scored, add_facts, add_scenes, add_training, all_sensors
from dualdistill.files import write_atomically
from dualdistill.report.page import ReportPage
from dualdistill.report.scores import ResultRow, results_table
from dualdistill.train.assemble import split_names
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import RunFolder
from dualdistill.visualize.recording import Recording, require_rerun


def visualize_run(
    console: Console,
    path: Path,
    *,
    data: Path | None,
    samples: int,
    checkpoint: str,
    split: str | None,
    rerun: bool = False,
) -> Path:
    """Evaluate a checkpoint and draw its detections; returns the path of report.html, beside its metrics.

    The drawings on the page are also written as PNG files, into drawings/; with `rerun` a recording too. Raises
    UserError if `path` is no run, and, with `rerun`, where that package is not installed.
    """
    run = RunFolder.open(path)
    weights = weights_of(path, checkpoint)
    folder = run.evaluation(weights.parent.name)
    if rerun:
        require_rerun()  # before the evaluation, which may take long
    loaded = LoadedDetector.load(weights)
    metrics = evaluate_anything(console, weights, data=data, split=split)
    experiment = loaded.experiment
    colour = "teacher" if experiment.role != "student" else "distilled" if experiment.distiller else "student"
    dataset = all_sensors(loaded, data, split)
    scored = Scored.read(folder, dataset.index, split or split_names(dataset.index.version)[1])
    model = ReportedModel(name=loaded.facts["recipe"], colour=colour, loaded=loaded, run=run, scored=scored)
    page = ReportPage(model.name, f"Step {loaded.facts['step']}, evaluated on {split or 'the validation split'}.")
    table = results_table([ResultRow.from_metrics(model.name, metrics)])
    page.section("Result").table(table, "Scores on the split named above.")
    add_training(page, [model])
    with Recording(folder / "recording.rrd") if rerun else nullcontext() as recording:
        add_scenes(page, [model], dataset, samples, drawings=folder / "drawings", recording=recording)
    add_facts(page, [model])
    written = folder / "report.html"
    write_atomically(written, page.html())
    console.print(f"wrote {written}, and its drawings of samples in {folder / 'drawings'}")
    if rerun:
        console.print(f"wrote {folder / 'recording.rrd'}: open it with `rerun {folder / 'recording.rrd'}`")
    return written
