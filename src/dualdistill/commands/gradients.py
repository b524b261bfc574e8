"""`gradients`: the share of each loss in the gradient of a student."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from dualdistill.report.progress import progress
from dualdistill.report.table import Column, Table
from dualdistill.train.gradient_shares import gradient_shares

COLUMNS = (
    Column(key="losses", title="Losses"),
    Column(key="loss", title="Weighted", digits=2),
    Column(key="norm", title="Gradient norm", digits=2),
    Column(key="share", title="Share (%)", digits=0, scale=100.0),
    Column(key="along_detection", title="Cosine with detection", digits=2, signed=True),
)


def show_gradient_shares(
    console: Console, run: Path, *, data: Path | None, batches: int, checkpoint: str, trust: bool = False
) -> list[dict[str, Any]]:
    """Print the gradient shares of a student's run and return their rows; arguments as for `gradient_shares`."""
    with progress(console, "gradients") as report:
        shares = gradient_shares(run, data=data, batches=batches, checkpoint=checkpoint, trust=trust, report=report)
    rows = [asdict(share) for share in shares]
    console.print(Table(columns=COLUMNS, rows=tuple(rows)).to_rich(console.width))
    return rows
