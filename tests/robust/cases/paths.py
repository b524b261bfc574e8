"""Outputs that are files, folders or nonsense; inputs that are missing, folders, pipes or loops."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.robust.cases.case import DAMAGES, RECIPE, Build, Case, Target, broken_link, file, loop, missing, pipe, train
from tests.robust.places import Places


def paths() -> Iterator[Case]:
    """Outputs that are files, folders or nonsense; inputs that are missing, folders, pipes or loops."""
    for verb, option in (
        ("recipes list", "--json"),
        (f"recipes show {RECIPE}", "--json"),
        ("predict {run}", "--json"),
        ("data check {root}", "--json"),
        ("compare {run}", "--markdown"),
        ("compare {run}", "--latex"),
        ("compare {run}", "--html"),
        ("predict {run}", "--picture"),
    ):
        end = ".png" if option == "--picture" else ""
        for what, target in (("a folder", _folder), ("below a file", _below_file), ("too long", _too_long)):
            yield Case(
                "11 paths", f"{verb} {option}: {what}", _output(verb, option, target, end), ("written|too long",)
            )
    for verb in ("train", "demo --quick", "export {run}", "evaluate {run}"):
        for what, target in (("a file", file), ("below a file", _below_file)):
            yield Case("11 paths", f"{verb} --out: {what}", _output(verb, "--out", target, ""), ("written|file",))
    for verb in ("train", "export {run}", "evaluate {run}"):
        for what, target in (("a pipe", pipe), ("a broken link", broken_link)):
            yield Case("11 paths", f"{verb} --out: {what}", _output(verb, "--out", target, ""), ("written|file",))
    for verb in ("resume", "evaluate", "predict", "compare", "export", "data check", "data prepare", "recipes show"):
        for what, target in (("a pipe", pipe), ("a broken link", broken_link)):
            words = ("no |not |lacks|contains none",)
            yield Case("11 paths", f"{verb}: {what}", _input(verb, target), words)
    for verb in ("resume", "evaluate", "visualize", "predict", "gradients", "compare", "export"):
        for what, target in (("missing", missing), ("an empty folder", _folder), ("a loop", loop), ("a text", file)):
            yield Case("11 paths", f"{verb}: {what}", _input(verb, target), ("no |not |lacks|levels|contains none",))
    for what, target in (("missing", missing), ("an empty folder", _folder), ("a loop", loop), ("a file", file)):
        for verb in ("data check", "data prepare", "data virtual-points", "data instances"):
            yield Case("11 paths", f"{verb}: {what}", _input(verb, target), ("expected|no v1.0|not a folder",))
        words = ("expected|no v1.0|not a folder",)
        yield Case("11 paths", f"train --data: {what}", _data(target), words)
    yield Case(
        "11 paths",
        "train --data: ~nobody",
        lambda at: train(Path("~nobody-here/x"), at.new()),
        ("nobody|not a folder",),
    )
    for damage, change in DAMAGES.items():
        yield Case("11 paths", f"convert: {damage}", _converted(change), ("readable|holds|weights|state",))
    yield Case(
        "11 paths",
        "convert: missing",
        lambda at: ["convert", str(at.new() / "x.pth"), "--out", "y.safetensors"],
        ("no checkpoint",),
    )
    yield Case(
        "11 paths",
        "convert: --out x.txt",
        lambda at: ["convert", str(at.new() / "x.pth"), "--out", "y.txt"],
        ("safetensors",),
    )
    yield Case("11 paths", "make-synthetic: a file", lambda at: ["data", "make-synthetic", str(file(at))], ("file",))
    yield Case(
        "11 paths", "make-synthetic: not empty", lambda at: ["data", "make-synthetic", str(at.root())], ("empty",)
    )


def _folder(at: Places) -> Path:
    return at.new()


def _below_file(at: Places) -> Path:
    return file(at) / "below" / "it"


def _too_long(at: Places) -> Path:
    return at.new() / ("x" * 300)


def _output(verb: str, option: str, target: Target, end: str) -> Build:
    def build(at: Places) -> list[str]:
        path = target(at)
        if end:
            path = path.with_name(path.name + end)
            if target is _folder:
                path.mkdir()
        if verb == "train":
            return [*train(at.root(), path)]
        argv = verb.replace("{run}", str(at.run())).replace("{root}", str(at.root())).split(" ")
        form = ["--format", "torch"] if verb.startswith("export") else []
        return [*argv, *form, option, str(path)]

    return build


def _input(verb: str, target: Target) -> Build:
    def build(at: Places) -> list[str]:
        more = ["--out", str(at.new() / "out"), "--format", "torch"] if verb == "export" else []
        return [*verb.split(), str(target(at)), *more]

    return build


def _data(target: Target) -> Build:
    return lambda at: train(target(at), at.new())


def _converted(change: Callable[[bytes], bytes]) -> Build:
    def build(at: Places) -> list[str]:
        path = at.new() / "foreign.pth"
        path.write_bytes(change(at.weights(at.original("student")).read_bytes()))
        return ["convert", str(path), "--out", str(path.with_suffix(".safetensors"))]

    return build
