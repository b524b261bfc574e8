"""The command line: one record of options per verb, whose function is imported when it runs to keep `--help` fast.

Exit codes: 0 success, 1 internal error, 2 wrong input or a failure with a reason, 128 + N after stop signal N.
"""

import inspect
import io
import math
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from dualdistill import __version__
from dualdistill.commands.options import data, deployment, results, speed, start, training
from dualdistill.commands.options.shared import WritesJson
from dualdistill.errors import UserError
from dualdistill.files import as_user_error, write_json

VERBS: dict[str, tuple[type, str]] = {
    "doctor": (start.Doctor, "doctor.run_checks"),
    "demo": (start.Demo, "demo.run_demo"),
    "train": (training.Train, "train.start_training"),
    "plan": (speed.Plan, "plan.plan"),
    "resume": (training.Resume, "train.resume_training"),
    "evaluate": (results.Evaluate, "evaluate.evaluate_anything"),
    "submit": (results.Submit, "submit.submit_results"),
    "visualize": (results.Visualize, "visualize.visualize_run"),
    "compare": (results.Compare, "compare.compare_runs"),
    "predict": (results.Predict, "predict.predict_sample"),
    "gradients": (results.Gradients, "gradients.show_gradient_shares"),
    "export": (deployment.Export, "export.export_student"),
    "push": (deployment.Push, "push.push"),
    "convert": (deployment.Convert, "convert.convert_checkpoint"),
    "zoo": (start.Zoo, "zoo.show_zoo"),
    "bench step": (speed.BenchStep, "bench.bench_step"),
    "bench loader": (speed.BenchLoader, "bench.bench_loader"),
    "bench inference": (speed.BenchInference, "bench.bench_inference"),
    "data make-synthetic": (data.MakeSynthetic, "data.make_world"),
    "data prepare": (data.Prepare, "data.prepare_index"),
    "data check": (data.Check, "data.check_data"),
    "data virtual-points": (data.VirtualPoints, "data.make_virtual"),
    "data instances": (data.Instances, "data.make_instances"),
    "recipes list": (start.RecipesList, "recipes.list_recipes"),
    "recipes show": (start.RecipesShow, "recipes.show_recipe"),
    "recipes diff": (start.RecipesDiff, "recipes.diff_recipes"),
}
"""Options of each verb, and its function in `commands`, which takes the console and the options."""

GROUPS = {
    "bench": "Time and memory of training, loading and inference on this machine.",
    "data": "Make, index and check data roots.",
    "recipes": "List, show and compare recipes.",
}

console = Console(soft_wrap=True, highlight=False, markup=False)  # paths may have square brackets
app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)


def _command(options: type, function: str) -> Callable[..., None]:
    """The fields of a record as the parameters of a function for typer."""

    def run(**given: Any) -> None:
        for name, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be a finite number, got {value}.")
        chosen = options(**given)
        module, _, name = function.partition(".")
        result = getattr(import_module(f"dualdistill.commands.{module}"), name)(console, chosen)
        if isinstance(chosen, WritesJson) and chosen.json_file is not None:
            write_json(chosen.json_file, result)

    run.__signature__ = inspect.signature(options)  # type: ignore[attr-defined]
    return run


_groups = {name: typer.Typer(help=text, no_args_is_help=True) for name, text in GROUPS.items()}
for verb, (options, function) in VERBS.items():
    *group, name = verb.split()
    home = _groups[group[0]] if group else app
    home.command(name, help=options.__doc__)(_command(options, function))
for name, group_app in _groups.items():
    app.add_typer(group_app, name=name)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"dualdistill {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def main_options(
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
