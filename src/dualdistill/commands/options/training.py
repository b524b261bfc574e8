"""Options of the verbs from a recipe to a trained, scored and compared detector."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from dualdistill.commands.options import (
    Checkpoint,
    Options,
    Overrides,
    Root,
    RootOfRun,
    ValSplit,
    Version,
    Workers,
    WritesJson,
    require_effect,
)
from dualdistill.errors import UserError

Name = Annotated[str, "A recipe, or a run folder."]
RecipeName = Annotated[str, "A name from `dualdistill recipes list`, or file.py:function."]
TrainSplit = Annotated[str | None, "Training split; default: train, or mini_train for v1.0-mini."]
Out = Annotated[Path, "Folder for the run folders."]
Seed = Annotated[int, Option(min=0, max=2**32 - 1, help="Seed of weights, sample order and augmentation.")]
Devices = Annotated[int, Option(min=1, max=4096, help="Processes (GPUs) on each machine; they share each batch.")]
Nodes = Annotated[int, Option(min=1, max=4096, help="Machines to train on, started by torchrun, SLURM or MASTER_ADDR.")]
ImageCacheFolder = Annotated[Path | None, "Folder on local disk for decoded images: the same samples, loaded faster."]
Log = Annotated[list[str] | None, "Also log to tensorboard, wandb or mlflow (extras). Repeatable."]
Trust = Annotated[bool, Option("--trust", help="Allow the run's code from outside this package.")]
CheckpointOfRun = Annotated[str | None, "Checkpoint of a run: last, best or step_000400; default: last."]


class RecipesList(WritesJson, frozen=True):
    """List all recipes, with published results if there are any."""


class RecipesShow(WritesJson, frozen=True):
    """Show the resolved experiment of a recipe or a run."""

    name: Name
    overrides: Overrides = None


class RecipesDiff(WritesJson, frozen=True):
    """Show the settings that differ between two recipes or runs."""

    a: Name
    b: Annotated[str, "The other recipe or run folder."]


class Demo(Options, frozen=True):
    """Train a camera student alone and distilled on a synthetic world, compare both, and write report.html."""

    out: Out = Path("runs/demo")
    data: Annotated[Path, "Folder of the synthetic world, made if it is missing."] = Path("data/synthetic-demo")
    seed: Seed = 0
    quick: Annotated[bool, Option("--quick", help="Tiny world, four steps: only checks that everything runs.")] = False
    from_scratch: Annotated[
        bool, Option("--from-scratch", help="Train the teacher too; students start from random weights.")
    ] = False


class Train(Options, frozen=True):
    """Train a teacher, a label encoder, or a student, alone or distilled."""

    recipe: RecipeName
    data: Root
    out: Out = Path("runs")
    overrides: Overrides = None
    seed: Seed = 0
    teacher: Annotated[
        Path | None,
        "Run folder or weights of the teacher; default: the newest run of its recipe in OUT, on these data.",
    ] = None
    label_encoder: Annotated[
        Path | None, "LabelDistill only: run folder or weights; default: the newest in OUT with this teacher."
    ] = None
    teacher_cache: Annotated[Path | None, "Folder for the teacher's outputs: filled first, then reused."] = None
    image_cache: ImageCacheFolder = None
    version: Version = None
    split: TrainSplit = None
    workers: Workers = None
    devices: Devices = 1
    nodes: Nodes = 1
    log: Log = None
    check: Annotated[bool, "Check every sensor file before training."] = True
    profile: Annotated[Path | None, "Folder for a Chrome trace and a table of operators of the first steps."] = None


class Resume(Options, frozen=True):
    """Continue a training exactly from its newest checkpoint."""

    run: Annotated[Path, "Run folder of an interrupted training."]
    image_cache: ImageCacheFolder = None
    workers: Workers = None
    devices: Devices = 1
    nodes: Nodes = 1
    log: Log = None
    trust: Trust = False


class _Bench(WritesJson, frozen=True):
    recipe: Annotated[str | None, "A recipe; default: DualDistill, nuScenes size on a GPU, else synthetic."] = None
    overrides: Overrides = None
    device: Annotated[Literal["cpu", "cuda"] | None, "Default: cuda if available."] = None
    profile: Annotated[Path | None, "Folder for tables of operators or functions by time, and Chrome traces."] = None


class BenchStep(_Bench, frozen=True):
    """Measure a training step on a random batch: time, samples/s, TFLOP/s, memory; on a GPU also launches and waits."""

    samples: Annotated[
        int | None, Option(min=1, max=4096, help="Samples per step; default: the recipe's batch, at most 2 on a CPU.")
    ] = None


class BenchLoader(_Bench, frozen=True):
    """Measure data loading: samples/s of one core and of several processes, and how long a step waits for data."""

    data: Annotated[Path | None, "A nuScenes root; default: a tiny synthetic world."] = None
    version: Version = None
    split: Annotated[str | None, "Split to load; default: as in `train`."] = None
    workers: Annotated[int, Option(min=1, max=256, help="Processes that load data.")] = 2
    image_cache: Annotated[Path | None, "Folder for decoded images, as in `train`; filled before measuring."] = None


class BenchInference(_Bench, frozen=True):
    """Measure the student on one sample: live, folded and, with the extra `export`, exported."""


class Plan(WritesJson, frozen=True):
    """Estimate the cost of a recipe: parameters, arithmetic, memory, steps, files, disk, GPU hours."""

    recipe: RecipeName
    data: Annotated[Path | None, "A nuScenes root; default: the official train split."] = None
    overrides: Overrides = None
    version: Version = None
    split: TrainSplit = None
    devices: Annotated[int, Option(min=1, max=65536, help="Devices that share each batch.")] = 1
    efficiency: Annotated[
        float, Option(min=1e-3, max=1, help="Share of a GPU's peak that training reaches; `bench step` measures it.")
    ] = 0.25
    tflops: Annotated[
        float | None, Option(min=1e-3, max=1e6, help="Estimate the time for devices that each reach this many TFLOP/s.")
    ] = None
    measure: Annotated[bool, "Time a step on this machine."] = False

    def __post_init__(self) -> None:
        if self.measure and self.tflops is not None:
            raise UserError("The time comes from one source: give --measure or --tflops, not both.")


class Evaluate(WritesJson, frozen=True):
    """Compute the nuScenes detection metrics of a run, a weights file or a result file."""

    what: Annotated[Path, "A run folder, a weights file, zoo:NAME, hf:owner/name, or a results_nusc.json."]
    data: RootOfRun = None
    version: Version = None
    split: ValSplit = None
    out: Annotated[Path | None, "Folder for metrics.json and results_nusc.json."] = None
    checkpoint: CheckpointOfRun = None
    workers: Workers = None
    devices: Annotated[int | None, Option(min=1, max=4096, help="Processes (GPUs) to run on; default: 1.")] = None
    official: Annotated[bool, "Compute the metrics with nuscenes-devkit, which must be installed."] = False
    scenes: Annotated[str | None, "Score only these scenes of the split: names, separated by commas."] = None
    fraction: Annotated[float, "Score a fraction of the scenes, evenly spread."] = 1.0
    slices: Annotated[
        bool, Option("--slices", help="Also score by distance, and night and rain if scene descriptions mention them.")
    ] = False

    def __post_init__(self) -> None:
        if self.what.suffix == ".json":
            given = {"checkpoint": self.checkpoint, "workers": self.workers, "devices": self.devices}
            require_effect("on a result file", **given)
        if self.what.is_file():
            require_effect("on a weights file", checkpoint=self.checkpoint)
        if self.official and self.partly:
            raise UserError("nuscenes-devkit scores whole splits: leave out --official, or --scenes and --fraction.")

    @property
    def partly(self) -> bool:
        """Whether only some scenes of the split are scored."""
        return self.scenes is not None or self.fraction != 1


class Submit(WritesJson, frozen=True):
    """Write and check a submission file for the nuScenes test server, without computing scores."""

    what: Annotated[Path, "A results_nusc.json, or a run folder or weights file to run first."]
    data: Annotated[Path | None, "The nuScenes root; without it sample tokens are not checked."] = None
    version: Version = None
    split: Annotated[str | None, "Default: test for v1.0-test, else val."] = None
    out: Annotated[Path, "Submission file to write."] = Path("submission.json")
    checkpoint: CheckpointOfRun = None
    workers: Workers = None

    def __post_init__(self) -> None:
        if self.what.suffix == ".json":
            require_effect("on a result file", checkpoint=self.checkpoint, workers=self.workers)
        if self.data is None:
            require_effect("without --data", version=self.version, split=self.split)


class Visualize(Options, frozen=True):
    """Draw the detections of a run: report.html and PNG files beside its evaluation. Needs no display."""

    run: Annotated[Path, "A run folder."]
    data: RootOfRun = None
    samples: Annotated[int, Option(min=1, max=1000, help="Samples to draw, spread over the split.")] = 4
    checkpoint: Checkpoint = "last"
    split: ValSplit = None
    rerun: Annotated[bool, Option("--rerun", help="Also write a recording for rerun's viewer (extra viz).")] = False


class Compare(WritesJson, frozen=True):
    """Compare evaluated runs in one table: mean and spread over seeds, gain over the student without a teacher."""

    runs: Annotated[list[Path], "Run folders, or folders with runs below, such as runs/."]
    checkpoint: Checkpoint = "last"
    markdown: Annotated[Path | None, "Also write the table as Markdown to this file."] = None
    latex: Annotated[Path | None, "Also write it as LaTeX, for the booktabs package."] = None
    html: Annotated[Path | None, "Also write it as an HTML page."] = None


class Gradients(WritesJson, frozen=True):
    """Show the share of each loss in the gradient of a student, and its cosine with the gradient of detection."""

    run: Annotated[Path, "A student's run folder."]
    data: RootOfRun = None
    checkpoint: Checkpoint = "last"
    batches: Annotated[int, Option(min=1, max=10_000, help="Number of batches to average over.")] = 8
    trust: Trust = False
