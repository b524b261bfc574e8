"""The command line: one function per verb, which imports its implementation when it is called to keep `--help` fast.

Exit codes: 0 success, 1 internal error, 2 wrong input.
"""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dualdistill import __version__
from dualdistill.cli import data, deployment, recipes, results, speed, start, training
from dualdistill.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    start.doctor,
    start.demo,
    training.train,
    speed.plan,
    training.resume,
    results.evaluate,
    results.submit,
    results.visualize,
    results.compare,
    results.predict,
    results.gradients,
    deployment.export,
    deployment.push,
    deployment.convert,
    recipes.zoo,
):
    app.command()(verb)
app.add_typer(speed.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"dualdistill {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """LiDAR-to-camera distillation for bird's-eye-view 3D object detection."""


def main() -> None:
    """Run the command line; a UserError becomes a message and exit code 2, without traceback."""
    try:
        app()
    except UserError as error:
        # An error raised in a loader process is wrapped in the traceback of that process, which is left out here.
        message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]Error:[/] {escape(message)}")
        sys.exit(2)
