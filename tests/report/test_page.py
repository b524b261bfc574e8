import base64
import io
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure
from PIL import Image

from dualdistill.report.page import ReportPage, encoded
from dualdistill.report.scores import ResultRow, results_table
from dualdistill.visualize import palette
from dualdistill.visualize.curves import draw_curves

VOID = {"meta", "link", "img", "source", "br"}
ATTACK = "<script>alert('x')</script> & \"quotes\" {braces}"


class Outline(HTMLParser):
    """Checks that tags are balanced, and remembers attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, *names):
        return [value for _, name, value in self.attributes if name in names]


def drawing(colour="white"):
    figure = Figure(figsize=(3, 2), facecolor=colour)
    figure.subplots().plot([0, 1], [1, 0])
    return figure


@pytest.fixture
def page():
    page = ReportPage(f"Title {ATTACK}", f"Lead {ATTACK}\n\nsecond", byline=f"By {ATTACK}")
    page.highlight("+4.6", f"points {ATTACK}")
    page.section(f"Results {ATTACK}", f"Text {ATTACK}").heading(f"Heading {ATTACK}")
    page.table(results_table([ResultRow(name=ATTACK, mean_ap=0.2)]), f"Caption {ATTACK}")
    page.section("Figures")
    page.figure(drawing(), f"Caption {ATTACK}", alt=f"Alt {ATTACK}", dark=drawing("black"))
    page.figure(drawing(), "photograph", alt="", encoding="jpeg")
    page.section("Settings").facts({f"key {ATTACK}": f"value {ATTACK}", "steps": 400})
    return page


def test_the_page_is_balanced_html(page):
    outline = Outline(page.html())
    assert outline.tags.count("h1") == outline.tags.count("main") == 1
    assert outline.tags.count("h2") == 3


def test_the_page_fetches_nothing(page):
    text = page.html()
    outline = Outline(text)
    for reference in outline.values("src", "href", "srcset"):
        assert reference.startswith(("data:", "#")), reference[:60]
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "script" not in outline.tags
    assert any("default-src 'none'" in (value or "") for value in outline.values("content"))


def test_every_text_is_escaped_and_arrives_unchanged(page):
    outline = Outline(page.html())
    assert "script" not in outline.tags
    for prefix in (
        "Title",
        "Lead",
        "By",
        "points",
        "Results",
        "Text",
        "Heading",
        "Caption",
        "key",
        "value",
    ):
        assert f"{prefix} {ATTACK}" in outline.text, prefix
    assert f"Alt {ATTACK}" in outline.values("alt")


def test_links_within_the_page_lead_somewhere():
    page = ReportPage("t").section("Same").section("Same").section("µ?!").section("")
    outline = Outline(page.html())
    ids = outline.values("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in outline.values("href") if value.startswith("#")]
    assert len(targets) == 3
    assert set(targets) <= set(ids)


def test_pictures_are_inlined_at_the_size_that_is_said(page):
    pictures = re.findall(r'<img src="data:image/(\w+);base64,([^"]+)" width="(\d+)" height="(\d+)"', page.html())
    assert [kind for kind, *_ in pictures] == ["png", "jpeg"]
    for kind, data, width, height in pictures:
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert image.format == kind.upper()
        assert image.size == (int(width), int(height)) == (450, 300)


def test_a_dark_drawing_is_offered_to_dark_readers(page):
    (source,) = re.findall(
        r'<source media="\(prefers-color-scheme: dark\)" srcset="data:image/png;base64,([^"]+)"', page.html()
    )
    image = Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB")
    assert image.getpixel((0, 0)) == (0, 0, 0)


def test_encoding_leaves_the_figure_as_it_was():
    figure = drawing()
    before = figure.dpi
    first, second = encoded(figure, dpi=200), encoded(figure, dpi=200)
    assert figure.dpi == before
    assert first == second  # the same figure, the same bytes


def test_figures_and_tables_are_numbered_in_their_own_order(page):
    outline = Outline(page.html())
    assert re.findall(r"(?:Figure|Table) \d\.", outline.text) == ["Table 1.", "Figure 1.", "Figure 2."]


def test_a_page_without_sections_is_a_page():
    Outline(ReportPage("only a title").html())


def test_drawings_and_the_page_have_the_same_colours(page):
    for theme in (palette.LIGHT, palette.DARK):
        assert f"--paper: {theme.paper}; --ink: {theme.ink};" in page.html()


def test_curves_of_long_runs_stay_small_on_the_page():
    records = [{"step": step, **{f"loss/{k}": 1 / (step + 1 + k) for k in range(8)}} for step in range(2000)]
    page = ReportPage("t").section("s").figure(draw_curves({"a": records, "b": records}), "c", alt="a")
    assert len(page.html()) < 400_000
