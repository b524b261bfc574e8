"""Tables of growing sizes: what they measure, and their exponents."""

import json
from dataclasses import replace

import pytest

from benchmarks.scaling import Case, exponent, half_student, half_teacher, scaling_rows
from dualdistill.experiment.plain import override
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


@pytest.mark.parametrize("k", [-0.5, 0.0, 1.0, 1.7])
def test_the_exponent_of_a_power_law_is_found(k):
    sizes = (1, 2, 6)
    assert exponent(sizes, [3.0 * size**k for size in sizes]) == pytest.approx(k)


def test_rows_hold_sizes_arithmetic_and_exponents_for_programs():
    rows = scaling_rows({"batch": (1, 2), "points": (500, 2000)}, STUDENT, TEACHER, [TEACHER, STUDENT], repeats=1)
    assert [row.facts.get("varied") for row in rows] == ["batch", "batch", "points", "points", None, None]
    assert "time ~ batch^" in rows[1].name
    assert rows[1].facts["flops"] == 2 * rows[0].facts["flops"]
    assert rows[1].facts["sizes"]["batch"] == 2
    assert rows[0].milliseconds == rows[5].milliseconds  # shown twice, measured once
    assert rows[0].ratio == rows[2].ratio == rows[4].ratio == 1
    growth = exponent((1, 2), [row.milliseconds for row in rows[:2]])
    assert rows[0].facts["growth"]["time"] == rows[1].facts["growth"]["time"] == pytest.approx(growth)
    json.dumps([row.to_json() for row in rows])
