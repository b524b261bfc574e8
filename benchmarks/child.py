"""One benchmark in a process of its own: `python -m benchmarks.child NAME full|quick FILE`, rows to FILE."""

import json
import sys
from pathlib import Path

from benchmarks.catalogue import BENCHMARKS
from benchmarks.measure import machine
from benchmarks.outcome import plain_row


def main() -> None:
    name, size, path = sys.argv[1:]
    rows = BENCHMARKS[name].run(size == "quick")
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    Path(path).write_text(json.dumps([plain_row(name, row, quick=size == "quick", machine=facts) for row in rows]))


if __name__ == "__main__":
    main()
