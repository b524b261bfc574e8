"""`submit` writes what the server accepts and refuses the rest, without a score; `evaluate` can score a part."""

import json

import pytest

from dualdistill.commands.evaluate import evaluate_anything
from dualdistill.commands.options.training import Evaluate, Submit
from dualdistill.commands.submit import submit_results
from dualdistill.errors import UserError
from dualdistill.evaluate.submission import read_submission


def test_a_run_becomes_a_file_with_every_sample_and_its_input(runs, world, tmp_path, console):
    out = tmp_path / "handed-in.json"
    facts = submit_results(console, Submit(runs["student"], data=world, out=out, workers=0))
    assert (facts["samples"], facts["split"], facts["uses"]) == (3, "val", ["camera"])
    assert len(read_submission(out).sample_tokens) == 3
    assert "Error" not in console.file.getvalue()
    again = submit_results(console, Submit(out, out=tmp_path / "copy.json"))
    assert (again["samples"], again["boxes"]) == (facts["samples"], facts["boxes"])
    assert (tmp_path / "copy.json").read_text() == out.read_text()


def test_what_the_server_would_refuse_is_refused_here(runs, world, tmp_path, console):
    out = tmp_path / "handed-in.json"
    submit_results(console, Submit(runs["student"], data=world, out=out, workers=0))
    plain = json.loads(out.read_text())
    (tmp_path / "meta.json").write_text(json.dumps(plain | {"meta": {"use_camera": True}}))
    with pytest.raises(UserError, match="use_external"):
        submit_results(console, Submit(tmp_path / "meta.json", out=out))
    plain["results"].popitem()
    (tmp_path / "short.json").write_text(json.dumps(plain))
    with pytest.raises(UserError, match="no entry for 1 of the 3"):
        submit_results(console, Submit(tmp_path / "short.json", data=world, out=out))
    with pytest.raises(UserError, match="--data ROOT is needed"):
        submit_results(console, Submit(runs["student"], out=out))


def test_a_part_of_a_split_is_scored_apart_from_the_whole(runs, world, tmp_path, console):
    whole = evaluate_anything(console, Evaluate(runs["teacher"], data=world, split="train", out=tmp_path, workers=0))
    results = tmp_path / "results_nusc.json"
    part = evaluate_anything(console, Evaluate(results, data=world, split="train", fraction=0.5, slices=True))
    beside = tmp_path / "evaluation" / "results_nusc" / "part"
    assert json.loads((tmp_path / "metrics.json").read_text())["mean_ap"] == whole["mean_ap"]
    assert json.loads((beside / "evaluated.json").read_text())["scenes"].startswith("scene-")
    assert part.keys() == whole.keys()
    assert json.loads((beside / "slices.json").read_text())[0]["name"] == "0 to 15 m"
    with pytest.raises(UserError, match="leave out --official"):
        evaluate_anything(console, Evaluate(runs["teacher"], data=world, fraction=0.5, official=True))
