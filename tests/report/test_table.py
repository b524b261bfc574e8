import json
import math
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from dualdistill.report.scores import ResultRow, class_table, results_table
from dualdistill.report.table import Column, Table

BASE = ResultRow(
    name="student alone",
    mean_ap=0.24312,
    nd_score=0.3122,
    trans_err=0.752,
    scale_err=0.301,
    orient_err=0.6104,
    vel_err=0.822,
    attr_err=0.25,
    steps=1600,
)
TEACHER = ResultRow(name="teacher", is_teacher=True, mean_ap=0.5512, nd_score=0.6233, trans_err=0.3, steps=1600)
DISTILLED = ResultRow(
    name="student <distilled> & 100 % better_than|before",
    teacher="CenterPoint",
    mean_ap=0.28931,
    nd_score=0.3544,
    trans_err=0.663,
    scale_err=0.301,
    orient_err=math.nan,
    vel_err=0.701,
    attr_err=0.26,
).gaining_over(BASE)
ROWS = [TEACHER, BASE, DISTILLED]


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.bold, self._in_cell = [], set(), False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        if tag == "strong":
            self.bold.add((len(self.rows) - 2, len(self.rows[-1]) - 1))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] += data


def written(table):
    """Numbers of every form, a list of rows each, text columns left out."""
    numeric = [column for column in table.columns if table.numeric(column)]
    places = [at for at, column in enumerate(table.columns) if column in numeric]
    html = [[row[at] for at in places] for row in Cells(table.to_html()).rows[1:]]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.to_markdown().splitlines()[2:]]
    markdown = [[line[at].strip().strip("*") for at in places] for line in lines]
    body = table.to_latex().split("\\midrule")[1].split("\\bottomrule")[0]
    latex_cells = [re.split(r"(?<!\\)&", line.strip().removesuffix("\\\\")) for line in body.strip().splitlines()]
    latex = [[re.sub(r"\\textbf\{(.*)\}", r"\1", line[at].strip()) for at in places] for line in latex_cells]
    latex = [[cell.replace("$-$", "−").replace("--", "–").replace("$\\pm$", "±") for cell in row] for row in latex]
    scaled = [
        ["–" if row[c.key] is None else row[c.key] * c.scale for c in numeric] for row in json.loads(table.to_json())
    ]
    return html, markdown, latex, scaled, numeric


def test_all_forms_agree_on_every_number():
    html, markdown, latex, scaled, numeric = written(results_table(ROWS))
    assert html == markdown == latex
    for row, plain in zip(html, scaled, strict=True):
        for text, value, column in zip(row, plain, numeric, strict=True):
            if value == "–":
                assert text == "–"
            else:
                assert float(text.replace(",", "").replace("−", "-")) == pytest.approx(
                    value, abs=0.5 * 10 ** -(column.digits or 0)
                )


def test_the_terminal_shows_the_same_numbers():
    table = results_table(ROWS)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table.to_rich())
    shown = capture.get()
    for index in range(len(ROWS)):
        for column in table.columns:
            assert table.cell(index, column) in shown


@pytest.mark.parametrize("width", [40, 80, 100])
def test_a_narrow_terminal_loses_no_column_and_no_digit(width):
    table = results_table(ROWS)
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table.to_rich(width))
    shown = capture.get()
    assert all(len(line) <= width for line in shown.splitlines())
    for column in table.columns:
        assert column.title in shown
    for index in range(len(ROWS)):
        for column in table.columns:
            if table.numeric(column):
                assert table.cell(index, column) in shown


def test_a_table_is_split_only_where_it_does_not_fit():
    assert len(results_table(ROWS).to_rich(300).renderables) == 1
    assert len(results_table(ROWS).to_rich(80).renderables) > 1


def test_gains_are_differences_to_the_baseline_in_points():
    table = results_table(ROWS)
    gain = next(column for column in table.columns if column.key == "gain_mean_ap")
    assert DISTILLED.gain_mean_ap == pytest.approx(0.28931 - 0.24312)
    assert [table.cell(index, gain) for index in range(3)] == ["–", "–", "+4.6"]


def test_the_best_student_is_bold_and_teachers_do_not_compete():
    table = results_table(ROWS)
    by_key = {column.key: column for column in table.columns}
    assert table.best(by_key["mean_ap"]) == {2}
    assert table.best(by_key["attr_err"]) == {1}  # an error: lower is better
    assert table.best(by_key["scale_err"]) == set()  # a draw tells nothing
    assert table.best(by_key["orient_err"]) == set()  # only one is known
    at = list(by_key).index("mean_ap")
    assert (2, at) in Cells(table.to_html()).bold
    assert (0, at) not in Cells(table.to_html()).bold
    assert table.to_markdown().count("**28.9**") == 1
    assert table.to_latex().count(r"\textbf{28.9}") == 1


def test_values_that_read_the_same_are_equally_good():
    rows = [ResultRow(name=name, mean_ap=value) for name, value in {"a": 0.2401, "b": 0.2399, "c": 0.1}.items()]
    table = results_table(rows)
    assert table.best(table.columns[1]) == {0, 1}


def test_names_are_escaped_in_every_form():
    table = results_table(ROWS)
    assert "student &lt;distilled&gt; &amp; 100 % better_than|before" in table.to_html()
    assert r"student <distilled> \& 100 \% better\_than|before" in table.to_latex()
    assert r"better_than\|before" in table.to_markdown()


def test_columns_nobody_can_fill_are_left_out():
    keys = [column.key for column in results_table([ResultRow(name="a", mean_ap=0.1)]).columns]
    assert keys == ["name", "mean_ap"]
    published = results_table([ResultRow(name="a", mean_ap=0.1, published_mean_ap=0.423)])
    assert [column.title for column in published.columns] == ["Model", "mAP", "mAP publ."]


def test_metrics_of_an_evaluation_become_a_row():
    metrics = {
        "mean_ap": 0.4,
        "nd_score": 0.5,
        "tp_errors": {
            "trans_err": 0.3, "scale_err": 0.2, "orient_err": math.nan, "vel_err": 0.5, "attr_err": 0.1,
        },
        "label_aps": {},
    }  # fmt: skip
    row = ResultRow.from_metrics("run", metrics, steps=10)
    assert (row.mean_ap, row.nd_score, row.trans_err, row.vel_err, row.steps) == (0.4, 0.5, 0.3, 0.5, 10)
    assert row.orient_err is None


def test_seeds_are_averaged_with_their_sample_deviation():
    rows = [ResultRow(name="x", mean_ap=value, teacher="MVP") for value in (0.20, 0.22, 0.24)]
    mean = ResultRow.mean_of(rows)
    assert mean.mean_ap == pytest.approx(0.22)
    assert mean.spread["mean_ap"] == pytest.approx(0.02)
    assert (mean.seeds, mean.teacher, mean.nd_score) == (3, "MVP", None)
    table = results_table([mean, ResultRow(name="one seed", mean_ap=0.3)])
    assert "22.0 ± 2.0" in table.to_markdown()
    assert r"22.0 $\pm$ 2.0" in table.to_latex()
    first, second = json.loads(table.to_json())
    assert first["standard_deviation"]["mean_ap"] == pytest.approx(0.02)
    assert "standard_deviation" not in second


def test_the_class_table_has_a_row_a_class_and_their_mean():
    table = class_table({"teacher": {"car": 0.5, "traffic_cone": 0.3}, "student": {"car": 0.4, "traffic_cone": 0.1}})
    assert Cells(table.to_html()).rows == [
        ["Class", "teacher", "student"],
        ["car", "50.0", "40.0"],
        ["traffic cone", "30.0", "10.0"],
        ["mean", "40.0", "25.0"],
    ]


def test_json_is_strict_where_values_are_not_finite():
    table = Table(columns=(Column(key="a", title="A", digits=1),), rows=({"a": math.nan}, {"a": math.inf}, {"a": 1.0}))
    assert json.loads(table.to_json()) == [{"a": None}, {"a": None}, {"a": 1.0}]


def test_negative_and_vanishing_gains_are_written_honestly():
    column = Column(key="g", title="Δ", digits=1, scale=100.0, signed=True)
    table = Table(columns=(column,), rows=({"g": -0.012}, {"g": -0.0001}, {"g": 0.012}))
    assert [table.cell(index, column) for index in range(3)] == ["−1.2", "0.0", "+1.2"]
