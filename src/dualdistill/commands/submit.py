"""`submit`: a file for the nuScenes detection server, written and checked, not scored."""

from typing import Any

import numpy as np
from rich.console import Console

from dualdistill.commands.evaluate import write_detections
from dualdistill.commands.options.training import Submit
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.evaluate.submission import SOURCES, read_submission
from dualdistill.files import write_atomically
from dualdistill.train.data import default_workers
from dualdistill.train.loaded_detector import LoadedDetector, weights_of


def submit_results(console: Console, options: Submit) -> dict[str, Any]:
    """Run a detector, or take a result file, and write the file to hand in; returns its facts. Raises UserError for a
    detector without data, and for everything that the server rejects: boxes, meta entry, samples."""
    what, out, split = options.what, options.out, options.split
    index = None if options.data is None else NuscenesIndex.open(options.data, options.version)
    if index is not None:
        split = split or ("test" if index.version.endswith("test") else "val")
    if what.suffix == ".json":
        written = what
    else:
        if index is None:
            raise UserError("To run a detector, --data ROOT is needed: the nuScenes root of the test split.")
        loaded = LoadedDetector.load(weights_of(what, options.checkpoint or "last"))
        written = out
        workers = default_workers() if options.workers is None else options.workers
        write_detections(console, loaded, loaded.dataset(index, split), out, workers)
    submission = read_submission(written)
    wanted = {f"use_{source}" for source in SOURCES}
    if submission.meta.keys() != wanted or not all(isinstance(value, bool) for value in submission.meta.values()):
        raise UserError(f"{written}: the meta entry must give true or false for each of {', '.join(sorted(wanted))}.")
    if index is not None:
        assert split is not None
        tokens = [index.sample_token[position] for position in samples_of_split(index, split)]
        submission.for_samples(tokens, others="refuse")
    if written != out:
        write_atomically(out, written.read_text())
    counts = np.bincount(submission.detections.sample, minlength=len(submission.sample_tokens))
    uses = [source for source in SOURCES if submission.meta[f"use_{source}"]]
    facts = {"samples": len(counts), "boxes": int(counts.sum()), "most_boxes": int(counts.max(initial=0))}
    checked = f"every sample of split {split}" if index is not None else "samples not checked, which needs --data ROOT"
    console.print(
        f"wrote {out}: {facts['samples']} samples, {facts['boxes']} boxes (at most "
        f"{facts['most_boxes']} in one), inputs: {', '.join(uses)}; {checked}. Not scored here: the server has the "
        "annotations."
    )
    return {"file": str(out), "split": split, "uses": uses, **facts}
