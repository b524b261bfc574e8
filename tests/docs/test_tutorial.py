"""The tutorial's code, cut out of its page, keeps the contract of distillers and trains."""

import inspect
import io
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

import dualdistill
from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate, Resume, Train
from dualdistill.commands.train import resume_training, start_training
from dualdistill.errors import UserError
from dualdistill.experiment.external import UnloadedMethod, load
from dualdistill.experiment.plain import METHODS, from_plain, override, to_plain, with_method
from dualdistill.recipes.catalogue import find
from dualdistill.train.assemble import assemble
from dualdistill.train.data import random_batch
from dualdistill.train.run_folder import RunFolder
from tests.commands.conftest import STEPS, TINY_STUDENT, TINY_TEACHER, console  # noqa: F401 (a fixture)
from tests.distill import test_contract as contract
from tests.distill.conftest import make_pair  # noqa: F401 (a fixture)

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "new-method.md"
CONTRACT = {name: check for name, check in vars(contract).items() if name.startswith("test_")}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """`plain_mimic.py` as a reader would have it."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    path = tmp_path_factory.mktemp("tutorial") / "plain_mimic.py"
    path.write_text("\n\n".join(block.strip() for block in blocks) + "\n")
    return path


@pytest.fixture(scope="module")
def runs(file, world, tmp_path_factory):
    """A teacher, and the student of the page."""
    out, quiet = tmp_path_factory.mktemp("runs"), Console(file=io.StringIO())
    sets = {
        "synthetic/teacher-centerpoint": [*TINY_TEACHER, *STEPS],
        f"{file}:plain_mimic": [*TINY_TEACHER, *TINY_STUDENT, *STEPS, "distiller.weight=2"],
    }
    return [
        start_training(quiet, Train(recipe, data=world, out=out, overrides=changes, seed=0, workers=0))
        for recipe, changes in sets.items()
    ]


@pytest.mark.parametrize("method", ["PlainMimicConfig", "ForegroundConfig"])
@pytest.mark.parametrize("name", CONTRACT)
def test_the_methods_of_the_page_keep_the_contract_of_distillers(name, method, file, make_pair):  # noqa: F811
    config = load(f"{file}:{method}")()
    wanted = inspect.signature(CONTRACT[name]).parameters
    offered = {"config": config, "make_pair": make_pair, "batch": 1, "boxes": 0}
    CONTRACT[name](**{key: value for key, value in offered.items() if key in wanted})


def test_what_a_method_requires_reaches_its_targets_without_another_line(file):
    experiment = find(f"{file}:foreground").build()
    assert experiment.data.instances.masks == "synthetic"
    training = assemble(override(experiment, [*TINY_TEACHER, *TINY_STUDENT]))
    batch = random_batch(experiment.data, cameras=2, points=100)
    assert training(batch)["foreground"] > 0
    with pytest.raises(ValueError, match="requires instance masks"):
        replace(experiment, data=replace(experiment.data, instances=None))


def test_no_module_but_its_own_asks_for_the_type_of_a_methods_configuration():
    source = Path(dualdistill.__file__).parent
    files = [path for path in source.rglob("*.py") if path.parent.name != "distill"]
    names = "|".join(kind.__name__ for kind in METHODS.values())
    asking = re.compile(rf"isinstance\([^)]*\b({names})\b|type\([^)]*distiller\) (is|in|==)")
    found = {path.name: match.group() for path in files for match in asking.finditer(path.read_text())}
    assert found == {"plain.py": "type(distiller) is"}  # which writes the method's name


def test_its_run_names_the_method_and_where_it_stands(runs, file):
    run = RunFolder.open(runs[1])
    assert run.path.parent.name == run.path.parent.parent.name == "plain_mimic"
    record = run.experiment
    assert record["recipe"] == "plain_mimic/plain_mimic"
    assert record["experiment"]["distiller"] == {"method": f"{file}:PlainMimicConfig", "weight": 2.0}
    assert f"dualdistill train {file}:plain_mimic" in (run.path / "card.md").read_text()
    assert "loss/mimic" in json.loads(run.metrics.read_text().splitlines()[-1])


def test_an_experiment_with_it_survives_json_and_is_loaded_on_demand_only(file):
    experiment = find(f"{file}:plain_mimic").build()
    read = from_plain(to_plain(experiment))
    assert isinstance(read.distiller, UnloadedMethod)
    assert to_plain(read) == to_plain(experiment)
    assert with_method(read, trust=True) == experiment
    with pytest.raises(UserError, match=r"plain_mimic\.py:PlainMimicConfig.*--trust"):
        with_method(read, trust=False)


def test_without_the_file_a_student_is_evaluated_but_not_resumed(runs, file, console, tmp_path, monkeypatch):  # noqa: F811
    stopped = tmp_path / "stopped"
    shutil.copytree(runs[1], stopped, symlinks=True)
    (stopped / "finished.json").unlink()
    monkeypatch.delitem(sys.modules, str(file))
    hidden = file.rename(tmp_path / "hidden.py")
    try:
        assert 0 <= evaluate_anything(console, Evaluate(stopped))["nd_score"] <= 1
        with pytest.raises(UserError, match=r"no file .*plain_mimic\.py"):
            resume_training(console, Resume(stopped, workers=0, trust=True))
    finally:
        hidden.rename(file)


def test_resuming_gives_the_weights_of_an_unbroken_run(runs, console, tmp_path):  # noqa: F811
    broken = tmp_path / "broken"
    shutil.copytree(runs[1], broken, symlinks=True)
    (broken / "finished.json").unlink()
    shutil.rmtree(broken / "checkpoints" / "step_000003")
    RunFolder(broken).point("last", "step_000002")
    resume_training(console, Resume(broken, workers=0, trust=True))
    want, came = (load_file(RunFolder(run).checkpoint() / "student.safetensors") for run in (runs[1], broken))
    assert all((came[name] == value).all() for name, value in want.items())


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere.py:recipe", "There is no file"),
        (
            "{file}:plain_mimik",
            "It defines: Foreground, .*, PlainMimicConfig, .*, plain_mimic",
        ),
        ("{file}:PlainMimicConfig", "expected a function that returns Experiment"),
        ("no_such_package.mimic:recipe", "There is no module"),
    ],
)
def test_a_recipe_that_is_not_there_is_named(file, reference, message):
    with pytest.raises(UserError, match=message):
        find(reference.format(file=file)).build()
