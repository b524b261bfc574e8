"""What a log is told of long work."""

import io
import re

from rich.console import Console

from dualdistill.report import progress as told


def test_time_left_is_that_of_the_rest_at_the_pace_of_this_start(monkeypatch):
    now = iter([100.0, 130.0, 160.0])
    monkeypatch.setattr(told.time, "monotonic", lambda: next(now))
    console = Console(file=io.StringIO(), width=120)
    with told.progress(console, "training", before=40) as say:
        say(50, 100)
        say(60, 100)
    lefts = re.findall(r"about (\d+) s left", console.file.getvalue())
    assert [int(left) for left in lefts] == [30 // 10 * 50, 60 // 20 * 40]
