"""Is everything here that a run needs? Each problem with its remedy."""

import os
import shutil
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from dualdistill.errors import UserError

_GIGABYTE = 1e9
_OPTIONAL = {"spconv": "voxel CenterPoints"}


def examine(console: Console, data: Path | None) -> int:
    """Print what was found; 0 where nothing stands in the way, 2 otherwise."""
    problems = 0

    def tell(good: bool, what: str, remedy: str = "") -> None:
        nonlocal problems
        problems += not good
        mark = "[green]ok[/]  " if good else "[red]bad[/] "
        console.print(f"{mark} {escape(what)}" + (f"\n     -> {escape(remedy)}" if not good and remedy else ""))

    tell(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}", "install Python 3.11 or newer")
    for name in ("torch", "torchvision", "timm", "pytorch-lightning", "embreex"):
        try:
            tell(True, f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            tell(False, f"{name} is missing", f"pip install {name}")
    for name, use in _OPTIONAL.items():
        # Its wheels have many names, one a CUDA version.
        found = "is installed" if find_spec(name) else "is not installed (pip install 'dualdistill[voxel]')"
        tell(True, f"{name}, optional, for {use}, {found}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            tell(True, f"GPU {index}: {torch.cuda.get_device_name(index)}")
    else:
        tell(True, f"no GPU: runs on {os.cpu_count()} CPU cores (full-size nuScenes recipes want a GPU)")
    free = shutil.disk_usage(Path.cwd()).free / _GIGABYTE
    tell(
        free > 5,
        f"{free:.0f} GB free on this disk",
        "free some space: runs and the synthetic world want about 5 GB",
    )
    if data is not None:
        from dualdistill.data.index import NuscenesIndex

        try:
            tell(True, f"{data}: {len(NuscenesIndex.open(data))} key frames")
        except UserError as error:
            tell(False, str(error))
    return 2 if problems else 0
