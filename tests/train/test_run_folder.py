"""Run folders."""

import pytest

from dualdistill.errors import UserError
from dualdistill.train.run_folder import RunFolder, write_atomically


def test_two_runs_of_one_second_do_not_share_a_folder(tmp_path):
    runs = [RunFolder.create(tmp_path, "synthetic/student", 0) for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.parent == tmp_path / "synthetic/student" for run in runs)


def test_a_folder_without_an_experiment_is_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run"):
        RunFolder.open(tmp_path)


def test_links_follow_and_missing_checkpoints_name_those_there_are(tmp_path):
    run = RunFolder.create(tmp_path, "r", 0)
    for step in ("step_000001", "step_000002"):
        (run.checkpoints / step).mkdir(parents=True)
        run.point("last", step)
    assert run.checkpoint("last").name == "step_000002"
    with pytest.raises(UserError, match="step_000001"):
        run.checkpoint("best")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)
    assert path.read_text() == "old"
