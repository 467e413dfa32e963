"""The section "Published beside measured": for each cell, the published numbers and those of this run."""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from unifeat.published.beside import SOURCE, beside, differences, model_name
from unifeat.report.figures.heatmaps import Panel, panel_figure
from unifeat.report.figures.style import COLOURS, TITLE_FONT, Drawn, layout
from unifeat.report.tables import (
    Measure,
    decimal,
    group_of,
    is_missing,
    layer_grid,
    number,
    probability,
    rows_of,
    study_of,
)
from unifeat.runs.folder import Run

_CELL_COLUMNS = ["space_a", "space_b", "subspace"]
_METRICS = {"svcca": "SVCCA", "rsa": "RSA"}
_CHOICE_LABELS = {
    "text.windows": "windows per document",
    "text.documents": "documents",
    "text.context": "tokens per window",
    "mask.special": "special tokens masked",
    "mask.first": "first positions masked",
    "mask.sinks": "attention sinks masked",
    "mask.pads": "no padding",
    "spaces.hook": "where SAEs read",
    "spaces.codes": "codes",
    "matching.method": "matching",
    "matching.direction": "which side chooses",
    "matching.min_correlation": "minimum r",
    "matching.min_count": "minimum firing count",
    "matching.top_tokens": "top tokens that filters compare",
    "matching.shared_top_token": "a top token must be shared",
    "matching.heldout": "pairs found on half the documents",
    "geometry": "measure",
    "subspaces.categories": "categories",
    "subspaces.top_tokens": "top tokens that decide membership",
    "subspaces.at_least": "hits needed for membership",
    "subspaces.window": "tokens on either side",
}
_VALUE_LABELS = {
    "resid_pre": "block input",
    "resid_post": "block output",
    "before_topk": "before top-k",
    "pre_activation": "before top-k or threshold",
    "output": "the SAE’s output",
}


def published(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """The data of the section; None if the study does not ask for it. Figures are added to `drawn`."""
    study = study_of(run)
    if study.get("published") != SOURCE:
        return None
    table = beside(run)
    names = [model_name(model["name"]) for model in run.info["models"].values()]
    found = {
        "source": SOURCE,
        "cells": len(table[_CELL_COLUMNS].drop_duplicates()),
        "matching": next(iter(table["matching"]), None),
        "choices": [
            (_CHOICE_LABELS.get(key, key), _choice_text(there, key), _choice_text(here, key))
            for key, there, here in differences(study, names)
        ],
        "padding": _padding(run),
        "measures": _measures(table),
        "grids": _grids(table, drawn),
        "strips": _strips(table, drawn),
        "rows": _rows(table),
        "categories": bool((table["subspace"] != "all").any()),
    }
    return {"published": found}


def _choice_text(value: Any, key: str) -> str:
    if key == "geometry":
        return "not measured" if value is None else Measure(value["metric"], json.dumps(value["settings"]), "all").label
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _VALUE_LABELS.get(str(value), str(value))


def _padding(run: Run) -> str | None:
    """The share of tokens read that are padding, if the run kept padding."""
    spaces = run.info["spaces"].values()
    pads, read = (sum(space.get(name, 0) for space in spaces) for name in ("padding", "tokens_read"))
    return f"{pads / read:.0%}".replace("%", " %") if pads else None


def _measures(table: pd.DataFrame) -> list[dict[str, Any]]:
    """For each metric and kind of cell: how measured scores compare with published ones."""
    found = []
    for (metric, settings, whole), own in table.assign(whole=table["subspace"] == "all").groupby(
        ["metric", "settings", "whole"], sort=False
    ):
        both = own.dropna(subset=["score", "score_published"])
        apart = (both["score"] - both["score_published"]).abs()
        ranks = both[["score", "score_published"]].rank()
        varied = len(both) > 2 and bool((ranks.std() > 0).all())
        found.append(
            {
                "label": Measure(str(metric), str(settings), "all").label,
                "of": "whole spaces" if whole else "categories",
                "cells": len(both),
                "published": _span(both["score_published"]),
                "measured": _span(both["score"]),
                "apart": decimal(apart.median()) if len(both) else "–",
                "rank": decimal(float(ranks["score"].corr(ranks["score_published"]))) if varied else "–",
                "pairs": (_span(own["n_published"], number), _span(own["n_pairs"], number)),
            }
        )
    return found


def _span(values: pd.Series, show: Any = decimal) -> str:
    known = values.dropna()
    return "–" if known.empty else f"{show(known.min())} to {show(known.max())}"


def _grids(table: pd.DataFrame, drawn: Drawn) -> list[dict[str, Any]]:
    """For whole spaces: two heatmaps on one colour scale and a scatter plot, one row per metric."""
    whole = table[table["subspace"] == "all"]
    whole = whole.assign(group_a=whole["space_a"].map(group_of), group_b=whole["space_b"].map(group_of), cell=0)
    shown: list[dict[str, Any]] = []
    for (group_a, group_b, metric), own in whole.groupby(["group_a", "group_b", "metric"], sort=False):
        groups = (str(group_a), str(group_b))
        if len(own) < 2:
            continue
        scores = own[["score_published", "score"]].to_numpy(float)
        known = scores[np.isfinite(scores)]
        bounds = (min(0.0, float(known.min())), float(known.max()))
        bounds = bounds if bounds[1] > bounds[0] else (bounds[0], bounds[0] + 1.0)
        panels = []
        for value, title in (("score_published", "published"), ("score", "measured here")):
            key = f"published-{len(drawn)}"
            drawn[key] = panel_figure(_panel(own, value, title, groups), groups, bounds)
            low, high = (decimal(bound) for bound in bounds)
            spoken = f"{_METRICS[str(metric)]}, {title}: {groups[0]} layers by {groups[1]} layers, {low} to {high}"
            panels.append({"key": key, "title": title, "low": low, "high": high, "spoken": spoken})
        key = f"published-{len(drawn)}"
        drawn[key] = _scatter(own, drawn[panels[0]["key"]]["layout"]["height"])
        shown.append(
            {
                "groups": groups,
                "label": Measure(str(metric), str(own["settings"].iloc[0]), "all").label,
                "panels": panels,
                "scatter": key,
                "spoken": f"{_METRICS[str(metric)]}: measured score against published score, one point per cell",
            }
        )
    return shown


def _panel(own: pd.DataFrame, value: str, title: str, groups: tuple[str, str]) -> Panel:
    own = own.assign(shown=own[value].map(decimal), hover=[_hover(row) for row in rows_of(own)])
    z, text, hover, cell = (layer_grid(own, column, groups) for column in (value, "shown", "hover", "cell"))
    return Panel(title, z, text, hover, cell)


def _hover(row: Any) -> str:
    where = "" if row.subspace == "all" else f", {escape(row.subspace)}"
    return (
        f"<b>{escape(row.space_a)} × {escape(row.space_b)}</b>{where}<br>"
        f"published {decimal(row.score_published, 3)}, shuffled {decimal(row.null_published, 3)}, "
        f"{number(row.n_published)} pairs<br>"
        f"measured {decimal(row.score, 3)}, shuffled {decimal(row.null_mean, 3)}, {number(row.n_pairs)} pairs"
    )


def _scatter(own: pd.DataFrame, height: int) -> dict[str, Any]:
    known = own.dropna(subset=["score", "score_published"])
    values = known[["score_published", "score"]].to_numpy(float)
    low, high = (min(0.0, values.min(initial=0.0)), values.max(initial=0.1))
    edge = 0.05 * (high - low)
    limits = [low - edge, high + edge]
    diagonal = {"type": "scatter", "mode": "lines", "x": limits, "y": limits, "hoverinfo": "skip"}
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": known["score_published"].round(4).tolist(),
        "y": known["score"].round(4).tolist(),
        "hovertext": [_hover(row) for row in rows_of(known)],
        "hoverinfo": "text",
        "marker": {"color": COLOURS["held"], "size": 7, "opacity": 0.75, "line": {"width": 0}},
    }
    axes = {
        f"{side}axis": {
            "title": {"text": title, "standoff": 6, "font": TITLE_FONT},
            "range": limits,
            "gridcolor": COLOURS["rule"],
            "zeroline": False,
        }
        for side, title in (("x", "published"), ("y", "measured"))
    }
    line = {"line": {"color": COLOURS["muted"], "width": 1, "dash": "dot"}}
    return {"data": [diagonal | line, points], "layout": layout(height) | axes | {"showlegend": False}}


def _strips(table: pd.DataFrame, drawn: Drawn) -> list[dict[str, Any]]:
    """For categories: one strip chart per metric, with one dot per pair of layers, published above measured."""
    own = table[table["subspace"] != "all"]
    shown: list[dict[str, Any]] = []
    for (metric, settings), part in own.groupby(["metric", "settings"], sort=False):
        names = list(dict.fromkeys(part["subspace"]))[::-1]
        place = part["subspace"].map({name: row for row, name in enumerate(names)})
        traces: list[dict[str, Any]] = []
        for value, null, label, colour, above in (
            ("score_published", "null_published", "published", COLOURS["a"], 0.17),
            ("score", "null_mean", "measured here", COLOURS["b"], -0.17),
        ):
            marks: dict[str, Any] = {"type": "scatter", "mode": "markers", "y": (place + above).round(2).tolist()}
            ticks = {"symbol": "line-ns-open", "size": 8, "color": COLOURS["fit"], "line": {"width": 1.5}}
            traces.append(marks | {"x": _plain(part[null]), "marker": ticks, "showlegend": False, "hoverinfo": "skip"})
            dots = {"size": 7, "color": colour, "opacity": 0.65, "line": {"width": 0}}
            traces.append(
                marks
                | {"x": _plain(part[value]), "marker": dots, "name": label, "hoverinfo": "text"}
                | {"hovertext": [_hover(row) for row in rows_of(part)]}
            )
        key = f"published-{len(drawn)}"
        drawn[key] = {"data": traces, "layout": _strip_layout(names, _METRICS[str(metric)])}
        label = Measure(str(metric), str(settings), "all").label
        shown.append({"key": key, "label": label, "spoken": f"{label} of each category, published and measured"})
    return shown


def _strip_layout(names: list[str], title: str) -> dict[str, Any]:
    rows = list(range(len(names)))
    left = {"l": 108, "r": 8, "t": 32, "b": 44}
    across = {"title": {"text": title, "standoff": 6, "font": TITLE_FONT}, "gridcolor": COLOURS["rule"]}
    down = {"tickvals": rows, "ticktext": [escape(name) for name in names], "range": [-0.6, len(rows) - 0.4]}
    axes = {"xaxis": across | {"zeroline": False}, "yaxis": down | {"showgrid": False, "zeroline": False}}
    return layout(76 + 40 * len(names)) | axes | {"margin": left}


def _plain(values: pd.Series) -> list[float | None]:
    return [None if is_missing(value) else round(value, 4) for value in values.astype(float).tolist()]


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One table row per cell: the pairs, then score, shuffled mean and p of both metrics, published and here."""
    rows = []
    for cell, own in table.groupby(_CELL_COLUMNS, sort=False):
        by_metric = {row.metric: row for row in rows_of(own)}
        first = rows_of(own)[0]
        shown: list[tuple[Any, str]] = [(n, number(n)) for n in (first.n_published, first.n_pairs)]
        for metric in _METRICS:
            row = by_metric.get(metric)
            for name, show in (("score", decimal), ("null", decimal), ("p", probability)):
                here = "null_mean" if name == "null" else name
                for column in (f"{name}_published", here):
                    value = float("nan") if row is None else float(getattr(row, column))
                    shown.append((value, show(value)))
        spaces = dict(zip(("space_a", "space_b", "subspace"), cell, strict=True))
        rows.append(spaces | {"cells": shown})
    return rows
