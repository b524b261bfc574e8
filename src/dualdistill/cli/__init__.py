"""The command line: one function per verb, which imports its implementation when it is called to keep `--help` fast.

Exit codes: 0 success, 1 internal error, 2 wrong input or a failure with a reason, 128 + N after stop signal N.
"""

import io
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from dualdistill import __version__
from dualdistill.cli import data, deployment, recipes, results, speed, start, training
from dualdistill.errors import UserError
from dualdistill.files import as_user_error

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
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
    """Run the command line; what is the user's or the machine's to solve becomes a message and exit code 2."""
    os.environ["PYTHONSAFEPATH"] = "1"  # child processes import nothing from the working directory
    for stream in (sys.stdout, sys.stderr):  # names of files need not be printable everywhere
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if "" in sys.argv[1:]:  # --out '' would be the working directory, --scenes '' all scenes
            before = sys.argv[sys.argv.index("", 1) - 1]
            raise UserError(
                f"The value after {before!r} is empty: expected a name, path or number (an unset variable?)."
            )
        app()
    except Exception as error:
        explained = as_user_error(error)
        if explained is None:
            raise
        # An error raised in a loader process is wrapped in the traceback of that process, which is left out here.
        message = str(explained).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("Error: ", "bold red"), message))
        sys.exit(2)
