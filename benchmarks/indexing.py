"""A nuScenes root of trainval's size: making the index, opening it, and what a worker process adds."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks.references.devkit import NOTE, devkit_python, run_devkit
from benchmarks.tables import VERSION, write_tables
from dualdistill.data.index import NuscenesIndex
from dualdistill.report.timing import Row

_OURS = """
import json, resource, sys, time
began = time.perf_counter()
from dualdistill.data.index import NuscenesIndex
imported = time.perf_counter()
NuscenesIndex.open(sys.argv[1])
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": done - imported, "peak_mib": peak}))
"""
"""In a process of its own, like the reference: the most memory it ever held is known only there."""


def run(quick: bool) -> list[Row]:
    """At full size: 34,000 key frames, 2.6 million sensor records, 1.2 million boxes; 2.5 GB of temporary files."""
    return indexing_rows(scenes=8 if quick else 850, key_frames=40)


def indexing_rows(*, scenes: int, key_frames: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "nuscenes", Path(folder) / "cache"
        write_tables(root, scenes=scenes, key_frames=key_frames)
        size = sum(path.stat().st_size for path in (root / VERSION).glob("*.json"))
        setting = f"{scenes} scenes of {key_frames} key frames, tables of {size / 1e6:.0f} MB"
        python = devkit_python()
        way = "devkit" if python else "records"
        theirs = run_devkit(python or sys.executable, "devkit_indexing.py", way, str(root), VERSION)
        environment = os.environ | {"DUALDISTILL_CACHE": str(cache)}
        ours = _in_process([_OURS, str(root)], environment)
        opened = [_in_process([_OURS, str(root)], environment) for _ in range(3)]
        (folder_of_index,) = (path.parent for path in cache.rglob("samples.arrow"))
        index = NuscenesIndex.load(root, VERSION, folder_of_index)
        added = worker_mib(index)
        reference = "NuScenes(version=...)" if python else f"every table as dictionaries ({NOTE})"
        building = f"index: from tables, whole process ({setting})"
        open_ms = 1e3 * float(np.median([each["seconds"] for each in opened]))
        return [
            _row(building, reference, theirs, theirs),
            _row(building, "index made and opened", ours, theirs),
            Row(setting=f"index: opened again ({setting})", name="memory-mapped columns", milliseconds=open_ms),
            Row(
                setting=f"index: one worker ({setting})",
                name="all samples read in a worker process",
                milliseconds=1e3 * added[1],
                peak_mib=added[0],
            ),
        ]


def _row(setting: str, name: str, cost: dict[str, float], reference: dict[str, float]) -> Row:
    seconds, peak = cost["seconds"], cost["peak_mib"]
    return Row(
        setting=setting, name=name, milliseconds=1e3 * seconds, ratio=reference["seconds"] / seconds, peak_mib=peak
    )


def _in_process(script: list[str], environment: dict[str, str]) -> dict[str, float]:
    """The JSON a script prints."""
    command = [sys.executable, "-c", *script]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout)


def _mib(path: str, field: str) -> float:
    """Memory in a field of a file in Linux's /proc; 0 without it, and for a process that has ended."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


PRIVATE = ("/proc/self/smaps_rollup", "Private_Dirty")
"""Pages that this process shares with no other; clean ones are the mapped file's, which workers share."""


class _ReadAll(Dataset[tuple[float, float]]):
    """One item: private memory (MiB) and seconds after everything about all samples was read."""

    def __init__(self, index: NuscenesIndex):
        self.index = index

    def __len__(self) -> int:
        return 1

    def __getitem__(self, item: int) -> tuple[float, float]:
        began, before = time.perf_counter(), _mib(*PRIVATE)
        index = self.index
        for sample in range(len(index)):
            rows, boxes = [index.sample_lidar[sample], *index.sample_cameras[sample]], index.annotations(sample)
            paths = [index.path(int(row)) for row in rows if row >= 0]
            center, label = index.annotation_center[boxes].sum(), index.annotation_class[boxes].sum()
            del paths, center, label
        return _mib(*PRIVATE) - before, time.perf_counter() - began


def worker_mib(index: NuscenesIndex) -> tuple[float, float]:
    """Private memory (MiB) of a loader's worker after it read every sample, and the seconds that took."""
    (item,) = DataLoader(_ReadAll(index), batch_size=None, num_workers=1)
    return float(item[0]), float(item[1])
