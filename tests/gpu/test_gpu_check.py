"""`make gpu-check` at toy size on the CPU: every check runs, problems are found and named."""

import json
import math

import pytest
from rich.console import Console

from tools import gpu_check


@pytest.mark.slow
def test_all_checks_pass_on_a_cpu_and_are_on_the_page(tmp_path):
    report = gpu_check.run(gpu_check.TOY, tmp_path, minutes=60)
    assert report["problems"] == []
    assert list(report["seconds"]) == [check.__name__ for check in gpu_check.CHECKS]
    assert json.loads((tmp_path / "gpu-check.json").read_text()) == json.loads(json.dumps(report))
    page = (tmp_path / "gpu-check.md").read_text()
    assert all(f"## {name}" in page for name in report["results"])
    assert "No problem was found." in page


@pytest.mark.parametrize("difference", [0.2, math.inf, math.nan])
def test_a_difference_beyond_its_limit_is_a_problem(tmp_path, difference):
    checker = gpu_check.Checker(size=gpu_check.TOY, folder=tmp_path, console=Console(), results={}, problems=[])
    checker.compare("operators", "within", 0.05, 0.1)
    assert checker.problems == []
    checker.compare("operators", "beyond", difference, 0.1)
    assert len(checker.problems) == 1
    assert "beyond" in checker.problems[0]


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(checker):
        """Fails."""
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(gpu_check, "CHECKS", (broken, gpu_check.operators))
    report = gpu_check.run(gpu_check.TOY, tmp_path, minutes=60)
    (problem,) = report["problems"]
    assert problem.startswith("broken: ")
    assert "no such kernel" in problem
    assert "lift-splat pooling" in report["results"]["operators"]


def test_a_check_beyond_the_time_limit_is_left_out_and_named(tmp_path):
    report = gpu_check.run(gpu_check.TOY, tmp_path, minutes=-1)
    assert len(report["problems"]) == len(gpu_check.CHECKS)
    assert all("left out" in problem for problem in report["problems"])
