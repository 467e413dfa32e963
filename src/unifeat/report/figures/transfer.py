"""Figures of transfer: what one model's features carry of another's activations, and how alike pairs' effects are.

Each is plain data in plotly's format, which `plotly.graph_objects.Figure` accepts in a notebook.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.report.figures.distributions import axis, xy_figure
from unifeat.report.figures.style import COLOURS, layout
from unifeat.report.tables import decimal, is_missing

ZERO, MIXED, OWN, MEAN, MATCHED, FROM_A = (
    *("matched_at_mean", "own_and_from_a", "own", "all_at_mean", "own_matched", "from_a"),
)


def transfer_figure(table: pd.DataFrame) -> dict[str, Any]:
    """Bars from the zero line to the SAE's own reconstruction: what is lost in either way of counting."""
    shown = [name for name in (ZERO, MIXED, OWN) if name in table.index]
    labels = {ZERO: "at their mean", MIXED: "from the other model", OWN: "its own"}
    panels = []
    ways = ("fvu", "variance unexplained", "null_mean"), ("loss", "loss, nats a token", "null_recovered_mean")
    for column, title, share in ways:
        values = [float(table[column][name]) for name in shown]
        if any(is_missing(value) for value in values):
            continue
        names = [labels[name] for name in shown]
        drawn = table[share].get(MIXED)
        if drawn is not None and not is_missing(drawn):
            zero, own = (float(table[column][name]) for name in (ZERO, OWN))
            values.insert(1, zero - float(drawn) * (zero - own))
            names.insert(1, "from exchanged partners")
        clean = table[column].get("clean")
        if clean is not None and not is_missing(clean):
            values.append(float(clean))
            names.append("model unchanged")
        panels.append((title, names, values))
    return _bars(panels)


def _bars(panels: list[tuple[str, list[str], list[float]]]) -> dict[str, Any]:
    """Horizontal bars in panels side by side: (title, labels, values) each, the first label on top."""
    traces, axes = [], {}
    gap = 0.3 if len(panels) > 1 else 0.0  # room for labels
    width = (1 - gap * (len(panels) - 1)) / max(len(panels), 1)
    for number, (title, labels, values) in enumerate(panels):
        name = "" if not number else str(number + 1)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": labels[::-1],
                "x": [round(value, 4) for value in values[::-1]],
                "text": [decimal(value, 3) for value in values[::-1]],
                "textposition": "auto",
                "cliponaxis": False,
                "marker": {
                    "color": [COLOURS["held"] if "other" in label else COLOURS["fit"] for label in labels[::-1]]
                },
                "xaxis": f"x{name}",
                "yaxis": f"y{name}",
                "hoverinfo": "skip",
            }
        )
        start = number * (width + gap)
        axes[f"xaxis{name}"] = axis(title, None) | {"domain": [start, start + width], "anchor": f"y{name}"}
        axes[f"yaxis{name}"] = {"anchor": f"x{name}", "automargin": True, "ticks": ""}
    return {"data": traces, "layout": layout(200) | axes | {"showlegend": False, "bargap": 0.25}}


def effects_figure(pairs: pd.DataFrame) -> dict[str, Any]:
    """Each pair's agreement of effects, when its features are removed, against its r; the controls beside."""
    traces: list[dict[str, Any]] = []
    columns = (("removed_control", "another feature of the token", "fit"), ("removed", "the partner", "held"))
    for column, name, colour in columns:
        known = pairs.dropna(subset=[column])
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": known["correlation"].round(3).tolist(),
                "y": known[column].round(3).tolist(),
                "customdata": known[["feature_a", "feature_b"]].to_numpy(int).tolist(),
                "name": name,
                "marker": {"color": COLOURS[colour], "size": 5, "opacity": 0.6, "line": {"width": 0}},
                "hovertemplate": "features %{customdata[0]} and %{customdata[1]}<br>r %{x}, agreement %{y}"
                "<extra></extra>",
            }
        )
    figure = xy_figure(traces, "r", "agreement of effects", None)
    figure["layout"]["yaxis"] |= {"range": [-0.6, 1.02], "zeroline": True}
    return figure
