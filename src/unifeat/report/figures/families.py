"""Figures of families: sets of spaces (UpSet), features from layer to layer (Sankey), and how depths correspond.

Each is plain data in plotly's format, which `plotly.graph_objects.Figure` accepts in a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from unifeat.report.figures.style import COLOURS, TITLE_FONT, layout
from unifeat.report.tables import probability

MOST_SETS = 24
_ROW = 22  # pixels of a space's row


def upset_figure(sets: pd.DataFrame, spaces: Sequence[str]) -> dict[str, Any]:
    """How many families each set of spaces has: bars above a matrix of dots (Lex et al. 2014, "UpSet", IEEE TVCG 20).

    Args:
        sets: `spaces`, `families`, the most families first; with `null_mean`, `p`, `q`, `low`, `high`, also what
            re-paired documents give (a dash) and the interval over documents. At most `MOST_SETS` are drawn.
        spaces: all spaces, top row first.
    """
    shown = sets[sets["families"] > 0].head(MOST_SETS).reset_index(drop=True)
    place = {name: row for row, name in enumerate(spaces)}
    x, count = list(range(len(shown))), shown["families"].tolist()
    names = ["all spaces" if len(own) == len(spaces) else ", ".join(own) for own in shown["spaces"]]
    hover = [f"<b>{n:,}</b> families of exactly {escape(name)}" for n, name in zip(count, names, strict=True)]
    bars: dict[str, Any] = {"type": "bar", "x": x, "y": count, "marker": {"color": COLOURS["held"]}, "name": "families"}
    traces = [bars]
    if "low" in shown and shown["low"].notna().any():
        low, high = (shown[end].to_numpy(float) for end in ("low", "high"))
        reach = [np.where(np.isnan(low), 0.0, v).round(1).tolist() for v in (high - count, count - low)]
        error = {"type": "data", "symmetric": False, "array": reach[0], "arrayminus": reach[1]}
        bars["error_y"] = error | {"color": COLOURS["ink"], "thickness": 1, "width": 3}
        known = ~np.isnan(low)
        hover = [
            f"{text}<br>interval {a:,.0f} to {b:,.0f}" if k else text
            for text, a, b, k in zip(hover, low, high, known, strict=True)
        ]
    if "null_mean" in shown and shown["null_mean"].notna().any():
        mean = shown["null_mean"].round(1).tolist()
        mark = {"symbol": "line-ew", "size": 16, "line": {"width": 2.5, "color": COLOURS["b"]}}
        traces.append(
            {"type": "scatter", "mode": "markers", "x": x, "y": mean, "name": "documents re-paired", "marker": mark}
            | {"hoverinfo": "skip"}
        )
        hover = [f"{text}<br>documents re-paired: {value:.1f}" for text, value in zip(hover, mean, strict=True)]
        if {"p", "q"} <= {*shown}:
            tests = zip(hover, shown["p"], shown["q"], strict=True)
            hover = [f"{text}, p {probability(p)}, q {probability(q)}" for text, p, q in tests]
    bars |= {"hovertext": hover, "hoverinfo": "text"}
    rows = [[place[name] for name in own] for own in shown["spaces"]]
    traces += _matrix(rows, len(spaces))
    height = 210 + _ROW * len(spaces) + 30
    split = (_ROW * len(spaces) + 10) / (height - 60)
    axis = {"zeroline": False, "gridcolor": COLOURS["rule"]}
    x_axis = {"range": [-0.7, max(len(shown), 1) - 0.3], "showgrid": False, "zeroline": False, "ticks": ""}
    own = {
        "xaxis": x_axis | {"showticklabels": False, "anchor": "y2"},
        "yaxis": axis
        | {"domain": [min(split + 0.04, 0.9), 1], "rangemode": "tozero"}
        | {"title": {"text": "families", "standoff": 6, "font": TITLE_FONT}},
        "yaxis2": {
            "domain": [0, split],
            "range": [len(spaces) - 0.5, -0.5],
            "tickvals": list(range(len(spaces))),
            "ticktext": [escape(name) for name in spaces],
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
        },
        "bargap": 0.35,
        "margin": {"l": 56, "r": 8, "t": 28, "b": 12},
    }
    return {"data": traces, "layout": layout(height) | own}


def _matrix(rows: list[list[int]], spaces: int) -> list[dict[str, Any]]:
    """Which spaces each set has: dots, joined by a line."""
    absent = [(x, y) for x, own in enumerate(rows) for y in range(spaces) if y not in own]
    present = [(x, y) for x, own in enumerate(rows) for y in own]
    line_x: list[float | None] = []
    line_y: list[float | None] = []
    for x, own in enumerate(rows):
        line_x += [x, x, None]
        line_y += [min(own), max(own), None]
    common = {"type": "scatter", "yaxis": "y2", "hoverinfo": "skip", "showlegend": False}
    dots = [
        common
        | {"mode": "markers", "x": [x for x, _ in some], "y": [y for _, y in some]}
        | {"marker": {"size": 9, "color": COLOURS[colour]}}
        for some, colour in ((absent, "rule"), (present, "ink"))
    ]
    lines = common | {"mode": "lines", "x": line_x, "y": line_y, "line": {"color": COLOURS["ink"], "width": 2}}
    return [dots[0], lines, dots[1]]


_PASSAGE = {
    "stay": "in both {here} and {there}",
    "end": "of {here} in no later layer",
    "begin": "of {there} in no earlier layer",
}


def passages_figure(passages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Families from layer to layer of one model: which stay, end, begin (a Sankey diagram).

    Args:
        passages: the rows of `multiway.depth.passages` of one model, in order.
    """
    names = [passages[0]["space"], *(row["next"] for row in passages)]
    labels = [escape(name) for name in names]
    at = [0.001 + 0.998 * number / len(passages) for number in range(len(names))]  # Plotly ignores exactly 0 and 1
    down, colours = [0.3] * len(names), [COLOURS["a"]] * len(names)
    ends, value, hues, said = [], [], [], []
    for here, row in enumerate(passages):
        for what, aside in (("stay", 0.0), ("end", 0.3), ("begin", -0.3)):
            if not row[what]:
                continue
            link = [here, here + 1]
            if aside:  # those that leave and those that come stand below, between their two layers
                link[what == "end"] = len(labels)
                labels.append(f"{row[what]:,} end" if what == "end" else f"{row[what]:,} begin")
                at.append(at[here + (what == "begin")] + aside / len(passages))
                down.append(0.84)
                colours.append(COLOURS["fit"])
            ends.append(link)
            value.append(row[what])
            said.append(f"{row[what]:,} families {_PASSAGE[what].format(here=labels[here], there=labels[here + 1])}")
            hues.append(COLOURS["rule"] if aside else COLOURS["fit"])
    nodes = {"label": labels, "color": colours, "x": at, "y": down, "pad": 14, "thickness": 12, "line": {"width": 0}}
    links: dict[str, Any] = {"source": [a for a, _ in ends], "target": [b for _, b in ends], "value": value}
    links |= {"color": hues, "customdata": said, "hovertemplate": "%{customdata}<extra></extra>"}
    trace = {"type": "sankey", "arrangement": "snap", "node": nodes, "link": links}
    return {"data": [trace], "layout": layout(260) | {"margin": {"l": 8, "r": 8, "t": 8, "b": 8}}}


def correspondence_figure(ridges: Sequence[Mapping[str, Any]], depths: Mapping[str, int]) -> dict[str, Any]:
    """At which relative depth of another model the partners of each layer's features stand, with intervals.

    Args:
        ridges: `of`, `in` and `layers` of each direction (see `depth_facts`).
        depths: how many layers each model has.
    """
    traces: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": [0, 1], "y": [0, 1], "showlegend": False, "hoverinfo": "skip"}
        | {"line": {"color": COLOURS["muted"], "width": 1, "dash": "dot"}}
    ]
    colours = ("a", "b", "held", "muted", "ink", "fit")
    for number, ridge in enumerate(ridges):
        of, there = (max(depths[ridge[key]] - 1, 1) for key in ("of", "in"))
        rows = ridge["layers"]
        mean = [row["mean"] / there for row in rows]
        low, high = (
            [(row["mean"] if row[end] is None else row[end]) / there for row in rows] for end in ("low", "high")
        )
        error = {"type": "data", "symmetric": False, "width": 3, "thickness": 1.5}
        error |= {"array": [round(h - m, 4) for h, m in zip(high, mean, strict=True)]}
        error |= {"arrayminus": [round(m - l, 4) for m, l in zip(mean, low, strict=True)]}
        said = [
            f"{escape(ridge['of'])} layer {row['layer_a']}: partners in {escape(ridge['in'])} at layer "
            f"{row['mean']:.1f} on average, most at {row['mode']} ({row['features']:,} features)"
            for row in rows
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [round(row["layer_a"] / of, 4) for row in rows],
                "y": [round(value, 4) for value in mean],
                "error_y": error,
                "name": f"{escape(ridge['of'])} in {escape(ridge['in'])}",
                "hovertext": said,
                "hoverinfo": "text",
                "line": {"color": COLOURS[colours[number % len(colours)]], "width": 2},
            }
        )
    axes = {
        name: {"title": {"text": title, "standoff": 8, "font": TITLE_FONT}, "range": [-0.02, 1.02]}
        | {"gridcolor": COLOURS["rule"], "zeroline": False}
        for name, title in (("xaxis", "relative depth of the feature"), ("yaxis", "relative depth of its partner"))
    }
    return {"data": traces, "layout": layout(320) | axes}
