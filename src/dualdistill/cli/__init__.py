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
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.text import Text

from dualdistill import __version__
from dualdistill.commands.options import Options, WritesJson, data, deployment, training
from dualdistill.errors import UserError
from dualdistill.files import as_user_error, write_json

VERBS: dict[str, tuple[type[Options], str]] = {
    "doctor": (data.Doctor, "doctor.run_checks"),
    "demo": (training.Demo, "demo.run_demo"),
    "train": (training.Train, "train.start_training"),
    "plan": (training.Plan, "plan.plan"),
    "resume": (training.Resume, "train.resume_training"),
    "evaluate": (training.Evaluate, "evaluate.evaluate_anything"),
    "submit": (training.Submit, "submit.submit_results"),
    "visualize": (training.Visualize, "visualize.visualize_run"),
    "compare": (training.Compare, "compare.compare_runs"),
    "predict": (deployment.Predict, "predict.predict_sample"),
    "gradients": (training.Gradients, "gradients.show_gradient_shares"),
    "export": (deployment.Export, "export.export_student"),
    "push": (deployment.Push, "push.push"),
    "convert": (deployment.Convert, "convert.convert_checkpoint"),
    "zoo": (deployment.Zoo, "zoo.show_zoo"),
    "bench step": (training.BenchStep, "bench.bench_step"),
    "bench loader": (training.BenchLoader, "bench.bench_loader"),
    "bench inference": (training.BenchInference, "bench.bench_inference"),
    "data make-synthetic": (data.MakeSynthetic, "data.make_world"),
    "data prepare": (data.Prepare, "data.prepare_index"),
    "data check": (data.Check, "data.check_data"),
    "data virtual-points": (data.VirtualPoints, "data.make_virtual"),
    "data instances": (data.Instances, "data.make_instances"),
    "recipes list": (training.RecipesList, "recipes.list_recipes"),
    "recipes show": (training.RecipesShow, "recipes.show_recipe"),
    "recipes diff": (training.RecipesDiff, "recipes.diff_recipes"),
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


def _command(options: type[Options], function: str) -> Callable[..., None]:
    """The fields of a record as the parameters of a function for typer."""
    signature, parameters = inspect.signature(options), []
    for parameter in signature.parameters.values():
        kind, about = get_args(parameter.annotation)
        if isinstance(about, str):
            about = (typer.Argument if parameter.default is parameter.empty else typer.Option)(help=about)
        parameters.append(parameter.replace(annotation=Annotated[kind, about]))

    def run(**given: Any) -> None:
        for name, value in given.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"--{name.replace('_', '-')} must be a finite number, got {value}.")
        chosen = options(**given)
        module, _, name = function.partition(".")
        result = getattr(import_module(f"dualdistill.commands.{module}"), name)(console, chosen)
        if isinstance(chosen, WritesJson) and chosen.json_file is not None:
            write_json(chosen.json_file, result)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


_homes = {"": app} | {name: typer.Typer(help=text, no_args_is_help=True) for name, text in GROUPS.items()}
for verb, (options, function) in VERBS.items():
    group, _, name = verb.rpartition(" ")
    _homes[group].command(name, help=options.__doc__)(_command(options, function))
for group in GROUPS:
    app.add_typer(_homes[group], name=group)


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
            before = repr(sys.argv[sys.argv.index("", 1) - 1])
            raise UserError(f"The value after {before} is empty: expected a name, path or number (an unset variable?).")
        app()
    except Exception as error:
        explained = as_user_error(error)
        if explained is None:
            raise
        # An error raised in a loader process is wrapped in the traceback of that process, which is left out here.
        message = str(explained).rsplit(f"{UserError.__name__}: ", 1)[-1].strip()
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text.assemble(("Error: ", "bold red"), message))
        sys.exit(2)
