"""Figures of one pair of spaces: the distribution of r, r on held-out text, and r on shifted text.

Each is plain data in plotly's format, which `plotly.graph_objects.Figure` accepts in a notebook.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from unifeat.report.figures.style import COLOURS, TITLE_FONT, layout
from unifeat.report.tables import decimal

MAX_POINTS = 5_000  # points in all scatter plots of a report together
_BIN = 0.025
_HEIGHT = 300


def correlation_figure(kept: pd.DataFrame) -> dict[str, Any]:
    """Histogram of r of the kept pairs: bars for the documents they were found on, a line for held-out documents."""
    fitted, heldout = (kept[c].dropna().to_numpy(float) for c in ("correlation", "correlation_heldout"))
    low = min([0.0, *(float(np.floor(v.min() * 20) / 20) for v in (fitted, heldout) if len(v))])
    edges = np.linspace(low, 1.0, round((1.0 - low) / _BIN) + 1).round(3)
    traces: list[dict[str, Any]] = []
    if len(fitted):
        traces.append(
            {
                "type": "bar",
                "x": ((edges[:-1] + edges[1:]) / 2).round(4).tolist(),
                "y": np.histogram(fitted, edges)[0].tolist(),
                "width": _BIN,
                "marker": {"color": COLOURS["fit"]},
                "name": f"fitted, mean {decimal(fitted.mean())}",
                "hovertemplate": "r ≈ %{x:.3f}: %{y} pairs<extra>fitted</extra>",
            }
        )
    if len(heldout):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [low, *edges.tolist()],
                "y": [0, *np.histogram(heldout, edges)[0].tolist(), 0],
                "line": {"shape": "hv", "color": COLOURS["held"], "width": 2},
                "name": f"held out, mean {decimal(heldout.mean())}",
                "hovertemplate": "r from %{x:.3f}: %{y} pairs<extra>held out</extra>",
            }
        )
    return xy_figure(traces, "r of kept pairs", "pairs")


def heldout_figure(kept: pd.DataFrame, limit: int, seed: int) -> dict[str, Any]:
    """Each kept pair's held-out r against its fitted r, for at most `limit` pairs, drawn at random with `seed`."""
    known = _some(kept, "correlation_heldout", limit, seed)
    fitted, heldout = (known[c].round(3).tolist() for c in ("correlation", "correlation_heldout"))
    low = min([0.0, *fitted, *heldout])
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": fitted,
        "y": heldout,
        "customdata": known[["feature_a", "feature_b"]].to_numpy(int).tolist(),
        "marker": {"color": COLOURS["held"], "size": 5, "opacity": 0.45, "line": {"width": 0}},
        "hovertemplate": "features %{customdata[0]} and %{customdata[1]}<br>fitted %{x}, held out %{y}<extra></extra>",
    }
    figure = xy_figure([_diagonal(low), points], "fitted r", "held-out r", [low, 1.02])
    figure["layout"]["showlegend"] = False
    return figure


def elsewhere_figure(kept: pd.DataFrame, limit: int, seed: int) -> dict[str, Any]:
    """Each kept pair's r elsewhere against its r on the study's text (held out, if there is such): which hold there."""
    known = _some(kept, "correlation_elsewhere", limit, seed)
    here = _heldout_or_fitted(known)
    there, line = known["correlation_elsewhere"], known["elsewhere_chance"]
    low = min([0.0, *here.tolist(), *there.tolist()])
    traces = []
    for which, colour, name in (
        (there > line, "held", "hold"),
        (there <= line, "b", "do not hold"),
        (line.isna(), "muted", "fire too seldom there"),
    ):
        own = known[which]
        if len(own):
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": here[which].round(3).tolist(),
                    "y": there[which].round(3).tolist(),
                    "customdata": own[["feature_a", "feature_b"]].to_numpy(int).tolist(),
                    "marker": {"color": COLOURS[colour], "size": 5, "opacity": 0.6, "line": {"width": 0}},
                    "name": name,
                    "hovertemplate": "features %{customdata[0]} and %{customdata[1]}<br>here %{x}, elsewhere %{y}"
                    f"<extra>{name}</extra>",
                }
            )
    return xy_figure([_diagonal(low), *traces], "r here", "r elsewhere", [low - 0.02, 1.02])


def beyond_token_figure(kept: pd.DataFrame, limit: int, seed: int) -> dict[str, Any]:
    """Each kept pair's r within token against its r on the same text, coloured by the token's share of the variance."""
    known = _some(kept, "correlation_within_token", limit, seed)
    plain = _heldout_or_fitted(known)
    share = known[["token_share_a", "token_share_b"]].mean(axis=1).clip(0, 1)
    r, within = plain.round(3).tolist(), known["correlation_within_token"].round(3).tolist()
    low = min([0.0, *within])
    shown = np.column_stack([known[["feature_a", "feature_b"]].to_numpy(int), (100 * share).round()])
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": r,
        "y": within,
        "customdata": shown.astype(int).tolist(),
        "marker": {
            "color": share.round(2).tolist(),
            "cmin": 0,
            "cmax": 1,
            "colorscale": "Viridis",
            "colorbar": {
                "title": {"text": "token’s share", "side": "right", "font": TITLE_FONT},
                "thickness": 8,
                "outlinewidth": 0,
            },
            "size": 5,
            "opacity": 0.7,
            "line": {"width": 0},
        },
        "hovertemplate": "features %{customdata[0]} and %{customdata[1]}<br>r %{x}, within token %{y}<br>"
        "%{customdata[2]} % of the variance lies between tokens<extra></extra>",
    }
    figure = xy_figure([_diagonal(min([0.0, *r])), points], "r", "r within token", [low - 0.02, 1.02])
    figure["layout"]["xaxis"]["range"] = [min([0.0, *r]) - 0.02, 1.02]
    figure["layout"]["showlegend"] = False
    return figure


def _some(kept: pd.DataFrame, column: str, limit: int, seed: int) -> pd.DataFrame:
    """The pairs that have a value; at most `limit` of them, drawn at random."""
    known = kept.dropna(subset=[column])
    return known.sample(limit, random_state=seed).sort_index() if len(known) > limit else known


def _heldout_or_fitted(pairs: pd.DataFrame) -> pd.Series:
    """r on held-out documents; where nothing is held out, r itself."""
    return pairs["correlation_heldout"].where(pairs["correlation_heldout"].notna(), pairs["correlation"])


def _diagonal(low: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [low, 1],
        "y": [low, 1],
        "line": {"color": COLOURS["muted"], "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def partner_figure(cell: Any) -> dict[str, Any]:
    """Best-partner r of every feature, in both directions, in aligned (solid) and shifted text (dotted).

    Args:
        cell: a row of `tables.cells`.
    """
    traces = []
    for side, direction, space in (("a", "a_to_b", cell.space_a), ("b", "b_to_a", cell.space_b)):
        for facts, dash, name in ((cell.best_r, "solid", "aligned"), (cell.best_r_shifted, "dot", "shifted")):
            best = facts[direction][::-1]
            if best:
                traces.append(
                    {
                        "type": "scatter",
                        "mode": "lines",
                        "x": np.linspace(0, 100, len(best)).round(1).tolist(),
                        "y": [round(r, 4) for r in best],
                        "line": {"color": COLOURS[side], "width": 2, "dash": dash},
                        "name": f"{escape(space)}, {name}",
                        "hovertemplate": "the top %{x} % have best r ≥ %{y:.2f}<extra></extra>",
                    }
                )
    return xy_figure(traces, "% of features, best first", "r of best partner")


def xy_figure(traces: list[dict[str, Any]], x: str, y: str, limits: list[float] | None = None) -> dict[str, Any]:
    """A figure of one pair of axes with these titles and limits."""
    return {"data": traces, "layout": layout(_HEIGHT) | {"xaxis": axis(x, limits), "yaxis": axis(y, limits)}}


def axis(title: str, limits: list[float] | None) -> dict[str, Any]:
    """An axis with a title, from 0 if nothing is negative, or with limits."""
    own = {"title": {"text": title, "standoff": 8, "font": TITLE_FONT}, "gridcolor": COLOURS["rule"]}
    return own | {"zeroline": False, "rangemode": "tozero"} | ({"range": limits} if limits else {})
