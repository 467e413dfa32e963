"""Figures of one pair of spaces: how r is distributed, whether it holds on held-out text, what shifted text reaches.

Plotly is imported when used.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd

from unifeat.report.figures import COLOURS, TITLE_FONT, layout
from unifeat.report.tables import decimal

MAX_POINTS = 5_000  # points of all scatters of a report together


def correlation_figure(kept: pd.DataFrame) -> Any:
    """Histogram: how the kept pairs' r is distributed where they were found, and on held-out documents."""
    import plotly.graph_objects as go

    fitted, heldout = (kept[c].dropna().to_numpy(float) for c in ("correlation", "correlation_heldout"))
    low = min(0.0, *(np.floor(v.min() * 20) / 20 for v in (fitted, heldout) if len(v)), 0.0)
    edges = np.linspace(low, 1.0, round((1.0 - low) / 0.025) + 1).round(3)
    middle = np.round((edges[:-1] + edges[1:]) / 2, 4)
    figure = go.Figure()
    if len(fitted):
        figure.add_bar(
            x=middle, y=np.histogram(fitted, edges)[0], width=0.025, marker={"color": COLOURS["fit"]},
            name=f"fitted, mean {decimal(fitted.mean())}",
            hovertemplate="r ≈ %{x:.3f}: %{y} pairs<extra>fitted</extra>",
        )  # fmt: skip
    if len(heldout):
        figure.add_scatter(
            x=[edges[0], *edges.tolist()], y=[0, *np.histogram(heldout, edges)[0].tolist(), 0], mode="lines",
            name=f"held out, mean {decimal(heldout.mean())}",
            line={"shape": "hv", "color": COLOURS["held"], "width": 2},
            hovertemplate="r from %{x:.3f}: %{y} pairs<extra>held out</extra>",
        )  # fmt: skip
    figure.update_layout(layout(300), bargap=0, xaxis=_axis("r of kept pairs"), yaxis=_axis("pairs"))
    return figure


def heldout_figure(kept: pd.DataFrame, limit: int, seed: int) -> Any:
    """Each kept pair's held-out r against its fitted r; at most `limit` pairs, drawn at random with `seed`."""
    import plotly.graph_objects as go

    known = kept.dropna(subset=["correlation_heldout"])
    known = known.sample(limit, random_state=seed).sort_index() if len(known) > limit else known
    columns = ["correlation", "correlation_heldout"]
    low = min(0.0, float(known[columns].min().min())) if len(known) else 0.0
    diagonal = go.Scatter(
        x=[low, 1], y=[low, 1], mode="lines", line={"color": COLOURS["muted"], "width": 1, "dash": "dot"},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    points = go.Scatter(
        x=known["correlation"].round(3).tolist(), y=known["correlation_heldout"].round(3).tolist(), mode="markers",
        customdata=known[["feature_a", "feature_b"]].to_numpy(int).tolist(), showlegend=False,
        marker={"color": COLOURS["held"], "size": 5, "opacity": 0.45, "line": {"width": 0}},
        hovertemplate="features %{customdata[0]} and %{customdata[1]}<br>fitted %{x}, held out %{y}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure([diagonal, points])
    figure.update_layout(layout(300), xaxis=_axis("fitted r", [low, 1.02]), yaxis=_axis("held-out r", [low, 1.02]))
    return figure


def partner_figure(cell: Any) -> Any:
    """Best-partner r of every feature, both ways, aligned (solid) and in shifted text (dashed); a row of `cells`."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for side, direction, ours in (("a", "a_to_b", cell.space_a), ("b", "b_to_a", cell.space_b)):
        for facts, dash, name in ((cell.best_r, "solid", "aligned"), (cell.best_r_shifted, "dot", "shifted")):
            best = facts[direction][::-1]
            if not best:
                continue
            share = np.linspace(0, 100, len(best))
            figure.add_scatter(
                x=share.round(1).tolist(), y=[round(v, 4) for v in best], mode="lines", name=f"{escape(ours)}, {name}",
                line={"color": COLOURS[side], "width": 2, "dash": dash},
                hovertemplate="the top %{x} % have best r ≥ %{y:.2f}<extra></extra>",
            )  # fmt: skip
    figure.update_layout(layout(300), xaxis=_axis("% of features, best first"), yaxis=_axis("r of best partner"))
    return figure


def _axis(title: str, limits: list[float] | None = None) -> dict[str, Any]:
    axis = {
        "title": {"text": title, "standoff": 8, "font": TITLE_FONT},
        "gridcolor": COLOURS["rule"],
        "zeroline": False,
    }
    return axis | {"rangemode": "tozero"} | ({"range": limits} if limits else {})
