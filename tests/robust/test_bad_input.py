"""Every bad input ends with exit code 2 and a message that names what was expected, what came and what to do."""

from pathlib import Path

import pytest

from tests.robust.cases import Case, every_case
from tests.robust.examine import examine
from tests.robust.outcome import run_command
from tests.robust.places import Places

CASES = every_case()


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    made = Places(tmp_path_factory.mktemp("robust"))
    made.prepare()
    return made


def test_there_are_many_cases_of_every_class() -> None:
    assert len(CASES) >= 400
    assert {case.group.split()[0] for case in CASES} >= {"1", "4", "6", "7", "8", "9", "10", "11", "13", "15", "17"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.group}: {case.name}")
def test_bad_input_is_refused_in_words_before_a_run_folder_exists(places: Places, case: Case) -> None:
    verdict = examine(case, places)
    assert verdict.kind == "clear", verdict.text
    assert verdict.new_runs == ()


def test_preparing_data_prints_what_is_wrong_with_sensor_files(places: Places) -> None:
    root = places.root()
    min((root / "samples" / "CAM_FRONT").iterdir()).write_bytes(b"hello")
    ending = run_command(["data", "prepare", str(root)])
    assert ending.code == 0
    text = " ".join(ending.text.split())
    assert "problem: 1 files in samples/CAM_FRONT: unreadable" in text
    assert f"`dualdistill data check {root}`" in text


def test_paths_are_printed_as_they_are(places: Places, tmp_path: Path) -> None:
    for name in ("with space", "[bold]ünï[red]-日本", "[magenta]"):
        out = tmp_path / name
        for argv in (
            ["evaluate", str(places.run()), "--out", str(out), "--workers", "0"],
            ["predict", str(places.run()), "--picture", str(out / "boxes.png"), "--json", str(out / "boxes.json")],
            ["compare", str(places.run()), "--markdown", str(out / "table.md")],
        ):
            ending = run_command(argv)
            assert ending.code == 0, ending.text
            assert str(out) in ending.text.replace("\n", "")
