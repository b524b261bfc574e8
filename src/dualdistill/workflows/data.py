"""`data make-synthetic`, `data prepare`, `data check`."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from dualdistill.data.check import check_root
from dualdistill.data.index import NuscenesIndex
from dualdistill.data.synthetic.world import BENCH, DEMO, TINY, make_synthetic
from dualdistill.errors import UserError
from dualdistill.workflows.progress import progress

SIZES = {"tiny": TINY, "demo": DEMO, "bench": BENCH}
