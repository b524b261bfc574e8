"""What can be run and what is trained already: the verbs of `dualdistill recipes`, and `zoo`."""

from typing import Annotated

import typer

from dualdistill.cli.shared import JsonFile, Overrides, console, write_json

app = typer.Typer(help="List, show and compare recipes.", no_args_is_help=True)


@app.command("list")
def recipes_list(json_file: JsonFile = None) -> None:
    """List all recipes, with published results if there are any."""
    from dualdistill.commands.recipes import list_recipes

    write_json(json_file, list_recipes(console))


@app.command("show")
def recipes_show(
    name: Annotated[str, typer.Argument(help="A recipe, or a run folder.")],
    overrides: Overrides = None,
    json_file: JsonFile = None,
) -> None:
    """Show the resolved experiment of a recipe or a run."""
    from dualdistill.commands.recipes import show_recipe

    write_json(json_file, show_recipe(console, name, overrides or []))


@app.command("diff")
def recipes_diff(
    a: Annotated[str, typer.Argument(help="A recipe, or a run folder.")],
    b: Annotated[str, typer.Argument(help="The other recipe or run folder.")],
    json_file: JsonFile = None,
) -> None:
    """Show the settings that differ between two recipes or runs."""
    from dualdistill.commands.recipes import diff_recipes

    write_json(json_file, diff_recipes(console, a, b))


def zoo(
    name: Annotated[str | None, typer.Argument(help="Show the full card of this model.")] = None,
    json_file: JsonFile = None,
) -> None:
    """List the trained models that ship with the package; `zoo:NAME` can be used wherever weights are expected."""
    from dualdistill.commands.zoo import show_zoo

    write_json(json_file, show_zoo(console, name))
