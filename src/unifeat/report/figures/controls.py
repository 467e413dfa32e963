"""Every comparison of a run beside its nulls, ceilings and controls: the picture on the report's first screen."""

from __future__ import annotations

from html import escape
from typing import Any

from unifeat.inference.nulls import AGAIN
from unifeat.report.figures.style import COLOURS, TITLE_FONT, layout
from unifeat.report.tables import Measure, cells, group_pairs, is_missing, measures, role, rows_of, scores_of
from unifeat.runs.folder import Run

_MOST_PANELS = 3
_ROW = 46  # pixels
_GAP = 0.07
_TICKS = {"rematch": "fit", "same_token": "b", "same_two_tokens": "b"}


def controls_figure(run: Run) -> dict[str, Any]:
    """A dot for each pair of layers: pairs kept, and scores of the first measures, as plain data for plotly.

    Rows are the pairs of groups, in the run's order. Ticks are nulls: of the pairs kept, those of rearranged text; of a
    score, that of shuffled pairs.
    """
    pairs = group_pairs(run)
    names = [_name(run, groups) for groups in pairs]
    every = measures(run)
    ways = ([way for way in every if "dims" not in way.settings] or every)[: _MOST_PANELS - 1]
    traces: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    titles: list[dict[str, Any]] = []
    width = (1 - _GAP * len(ways)) / (len(ways) + 1)
    for column, way in enumerate([None, *ways]):
        axis = "" if column == 0 else str(column + 1)
        start = column * (width + _GAP)
        axes[f"xaxis{axis}"] = {
            "domain": [start, start + width],
            "rangemode": "tozero",
            "nticks": 4,
            "tickangle": 0,
            "gridcolor": COLOURS["rule"],
            "zerolinecolor": COLOURS["rule"],
            "anchor": "y",
        }
        title = "pairs kept" if way is None else way.short
        titles.append({"text": escape(title), "x": start, "y": 1, "xref": "paper", "yref": "paper", "showarrow": False})
        for groups, name in zip(pairs, names, strict=True):
            points = _kept(run, groups) if way is None else _scores(run, groups, way)
            traces += [_trace(name, *of, axis, _colour(run, groups)) for of in points]
    aligned = {"xanchor": "left", "yanchor": "bottom", "font": TITLE_FONT}
    shared: dict[str, Any] = {
        "showlegend": False,
        "annotations": [title | aligned for title in titles],
        "yaxis": {"categoryarray": names[::-1], "categoryorder": "array", "gridcolor": COLOURS["rule"], "ticks": ""},
        "margin": {"l": 8, "r": 12, "t": 30, "b": 30},
    }
    shared["yaxis"] |= {"automargin": True, "range": [-0.6, len(names) - 0.4], "type": "category"}
    return {"data": traces, "layout": layout(70 + _ROW * len(names)) | shared | axes}


def _name(run: Run, groups: tuple[str, str]) -> str:
    what = role(run, groups)
    return escape(" × ".join(groups)) + (f"<br>({escape(what.partition(':')[0])})" if what else "")


def _colour(run: Run, groups: tuple[str, str]) -> str:
    what = role(run, groups)
    return COLOURS["held" if what.startswith("ceiling") else "muted" if what else "a"]


def _kept(run: Run, groups: tuple[str, str]) -> list[tuple[list[Any], str, str]]:
    """(values, what they are, colour of their ticks; empty for dots)."""
    found = cells(run)
    own = found[(found["group_a"] == groups[0]) & (found["group_b"] == groups[1])]
    points = []
    for name, null in AGAIN.items():
        if name in own and name in _TICKS:
            kept = [facts["kept"] for facts in own[name] if isinstance(facts, dict) and facts["kept"]]
            points.append(([sum(counts) / len(counts) for counts in kept], null.label, COLOURS[_TICKS[name]]))
    return [*points, (own["kept"].tolist(), "pairs kept", "")]


def _scores(run: Run, groups: tuple[str, str], way: Measure) -> list[tuple[list[Any], str, str]]:
    own = [row for row in rows_of(scores_of(run, way)) if (row.group_a, row.group_b) == groups]
    null = [row.null_mean for row in own if not is_missing(row.null_mean)]
    return [
        (null, "pairs shuffled", COLOURS["fit"]),
        ([r.score for r in own if not is_missing(r.score)], way.short, ""),
    ]


def _trace(name: str, values: list[Any], what: str, tick: str, axis: str, colour: str) -> dict[str, Any]:
    marker: dict[str, Any] = {"size": 9, "color": colour, "opacity": 0.8}
    if tick:
        marker = {"size": 13, "color": tick, "symbol": "line-ns-open", "line": {"width": 2}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [round(float(value), 4) for value in values],
        "y": [name] * len(values),
        "xaxis": f"x{axis}",
        "yaxis": "y",
        "marker": marker,
        "cliponaxis": False,
        "hovertemplate": f"%{{x}}<extra>{escape(what)}</extra>",
    }
