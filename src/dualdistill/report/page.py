"""A report in one HTML file: text, tables and figures inlined, nothing fetched from anywhere, no scripts."""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dualdistill.report.style import STYLESHEET
from dualdistill.report.tables import Table

Encoding = Literal["png", "jpeg"]
"""PNG with a palette for drawings, JPEG for photographs."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
{lead}{byline}</header>
{highlights}{nav}{sections}
{footer}</main>
</body>
</html>
"""


class ReportPage:
    """Builds a page from top to bottom; every text given is escaped, a blank line in it starts a paragraph.

    Methods return the page, so calls can be chained.
    """

    def __init__(self, title: str, lead: str = "", *, byline: str = "", footer: str = ""):
        """
        Args:
            lead: What the reader should know if nothing else.
            byline: When, where, with which version.
        """
        self.title = title
        self.lead = lead
        self.byline = byline
        self.footer = footer
        self._highlights: list[tuple[str, str]] = []
        self._sections: list[tuple[str, str, list[str]]] = []
        self._figures = 0
        self._tables = 0

    def highlight(self, value: str, label: str) -> "ReportPage":
        """A number set large under the lead, with what it is."""
        self._highlights.append((value, label))
        return self

    def section(self, title: str, text: str = "") -> "ReportPage":
        """Starts a section; what follows belongs to it."""
        anchors = {anchor for _, anchor, _ in self._sections}
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        anchor = next(
            name for n in range(1, len(anchors) + 2) if (name := f"{stem}-{n}" if n > 1 else stem) not in anchors
        )
        self._sections.append((title, anchor, []))
        return self.text(text)

    def heading(self, title: str) -> "ReportPage":
        """A heading within the section."""
        return self._add(f"<h3>{html.escape(title)}</h3>")

    def text(self, text: str) -> "ReportPage":
        return self._add(_paragraphs(text)) if text.strip() else self

    def table(self, table: Table, caption: str = "") -> "ReportPage":
        """A table under its numbered caption."""
        self._tables += 1
        caption = caption or table.title
        label = f"<b>Table {self._tables}.</b> {html.escape(caption)}"
        return self._add(
            f'<figure class="table wide"><figcaption>{label}</figcaption>\n'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{_attribute(caption or "Table")}">'
            f"{table.to_html()}</div></figure>"
        )

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
            alt: What is to be seen, for those who cannot see it.
            dark: The same in dark; without it, the light one is shown in both modes.
            dpi: 150 is twice the size of the page's column for a drawing of about eight inches.
        """
        self._figures += 1
        source, width, height = encoded(light, encoding, dpi)
        image = (
            f'<img src="{source}" width="{width}" height="{height}" alt="{_attribute(alt)}" '
            f'style="max-width: {round(light.get_figwidth() * 100)}px">'
        )
        if dark is not None:
            other = encoded(dark, encoding, dpi)[0]
            image = f'<picture><source media="(prefers-color-scheme: dark)" srcset="{other}">{image}</picture>'
        legible = min(round(light.get_figwidth() * 72), 900)  # on a phone: scroll sideways rather than squint
        return self._add(
            f'<figure class="wide"><div class="scroll" tabindex="0" role="region" '
            f'aria-label="Figure {self._figures}" style="--legible: {legible}px">{image}</div>\n'
            f"<figcaption><b>Figure {self._figures}.</b> {html.escape(caption)}</figcaption></figure>"
        )

    def facts(self, facts: Mapping[str, object]) -> "ReportPage":
        """A list of names and what they stand for: settings, versions."""
        items = "\n".join(
            f"<dt>{html.escape(name)}</dt><dd>{html.escape(_said(value))}</dd>" for name, value in facts.items()
        )
        return self._add(f'<dl class="facts">\n{items}\n</dl>')

    def html(self) -> str:
        """The page."""
        sections = "\n".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">\n'
            f'<h2 id="{anchor}-title">{html.escape(title)}</h2>\n' + "\n".join(parts) + "\n</section>"
            for title, anchor, parts in self._sections
        )
        links = "".join(
            f'<li><a href="#{anchor}">{html.escape(title)}</a></li>' for title, anchor, _ in self._sections if title
        )
        highlights = "".join(
            f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>"
            for value, label in self._highlights
        )
        return _PAGE.format(
            title=html.escape(self.title),
            style=STYLESHEET,
            lead=_paragraphs(self.lead, "lead") + "\n" if self.lead.strip() else "",
            byline=_paragraphs(self.byline, "byline") + "\n" if self.byline.strip() else "",
            highlights=f'<dl class="highlights">{highlights}</dl>\n' if highlights else "",
            nav=f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n' if len(self._sections) > 1 else "",
            sections=sections,
            footer=f"<footer>{html.escape(self.footer)}</footer>\n" if self.footer else "",
        )

    def write(self, path: Path) -> Path:
        """Writes the page so that a reader sees all of it or the one before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(self.html(), encoding="utf-8")
        temporary.replace(path)
        return path

    def _add(self, fragment: str) -> "ReportPage":
        if not self._sections:
            raise ValueError("start a section before adding to the page")
        self._sections[-1][2].append(fragment)
        return self


def encoded(figure: Figure, encoding: Encoding = "png", dpi: int = 150) -> tuple[str, int, int]:
    """A figure as a data URI, with its width and height in pixels."""
    canvas = FigureCanvasAgg(figure)
    before = figure.dpi
    figure.set_dpi(dpi)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    figure.set_dpi(before)
    file = io.BytesIO()
    if encoding == "jpeg":
        image.save(file, "JPEG", quality=84, optimize=True, progressive=True)
    else:
        palette = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        palette.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/{encoding};base64,{data}", image.width, image.height


def _paragraphs(text: str, klass: str = "") -> str:
    opening = f'<p class="{klass}">' if klass else "<p>"
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "\n".join(f"{opening}{html.escape(block)}</p>" for block in blocks)


def _attribute(text: str) -> str:
    return html.escape(text, quote=True)


def _said(value: object) -> str:
    """Plain values as a reader would write them."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_said(item)}" for key, item in value.items())
    if isinstance(value, Sequence):
        return ", ".join(_said(item) for item in value)
    return str(value)
