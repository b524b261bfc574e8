"""The results page: one figure, a table a budget, the published claims one by one. Made from the result file alone."""

from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
import matplotlib as mpl

from dualdistill.recipes.catalogue import PUBLISHED
from studies.design import ABLATIONS, CLAIMS, FACTORS, METHODS, ROWS, STUDENT, STUDIES, Claim, Row, Study, scaled
from studies.stats import FEWEST, Difference, difference, holm, scores, verdict

mpl.use("agg")
from matplotlib import pyplot as plt

Runs = Mapping[str, Any]
COLOURS = ("#b86e00", "#c8412b", "#3657d6", "#00905a", "#8a3ea8", "#62686f", "#0091a8", "#7a5c3e", "#d65c9e")


def write_page(
    study: Study, results: Mapping[str, Any], docs: Path, others: Mapping[str, Runs] = MappingProxyType({})
) -> Path:
    """`results.md` and its figure in `docs`; returns the page.

    Args:
        others: Runs of the studies of variants and of tuning, by name.
    """
    runs = results["runs"]
    others = {study.name: runs} | dict(others)
    all_runs = {(name, key): run for name, found in others.items() for key, run in found.items()}
    figure = docs / "images" / f"{study.name}-gain.svg"
    figure.parent.mkdir(parents=True, exist_ok=True)
    draw_gains(study, runs, figure)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
    )  # fmt: skip
    text = environment.get_template(f"{study.name}.md.j2").render(
        study=study,
        figure=figure.relative_to(docs).as_posix(),
        networks=results["networks"],
        tables={budget: method_table(study.rows, runs, budget) for budget in budgets_of(study, runs)},
        distances={budget: distance_table(study.rows, runs, budget) for budget in budgets_of(study, runs)},
        ablations=ablation_table(study, runs),
        variants=variant_table({name: found for name, found in others.items() if name != "tuning"}),
        tuning=tuning_table(others.get("tuning", {})),
        likeness={budget: likeness_table(study, runs, budget) for budget in budgets_of(study, runs)},
        claims=claim_table(study, runs),
        gain=lambda better, worse, budget, metric="mean_ap": _interval(difference(runs, better, worse, budget, metric)),
        progress=progress(study, runs),
        scene_noise=scene_noise(runs),
        hours=sum(each["cpu_seconds"] for part in (results["networks"], all_runs) for each in part.values()) / 3600,
        cpus=sorted({each["cpu"] for each in all_runs.values()}),
        commits=sorted({str(each["commit"])[:10] for each in all_runs.values()}),
        count=len(all_runs),
    )
    page = docs / "results.md"
    page.write_text(text)
    return page


def write_readme(study: Study, results: Mapping[str, Any], readme: Path) -> None:
    """Put a table between the README's markers: of the largest budget with three complete seeds, or with most."""
    runs, (begin, end) = results["runs"], (f"<!-- study {study.name}: {which} -->" for which in ("begin", "end"))
    budget = max(budgets_of(study, runs), key=lambda each: (min(3, len(complete_seeds(runs, each))), each))
    lines = []
    for row in ROWS:
        found = complete_scores(runs, row.key, budget, "mean_ap")
        if len(found) >= min(FEWEST, len(complete_seeds(runs, budget))):
            gains = (_gain(runs, row, reference, budget, "mean_ap") for reference in (STUDENT, row.control))
            lines.append([row.name, str(len(found)), _mean(found), *gains, _published(row)])
    table = _table("Method | Seeds | mAP | over student | over head alone | publ.", "---|--:|--:|---|---|--:", lines)
    caption = (
        f"{budget:,} training samples, published loss weights; mAP in percent on held-out synthetic scenes; gains "
        "paired by seed, with 95 % intervals from three seeds on; bounded: gradient of distillation on the BEV map at "
        "most half of the head's; publ.: the paper's gain on nuScenes val, not measured here."
    )
    text = readme.read_text()
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    readme.write_text("\n".join([before, table, "", caption, after]))


def complete_seeds(runs: Runs, budget: int) -> set[int]:
    """Seeds with the student alone and one with a teacher's head, which gains are stated against; the student's own
    while there is no such head."""
    student, *heads = ({*scores(runs, key, budget, "mean_ap")} for key in (STUDENT, "head-centerpoint", "head-mvp"))
    return student & set.union(*heads) or student


def complete_scores(runs: Runs, row: str, budget: int, metric: str) -> dict[int, float]:
    """Scores of a row at complete seeds: a mean over other seeds than the other rows' would not compare with theirs."""
    complete = complete_seeds(runs, budget)
    return {seed: score for seed, score in scores(runs, row, budget, metric).items() if seed in complete}


def budgets_of(study: Study, runs: Runs) -> list[int]:
    """Budgets with at least one run, rising."""
    there = {int(key.split("/")[1]) for key in runs}
    return [budget for budget in sorted(study.seeds) if budget in there]


def scene_noise(runs: Runs) -> dict[int, float]:
    """Half the width of a gain's interval over validation scenes, points of mAP: mean over the runs of each budget."""
    widths: dict[int, list[float]] = {}
    for key, run in runs.items():
        if "over_scenes" in run:
            low, high = run["over_scenes"]
            widths.setdefault(int(key.split("/")[1]), []).append(50 * (high - low))
    return {budget: sum(found) / len(found) for budget, found in sorted(widths.items())}


def progress(study: Study, runs: Runs) -> dict[int, tuple[int, int]]:
    """Runs that are done, and runs in all, of each budget."""
    jobs = list(study.jobs())
    return {
        budget: (
            sum(job.key in runs for job in jobs if job.budget == budget),
            sum(job.budget == budget for job in jobs),
        )
        for budget in sorted(study.seeds)
    }


def method_table(rows: Iterable[Row], runs: Runs, budget: int) -> str:
    """Scores of each row, and its gain over the student alone and over the inherited head alone; empty without runs."""
    lines = []
    for row in rows:
        metrics = ("mean_ap", "nd_score")
        found = [complete_scores(runs, row.key, budget, metric) for metric in metrics]
        gains = [_gain(runs, row, other, budget, metric) for metric in metrics for other in (STUDENT, row.control)]
        if found[0]:
            lines.append([row.name, str(len(found[0])), *map(_mean, found), *gains, _published(row)])
    gains_of = "Δ {0} over student | over head alone"
    heading = f"Method | Seeds | mAP | NDS | {gains_of.format('mAP')} | {gains_of.format('NDS')} | publ. Δ mAP"
    return _table(heading, "---|--:|--:|--:|---|---|---|---|--:", lines)


def distance_table(rows: Iterable[Row], runs: Runs, budget: int) -> str:
    """mAP of each row by distance of the objects, and its gain over the inherited head alone; empty without runs."""
    bands = sorted({metric for run in runs.values() for metric in run if metric.startswith("mean_ap ")})
    lines = []
    for row in rows:
        found = [complete_scores(runs, row.key, budget, band) for band in bands]
        if any(found):
            cells = [(_mean(f), _gain(runs, row, row.control, budget, b)) for f, b in zip(found, bands, strict=True)]
            lines.append([row.name, str(max(map(len, found))), *(cell for pair in cells for cell in pair)])
    heading = " | ".join(f"{band.removeprefix('mean_ap ')} | over head alone" for band in bands)
    return _table(f"Method | Seeds | {heading}", "---|--:" + "|--:|---" * len(bands), lines)


def ablation_table(study: Study, runs: Runs) -> str:
    """Scores of the parts of the method; empty while nothing but the study's own rows was run."""
    budget, own = max(STUDIES["ablations"].seeds), {row.key for row in study.rows}
    there = any(row.key not in own and scores(runs, row.key, budget, "mean_ap") for row in ABLATIONS)
    return method_table(ABLATIONS, runs, budget) if there else ""


def variant_table(runs: Mapping[str, Runs]) -> str:
    """What the head and distillation gain at the smallest budget under each study's settings; empty for one alone."""
    lines = []
    head, distilled = "head-centerpoint", "dualdistill-centerpoint"
    for name, found in runs.items():
        study = STUDIES[name]
        setting, budget = study.summary if lines else "as above", min(study.seeds)
        pairs = [(head, STUDENT), (distilled, STUDENT), (distilled, head)]
        gains = [_interval(difference(found, better, worse, budget)) for better, worse in pairs]
        lines.append([setting, _mean(scores(found, STUDENT, budget, "mean_ap")), *gains])
    heading = "Setting | Student | Head alone − student | DualDistill − student | DualDistill − head alone"
    return _table(heading, "---|--:|---|---|---", lines) if len(runs) > 1 else ""


def tuning_table(runs: Runs) -> str:
    """mAP of each method for each factor on its weights, the best in bold, and CKA with the teacher in parentheses:
    means over the tuning seeds. Methods with runs missing are left out; empty without any."""
    ((budget, seeds),) = STUDIES["tuning"].seeds.items()
    factors, lines = (1.0, *FACTORS), []
    for row in METHODS:
        keys = [scaled(row, factor).key for factor in factors]
        scored, alike = ([scores(runs, key, budget, metric) for key in keys] for metric in ("mean_ap", "cka"))
        if all(len(found) == len(seeds) for found in (*scored, *alike)):
            means = [sum(found.values()) / len(found) for found in scored]
            texts = [f"**{mean:.2f}**" if mean == max(means) else f"{mean:.2f}" for mean in means]
            lines.append([row.name, *(f"{text} ({_mean(found)})" for text, found in zip(texts, alike, strict=True))])
    return _table("Method | " + " | ".join(f"× {factor:.2g}" for factor in factors), "---" + "|--:" * 3, lines)


def likeness_table(study: Study, runs: Runs, budget: int) -> str:
    """CKA of the maps of student and teacher, mean over seeds; empty without runs that recorded it."""
    found = {row: [scores(runs, row.key, budget, where) for where in ("cka", "cka objects")] for row in study.rows}
    lines = [[row.name, str(len(each[0])), *map(_mean, each)] for row, each in found.items() if each[0]]
    return _table("Method | Seeds | all cells | cells of objects", "---|--:|--:|--:", lines)


def claim_table(study: Study, runs: Runs) -> str:
    """Each claim at each budget, Holm-corrected over the claims of a budget."""
    table: dict[Claim, list[list[str]]] = {claim: [] for claim in CLAIMS}
    for budget in budgets_of(study, runs):
        found = {claim: difference(runs, claim.better, claim.worse, budget) for claim in CLAIMS}
        tested = [claim for claim in CLAIMS if (d := found[claim]) is not None and d.p is not None]
        corrected = dict(zip(tested, holm([found[claim].p for claim in tested]), strict=True))  # type: ignore[union-attr,misc]
        for claim in CLAIMS:
            if found[claim] is None:
                continue
            p = corrected.get(claim)
            cells = [claim.text, f"{budget:,}", _interval(found[claim]), "–" if p is None else f"{p:.3f}"]
            table[claim].append([*cells, verdict(found[claim], p)])
    lines = [line for claim in CLAIMS for line in table[claim]]
    return _table("Claim | Samples | Δ mAP | p (Holm) | ", "---|--:|---|--:|---", lines)


def _table(heading: str, rule: str, lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table; empty without lines."""
    texts = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([f"| {heading} |", f"|{rule}|", *texts]) if texts else ""


def draw_gains(study: Study, runs: Runs, path: Path) -> None:
    """Gain in mAP against samples seen, over the student alone and over the inherited head alone; rows with one budget
    are left out where there are several."""
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": study.name, "svg.fonttype": "path"})
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 4.2), sharey=True, layout="constrained")
    budgets = budgets_of(study, runs)
    methods = {row.key: row.name.partition(", ")[0] for row in study.rows if row.control and not row.budgets}
    colours = dict(zip(dict.fromkeys(methods.values()), cycle(COLOURS), strict=False))
    for panel, title in zip(panels, ("over the student alone", "over the teacher's head alone"), strict=True):
        for row in study.rows:
            reference = STUDENT if panel is panels[0] else row.control
            if row.key not in methods or reference is None:
                continue
            found = {b: d for b in budgets if (d := difference(runs, row.key, reference, b)) is not None}
            if len(found) < min(2, len(budgets)):
                continue
            means = [d.mean for d in found.values()]
            style = {"centerpoint": ("-", ":"), "mvp": ("--", "-.")}[row.teacher or "mvp"]["weights" in row.name]
            colour = colours[methods[row.key]]
            panel.plot([*found], means, style, color=colour, marker="o", markersize=3, label=row.name)
            low, high = ([pick(d.by_seed.values()) for d in found.values()] for pick in (min, max))
            panel.fill_between([*found], low, high, color=colour, alpha=0.12, linewidth=0)
        panel.axhline(0, color="#62686f", linewidth=0.8)
        panel.set(title=title, xlabel="training samples", xscale="log")
        panel.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("gain in mAP, points")
    handles, names = panels[0].get_legend_handles_labels()
    if handles:
        panels[1].legend(handles, names, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _mean(by_seed: Mapping[int, float]) -> str:
    return f"{sum(by_seed.values()) / len(by_seed):.1f}" if by_seed else "–"


def _gain(runs: Runs, row: Row, reference: str | None, budget: int, metric: str) -> str:
    if reference is None or reference == row.key:
        return "–"
    return _interval(difference(runs, row.key, reference, budget, metric))


def _interval(value: Difference | None) -> str:
    if value is None:
        return "–"
    text = f"{value.mean:+.1f}"
    text = f"{text} [{value.interval[0]:+.1f}, {value.interval[1]:+.1f}]" if value.interval else text
    return text.replace("-", "−")


def _published(row: Row) -> str:
    """Published gain over the published student, of the recipe of that name at full size."""
    here = PUBLISHED.get(row.key)
    return "–" if here is None or row.key == STUDENT else f"{here.mean_ap - PUBLISHED[STUDENT].mean_ap:+.1f}"
