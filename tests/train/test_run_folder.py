"""Run folders."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dualdistill.errors import UserError
from dualdistill.files import write_atomically
from dualdistill.train.run_folder import RunFolder


def test_runs_that_start_at_once_do_not_share_a_folder(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.create(tmp_path, "synthetic/student", 0), range(24)))
    assert len({run.path for run in runs}) == 24
    assert all(run.path.parent == tmp_path / "synthetic/student" for run in runs)


def test_a_folder_without_an_experiment_is_no_run(tmp_path):
    with pytest.raises(UserError, match="not a run"):
        RunFolder.open(tmp_path)


def test_pointers_follow_and_missing_checkpoints_name_those_there_are(tmp_path):
    run = RunFolder.create(tmp_path, "r", 0)
    for step in ("step_000001", "step_000002"):
        (run.checkpoints / step).mkdir(parents=True)
        run.point("last", step)
    assert run.checkpoint("last").name == "step_000002"
    with pytest.raises(UserError, match="step_000001, step_000002, last"):
        run.checkpoint("best")
    run.point("best", "step_000009")
    assert run.pointed("best") is None
    run.point("best", "../../elsewhere")
    assert run.pointed("best") is None


def test_a_run_that_a_process_trains_is_refused_to_another_until_it_is_gone(tmp_path):
    run = RunFolder.create(tmp_path, "r", 0)
    program = (
        "import sys; from pathlib import Path; from dualdistill.train.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"trained by another process \(process {holder.pid} "), run.lock():
            pass
        holder.kill()
    with run.lock():
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)
    assert path.read_text() == "old"
