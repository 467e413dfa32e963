"""The section with layer × layer heatmaps of pairs, r and scores for each pair of groups of spaces."""

from __future__ import annotations

import json
from typing import Any

from unifeat.report import figures
from unifeat.report.drawing import Drawn
from unifeat.report.score_table import score_rows
from unifeat.report.tables import Measure, cells, decimal, group_pairs, measures, number, rows_of
from unifeat.runs.folder import Run

_GLOSSES = {
    "svcca": "Mean canonical correlation of the leading principal components of the paired decoder rows.",
    "rsa": "Correlation between the two sides’ distances between features.",
    "cka": "Linear centred kernel alignment of the paired decoder rows; unless debiased, inflated when pairs are few.",
}
_ONE_COMPONENT = "Only the first principal component of each side: the setting of the first published results."


def layers(run: Run, drawn: Drawn) -> dict[str, Any]:
    """The grids, one for each pair of groups of spaces."""
    return {"grids": [_grid(run, groups, drawn) for groups in group_pairs(run)]}


def _grid(run: Run, groups: tuple[str, str], drawn: Drawn) -> dict[str, Any]:
    """The heatmaps of one pair of groups: rows of three panels, with counts of pairs in the first row."""
    own = cells(run).query("group_a == @groups[0] and group_b == @groups[1]")
    if len(own) == 1:
        found = [row for row in score_rows(run) if row["cell"] == own["cell"].iloc[0]]
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
