"""The table of docs/reliability.md: `python -m tests.robust [GROUP ...]`, from the repository root.

It calls the command line of whichever dualdistill is importable, so that two commits can be compared.
"""

import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.robust.cases import every_case
from tests.robust.examine import examine
from tests.robust.places import Places

KINDS = ("clear", "unclear", "traceback", "silent", "hang", "security")


def main() -> None:
    wanted = sys.argv[1:]
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DUALDISTILL_CACHE"] = f"{folder}/cache"
        places = Places(Path(folder))
        places.prepare()
        for case in every_case():
            if wanted and not case.group.startswith(tuple(wanted)):
                continue
            try:
                verdict = examine(case, places)
            except (KeyError, OSError) as error:
                print(f"{case.group} | {case.name} | cannot be made for this version: {error!r}", flush=True)
                continue
            counts.setdefault(case.group, Counter())[verdict.kind] += 1
            if verdict.kind != "clear":
                print(f"{case.group} | {case.name} | {verdict.kind} | {verdict.text.strip()[-300:]!r}", flush=True)
    print(f"\n| class | cases | {' | '.join(KINDS)} |\n|---|--:|{'--:|' * len(KINDS)}")
    for group, count in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        print(f"| {group} | {count.total()} | {' | '.join(str(count[kind]) for kind in KINDS)} |")


main()
