"""`zoo`: the models that ship with the package."""

from typing import Any

import msgspec
from rich.console import Console

from dualdistill import zoo
from dualdistill.commands.options.deployment import Zoo
from dualdistill.report.scores import PERCENT
from dualdistill.report.table import Column, Table

_COLUMNS = (
    Column(key="name", title="Model"),
    Column(key="recipe", title="Recipe"),
    Column(key="mAP", title="mAP", **PERCENT),
    Column(key="NDS", title="NDS", **PERCENT),
    Column(key="seed", title="Seed"),
    Column(key="bytes", title="MB", digits=2, scale=1e-6),
    Column(key="sha256", title="SHA-256"),
)


def show_zoo(console: Console, options: Zoo) -> list[dict[str, Any]]:
    """Print a table of all models, or the card of one; returns their cards as JSON values, sizes and paths added.
    Raises UserError for an unknown name."""
    name = options.name
    names = list(zoo.cards()) if name is None else [name.removeprefix(zoo.PREFIX)]
    rows = [_facts(each) for each in names]
    if name is not None:
        for key, value in rows[0].items():
            console.print(f"{key}  {' '.join(value) if isinstance(value, tuple) else value}")
        return rows
    short = tuple({**row, "sha256": row["sha256"][:12]} for row in rows)
    console.print(Table(columns=_COLUMNS, rows=short).to_rich(console.width))
    for row in rows:
        console.print(f"{row['name']}  {row['what']}")
    console.print(f"\nTake one by its name: --teacher {rows[-1]['name']}. A card in full: dualdistill zoo NAME.")
    return rows


def _facts(name: str) -> dict[str, Any]:
    card, path = zoo.card(name), zoo.path(name)
    return {"name": zoo.PREFIX + name, **msgspec.structs.asdict(card), "bytes": path.stat().st_size, "path": str(path)}
