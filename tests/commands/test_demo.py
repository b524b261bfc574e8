"""The demo: settings that fit their recipes, an equal budget, a page at the end."""

import json

import pytest

from dualdistill.commands.demo import PARTS, adapted, run_demo
from dualdistill.commands.options.training import Demo
from dualdistill.experiment.plain import override
from dualdistill.recipes.catalogue import find


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("from_scratch", [False, True])
def test_both_students_have_the_same_budget_and_start(quick, from_scratch):
    parts = [adapted(part, quick, from_scratch) for part in PARTS]
    _, alone, distilled = (override(find(part.recipe).build(), list(part.sets)) for part in parts)
    assert distilled.distils
    assert not alone.distils
    for one, other in ((alone.training, distilled.training), (alone.student.image, distilled.student.image)):
        for name in ("steps", "batch_size", "accumulate", "optimiser", "pretrained", "frozen_stem"):
            assert getattr(one, name, None) == getattr(other, name, None)


@pytest.mark.slow
def test_the_quick_demo_ends_with_a_table_and_a_page(tmp_path, console):
    page = run_demo(console, Demo(out=tmp_path / "out", data=tmp_path / "world", seed=0, quick=True))
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["name"] for row in rows] == [part.name for part in PARTS]
    assert rows[0]["mean_ap"] > 0.1  # the zoo's teacher detects in a world it never saw
    assert rows[2]["interval_mean_ap"].startswith("[")
    text = page.read_text()
    assert "zoo:teacher-centerpoint" in text
    assert text.count("data:image/jpeg") >= 1
    assert "only show that everything runs" in console.file.getvalue()
