"""`train` and `resume`: check everything first, then spend the time."""

import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dualdistill.commands.data import check_files, refuse_problems
from dualdistill.commands.options.training import Resume, Train
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.splits import samples_of_split
from dualdistill.errors import UserError
from dualdistill.experiment.plain import differences, override, to_plain
from dualdistill.files import require_folder, write_atomically, write_json
from dualdistill.recipes.catalogue import RECIPES, Recipe, find
from dualdistill.report.templates import render
from dualdistill.train.assemble import assemble, split_names
from dualdistill.train.launch import launch, on_leader
from dualdistill.train.metrics import make_sinks
from dualdistill.train.run_folder import RunFolder, environment
from dualdistill.train.session import Job, Session
from dualdistill.train.teacher_cache import refuse_uncacheable
from dualdistill.train.trained_weights import Wanted, find_label_encoder, find_teacher


def start_training(console: Console, options: Train) -> Path:
    """Train a recipe; returns its run folder. Other than a teacher cache, an image cache is not a fact of the run.

    Raises:
        UserError: if something is missing, before any time is spent; and if the training diverges.
        SystemExit: with 128 + its number after a stop signal; a checkpoint is saved.
    """
    recipe, out, devices, nodes = options.recipe, options.out, options.devices, options.nodes
    chosen = find(recipe)
    experiment = override(chosen.build(), options.overrides or [])
    if experiment.teacher is not None and experiment.teacher.voxel is not None:
        experiment.teacher.voxel.check_backend()
    for option, given, used, why in (
        ("teacher", options.teacher, experiment.teacher_recipe, "learns from none"),
        ("label-encoder", options.label_encoder, experiment.label_encoder_recipe, "learns from none"),
        ("image-cache", options.image_cache, experiment.data.cameras, "reads no images"),
    ):
        if given is not None and not used:
            raise UserError(f"--{option} has no effect: {recipe} {why}.")
    if options.teacher_cache is not None:
        refuse_uncacheable(experiment)
    experiment.training.batch_of_one(devices * nodes)  # raises where they cannot share a batch
    sinks = make_sinks(options.log or ())
    for folder in (out, options.teacher_cache, options.profile):
        require_folder(folder)
    index = NuscenesIndex.open(options.data, options.version)
    split, root = options.split or split_names(index.version)[0], str(options.data.resolve())
    job = Job(
        recipe=chosen.name,
        overrides=options.overrides or [],
        experiment=experiment,
        seed=options.seed,
        data={"root": root, "version": index.version, "split": split, "tables": index.digests},
        teacher=None,
        label_encoder=None,
        teacher_cache=options.teacher_cache.resolve() if options.teacher_cache else None,
        log=tuple(options.log or ()),
    )
    experiment.training.require_samples(len(samples_of_split(index, split)))
    if experiment.teacher_recipe is not None:
        wanted = _wanted(experiment.teacher_recipe, job, out)
        job = replace(job, teacher=find_teacher(options.teacher, wanted))
    if job.teacher is not None and experiment.label_encoder_recipe is not None:
        wanted = _wanted(experiment.label_encoder_recipe, job, out)
        job = replace(job, label_encoder=find_label_encoder(options.label_encoder, wanted, job.teacher))
    fabric = launch(devices, nodes, experiment.training)
    console = console if fabric.is_global_zero else Console(quiet=True)

    def create() -> Path:
        if options.check:
            refuse_problems(check_files(console, options.data, index.version, split, experiment.data))
        # Put together here for its errors alone: weights that are missing or unfit leave no run folder behind.
        assemble(experiment, teacher=job.teacher, label_encoder=job.label_encoder, pretrained=True)
        run = RunFolder.create(out, chosen.name, options.seed)
        write_json(run.path / "experiment.json", job.plain())
        write_json(run.path / "environment.json", environment())
        write_atomically(run.path / "card.md", _card(job, chosen, options))
        console.print(f"{chosen.name}, seed {options.seed} -> {run.path}", style="bold")
        for weights in (job.teacher, job.label_encoder):
            if weights is not None:
                console.print(f"distilled from {weights}")
        return run.path

    run = RunFolder(on_leader(fabric, create))
    session = Session(console, fabric, run, job, index, devices=devices, workers=options.workers, sinks=sinks)
    session.image_cache, session.profile = options.image_cache, options.profile
    return _finish(session)


def resume_training(console: Console, options: Resume) -> Path:
    """Go on from the newest complete checkpoint of a run; returns its folder. Without `log`, the sinks are those that
    the run began with.

    Raises:
        UserError, SystemExit: as `start_training`; and for a run without a checkpoint that can be restored, or one that
            another process trains.
    """
    run, devices, nodes = RunFolder.open(options.run), options.devices, options.nodes
    if (run.path / "finished.json").is_file():
        console.print(f"{run.path} is finished; nothing is left to do.")
        return run.path
    job = Job.of(run, trust=options.trust)
    job.experiment.training.batch_of_one(devices * nodes)
    sinks = make_sinks(options.log or job.log)
    index = job.open_index()
    fabric = launch(devices, nodes, job.experiment.training)
    console = console if fabric.is_global_zero else Console(quiet=True)
    if run.newest() is None:
        console.print("The run has no checkpoint yet: its training starts again at step 0.")
    session = Session(console, fabric, run, job, index, devices=devices, workers=options.workers, sinks=sinks)
    session.image_cache = options.image_cache
    return _finish(session)


def _finish(session: Session) -> Path:
    """Train while no other process can train the run; returns its folder. A stop signal ends the process."""
    with ExitStack() as held:
        on_leader(session.fabric, lambda: held.enter_context(session.run.lock()))
        stopped = session.train()
    if not stopped:
        return session.run.path
    if not session.fabric.is_global_zero:
        raise SystemExit(0)  # the leader's exit code counts; another one here would make the launcher kill it
    session.console.print(f"Interrupted, saved. Go on with:\n  dualdistill resume {session.run.path}")
    raise SystemExit(128 + stopped)


def _wanted(recipe: str, job: Job, out: Path) -> Wanted:
    """What the weights of `recipe` must come from for a job to take them without being told to."""
    settings = RECIPES[recipe].build() if recipe in RECIPES else None
    return Wanted(recipe=recipe, settings=settings, learner=job.experiment, data=job.data, out=out)


def _card(job: Job, recipe: Recipe, options: Train) -> str:
    """A page for whoever finds the run: what it is and how to repeat it."""
    command = ["dualdistill", "train", recipe.typed, "--data", job.data["root"], "--version", job.data["version"]]
    command += ["--split", job.data["split"], "--seed", str(job.seed)]
    for assignment in job.overrides:
        command += ["--set", assignment]
    for option, value in (
        ("--teacher", job.teacher and job.teacher.path),
        ("--label-encoder", job.label_encoder and job.label_encoder.path),
        ("--teacher-cache", job.teacher_cache),
        ("--devices", options.devices if options.devices > 1 else None),
        ("--nodes", options.nodes if options.nodes > 1 else None),
        *(("--log", name) for name in job.log),
    ):
        command += [option, str(value)] if value else []
    weights = {"teacher": job.teacher, "label encoder": job.label_encoder}
    known = {title: one.identity for title, one in weights.items() if one is not None}
    changed = differences(to_plain(recipe.build()), to_plain(job.experiment))
    facts = {"job": job, "recipe": recipe, "weights": known, "changed": changed, "command": shlex.join(command)}
    return render("card.md.jinja", **facts) + "\n"
