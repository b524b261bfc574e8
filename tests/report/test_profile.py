"""A training's first steps, profiled."""

import json

import torch

from dualdistill.report.timing import SKIPPED, TAKEN, profiled_steps


def test_the_steps_after_the_first_are_in_the_profile_and_no_others(tmp_path):
    with profiled_steps(tmp_path / "profile", "cpu") as after_step:
        for step in range(SKIPPED + TAKEN + 2):
            with torch.profiler.record_function(f"number {step}"):
                torch.ones(2).add(1)
            after_step()
    names = {event.get("name") for event in json.loads((tmp_path / "profile/steps.json").read_text())["traceEvents"]}
    assert {f"number {step}" for step in range(SKIPPED, SKIPPED + TAKEN)} <= names
    assert not names & {f"number {step}" for step in (*range(SKIPPED), SKIPPED + TAKEN, SKIPPED + TAKEN + 1)}
    assert "aten::add" in (tmp_path / "profile/steps.txt").read_text()


def test_without_a_folder_nothing_is_profiled(tmp_path):
    with profiled_steps(None, "cpu") as after_step:
        after_step()
    assert not list(tmp_path.iterdir())
