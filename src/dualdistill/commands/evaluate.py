"""`evaluate`: a run, a weights file or a result file, scored with the nuScenes detection metrics."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from rich.console import Console

from dualdistill.commands.options.training import Evaluate
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_scenes
from dualdistill.errors import UserError
from dualdistill.evaluate.scoring import evaluate_submission, official_metrics, read_results, slices, warning_signs
from dualdistill.evaluate.submission import Source, write_submission
from dualdistill.experiment.experiment import Role
from dualdistill.files import write_atomically, write_json
from dualdistill.recipes.catalogue import RECIPES
from dualdistill.report.progress import progress
from dualdistill.report.scores import PERCENT, ResultRow, results_table
from dualdistill.report.table import Column, Table
from dualdistill.train.assemble import split_names
from dualdistill.train.data import default_workers
from dualdistill.train.launch import launch
from dualdistill.train.loaded_detector import LoadedDetector, detect_together, naming, weights_of
from dualdistill.train.trained_weights import evaluation_folder

_SOURCES: dict[Role, Source] = {"teacher": "lidar", "student": "camera", "label_encoder": "external"}
_SLICES = (
    Column(key="name", title="Part"),
    Column(key="objects", title="Objects"),
    Column(key="classes", title="Classes"),
    Column(key="mean_ap", title="mAP of these", **PERCENT),
)
ORACLE = (
    "A label encoder gets the annotations as its input: its score measures how well the teacher's head decodes them."
)
WITHOUT_SPCONV = "spconv is not installed: plain PyTorch convolves the voxels, with the same result."


def evaluate_anything(console: Console, options: Evaluate) -> dict[str, Any]:
    """Score a run folder, a weights file or a result file, and print the scores.

    Writes metrics.json, evaluated.json (root, version and split), for a detector results_nusc.json, with `slices`
    slices.json; the scores of a part of the split to the folder part/. Of several processes (`devices`), those that do
    not lead end here.

    Returns the metrics, with the keys of the devkit's `metrics_summary.json`. Raises UserError for input that cannot be
    evaluated.
    """
    what, split, out = options.what, options.split, options.out
    loaded = None
    if what.suffix == ".json":
        if options.data is None:
            raise UserError("A result file does not name its data: give --data ROOT.")
        if not what.is_file():
            raise UserError(f"There is no result file {what}.")
        index = NuscenesIndex.open(options.data, options.version)
        results, name, folder = what, what.name, out or what.parent / "evaluation" / what.stem
    else:
        weights = weights_of(what, options.checkpoint or "last")
        if not weights.exists():
            raise UserError(f"There is no run folder, weights file or result file {what}.")
        loaded = LoadedDetector.load(weights)
        if loaded.without_spconv:
            console.print(WITHOUT_SPCONV)
        index = loaded.index(options.data, options.version)
        name, folder = loaded.facts["recipe"], out or evaluation_folder(loaded.path)
    folder = folder / "part" if options.partly and out is None else folder
    split = split_names(index.version)[1] if split is None else split
    scenes = options.scenes.split(",") if options.scenes else ()
    samples = samples_of_scenes(index, split, scenes, options.fraction) if options.partly else None
    if loaded is not None:
        results = folder / "results_nusc.json"
        devices = options.devices or 1
        workers = default_workers(devices) if options.workers is None else options.workers
        fabric = launch(devices)
        write_detections(console, loaded, loaded.dataset(index, split, samples), results, workers, fabric)
        if not fabric.is_global_zero:
            raise SystemExit(0)
    if options.official:
        metrics = official_metrics(results, index.root, index.version, split, folder)
    else:
        metrics = evaluate_submission(results, index, split, folder, samples=samples)
    evaluated = {"root": str(index.root.resolve()), "version": index.version, "split": split}
    if samples is not None:
        evaluated["scenes"] = ", ".join(dict.fromkeys(index.scene_name[s] for s in index.sample_scene[samples]))
        console.print(f"{len(samples)} samples of split {split}: a part of it, which compares with no published score.")
    write_json(folder / "evaluated.json", evaluated)
    console.print(results_table([ResultRow.from_metrics(name, metrics)]).to_rich(console.width))
    if options.slices:
        parts = slices(index, *read_results(results, index, split, samples)[:2])
        table = Table(columns=_SLICES, rows=tuple(map(asdict, parts)))
        console.print(table.to_rich(console.width))
        write_atomically(folder / "slices.json", table.to_json())
    whole_val = split == "val" and not options.partly and not (index.root / "synthetic.json").is_file()
    for line in (*_remarks(loaded, metrics, compares=whole_val), *warning_signs(metrics)):
        console.print(line)
    console.print(f"wrote {folder / 'metrics.json'}")
    return metrics


def write_detections(
    console: Console,
    loaded: LoadedDetector,
    dataset: NuscenesDataset,
    path: Path,
    workers: int = 0,
    fabric: Fabric | None = None,
) -> None:
    """Run a detector on every sample of a data set and write its result file. `fabric`: the processes that share the
    samples, of which the leading one writes; None for this one alone. Raises UserError if its weights diverged."""
    fabric = fabric or launch(1)
    loaded.detector.to(fabric.device)
    console = console if fabric.is_global_zero else Console(quiet=True)
    share = -(-len(dataset) // fabric.world_size)  # the leading process has one of the largest
    with progress(console, f"detecting with {loaded.facts['recipe']}") as report, naming(loaded):
        found = detect_together(loaded.detector, dataset, workers=workers, report=lambda done: report(done, share))
    if fabric.is_global_zero:
        tokens = [dataset.index.sample_token[int(position)] for position in dataset.positions]
        write_submission(path, found, tokens, sources=[_SOURCES[loaded.experiment.role]])


def _remarks(loaded: LoadedDetector | None, metrics: dict[str, Any], *, compares: bool) -> Iterator[str]:
    """The published result of the recipe beside the measured one, and the meaning of an unusual score. `compares`:
    whether the scores are those of nuScenes val, as the published ones."""
    if loaded is None:
        return
    if loaded.experiment.role == "label_encoder":
        yield ORACLE
    recipe = RECIPES.get(loaded.facts["recipe"])
    if recipe is None or recipe.published is None:
        return
    published = recipe.published
    line = f"Published for {recipe.name}: mAP {published.mean_ap:g}, NDS {published.nds:g} ({published.source})."
    if compares:
        gaps = (100 * metrics["mean_ap"] - published.mean_ap, 100 * metrics["nd_score"] - published.nds)
        line += " Measured minus published: mAP {:+.1f}, NDS {:+.1f}.".format(*gaps).replace("-", "−")
    else:
        line += " That is nuScenes val: it does not compare with the split evaluated here."
    yield line
