"""The look of a page and of the curves on it, in light and in dark."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """Colours of one mode; paper, ink and rules are those of `visualize.palette`: drawings fit the page."""

    paper: str
    ink: str
    muted: str
    rule: str
    accent: str
    tint: str
    """Behind table rows and code."""
    series: tuple[str, ...]
    """Of the runs in a plot, in order; told apart with colour-blind eyes."""


LIGHT = Palette(
    paper="#ffffff",
    ink="#1d2126",
    muted="#62686f",
    rule="#dcdfe3",
    accent="#2f55c8",
    tint="#f5f6f8",
    series=("#b86e00", "#c8412b", "#3657d6", "#00905a", "#8a3ea8", "#62686f"),
)
DARK = Palette(
    paper="#16191d",
    ink="#e8eaed",
    muted="#9aa1a9",
    rule="#33383f",
    accent="#9db2ff",
    tint="#1e2227",
    series=("#f2b04a", "#ff7d66", "#8ea6ff", "#35d07f", "#cf9be6", "#9aa1a9"),
)


def _variables(palette: Palette) -> str:
    names = ("paper", "ink", "muted", "rule", "accent", "tint")
    return " ".join(f"--{name}: {getattr(palette, name)};" for name in names)


STYLESHEET = (
    f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.6 Charter, "Bitstream Charter", "Sitka Text", Cambria, "Source Serif 4", serif;
  font-kerning: normal; text-rendering: optimizeLegibility; hanging-punctuation: first last;
}
main { max-width: 73rem; margin: 0 auto; padding: clamp(2rem, 6vw, 5rem) clamp(1.1rem, 4vw, 3rem) 5rem; }
main > *, section > * { max-width: 42rem; }
main > section, .wide { max-width: none; }
h1 { font-size: clamp(1.9rem, 1.4rem + 2.4vw, 2.9rem); line-height: 1.12; font-weight: 600;
  letter-spacing: -.015em; margin: 0 0 1rem; text-wrap: balance; }
h2 { font-size: 1.45rem; line-height: 1.25; font-weight: 600; letter-spacing: -.008em; margin: 0 0 .9rem;
  text-wrap: balance; }
h3 { font-size: 1.0625rem; font-weight: 600; margin: 2rem 0 .4rem; }
p { margin: 0 0 1rem; text-wrap: pretty; }
.lead { font-size: 1.1875rem; line-height: 1.55; color: var(--muted); }
section { border-top: 1px solid var(--rule); margin-top: 3.25rem; padding-top: 1.6rem; }
nav, table, figcaption, caption, dl, .highlights, footer, .byline {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
  sans-serif; }
nav { font-size: .9rem; margin-top: 1.6rem; }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
nav a { text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
.highlights { display: flex; flex-wrap: wrap; gap: 1.4rem 3.2rem; margin: 2.2rem 0 0; max-width: none; }
.highlights div { display: flex; flex-direction: column-reverse; }
.highlights dt { font-size: .85rem; color: var(--muted); }
.highlights dd { margin: 0; font-size: 2rem; line-height: 1.2; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
figure { margin: 1.6rem 0 2.2rem; }
figcaption { font-size: .875rem; line-height: 1.5; color: var(--muted); margin-top: .7rem; max-width: 42rem; }
figcaption b { color: var(--ink); font-weight: 600; margin-right: .2em; }
figure.table figcaption { margin: 0 0 .6rem; }
img { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums lining-nums; }
th, td { padding: .5rem .7rem; text-align: left; white-space: nowrap; font-weight: 400; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: .2rem; }
thead th { color: var(--muted); font-size: .8125rem; border-bottom: 1px solid var(--ink);
  vertical-align: bottom; }
tbody th, tbody td { border-bottom: 1px solid var(--rule); }
tbody th { font-weight: 500; }
tbody tr:last-child > * { border-bottom: 1px solid var(--ink); }
tbody tr:has(+ .summary) > * { border-bottom-color: var(--ink); }
tbody tr:hover { background: var(--tint); }
.number { text-align: right; }
td strong, th strong { font-weight: 650; }
abbr[title] { text-decoration: none; cursor: help; }
.facts { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .35rem 1.6rem;
  font-size: .9rem; margin: 0 0 1.6rem; max-width: 60rem; }
.facts dt { color: var(--muted); }
.facts dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.byline, footer { color: var(--muted); font-size: .85rem; }
footer { border-top: 1px solid var(--rule); margin-top: 4rem; padding-top: 1.2rem; max-width: none; }
@media (max-width: 46rem) {
  body { font-size: 1rem; }
  th, td { padding: .45rem .65rem; }
  .scroll { margin-right: calc(-1 * clamp(1.1rem, 4vw, 3rem)); }
  .scroll > img, .scroll > picture > img { min-width: var(--legible, 0); }
  tbody th { position: sticky; left: 0; background: var(--paper); }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: .6rem; }
}
@media print {
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
}
"""
)
