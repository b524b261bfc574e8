"""The command line as a user meets it: verbs, messages, exit codes."""

import json
import subprocess
import sys

import pytest

from dualdistill import __version__


def run(*arguments):
    command = [sys.executable, "-m", "dualdistill.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def recipe_list(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "recipes.json"
    result = run("recipes", "list", "--json", path)
    assert result.returncode == 0, result.stderr
    return json.loads(path.read_text())


def test_recipes_are_listed_for_people_and_for_programs(recipe_list):
    names = [row["name"] for row in recipe_list]
    assert {"nuscenes/dualdistill-centerpoint", "synthetic/student", "synthetic/teacher-centerpoint"} <= set(names)


def test_only_nuscenes_recipes_carry_published_numbers_and_each_says_where_from(recipe_list):
    published = [row for row in recipe_list if row["published"]]
    assert published
    assert all(row["name"].startswith("nuscenes/") and row["published"]["source"] for row in published)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("recipes", "show", "nuscenes/dualdistil-centerpoint"),
            "Did you mean nuscenes/dualdistill-centerpoint",
        ),
        (("train", "synthetic/student", "--data", "/nowhere"), "/nowhere"),
        (("evaluate", "/nowhere/results.json"), "give --data"),
        (("evaluate", "/nowhere"), "no run folder"),
        (("resume", "/nowhere"), "not a run"),
        (("evaluate", "zoo:nobody", "--data", "/nowhere"), "zoo:teacher-centerpoint"),
        (("data", "check", "/nowhere"), "/nowhere"),
        (("data", "make-synthetic", "/nowhere", "--size", "huge"), "'huge' is not one of"),
        (("trian",), "No such command"),
    ],
)
def test_a_users_mistake_ends_with_code_2_and_a_message_without_traceback(arguments, message):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_what_differs_between_two_recipes_is_all_that_diff_says(tmp_path):
    path = tmp_path / "diff.json"
    result = run(
        "recipes",
        "diff",
        "nuscenes/dualdistill-centerpoint",
        "nuscenes/dualdistill-centerpoint-no-crd",
        "--json",
        path,
    )
    assert result.returncode == 0
    assert [row["setting"] for row in json.loads(path.read_text())] == ["distiller.crd"]


def test_the_version_and_the_zoo_are_printed(tmp_path):
    assert run("--version").stdout.strip() == f"dualdistill {__version__}"
    result = run("zoo", "--json", tmp_path / "zoo.json")
    assert result.returncode == 0, result.stderr
    for model in json.loads((tmp_path / "zoo.json").read_text()):
        assert model["name"] in result.stdout
    card = run("zoo", "student-distilled").stdout
    assert "settings  student.image.pretrained=zoo:backbone training.steps=" in card


def test_doctor_finds_nothing_wrong_where_the_tests_run():
    result = run("doctor")
    assert result.returncode == 0, result.stdout
