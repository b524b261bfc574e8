"""`dualdistill export`: the student alone, as ONNX and as a PyTorch program, checked against the live model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dualdistill.commands.evaluate import write_detections
from dualdistill.commands.options.deployment import Export
from dualdistill.commands.predict import position_of, read_sample
from dualdistill.deploy.calibration import Rig
from dualdistill.deploy.freeze import Format, FrozenStudent, rig_geometry
from dualdistill.deploy.graph import (
    SUFFIXES,
    Deployable,
    Precision,
    deployable,
    require_onnx,
    storage_mib,
    write_onnx,
    write_torch,
)
from dualdistill.deploy.runtime import OnnxRun, Run, decode_boxes, frame_inputs, predictions_of
from dualdistill.errors import UserError
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.scoring import evaluate_submission
from dualdistill.evaluate.submission import write_submission
from dualdistill.evaluate.to_global import detections_to_global
from dualdistill.files import draft, require_folder, require_room, write_atomically, write_json
from dualdistill.models.bevdepth import BevDepth
from dualdistill.models.checkpoints import fingerprint
from dualdistill.report.progress import progress
from dualdistill.report.templates import render
from dualdistill.structures import Batch, HeadOutput
from dualdistill.train.assemble import split_names
from dualdistill.train.loaded_detector import LoadedDetector, weights_of

TOLERANCE: dict[Precision, float] = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest difference to the live model that passes, relative to the largest value of the output."""

_ROOM, _ROOM_FOR_GRAPH = 2, 20e6
"""Disk space of a file, in units of the weights, and bytes beside them."""

NDS_TOLERANCE = 0.001
"""Largest difference of NDS that --check-metrics allows: 0.1 points."""


def export_student(console: Console, options: Export) -> dict[str, Any]:
    """Write the files with calibration.json, export.json and a README into `out`; returns the content of export.json.
    Raises UserError for what cannot be exported, or if the outputs of a file differ from those of the live model."""
    formats, out = _formats(options), options.out
    require_folder(out)
    trained = LoadedDetector.load(weights_of(options.checkpoint, "last"))
    student, data = trained.detector, trained.experiment.data
    if not isinstance(student, BevDepth):
        raise UserError(f"{trained.path} holds a LiDAR teacher; export takes the camera student.")
    batch, rig = _sample(trained, options)
    weights = sum(tensor.nbytes for tensor in student.state_dict().values())
    room = _ROOM * len(formats) * weights + _ROOM_FOR_GRAPH
    require_room(out, room, f"The export of {len(formats)} files", "Free some, or give another --out.")
    rig.write(out / "calibration.json")
    checkpoint = {"path": str(trained.path), "sha256": fingerprint(trained.path), "recipe": trained.facts["recipe"]}
    record: dict[str, Any] = {
        "checkpoint": checkpoint,
        "sample": batch.meta[0].token or "random images",
        "geometry": options.geometry,
        "image_size": list(data.image_size),
        "bev": {"frame": data.bev_frame, "extent": list(student.grid.extent), "cell": student.grid.cell},
        "files": {},
    }
    for format in formats:
        path = out / f"model{SUFFIXES[format]}"
        record["files"][path.name] = facts = _export(path, student, batch, format, options)
        worst, allowed = max(d["relative"] for d in facts["difference"].values()), facts["tolerance"]
        console.print(
            f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB): differs from the live model by {worst:.1e} of the "
            f"largest value ({allowed:.0e} allowed)"
        )
    readme = render("export.md.jinja", recipe=trained.facts["recipe"], step=trained.facts["step"], **record)
    write_atomically(out / "README.md", readme)
    if options.check_metrics:
        record["metrics"] = _check_metrics(console, trained, options, formats)
    write_json(out / "export.json", record)
    console.print(f"wrote {out / 'export.json'}, calibration.json and README.md")
    return record


def _formats(options: Export) -> list[Format]:
    """The files that are asked for. Raises UserError for an unknown format, and for combinations that nothing can
    run."""
    words = [word for text in options.formats or ["onnx", "torch"] for word in text.split(",")]
    if unknown := [word for word in words if word not in SUFFIXES]:
        raise UserError(f"--format {unknown[0]!r}: expected onnx, torch or both, separated by a comma.")
    if options.dtype == "bf16" and "onnx" in words:
        raise UserError(
            "ONNX Runtime has no bf16 convolutions on the CPU: give --format torch with --dtype bf16. (OpenVINO runs "
            "the fp32 file in bf16 where the CPU can.)"
        )
    if "onnx" in words:
        require_onnx()
    return [format for format in dict.fromkeys(words) if format in SUFFIXES]


def _export(path: Path, student: BevDepth, batch: Batch, format: Format, options: Export) -> dict[str, Any]:
    """Write one file, unless its outputs differ from those of the live model (UserError); returns its facts."""
    allowed = TOLERANCE[options.dtype]
    with torch.no_grad():
        live = student(batch).predictions
    with draft(path) as temporary:
        graph, run = _written(temporary, student, batch, format, options.dtype, any_rig=options.geometry == "input")
        difference = compare(live, predictions_of(run, student, batch, any_rig=graph.any_rig))
        worst = max(each["relative"] for each in difference.values())
        if not worst <= allowed:
            raise UserError(
                f"The outputs of {path.name} differ from those of the live model ({worst:.1e} > {allowed:.0e}); it "
                "was not kept. Try another --format, or --dtype fp32."
            )
    return {
        "dtype": options.dtype,
        "sha256": fingerprint(path),
        "weights_mib": storage_mib(graph.graph),
        "inputs": {name: [str(t.dtype).removeprefix("torch."), *t.shape] for name, t in graph.inputs.items()},
        "outputs": list(graph.outputs),
        "difference": difference,
        "tolerance": allowed,
    }


def _written(
    path: Path, student: BevDepth, batch: Batch, format: Format, precision: Precision, *, any_rig: bool
) -> tuple[Deployable, Run]:
    """The student as a graph, and its file, loaded as a user would."""
    frozen = FrozenStudent(student, None if any_rig else rig_geometry(student, batch), format=format)
    graph = deployable(frozen, frame_inputs(student, batch, any_rig=any_rig), precision)
    if format == "onnx":
        write_onnx(path, graph)
        return graph, OnnxRun(path)
    write_torch(path, graph)
    return graph, replace(graph, graph=torch.export.load(path).module())


def _sample(trained: LoadedDetector, options: Export) -> tuple[Batch, Rig]:
    """Sample for tracing and checking, of a data root or random images of the user's rig, and its rig."""
    config = trained.experiment.data
    if options.calibration is not None:
        rig = Rig.read(options.calibration, config.bev_frame)
        shape = (config.num_frames, len(rig.names), 3, *config.image_size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return rig.batch(images, config), rig
    index, sample = trained.index(options.data, options.version), options.sample or "0"
    camera = index.sample_cameras[position_of(index, sample, options.split), 0]
    batch = read_sample(trained, index, sample, options.split)
    return batch, Rig.of(batch, index.image_size(camera), config.bev_frame)


def compare(live: HeadOutput, other: HeadOutput) -> dict[str, dict[str, float]]:
    """Largest difference of each output, absolute and relative to the largest value."""
    found = {}
    for name in ("heatmap", "regression"):
        reference, value = getattr(live, name), getattr(other, name)
        absolute = (reference - value.float()).abs().max().item()
        found[name] = {"absolute": absolute, "relative": absolute / max(reference.abs().max().item(), 1e-12)}
    return found


def _check_metrics(console: Console, trained: LoadedDetector, options: Export, formats: list[Format]) -> dict[str, Any]:
    """Score the live student and each exported form on a whole split, every sample with its own calibration, and refuse
    a form whose NDS differs by more than `NDS_TOLERANCE`."""
    student = trained.detector
    assert isinstance(student, BevDepth)
    index = trained.index(options.data, options.version)
    dataset = trained.dataset(index, options.split)
    split = options.split or split_names(index.version)[1]
    folder = options.out / "metrics"
    write_detections(console, trained, dataset, folder / "live" / "results_nusc.json")
    student.to("cpu")
    live = evaluate_submission(folder / "live" / "results_nusc.json", index, split, folder / "live")
    scores = {"live": {"mAP": live["mean_ap"], "NDS": live["nd_score"]}}
    for format in formats:
        # A frozen calibration is that of one sample; the cars of a data set, and their motion, differ.
        file = folder / f"any-rig{SUFFIXES[format]}"
        _, run = _written(file, student, dataset[0], format, options.dtype, any_rig=True)
        parts, tokens = [], []
        with progress(console, f"detecting with the {format} file") as report:
            for i in range(len(dataset)):
                batch = dataset[i]
                boxes = decode_boxes(student, predictions_of(run, student, batch, any_rig=True), batch)
                parts.append(detections_to_global(boxes, batch.meta[0], sample=i))
                tokens.append(batch.meta[0].token)
                report(i + 1, len(dataset))
        results = folder / format / "results_nusc.json"
        write_submission(results, Detections.concatenate(parts), tokens, sources=["camera"])
        metrics = evaluate_submission(results, index, split, folder / format)
        scores[format] = {"mAP": metrics["mean_ap"], "NDS": metrics["nd_score"]}
    for name, score in scores.items():
        console.print(
            f"{name}: mAP {100 * score['mAP']:.2f}, NDS {100 * score['NDS']:.2f} ({split}, {len(dataset)} samples)"
        )
        if abs(score["NDS"] - scores["live"]["NDS"]) > NDS_TOLERANCE:
            raise UserError(f"The {name} file changes NDS by more than {100 * NDS_TOLERANCE:.1f}: do not use it.")
    return scores
