"""The command line: one verb a function, whose work lives in the rooms below and is imported inside it, so that
`--help` answers at once. Exit codes: 0 done, 2 the user's input is wrong, 1 our fault."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from dualdistill.cli import data, deployment, recipes, results, science, speed, start, training
from dualdistill.errors import UserError

app = typer.Typer(
    help="LiDAR-to-camera distillation for bird's-eye-view 3D object detection.",
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
    results.visualize,
    results.compare,
    results.predict,
    deployment.export,
    deployment.convert,
):
    app.command()(verb)
app.add_typer(speed.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(science.app, name="science")


def main() -> None:
    """Entry point: a user's mistake is a message and exit code 2, never a traceback."""
    try:
        app()
    except UserError as error:
        # One raised in a loader process comes wrapped in that process's traceback; only its last word is for the user.
        message = str(error).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"[bold red]Error:[/] {escape(message)}")
        sys.exit(2)
