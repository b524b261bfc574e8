"""The result file: what is written comes back, and what cannot be evaluated is refused."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualdistill.errors import UserError
from dualdistill.evaluate.records import Detections
from dualdistill.evaluate.submission import read_submission, write_submission
from tests.evaluate.evaluation_worlds import boxes_of, noisy_detections, oracle, random_boxes

TOKENS = tuple(f"sample-{i}" for i in range(6))


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A small file that is in order, as JSON says it."""
    write_submission(tmp_path / "good.json", oracle(boxes_of(2, sample=[0, 1])), TOKENS[:2])
    return json.loads((tmp_path / "good.json").read_text())


def refusal(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_submission(path).for_samples(TOKENS[:2], others="refuse")
    return str(error.value)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    detections = noisy_detections(random_boxes(seed=0), seed=1)
    write_submission(tmp_path / "new" / "results.json", detections, TOKENS, sources=("camera", "lidar"))
    submission = read_submission(tmp_path / "new" / "results.json")
    assert submission.sample_tokens == TOKENS
    assert [name for name, used in submission.meta.items() if used] == ["use_camera", "use_lidar"]
    again = submission.for_samples(TOKENS, others="refuse")
    np.testing.assert_array_equal(again.score, detections.score)
    for field in fields(detections):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(detections, field.name))


def test_the_file_says_width_first(content: dict[str, Any]) -> None:
    length, width, height = 4.0, 2.0, 1.5
    assert content["results"]["sample-0"][0]["size"] == [width, length, height]


def test_a_sample_without_detections_has_an_empty_entry(tmp_path: Path) -> None:
    write_submission(tmp_path / "none.json", Detections.concatenate([]), TOKENS)
    assert json.loads((tmp_path / "none.json").read_text())["results"] == {token: [] for token in TOKENS}
    assert len(read_submission(tmp_path / "none.json").for_samples(TOKENS, others="refuse")) == 0


def test_samples_are_found_by_token_whatever_their_order(tmp_path: Path) -> None:
    detections = noisy_detections(random_boxes(seed=0), seed=1)
    write_submission(tmp_path / "results.json", detections, TOKENS)
    backwards = read_submission(tmp_path / "results.json").for_samples(TOKENS[::-1], others="refuse")
    np.testing.assert_array_equal(5 - backwards.sample, detections.sample)


def test_other_samples_can_be_ignored(tmp_path: Path) -> None:
    detections = noisy_detections(random_boxes(seed=0), seed=1)
    write_submission(tmp_path / "results.json", detections, TOKENS)
    two = read_submission(tmp_path / "results.json").for_samples(TOKENS[2:4], others="ignore")
    chosen = np.isin(detections.sample, [2, 3])
    np.testing.assert_array_equal(two.score, detections.score[chosen])
    np.testing.assert_array_equal(two.sample, detections.sample[chosen] - 2)


def test_an_unknown_velocity_may_be_nan_as_python_writes_it(tmp_path: Path, content: dict[str, Any]) -> None:
    content["results"]["sample-1"][0]["velocity"] = [float("nan"), float("nan")]
    (tmp_path / "nan.json").write_text(json.dumps(content))
    velocity = read_submission(tmp_path / "nan.json").detections.velocity
    np.testing.assert_array_equal(velocity, [[0, 0], [np.nan, np.nan]])


Spoil = Callable[[dict[str, Any]], object]


def of_box(field: str, value: object) -> Spoil:
    """Change one field of the only box of sample-1."""
    return lambda content: content["results"]["sample-1"][0].update({field: value})


NAN = float("nan")
SPOILED: dict[str, tuple[Spoil, str]] = {
    "unknown class": (of_box("detection_name", "tram"), "unknown class 'tram'"),
    "unknown attribute": (of_box("attribute_name", "vehicle.flying"), "unknown attribute 'vehicle.flying'"),
    "score NaN": (of_box("detection_score", NAN), "not finite"),
    "translation NaN": (of_box("translation", [NAN, 0.0, 0.0]), "not finite"),
    "size NaN": (of_box("size", [1.0, NAN, 1.0]), "not finite"),
    "rotation NaN": (of_box("rotation", [1.0, 0.0, NAN, 0.0]), "not finite"),
    "no volume": (of_box("size", [1.0, 0.0, 1.0]), "must be positive"),
    "two coordinates": (of_box("translation", [1.0, 2.0]), "translation"),
    "score as text": (of_box("detection_score", "high"), "detection_score"),
    "another sample's": (of_box("sample_token", "sample-0"), "the entry of that sample"),
    "no velocity": (lambda content: content["results"]["sample-1"][0].pop("velocity"), "velocity"),
    "too many": (
        lambda content: content["results"].update({"sample-1": content["results"]["sample-1"] * 501}),
        "500",
    ),
    "missing sample": (lambda content: content["results"].pop("sample-1"), "no entry"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_what_cannot_be_evaluated_is_refused_by_sample(how: str, tmp_path: Path, content: dict[str, Any]) -> None:
    spoil, said = SPOILED[how]
    spoil(content)
    message = refusal(tmp_path / "bad.json", content)
    assert "bad.json" in message
    assert "sample-1" in message
    assert said in message


def test_a_sample_of_another_split_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    content["results"]["sample-7"] = []
    assert "sample-7" in refusal(tmp_path / "bad.json", content)


@pytest.mark.parametrize("key", ["meta", "results"])
def test_a_file_without_its_two_entries_is_refused(key: str, tmp_path: Path, content: dict[str, Any]) -> None:
    del content[key]
    assert key in refusal(tmp_path / "bad.json", content)


@pytest.mark.parametrize("text", ["", "{", "results", '{"meta": {}, "results": {"sample-0": [}}', "\xff"])
def test_what_is_not_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="not JSON"):
        read_submission(tmp_path / "bad.json")


@pytest.mark.parametrize("text", ["[]", "3", '{"meta": {}, "results": []}', '{"meta": [], "results": {}}'])
def test_json_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match="cannot be evaluated"):
        read_submission(tmp_path / "bad.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_submission(tmp_path / "nowhere.json")


def test_nothing_is_written_that_the_benchmark_would_refuse(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan in a velocity"):
        write_submission(tmp_path / "bad.json", oracle(boxes_of(1, velocity=np.nan)), TOKENS)
    with pytest.raises(ValueError, match="at most 500"):
        write_submission(tmp_path / "bad.json", oracle(boxes_of(501)), TOKENS)
    with pytest.raises(ValueError, match="sample 6"):
        write_submission(tmp_path / "bad.json", oracle(boxes_of(1, sample=6)), TOKENS)
    assert not (tmp_path / "bad.json").exists()
