"""Options with values of wrong types, out of range, and that contradict each other."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.robust.cases.case import RECIPE, Build, Case
from tests.robust.places import Places


def options() -> Iterator[Case]:
    """Options with values of wrong types and out of range."""
    train = ["--seed", "--workers", "--devices", "--nodes"]
    for option in train:
        for value in (
            "-1",
            "x",
            "1.5",
            "nan",
            *(["9" * 30] if option != "--workers" else []),
        ):  # no processes by mistake
            yield Case(
                "11 options",
                f"train {option} {value}",
                _train_with(option, value),
                (option, "valid|range|greater|less|share|>=|<="),
            )
    for value in ("0",):
        for option in ("--devices", "--nodes"):
            yield Case(
                "11 options",
                f"train {option} {value}",
                _train_with(option, value),
                (option, ">=|at least|range|greater"),
            )
    for verb, option, value in (
        ("predict", "--min-score", "nan"),
        ("predict", "--min-score", "2"),
        ("predict", "--sample", "-1"),
        ("predict", "--sample", "99999"),
        ("predict", "--sample", "../x"),
        ("predict", "--split", "nowhere"),
        ("predict", "--version", "v9"),
        ("predict", "--picture", "boxes.bmp"),
        ("evaluate", "--split", "nowhere"),
        ("evaluate", "--split", ""),
        ("evaluate", "--version", "../.."),
        ("evaluate", "--checkpoint", "step_999999"),
        ("evaluate", "--checkpoint", "../.."),
        ("evaluate", "--checkpoint", ""),
        ("evaluate", "--checkpoint", "."),
        ("evaluate", "--workers", "-1"),
        ("visualize", "--samples", "0"),
        ("visualize", "--samples", "-3"),
        ("visualize", "--split", "nowhere"),
        ("gradients", "--batches", "0"),
        ("export", "--format", "tflite"),
        ("export", "--sample", "nobody"),
        ("export", "--dtype", "int4"),
        ("export", "--format", ""),
        ("export", "--format", ","),
        ("export", "--format", "torch,"),
        ("predict", "--sample", "9" * 5000),
        ("predict", "--sample", "²"),
        ("predict", "--sample", "１"),
        ("predict", "--sample", "1_0"),
        ("evaluate", "--devices", "999"),
        ("evaluate", "--devices", "999999"),
        ("evaluate", "--scenes", ","),
        ("evaluate", "--fraction", "nan"),
        ("evaluate", "--fraction", "0"),
    ):
        yield Case("11 options", f"{verb} {option} {value}"[:60], _verb_with(verb, option, value), (_word_of(option),))
    for argv, word in (
        (["train", "synthetic/student", "--data", "{root}", "--out", ""], "out"),
        (["evaluate", "{run}", "--scenes", ""], "scenes"),
        (["predict", "{run}", "--data", "{root}", "--video", ""], "video"),
        (["resume", ""], "resume"),
        (["data", "make-synthetic", "{new}/w", "--seed", "-1"], "seed"),
        (["data", "make-synthetic", "{new}/w", "--workers", "0"], "workers"),
        (["data", "make-synthetic", "{new}/w", "--size", "huge"], "size"),
        (["data", "virtual-points", "{root}", "--noise", "nan"], "noise"),
        (["data", "virtual-points", "{root}", "--noise", "2"], "noise"),
        (["data", "virtual-points", "{root}"], "masks"),
        (["data", "instances", "{root}", "--split", "nowhere"], "nowhere"),
        (["data", "instances", "{root}", "--masks", "maskrcnn"], "weights"),
        (
            ["data", "instances", "{root}", "--masks", "maskrcnn", "--weights", "{root}/v1.0-mini/log.json"],
            "weights|read",
        ),
        (["plan", RECIPE, "--efficiency", "nan"], "efficiency"),
        (["plan", RECIPE, "--efficiency", "0"], "efficiency"),
        (["plan", RECIPE, "--efficiency", "-1"], "efficiency"),
        (["plan", RECIPE, "--tflops", "nan"], "tflops"),
        (["plan", RECIPE, "--tflops", "0"], "tflops"),
        (["plan", RECIPE, "--devices", "0"], "devices"),
        (["plan", RECIPE, "--data", "{new}"], "v1.0"),
        (["bench", "step", "--samples", "0"], "samples"),
        (["bench", "step", "--device", "tpu"], "device|tpu"),
        (["bench", "loader", "--workers", "0"], "workers"),
        (["recipes", "show", "nothing/there"], "recipe"),
        (["recipes", "diff", "nothing/there", RECIPE], "recipe"),
        (["train", "{new}/file.py:f", "--data", "{root}"], "no file"),
        (["train", "no_such_module:f", "--data", "{root}"], "no module"),
        (["train", ":", "--data", "{root}"], "module|recipe|name"),
        (["train", RECIPE, "--data", "{root}", "--log", "paper"], "paper"),
        (["train", "synthetic/student", "--data", "{root}", "--teacher", "{root}"], "teacher"),
        (["train", "synthetic/student", "--data", "{root}", "--teacher-cache", "{new}"], "teacher-cache"),
        (["train", "synthetic/teacher-centerpoint", "--data", "{root}", "--image-cache", "{new}"], "image-cache"),
        (["train", RECIPE, "--data", "{root}", "--out", "{new}"], "teacher"),
    ):
        yield Case("11 options", " ".join(argv), _filled(argv), (word,))

    own = ["predict", "{run}", "--images", "a.jpg", "--calibration", "rig.json"]
    rig = ["export", "{run}", "--out", "{new}", "--calibration", "rig.json", "--format", "torch"]
    for argv, options in (
        (own, ("--sample 1", "--split val", "--version v9")),
        (rig, ("--sample 1", "--split val", "--version v9")),
        (["evaluate", "a.json", "--data", "{root}"], ("--checkpoint best", "--workers 2", "--devices 2")),
        (["evaluate", "{weights}"], ("--checkpoint best",)),
        (["submit", "a.json"], ("--checkpoint best", "--workers 2", "--split val", "--version v9")),
    ):
        for option in options:
            name = f"{argv[0]} {argv[1]} {option}: no effect"
            yield Case("11 options", name, _filled([*argv, *option.split()]), (option.split()[0], "no effect"))


def _word_of(option: str) -> str:
    return {
        "--version": "version",
        "--scenes": "no scene",
        "--format": "tflite|format",
        "--sample": "sample",
        "--dtype": "dtype",
    }.get(option, option.strip("-"))


def _filled(argv: list[str]) -> Build:
    made: dict[str, Callable[[Places], Path]] = {
        "{root}": Places.root,
        "{new}": Places.new,
        "{run}": Places.run,
        "{weights}": lambda at: at.weights(at.run()),
    }

    def build(at: Places) -> list[str]:
        given = argv
        for name, make in made.items():
            given = [part.replace(name, str(make(at))) if name in part else part for part in given]
        return given

    return build


def _train_with(option: str, value: str) -> Build:
    return lambda at: ["train", "synthetic/student", "--data", str(at.root()), "--out", str(at.new()), option, value]


def _verb_with(verb: str, option: str, value: str) -> Build:
    def build(at: Places) -> list[str]:
        out = ["--out", str(at.new() / "out")] if verb == "export" else []
        form = ["--format", "torch"] if verb == "export" and option != "--format" else []
        return [verb, str(at.run()), *out, *form, option, value]

    return build
