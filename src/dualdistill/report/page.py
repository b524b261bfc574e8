"""A report in one HTML file: text, tables and figures inlined, no external resources, no scripts."""

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from matplotlib.figure import Figure
from PIL import Image

from dualdistill.report.table import Table
from dualdistill.report.templates import render
from dualdistill.visualize.film import rendered
from dualdistill.visualize.palette import DARK, LIGHT

Encoding = Literal["png", "jpeg"]
"""PNG with a palette for drawings, JPEG for photographs."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a page."""

    title: str
    anchor: str
    parts: list[tuple[str, Any]] = field(default_factory=list)
    """Kind of each part (heading, text, table, figure, facts) and its content, for `page.html.jinja`."""


class ReportPage:
    """A page built from top to bottom. All text is escaped; a blank line starts a paragraph.

    Methods return the page, so calls can be chained.
    """

    def __init__(self, title: str, lead: str = "", *, byline: str = ""):
        """`lead`: the main message; `byline`: date, place and version."""
        self.title = title
        self.lead = lead
        self.byline = byline
        self.highlights: list[tuple[str, str]] = []
        self.sections: list[Section] = []
        self._figures = 0
        self._tables = 0

    def highlight(self, value: str, label: str) -> "ReportPage":
        """A number set large under the lead, with its label."""
        self.highlights.append((value, label))
        return self

    def section(self, title: str, text: str = "") -> "ReportPage":
        """A new section, to which everything added later belongs; a page begins with one."""
        anchors = {section.anchor for section in self.sections}
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        names = (f"{stem}-{n}" if n > 1 else stem for n in count(1))
        self.sections.append(Section(title, next(name for name in names if name not in anchors)))
        return self.text(text)

    def heading(self, title: str) -> "ReportPage":
        """A heading within the section."""
        return self._add("heading", title)

    def text(self, text: str) -> "ReportPage":
        """Paragraphs, separated by blank lines."""
        return self._add("text", text) if text.strip() else self

    def table(self, table: Table, caption: str = "") -> "ReportPage":
        """A table under its numbered caption."""
        self._tables += 1
        part = {"number": self._tables, "caption": caption or table.title, "html": table.to_html()}
        return self._add("table", part)

    def figure(
        self,
        light: Figure,
        caption: str,
        *,
        alt: str,
        dark: Figure | None = None,
        encoding: Encoding = "png",
        dpi: int = 150,
    ) -> "ReportPage":
        """A drawing over its numbered caption.

        Args:
            alt: Description for readers who cannot see the drawing.
            dark: The same drawing in the dark theme; without it the light one is shown in both.
            dpi: 150 is twice the width of the page's column for a drawing of about eight inches.
        """
        self._figures += 1
        source, width, height = encoded(light, encoding, dpi)
        return self._add(
            "figure",
            {
                "number": self._figures,
                "caption": caption,
                "alt": alt,
                "source": source,
                "dark": encoded(dark, encoding, dpi)[0] if dark is not None else None,
                "width": width,
                "height": height,
                "max_width": round(light.get_figwidth() * 100),
                "legible": min(round(light.get_figwidth() * 72), 900),
            },
        )

    def facts(self, facts: Mapping[str, str | int]) -> "ReportPage":
        """A list of names and values: settings, versions."""
        return self._add("facts", list(facts.items()))

    def html(self) -> str:
        """The page as one HTML document."""
        return render("page.html.jinja", page=self, light=LIGHT, dark=DARK)

    def _add(self, kind: str, part: Any) -> "ReportPage":
        self.sections[-1].parts.append((kind, part))
        return self


def encoded(figure: Figure, encoding: Encoding = "png", dpi: int = 150) -> tuple[str, int, int]:
    """A figure as a data URI, with its width and height in pixels."""
    image = rendered(figure, dpi)
    file = io.BytesIO()
    if encoding == "jpeg":
        image.save(file, "JPEG", quality=84, optimize=True, progressive=True)
    else:
        palette = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{encoding};base64,{data}", image.width, image.height
