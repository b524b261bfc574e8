"""`dualdistill recipes`: what can be run."""

from typing import Annotated

import typer

from dualdistill.cli.shared import JsonFile, Overrides, console, write_json

app = typer.Typer(help="What can be run.", no_args_is_help=True)


@app.command("list")
def recipes_list(json_file: JsonFile = None) -> None:
    """Every recipe, with the published result of its row where there is one."""
    from dualdistill.commands.recipes import list_recipes

    write_json(json_file, list_recipes(console))


@app.command("show")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A recipe, or a run folder.")],
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """The resolved experiment of a recipe or of a run."""
    from dualdistill.commands.recipes import show_recipe

    write_json(json_file, show_recipe(console, name, overrides or []))


@app.command("diff")
def recipes_diff(a: str, b: str, json_file: JsonFile = None) -> None:
    """What differs between two recipes or runs."""
    from dualdistill.commands.recipes import diff_recipes

    write_json(json_file, diff_recipes(console, a, b))
