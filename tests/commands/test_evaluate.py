"""What `evaluate` prints beside the scores, and how it loads data."""

from dataclasses import replace

import pytest

from dualdistill.commands import evaluate as verb
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate
from dualdistill.recipes.catalogue import RECIPES, Published
from dualdistill.train import loaded_detector
from dualdistill.train.data import MAX_WORKERS, default_workers


def test_data_is_loaded_by_as_many_processes_as_in_training(runs, world, console, monkeypatch):
    asked = []

    def loader(dataset, **options):
        asked.append(options["num_workers"])
        return original(dataset, **options | {"num_workers": 0})

    original = loaded_detector.DataLoader
    monkeypatch.setattr(loaded_detector, "DataLoader", loader)
    monkeypatch.setattr(verb, "default_workers", lambda processes: 5)
    evaluate_anything(console, Evaluate(runs["student"], data=world))
    evaluate_anything(console, Evaluate(runs["student"], data=world, workers=2))
    assert asked == [5, 2]


@pytest.mark.parametrize(("cores", "workers"), [(1, 0), (2, 1), (8, 7), (64, MAX_WORKERS)])
def test_one_core_is_left_to_the_main_process(monkeypatch, cores, workers):
    monkeypatch.setattr("dualdistill.train.data.os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_workers() == workers


def test_a_published_result_stands_beside_the_measured_one(runs, world, console, monkeypatch):
    recipe = RECIPES["synthetic/student"]
    published = Published(mean_ap=36.4, nds=48.4, source="a paper")
    monkeypatch.setitem(RECIPES, recipe.name, replace(recipe, published=published))
    evaluate_anything(console, Evaluate(runs["student"], data=world, workers=0))
    shown = console.file.getvalue()
    assert "Published for synthetic/student: mAP 36.4, NDS 48.4 (a paper)." in shown
    assert "does not compare" in shown  # a synthetic world is not nuScenes val


def test_scores_without_any_hit_come_with_a_warning(runs, world, console):
    metrics = evaluate_anything(console, Evaluate(runs["student"], data=world, workers=0))
    assert ("AP is 0 for every class" in console.file.getvalue()) == (metrics["mean_ap"] == 0)
