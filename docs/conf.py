"""The documentation site: `make docs`. Pages are Markdown (MyST); the API pages come from docstrings."""

import re
from typing import Any

import dualdistill

project = "DualDistill"
author = "The DualDistill developers"
copyright = f"2026, {author}"
release = version = dualdistill.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
# Parts that are included in other pages, and the raw files of studies.
exclude_patterns = ["results/**", "performance/**", "templates/**", "static/**"]
templates_path = ["templates"]

myst_enable_extensions = ["colon_fence", "deflist", "linkify"]
myst_linkify_fuzzy_links = False
myst_heading_anchors = 4

autosummary_generate = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
suppress_warnings = ["myst.xref_ambiguous"]

html_theme = "furo"
html_title = "DualDistill"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

_CODE = re.compile(r"(`[^`]+`)")
_MARKUP = re.compile(r"([*|]|(?<=\w)_(?=\W|$))")
_CITATION = re.compile(r"docs/([\w/-]+)\.md(#[\w-]+)?")
_COLON = "\0"


def _plain_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turns plain text with `code` in backticks and indented blocks into reStructuredText, in place.

    Citations of pages become links. Characters with a meaning there are escaped: the stars of `*args`, bars of norms,
    a trailing underscore.
    """
    text: list[str] = []
    block = section = False
    for number, line in enumerate(lines):
        if line and not line.startswith(" "):
            block, section = False, line.endswith(":")
        elif line.startswith("    ") and number and not lines[number - 1] and not block and not section:
            text += ["::", ""]
            block = True
        if not block:
            parts = (f"`{part}`" if _CODE.fullmatch(part) else _MARKUP.sub(r"\\\1", part) for part in _CODE.split(line))
            line = _CITATION.sub(r"`\g<0> <../\1.html\2>`__", "".join(parts))
        # Napoleon would take "Width, length: the order" of a field for a type and its description.
        text.append(line.replace(":", _COLON) if what == "attribute" else line)
    lines[:] = text


def _colons(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _contributing(app: Any, docname: str, source: list[str]) -> None:
    """Links to CONTRIBUTING.md, right on a code host, lead to its page here."""
    source[0] = re.sub(r"\]\((?:\.\./)+CONTRIBUTING\.md", "](/contributing.md", source[0])


def setup(app: Any) -> None:
    # Around napoleon (500), which writes reStructuredText of its own.
    app.connect("autodoc-process-docstring", _plain_text, priority=100)
    app.connect("autodoc-process-docstring", _colons, priority=900)
    app.connect("source-read", _contributing)
