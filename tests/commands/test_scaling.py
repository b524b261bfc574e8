"""What a table of measured steps tells of others."""

import json

import pytest

from dualdistill.commands.scaling import PACKAGED, ScalingTable, exponent, growth_of
from dualdistill.errors import UserError

MACHINE = "CPU Imaginary 3000, threads 2"


def row(milliseconds, flops, *, size=1, varied=None, growth=None, role="student", precision="32", **changes):
    facts = {
        "step": f"step of {flops}",
        "role": role,
        "precision": precision,
        "flops": flops,
        "sizes": {"cameras": size},
        "varied": varied,
        "growth": growth,
    }
    return {
        "benchmark": "scaling",
        "setting": "scaling",
        "name": "a step",
        "milliseconds": milliseconds,
        "spread": None,
        "ratio": 1.0,
        "peak_mib": 10.0,
        "difference": None,
        "quick": False,
        "machine": MACHINE,
        "facts": facts,
    } | changes


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("k", [-0.5, 0.0, 1.0, 1.7])
def test_the_exponent_of_a_law_is_found_and_doubling_multiplies_by_its_power(tmp_path, k):
    sizes = (1, 2, 6)
    growth = growth_of(sizes, [3.0 * size**k for size in sizes], [5.0 * size ** (k / 2) for size in sizes])
    assert growth.time == pytest.approx(k)
    assert growth.memory == pytest.approx(k / 2)
    plain = {"time": growth.time, "memory": growth.memory}
    rows = [row(3.0 * size**k, 100 * size, size=size, varied="cameras", growth=plain) for size in sizes]
    table = ScalingTable.read(write(tmp_path / "table.json", rows))
    assert table.doubled() == {"cameras": {"time": pytest.approx(2**k), "memory": pytest.approx(2 ** (k / 2))}}


def test_an_exponent_is_the_slope_in_logarithms():
    assert exponent((1, 2, 4), [3.0, 6.0, 12.0]) == pytest.approx(1)
    assert exponent((2, 3, 7), [8.0, 27.0, 343.0]) == pytest.approx(3)
    assert growth_of((1, 2), [1.0, 2.0], [None, 4.0]).memory is None


def test_a_measured_step_takes_its_measured_time_and_others_follow_arithmetic(tmp_path):
    rows = [row(100.0, 10**9), row(4000.0, 10**11), row(7.0, 10**9, role="teacher"), row(9e3, 10**10, precision="bf16")]
    table = ScalingTable.read(write(tmp_path / "table.json", rows))
    for step in table.steps:
        facts = step.facts
        assert table.seconds(facts.role, facts.precision, facts.flops) == pytest.approx(step.seconds)
    assert table.seconds("student", "32", 2 * 10**11) == pytest.approx(8.0)
    assert table.seconds("student", "32", 2 * 10**9) == pytest.approx(0.2)
    assert table.seconds("teacher", "bf16", 10**10) == pytest.approx(9.0)  # precision decides before role
    assert table.seconds("label_encoder", "32", 10**11) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no JSON", "is no scaling table"),
        ('{"a": 1}', "it holds no rows"),
        ("[]", "no rows of the benchmark 'scaling'"),
        (json.dumps([row(1.0, 1, benchmark="pooling")]), "no rows of the benchmark 'scaling'"),
        (json.dumps([{"benchmark": "scaling", "name": "written long ago"}]), "is no scaling table"),
        (json.dumps([row(1.0, 1, quick=True)]), "without --quick"),
        (json.dumps([row(1.0, 0)]), "without time or arithmetic"),
    ],
)
def test_a_foreign_file_is_refused_with_what_was_expected(tmp_path, content, message):
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        ScalingTable.read(path)
    assert "dualdistill bench scaling --json FILE" in str(error.value)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no scaling table"):
        ScalingTable.read(tmp_path / "absent.json")


def test_the_packaged_table_is_readable_and_says_where_it_was_taken():
    table = ScalingTable.read(PACKAGED)
    assert "CPU" in table.machine
    assert set(table.growth) == {"cameras", "image width", "depth bins", "BEV cells a side", "batch", "points"}
    assert {step.facts.precision for step in table.steps} == {"32", "bf16"}
