"""`doctor`: a check of packages, devices, disk and data, with a remedy for each problem."""

import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.text import Text

from dualdistill.commands.options.data import Doctor
from dualdistill.data.index import NuscenesIndex
from dualdistill.errors import UserError
from dualdistill.files import cache_root

_GIGABYTE = 1e9
_WANTED_GB = 5
"""Free disk needed by a demo, or by a short training and its results."""
_OPTIONAL = {
    "embreex": ("synthetic", "rendering the synthetic world, `demo`"),
    "spconv": ("voxel", "voxel CenterPoint at full speed"),
    "onnxruntime": ("export", "`export`"),
    "tensorboard": ("tensorboard", "curves in TensorBoard"),
    "rerun": ("viz", "`visualize --rerun`"),
}
"""Extra and purpose of each optional module."""
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


class Finding(NamedTuple):
    """One line of the check."""

    what: str
    remedy: str = ""
    """How to solve the problem; empty if there is none."""


def run_checks(console: Console, options: Doctor) -> None:
    """Print the findings. Raises SystemExit with code 2 if there is a problem."""
    findings = [*_environment(), *_devices(), *_disk(), *([] if options.data is None else _root(options.data))]
    for finding in findings:
        mark = ("problem", "red") if finding.remedy else ("ok     ", "green")
        remedy = f"\n        -> {finding.remedy}" if finding.remedy else ""
        console.print(Text.assemble(mark, f" {finding.what}{remedy}"))
    if any(finding.remedy for finding in findings):
        raise SystemExit(2)


def _environment() -> Iterator[Finding]:
    version = sys.version.split()[0]
    too_old = sys.version_info < (3, 11)
    yield Finding(f"Python {version}", "install Python 3.11 or newer" if too_old else "")
    try:
        requirements = [Requirement(text) for text in metadata.requires("dualdistill") or []]
    except metadata.PackageNotFoundError:
        yield Finding("dualdistill is imported from a folder and not installed", "pip install -e . in its clone")
        requirements = []
    for needed in requirements:
        if needed.marker is None:
            yield package(needed)
    for module, (extra, use) in _OPTIONAL.items():
        # The distributions have other names; that of spconv contains a CUDA version.
        state = "is installed" if find_spec(module) else f"is not installed (pip install 'dualdistill[{extra}]')"
        yield Finding(f"{module} (optional, for {use}) {state}")


def package(needed: Requirement) -> Finding:
    """Finding on a required package: installed, missing, or in an unsuitable version."""
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        return Finding(f"{needed.name} is missing", f"pip install '{needed}'")
    if not needed.specifier.contains(version, prereleases=True):
        return Finding(f"{needed.name} {version} does not meet {needed.specifier}", f"pip install '{needed}'")
    return Finding(f"{needed.name} {version}")


def _devices() -> Iterator[Finding]:
    cores = f"{os.cpu_count()} CPU cores"
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            yield Finding(f"GPU {index}: {gpu.name}, {gpu.total_memory / _GIGABYTE:.0f} GB")
        yield Finding(cores)
    elif _NVIDIA_DRIVER.is_file():
        yield Finding(
            f"an NVIDIA driver is installed, but torch {torch.__version__} cannot use it",
            "check that `nvidia-smi` lists the GPU and that torch is a CUDA build no newer than the driver: "
            "https://pytorch.org/get-started",
        )
    else:
        yield Finding(f"no GPU: training runs on {cores} (full-size nuScenes recipes need a GPU)")


def _disk() -> Iterator[Finding]:
    places = {"runs (the current folder)": Path.cwd(), "the cache (DUALDISTILL_CACHE)": cache_root()}
    for use, folder in places.items():
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        if not os.access(existing, os.W_OK):
            remedy = "change to" if folder == Path.cwd() else "set DUALDISTILL_CACHE to"
            yield Finding(f"{existing} cannot be written to; it is for {use}", f"{remedy} a writable folder")
            continue
        free = shutil.disk_usage(existing).free / _GIGABYTE
        wanted = f"free some space: a run and a synthetic world need about {_WANTED_GB} GB"
        yield Finding(f"{free:.0f} GB free for {use}: {existing}", "" if free > _WANTED_GB else wanted)


def _root(data: Path) -> Iterator[Finding]:
    """Findings on every version of a data root: its tables, and a few of the sensor files they list."""
    versions = sorted(path.name for path in data.glob("v1.0-*") if path.is_dir())
    if not versions:
        yield Finding(
            f"{data} is no nuScenes root, because it has no folder v1.0-*",
            "give the folder that contains v1.0-*, samples and sweeps, or make a synthetic world: "
            "`dualdistill data make-synthetic ROOT`",
        )
    for version in versions:
        check = f"`dualdistill data check {data} --version {version}`"
        try:
            index = NuscenesIndex.open(data, version)
        except UserError as error:
            yield Finding(str(error), f"unpack the tables of {version} again; details: {check}")
            continue
        found = f"{data} ({version}): {len(index.scene_name)} scenes, {len(index)} key frames"
        last = len(index.data_channel) - 1
        missing = [path for path in map(index.path, (0, last // 2, last) if last >= 0 else ()) if not path.is_file()]
        if missing:
            yield Finding(f"{found}; {missing[0]} is missing", f"unpack samples and sweeps there; full check: {check}")
        else:
            yield Finding(found)
