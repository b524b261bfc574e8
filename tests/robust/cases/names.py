"""Odd names, which a message must repeat as they are."""

import re
from collections.abc import Iterator

from tests.robust.cases.case import Case

ODD = ("with space", "[bold]brackets[/]", "ünïcode-日本", "[red]", "a'b\"c", "-dash", "new\nline", "$HOME", "%s{x}")


def names() -> Iterator[Case]:
    """Odd names, which a message must repeat as they are."""
    for name in ODD:
        if name.startswith("-"):
            continue
        word = " ".join(re.escape(part) for part in name.split())
        yield Case("17 names", f"data check {name!r}", lambda at, n=name: ["data", "check", str(at.new() / n)], (word,))
        yield Case("17 names", f"resume {name!r}", lambda at, n=name: ["resume", str(at.new() / n)], (word,))
        yield Case("17 names", f"compare {name!r}", lambda at, n=name: ["compare", str(at.new() / n)], (word,))
