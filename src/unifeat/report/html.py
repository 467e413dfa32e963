"""The HTML report: one file with everything in it, figures included, that opens without a network.

The page is a template (`templates/report.html.j2`, with its style and script beside it); this module gathers what it
shows. All text reaches the page through the template's escaping, and the page forbids itself any request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from unifeat.report import distributions, figures
from unifeat.report.categories import of_cell, overview
from unifeat.report.contexts import contexts, listed_pair
from unifeat.report.overview import group_overview
from unifeat.report.published import published
from unifeat.report.score_table import score_columns
from unifeat.report.summary import summary
from unifeat.report.tables import (
    SIGNIFICANT,
    Measure,
    cells,
    decimal,
    group_pairs,
    measures,
    number,
    percent,
    probability,
    richest,
    role,
    rows_of,
    scores_of,
    span,
    study_of,
)
from unifeat.report.uncertainty import hubs, pair_lines
from unifeat.runs.folder import Run
from unifeat.store import write_text
from unifeat.vocabulary.hook_points import HOOKS

_GLOSSES = {
    "svcca": "Mean canonical correlation of the leading principal components of the paired decoder rows.",
    "rsa": "Correlation, over all pairs of features, of how far apart the two sides place them.",
    "cka": "Linear centred kernel alignment of the paired decoder rows; unless debiased, inflated where pairs are few.",
}
_ONE_COMPONENT = "The first principal components only: the setting under which results were first published."


def write_report(run: Run) -> Path:
    """Write a run's `report.html`, whole or not at all, and return its path."""
    write_text(run.report, render(run))
    return run.report


def render(run: Run) -> str:
    """The report as HTML text."""
    import jinja2
    from plotly.offline import get_plotlyjs

    templates = jinja2.PackageLoader("unifeat.report", "templates")
    environment = jinja2.Environment(
        loader=templates,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "percent": percent, "decimal": decimal, "probability": probability}
    css, js = (templates.get_source(environment, name)[0] for name in ("report.css", "report.js"))
    drawn: dict[str, Any] = {}
    study = study_of(run)
    context = {
        "run": run,
        "folder": run.goes_to or run.folder,
        "info": run.info,
        "groups": _title_groups(run),
        "summary": summary(run),
        "headline": _headline(run),
        "spaces": run.info["spaces"],
        "hooks": {kind: hook.label for kind, hook in HOOKS.items()},
        "alignment": _alignment(run),
        "grids": [_grid(run, pair, drawn) for pair in group_pairs(run)],
        "cells": _cells(run, drawn),
        "overview": _overview(run, drawn),
        "subspaces": study.get("subspaces"),
        "first": richest(run),
        "published": published(run, drawn),
        "scores": _scores(run),
        "flags": _flags(run),
        "columns": [("A", ""), ("B", ""), ("measure", ""), *((label, "n") for label, _, _ in score_columns(run))],
        "used": run.scores["details"].str.contains("dims_a").any(),
        "intervals": bool(run.scores["ci_low"].notna().any()),
        "heldout_scores": bool(run.scores["score_heldout"].notna().any()),
        "groups_overview": dict(zip(("measures", "lines"), group_overview(run), strict=True)),
        "rematches": study.get("inference", {}).get("rematches"),
        "level": study.get("inference", {}).get("level", 0.95),
        "permutations": study.get("inference", {}).get("permutations"),
        "heldout": bool(study.get("matching", {}).get("heldout", True)),
        "significant": SIGNIFICANT,
        "scale": _css_scale(),
        "study": (run.folder / "study.yaml").read_text(encoding="utf-8") if study else "",
        "css": css,
        "js": js,
        "plotly": get_plotlyjs(),
    }
    # The figures are JSON inside a script element: no "<" may stand in it.
    data = json.dumps({"colours": {v: f"--{k}" for k, v in figures.COLOURS.items()}, "figures": drawn})
    return environment.get_template("report.html.j2").render(context, data=data.replace("<", "\\u003c"))


def _title_groups(run: Run) -> list[str]:
    """The groups of spaces that the run is about: ceilings and controls only where there is nothing else."""
    ordinary = [pair for pair in group_pairs(run) if not role(run, pair)]
    return list(dict.fromkeys(name for pair in ordinary or group_pairs(run) for name in pair))


def _headline(run: Run) -> list[tuple[str, str]]:
    """A few figures to stand at the top: (what, how many)."""
    table, whole = cells(run), run.scores[run.scores["subspace"] == "all"]
    q = whole["q"].dropna()
    text = run.info["text"]
    shown = [
        ("documents", number(text["documents"])),
        ("tokens compared", span(table["tokens_aligned"])),
        ("pairs of spaces", number(len(table))),
        ("feature pairs kept", number(table["kept"].sum())),
    ]
    if len(q):
        shown.append((f"scores with q < {SIGNIFICANT:g}", f"{(q < SIGNIFICANT).sum()} of {len(whole)}"))
    return shown


def _alignment(run: Run) -> list[dict[str, Any]]:
    """One row for each pair of groups: tokens that both sides have, as ranges over the layers."""
    rows = []
    for groups, own in cells(run).groupby(["group_a", "group_b"], sort=False):
        row: dict[str, Any] = {"groups": groups}
        row |= {name: span(own[name]) for name in ("tokens_aligned", "tokens_fitted", "tokens_heldout")}
        rows.append(row | {name: span(own[name], percent) for name in ("share_a", "share_b")})
    return rows


def _grid(run: Run, groups: tuple[str, str], drawn: dict[str, Any]) -> dict[str, Any]:
    """The heatmaps of one pair of groups: rows of three panels, the first for the counts of pairs."""
    own = cells(run).query("group_a == @groups[0] and group_b == @groups[1]")
    if len(own) == 1:
        found = [row for row in _scores(run) if row["cell"] == own["cell"].iloc[0]]
        return {"groups": groups, "only": rows_of(own)[0], "scores": found}
    rows = [
        ("Pairs", "", [(figures.count_panel(run, groups, v), figures.count_bounds(run, v)) for v in figures.COUNTS])
    ]
    for measure in measures(run):
        bounds = figures.score_bounds(run, measure)
        panels = [(figures.score_panel(run, measure, groups, value), bounds) for value in figures.VALUES]
        rows.append((measure.label, _gloss(measure), panels))
    shown = []
    for label, gloss, panels in rows:
        captions = []
        for panel, bounds in panels:
            key = f"grid-{len(drawn)}"
            drawn[key] = figures.panel_figure(panel, groups, bounds)
            digits = 0 if panel.title == figures.COUNTS["kept"] else 2
            low, high = (decimal(b, digits) if digits else number(b) for b in bounds)
            spoken = f"{label}, {panel.title}: {groups[0]} layers by {groups[1]} layers, {low} to {high}"
            captions.append({"key": key, "title": panel.title, "low": low, "high": high, "spoken": spoken})
        shown.append({"label": label, "gloss": gloss, "panels": captions})
    return {"groups": groups, "only": None, "rows": shown}


def _gloss(measure: Measure) -> str:
    one = measure.metric == "svcca" and json.loads(measure.settings).get("dims") == 1
    return _ONE_COMPONENT if one else _GLOSSES.get(measure.metric, "")


def _cells(run: Run, drawn: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page shows of each pair of spaces: three figures, why candidates were dropped, features in context."""
    table = cells(run)
    limit = max(200, distributions.MAX_POINTS // len(table))
    lines, shown_pairs = contexts(run), _shown(run)
    all_kept = run.pairs[run.pairs["kept"]]
    kept_by_cell = dict(list(all_kept.groupby(["space_a", "space_b"], sort=False)))
    shown = []
    for cell in rows_of(table):
        kept = kept_by_cell.get((cell.space_a, cell.space_b), all_kept.iloc[:0])
        drawn[f"correlation-{cell.cell}"] = distributions.correlation_figure(kept)
        drawn[f"heldout-{cell.cell}"] = distributions.heldout_figure(kept, limit, run.info["seed"])
        drawn[f"partner-{cell.cell}"] = distributions.partner_figure(cell)
        own = shown_pairs[(shown_pairs["space_a"] == cell.space_a) & (shown_pairs["space_b"] == cell.space_b)]
        known = int(kept["correlation_heldout"].notna().sum())
        shown.append(
            {
                "facts": cell,
                "dropped": sorted(cell.dropped.items(), key=lambda item: -item[1]),
                "known": known,
                "uncertainty": pair_lines(cell),
                "hubs": hubs(cell),
                "categories": of_cell(run, cell),
                "drawn": min(limit, known),
                "lists": {
                    name: [listed_pair(row, lines) for row in rows_of(own[own["chosen"] == name])]
                    for name in ("strongest", "random")
                },
            }
        )
    return shown


def _overview(run: Run, drawn: dict[str, Any]) -> list[dict[str, Any]]:
    panels = overview(run)
    for place, panel in enumerate(panels):
        panel["key"] = f"categories-{place}"
        drawn[panel["key"]] = panel.pop("figure")
    return panels


def _shown(run: Run) -> pd.DataFrame:
    if (run.folder / "shown.parquet").is_file():
        return run.shown
    return run.pairs.iloc[:0].assign(chosen="")


def _scores(run: Run) -> list[dict[str, Any]]:
    """Every score on all kept pairs, with its settings and details taken apart."""
    rows = []
    for measure in measures(run):
        for row in rows_of(scores_of(run, measure)):
            row = row._asdict()
            shown = [{"value": row.get(name), "text": show(row)} for _, name, show in score_columns(run)]
            rows.append(row | {"label": measure.label, "flags": list(row["flags"]), "cells": shown})
    return rows


def _flags(run: Run) -> dict[str, dict[str, Any]]:
    """For each kind of flag (the word before its colon) and metric, the first score that has it."""
    first: dict[str, dict[str, Any]] = {}
    for row in _scores(run):
        for flag in row["flags"]:
            first.setdefault(f"{flag.split(':')[0]} {row['metric']}", row | {"flag": flag})
    return first


def _css_scale() -> str:
    from plotly.colors import get_colorscale

    return ", ".join(colour for _, colour in get_colorscale(figures.SCALE))
