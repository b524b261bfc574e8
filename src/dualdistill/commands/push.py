"""`push`: a trained detector to the Hugging Face hub, as one safetensors file with a model card."""

import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file, save_file

from dualdistill import hub
from dualdistill.commands.options.deployment import Push
from dualdistill.models.checkpoints import facts_text
from dualdistill.report.templates import render
from dualdistill.train.loaded_detector import LoadedDetector, weights_of
from dualdistill.train.run_folder import read_scores
from dualdistill.train.trained_weights import evaluation_folder


def push(console: Console, options: Push) -> str:
    """Upload the weights and the card of a run or weights file; returns the address of the repository.

    Paths of this machine are left out of both. `load("hf:owner/name")` takes it from there. Raises UserError for what
    is no trained detector, a name that is no repository, a missing extra, and where the hub cannot be written.
    """
    repo, _ = hub.repository(options.repo)
    hub.client()
    loaded = LoadedDetector.load(weights_of(options.what, options.checkpoint))
    facts = without_folders(loaded.facts)
    file, scores = options.what / "card.md", evaluation_folder(loaded.path) / "metrics.json"
    card = _without_paths(file.read_text(errors="replace"), loaded.facts) if file.is_file() else None
    metrics = read_scores(scores) if scores.is_file() else None
    page = render("model_card.md.jinja", repo=repo, facts=facts, card=card, metrics=metrics)
    with tempfile.TemporaryDirectory() as name:
        folder, message = Path(name), f"{facts['recipe']}, step {facts['step']}"
        save_file(load_file(loaded.path), folder / hub.FILE, metadata=facts_text(facts))
        (folder / "README.md").write_text(page + "\n")
        address = hub.upload(folder, repo, private=options.private, message=message)
    console.print(f"{options.what} -> {address}\nTake it with dualdistill.load('{hub.PREFIX}{repo}')")
    return address


def without_folders(facts: Any) -> Any:
    """Facts of a weights file in which absolute paths are names alone."""
    if isinstance(facts, dict):
        return {name: without_folders(value) for name, value in facts.items()}
    if isinstance(facts, list):
        return [without_folders(value) for value in facts]
    return Path(facts).name if isinstance(facts, str) and Path(facts).is_absolute() else facts


def _without_paths(text: str, facts: Any) -> str:
    """A text in which the absolute paths among the facts are names alone."""
    if isinstance(facts, dict | list):
        for value in facts.values() if isinstance(facts, dict) else facts:
            text = _without_paths(text, value)
    elif isinstance(facts, str) and Path(facts).is_absolute():
        text = text.replace(facts, Path(facts).name)
    return text
