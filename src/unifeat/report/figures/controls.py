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
_SPREAD = 0.62  # of a row's height, over which its pairs of layers are spread
_TICKS = {"rematch": "fit", "same_token": "b", "same_two_tokens": "b"}

Points = list[tuple[list[float], list[float], str, str]]
"""Values, the heights at which they are in their row, what they are, and the colour of their ticks (empty for dots)."""


def controls_figure(run: Run) -> dict[str, Any]:
    """A dot for each pair of layers: pairs kept, and scores of the first measures, as plain data for plotly.

    Rows are the pairs of groups, in the run's order; in a row, the pairs of layers are one below the other, each with
    its own nulls as ticks: of the pairs kept, those of rearranged text and of rows of the same token; of a score, those
    of shuffled pairs and of rows of the same token.
    """
    pairs = group_pairs(run)
    every = measures(run)
    # Not those of few components, or with something taken out, if there are others.
    plain = [way for way in every if not any(name in way.settings for name in ("dims", "given"))]
    ways = (plain or every)[: _MOST_PANELS - 1]
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
            "nticks": 3,
            "tickangle": 0,
            "gridcolor": COLOURS["rule"],
            "zerolinecolor": COLOURS["rule"],
            "anchor": "y",
            "side": "top",
        }
        title = "pairs kept" if way is None else way.short
        titles.append(
            {
                "text": escape(title),
                "x": start,
                "y": 1,
                "xref": "paper",
                "yref": "paper",
                "yshift": 20,
                "showarrow": False,
            }
        )
        for row, groups in enumerate(pairs):
            points = _kept(run, groups) if way is None else _scores(run, groups, way)
            traces += [_trace(row, *of, axis, _colour(run, groups)) for of in points]
    aligned = {"xanchor": "left", "yanchor": "bottom", "font": TITLE_FONT}
    shared: dict[str, Any] = {
        "showlegend": False,
        "annotations": [title | aligned for title in titles],
        "yaxis": {
            "tickvals": list(range(len(pairs))),
            "ticktext": [_name(run, groups) for groups in pairs],
            "range": [len(pairs) - 0.5, -0.5],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
        },
        "shapes": [_between(row) for row in range(1, len(pairs))],
        "margin": {"l": 8, "r": 12, "t": 50, "b": 8},
    }
    return {"data": traces, "layout": layout(70 + _ROW * len(pairs)) | shared | axes}


def _between(row: int) -> dict[str, Any]:
    """A line above a row."""
    line = {"color": COLOURS["rule"], "width": 1}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": row - 0.5, "y1": row - 0.5, "line": line}


def _name(run: Run, groups: tuple[str, str]) -> str:
    what = role(run, groups)
    return escape(" × ".join(groups)) + (f"<br>({escape(what.partition(':')[0])})" if what else "")


def _colour(run: Run, groups: tuple[str, str]) -> str:
    what = role(run, groups)
    return COLOURS["held" if what.startswith("ceiling") else "muted" if what else "a"]


def _heights(count: int) -> list[float]:
    """Where in a row each of its pairs of layers is, from −0.5 to 0.5."""
    step = min(_SPREAD / max(count, 1), 0.2)
    return [round((number - (count - 1) / 2) * step, 3) for number in range(count)]


def _kept(run: Run, groups: tuple[str, str]) -> Points:
    found = cells(run)
    own = found[(found["group_a"] == groups[0]) & (found["group_b"] == groups[1])]
    heights = _heights(len(own))
    points: Points = []
    for name, null in AGAIN.items():
        if name in own and name in _TICKS:
            known = [
                (sum(facts["kept"]) / len(facts["kept"]), height)
                for facts, height in zip(own[name], heights, strict=True)
                if isinstance(facts, dict) and facts["kept"]
            ]
            points.append(([v for v, _ in known], [h for _, h in known], null.label, COLOURS[_TICKS[name]]))
    return [*points, (own["kept"].tolist(), heights, "pairs kept", "")]


def _scores(run: Run, groups: tuple[str, str], way: Measure) -> Points:
    own = [row for row in rows_of(scores_of(run, way)) if (row.group_a, row.group_b) == groups]
    heights = _heights(len(own))
    points: Points = []
    for column, what, colour in (
        ("null_mean", "pairs shuffled", COLOURS["fit"]),
        ("token_mean", "rows of the same token", COLOURS["b"]),
        ("score", way.short, ""),
    ):
        values: list[Any] = [getattr(row, column, None) for row in own]
        known = [(float(v), height) for v, height in zip(values, heights, strict=True) if not is_missing(v)]
        if known:
            points.append(([v for v, _ in known], [h for _, h in known], what, colour))
    return points


def _trace(
    row: int, values: list[float], heights: list[float], what: str, tick: str, axis: str, colour: str
) -> dict[str, Any]:
    marker: dict[str, Any] = {"size": 7, "color": colour, "opacity": 0.9}
    if tick:
        marker = {"size": 7, "color": tick, "symbol": "line-ns-open", "line": {"width": 2}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [round(float(value), 4) for value in values],
        "y": [row + height for height in heights],
        "xaxis": f"x{axis}",
        "yaxis": "y",
        "marker": marker,
        "cliponaxis": False,
        "hovertemplate": f"%{{x}}<extra>{escape(what)}</extra>",
    }
