"""What can be run: list, show, diff."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dualdistill.experiment.overrides import override
from dualdistill.experiment.plain import differences, to_plain
from dualdistill.recipes.catalogue import RECIPES, find
from dualdistill.train.run_folder import RunFolder

_WIDE = 110
"""Columns of a terminal that has room for sources."""


def list_recipes(console: Console) -> list[dict[str, Any]]:
    """Print and return every recipe with its published row; a narrow terminal is not told the sources."""
    wide = console.width >= _WIDE
    table = Table("recipe, what it is", "published\nmAP / NDS", box=None, header_style="bold", pad_edge=False)
    if wide:
        table.add_column("source", max_width=50)
    rows = []
    for recipe in RECIPES.values():
        paper = recipe.published
        cells = [f"{recipe.name}\n  [dim]{escape(recipe.summary)}[/]"]
        cells.append(f"{paper.mean_ap:g} / {paper.nds:g}" if paper else "")
        table.add_row(*cells, *([escape(paper.source) if paper else ""] if wide else []))
        published = {"mAP": paper.mean_ap, "NDS": paper.nds, "source": paper.source} if paper else None
        rows.append({"name": recipe.name, "summary": recipe.summary, "published": published})
    console.print(table)
    return rows


def show_recipe(console: Console, name: str, overrides: list[str]) -> dict[str, Any]:
    """Print and return the resolved experiment of a recipe or run; what `--set` changed is listed first."""
    plain = _resolve(name, overrides)
    base = differences(_resolve(name, []), plain)
    for key, before, after in base:
        console.print(f"[bold]changed[/] {key}: {json.dumps(before)} -> {json.dumps(after)}")
    console.print_json(json.dumps(plain))
    return plain


def diff_recipes(console: Console, a: str, b: str) -> list[dict[str, Any]]:
    """Print and return what differs between two recipes or runs."""
    rows = differences(_resolve(a, []), _resolve(b, []))
    table = Table("setting", a, b, box=None, header_style="bold", pad_edge=False)
    for key, left, right in rows:
        table.add_row(key, json.dumps(left), json.dumps(right))
    console.print(table if rows else "The two are the same.")
    return [{"setting": key, a: left, b: right} for key, left, right in rows]


def _resolve(name: str, overrides: list[str]) -> dict[str, Any]:
    if (Path(name) / "experiment.json").is_file():
        return RunFolder.open(Path(name)).experiment["experiment"]
    return to_plain(override(find(name).build(), overrides))
