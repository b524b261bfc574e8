"""The examples run as they stand, and pages quote them as they are."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from dualdistill.commands.data import check_files
from dualdistill.data.dataset import NuscenesDataset
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.recipes.catalogue import find
from tests.commands.conftest import console, runs  # noqa: F401 (fixtures)

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "examples"


def run(script, *arguments, **options):
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}  # as in a shell
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def body(script):
    """An example without its docstring."""
    return (EXAMPLES / script).read_text().partition('"""\n\n')[2].strip()


def code_blocks(page):
    text = (REPOSITORY / page).read_text()
    return [block.strip() for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)]


def test_the_loop_of_ones_own_learns_in_25_lines():
    lines = (EXAMPLES / "distil.py").read_text().splitlines()
    assert len(lines) <= 25
    losses = [float(line.split()[1]) for line in run("distil.py").splitlines()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("cameras", [1, 3])
def test_images_of_ones_own_need_a_rig(cameras, runs, tmp_path):  # noqa: F811
    for number in range(cameras):
        Image.new("RGB", (160, 90), (90, 100, 110)).save(tmp_path / f"{number}.png")
    camera = {
        "intrinsics": [[120, 0, 80], [0, 120, 45], [0, 0, 1]],
        "lidar_from_camera": [[1, 0, 0, 0], [0, 0, 1, 0.4], [0, -1, 0, -0.3], [0, 0, 0, 1]],
    }
    rig = {"image_size": [90, 160], "cameras": [{"name": str(number), **camera} for number in range(cameras)]}
    (tmp_path / "rig.json").write_text(json.dumps(rig))
    run("predict.py", runs["student"], tmp_path / "rig.json", *sorted(tmp_path.glob("*.png")))


def test_drives_of_ones_own_become_a_root_that_trains(tmp_path, console):  # noqa: F811
    run("own_data.py", tmp_path)
    index = NuscenesIndex.open(tmp_path)
    data = find("synthetic/student").build().data
    for split in ("train", "val"):
        assert not check_files(console, tmp_path, index.version, split, data).problems
        dataset = NuscenesDataset(index, data, samples_of_split(index, split), training=False, seed=0)
        boxes = [dataset[(0, i)].boxes[0] for i in range(len(dataset))]
        assert len(boxes) == 4
        for each in boxes:  # the leader stays 12 m ahead of the rear axle, 0.9 m behind the LiDAR's mounting
            assert torch.allclose(each.center, torch.tensor([[0.0, 11.1, -1.0]]), atol=1e-4)
        assert torch.allclose(boxes[1].velocity, torch.tensor([[0.0, 10.0]]), atol=1e-3)


def test_the_method_of_ones_own_is_the_tutorials():
    example = (EXAMPLES / "own_method.py").read_text()
    assert example.strip() == "\n\n\n".join(code_blocks("docs/tutorials/new-method.md")[:3])
    recipe = find(f"{EXAMPLES / 'own_method.py'}:plain_mimic")
    assert replace(recipe.build()).distiller.weights == {"mimic": 1.0}


@pytest.mark.parametrize("script", ["predict.py", "distil.py"])
def test_the_page_about_python_quotes_the_examples_as_they_are(script):
    assert body(script) in code_blocks("docs/python.md")


def test_the_readme_quotes_six_lines_that_find_boxes():
    start = "student = "
    six = start + body("predict.py").partition(start)[2]
    assert len(six.splitlines()) <= 6
    assert six in code_blocks("README.md")
