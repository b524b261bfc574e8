"""`python -m studies run NAME` and `python -m studies page NAME`."""

import argparse
from pathlib import Path

from studies import results
from studies.design import STUDIES, VARIANTS
from studies.run import Workplace, run_study


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m studies", description="Studies of distillation, resumable.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="do the runs that are not recorded yet")
    run.add_argument("study", choices=STUDIES)
    run.add_argument("--data", type=Path, help="root of the world, made if it is not there (default: OUT/world)")
    run.add_argument("--out", type=Path, default=Path("runs/studies"), help="run folders, caches, logs")
    run.add_argument("--results", type=Path, default=results.FOLDER, help="folder of the result files")
    run.add_argument("--weights", type=Path, default=results.WEIGHTS, help="folder of the shared weights")
    run.add_argument("--workers", type=int, default=2, help="runs side by side, one thread each")
    run.add_argument("--limit-minutes", type=float, help="start nothing more after so long")
    run.add_argument("--only", nargs="*", default=(), metavar="ROW", help="keys of rows")
    page = verbs.add_parser("page", help="write the page of a study from its result file")
    page.add_argument("study", choices=STUDIES)
    page.add_argument("--results", type=Path, default=results.FOLDER)
    page.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page and its figure")
    page.add_argument("--readme", type=Path, help="also put a table between this file's markers")
    given = parser.parse_args()
    study = STUDIES[given.study]
    file = given.results / f"{study.record or study.name}.json"
    if given.verb == "page":
        from studies.page import write_page, write_readme

        found = results.read(file)
        shown = {network["sha256"] for network in found["networks"].values()}
        noisy = results.read(given.results / "noise.json")["networks"]
        found["networks"] |= {name: network for name, network in noisy.items() if network["sha256"] not in shown}
        files = {name: given.results / f"{name}.json" for name in (*VARIANTS, "tuning") if study.name == "main"}
        others = {name: results.read(file)["runs"] for name, file in files.items() if file.is_file()}
        print(f"wrote {write_page(study, found, given.out, others)}")
        if given.readme is not None:
            write_readme(study, found, given.readme)
        return
    out = given.out.resolve() / (study.record or study.name)
    place = Workplace(
        study=study, data=(given.data or out / "world").resolve(), out=out, results=file, weights=given.weights
    )
    failed = run_study(place, workers=given.workers, limit_minutes=given.limit_minutes, only=given.only)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
