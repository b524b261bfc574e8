"""`recipes`: list, show and compare recipes."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from dualdistill.commands.options.training import RecipesDiff, RecipesList, RecipesShow
from dualdistill.experiment.plain import differences, override, to_plain
from dualdistill.recipes.catalogue import RECIPES, find
from dualdistill.report.table import Column, Table
from dualdistill.train.run_folder import RunFolder


def list_recipes(console: Console, options: RecipesList) -> list[dict[str, Any]]:
    """Print and return every recipe; published results (mAP / NDS on nuScenes val) have numbered sources below."""
    sources = list(dict.fromkeys(recipe.published.source for recipe in RECIPES.values() if recipe.published))
    rows, width = [], max(map(len, RECIPES))
    console.print(f"{'recipe':{width}}  published mAP / NDS", style="bold")
    for recipe in RECIPES.values():
        paper = recipe.published
        result = f"{paper.mean_ap:g} / {paper.nds:g} [{sources.index(paper.source) + 1}]" if paper else ""
        console.print(f"{recipe.name:{width}}  {result}".rstrip())
        console.print(f"  {recipe.summary}", style="dim")
        published = {"mAP": paper.mean_ap, "NDS": paper.nds, "source": paper.source} if paper else None
        rows.append({"name": recipe.name, "summary": recipe.summary, "published": published})
    console.print("\nPublished results are on nuScenes val. Sources:")
    for number, source in enumerate(sources, start=1):
        console.print(f"[{number}] {source}")
    return rows


def show_recipe(console: Console, options: RecipesShow) -> dict[str, Any]:
    """Print and return the resolved experiment of a recipe or run, after the settings that `--set` changed."""
    plain = _resolve(options.name, options.overrides or [])
    for key, before, after in differences(_resolve(options.name, []), plain):
        console.print(f"changed {key}: {json.dumps(before)} -> {json.dumps(after)}")
    console.print_json(json.dumps(plain))
    return plain


def diff_recipes(console: Console, options: RecipesDiff) -> list[dict[str, Any]]:
    """Print and return the settings that differ between two recipes or runs."""
    a, b = options.a, options.b
    rows = differences(_resolve(a, []), _resolve(b, []))
    columns = (Column(key="setting", title="setting"), Column(key="a", title=a), Column(key="b", title=b))
    lines = tuple({"setting": key, "a": _short(left), "b": _short(right)} for key, left, right in rows)
    console.print(Table(columns=columns, rows=lines).to_rich(console.width) if rows else "The two are the same.")
    return [{"setting": key, a: left, b: right} for key, left, right in rows]


def _short(value: Any) -> str:
    """A setting as JSON; a whole section, which the other side lacks, as its number of settings."""
    return f"{len(value)} settings (`recipes show`)" if isinstance(value, dict) else json.dumps(value)


def _resolve(name: str, overrides: list[str]) -> dict[str, Any]:
    if (Path(name) / "experiment.json").is_file():
        return RunFolder.open(Path(name)).experiment["experiment"]
    return to_plain(override(find(name).build(), overrides))
