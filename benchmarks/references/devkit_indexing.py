"""Runs under any Python (no import of this package): seconds and memory of opening a nuScenes root, as JSON.

Usage: python devkit_indexing.py devkit|records ROOT VERSION OUT.json
`devkit` is `NuScenes(version=...)`; `records` does the least that any such object does: every table as a list of
dictionaries, and the position of each token.
"""

import json
import resource
import sys
import time
from pathlib import Path


def records(root: str, version: str) -> object:
    tables = {path.stem: json.loads(path.read_text()) for path in sorted(Path(root, version).glob("*.json"))}
    return tables, {name: {record["token"]: i for i, record in enumerate(table)} for name, table in tables.items()}


def devkit(root: str, version: str) -> object:
    from nuscenes import NuScenes  # type: ignore[import-not-found]

    return NuScenes(version=version, dataroot=root, verbose=False)


def main(way: str, root: str, version: str, out_path: str) -> None:
    if way == "devkit":
        import nuscenes  # noqa: F401  # imports are not what is measured
    began = time.perf_counter()
    kept = {"devkit": devkit, "records": records}[way](root, version)
    seconds = time.perf_counter() - began
    del kept
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(out_path).write_text(json.dumps({"seconds": seconds, "peak_mib": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
