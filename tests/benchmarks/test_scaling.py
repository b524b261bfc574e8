"""Tables of growing sizes: what they measure, and that `plan` reads them back."""

import json
from dataclasses import replace

import pytest

from benchmarks.outcome import plain_row, row_of, tables
from benchmarks.scaling import Case, half_student, half_teacher, scaling_rows
from dualdistill.commands.scaling import ScalingTable
from dualdistill.errors import UserError
from dualdistill.experiment.overrides import override
from dualdistill.recipes.catalogue import find
from tests.commands.conftest import TINY_STUDENT, TINY_TEACHER

STUDENT = Case(name="tiny student", experiment=override(find("synthetic/student").build(), list(TINY_STUDENT)))
TEACHER = Case(
    name="tiny teacher",
    experiment=override(find("synthetic/teacher-centerpoint").build(), list(TINY_TEACHER)),
    points=500,
)


@pytest.mark.parametrize("base", [STUDENT, half_student()])
@pytest.mark.parametrize("size", ["cameras", "image width", "depth bins", "BEV cells a side", "batch"])
def test_one_size_is_changed_and_the_others_are_kept(base, size):
    changed = base.resized(size, 2 * base.sizes[size])
    assert changed.sizes == base.sizes | {size: 2 * base.sizes[size]}
    assert base.resized(size, base.sizes[size]) == base
    height, width = changed.experiment.data.image_size
    before = base.experiment.data.image_size
    assert height * before[1] == width * before[0]


def test_the_measured_steps_are_of_the_architectures_of_the_recipes():
    student, teacher = half_student().experiment, half_teacher().experiment
    recipe = find("nuscenes/student").build()
    assert student.student.image == recipe.student.image
    assert student.student.lift == recipe.student.lift
    assert replace(student.student.bev, cell=0.8) == recipe.student.bev
    of_teacher = find("nuscenes/teacher-centerpoint").build().teacher
    assert replace(teacher.teacher, reach=of_teacher.reach) == of_teacher


def test_rows_say_size_arithmetic_and_exponents_for_programs_and_plan_reads_them(tmp_path):
    variations = [("batch", STUDENT, (1, 2)), ("points", TEACHER, (500, 2000))]
    rows = scaling_rows(variations, [TEACHER, STUDENT], repeats=1)
    assert [row.facts["varied"] for row in rows] == ["batch", "batch", "points", "points", None, None]
    assert "time ~ batch^" in rows[1].name
    assert rows[1].facts["flops"] == 2 * rows[0].facts["flops"]
    assert rows[1].facts["sizes"]["batch"] == 2
    assert rows[0].milliseconds == rows[5].milliseconds  # shown twice, measured once
    assert rows[0].ratio == rows[2].ratio == rows[4].ratio == 1
    plain = [plain_row("scaling", row, quick=False, machine="a machine") for row in rows]
    assert [row_of(row) for row in plain] == rows
    assert len(tables(plain)) == 3
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps(plain))
    table = ScalingTable.read(path)
    assert table.machine == "a machine"
    assert table.growth["batch"].time == pytest.approx(rows[0].facts["growth"]["time"])
    flops = rows[0].facts["flops"]
    assert table.seconds("student", "32", flops) == pytest.approx(rows[0].milliseconds / 1e3)
    path.write_text(json.dumps([row | {"quick": True} for row in plain]))
    with pytest.raises(UserError, match="without --quick"):
        ScalingTable.read(path)
