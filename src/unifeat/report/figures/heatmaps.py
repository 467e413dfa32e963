"""Layer × layer heatmaps, as plotly figures for the report, notebooks and READMEs. Plotly is imported when used."""

from __future__ import annotations

import json
import math
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unifeat.errors import UserError
from unifeat.inference.nulls import AGAIN
from unifeat.report.ceilings import share_text
from unifeat.report.decidable import mark, scores_with_reasons
from unifeat.report.figures.style import COLOURS, MARGIN, SCALE, TITLE_FONT, layout
from unifeat.report.tables import (
    Measure,
    cells,
    decimal,
    find_measure,
    group_pairs,
    is_missing,
    layer_grid,
    number,
    probability,
    rows_of,
    scores_of,
    space_grid,
)
from unifeat.runs.folder import Run

VALUES = {"score": "score", "null_mean": "mean of shuffled pairs", "corrected": "chance-corrected score"}
SAME_TOKEN = "token_mean"
COUNTS = {"kept": "pairs kept", "mean_correlation": "mean r", "mean_correlation_heldout": "mean held-out r"}
_NAMED_ROW = 40  # pixels
_MOST_LABELLED_COLUMNS = 16  # wider grids have no room for numbers, which are then only in the hover text


class Panel(NamedTuple):
    """One heatmap: `z` has layers of A as index and layers of B as columns; each cell has a text and a hover text."""

    title: str
    z: pd.DataFrame
    text: pd.DataFrame
    hover: pd.DataFrame
    cell: pd.DataFrame


def heatmap_figure(
    run: Run,
    metric: str,
    settings: dict[str, Any] | str | None = None,
    *,
    subspace: str = "all",
    value: str | None = None,
) -> Any:
    """Layer × layer heatmaps of one score, the mean of its null, and the chance-corrected score.

    There is one row for each pair of groups of spaces, and one colour scale for all. `*` marks q < 0.05, `°` a test
    that could not have had that, and `†` a score with a flag.

    Args:
        metric: "svcca", "rsa", "cka" …
        settings: the measure's settings in the study; by default, the first scores by this metric.
        value: "score", "null_mean" or "corrected"; by default all three, side by side.

    Returns:
        A plotly Figure.

    Raises:
        UserError: the run has no such scores; another value.
    """
    if value is not None and value not in VALUES:
        raise UserError(f"value: {value!r} is none of {', '.join(VALUES)}")
    measure = find_measure(run, metric, settings, subspace)
    shown = VALUES if value is None else (value,)
    rows = [(groups, [score_panel(run, measure, groups, one) for one in shown]) for groups in group_pairs(run)]
    return _grid_figure(measure.label, rows, score_bounds(run, measure))


def counts_figure(run: Run, value: str) -> Any:
    """Layer × layer heatmaps of one of `COUNTS`, one for each pair of groups of spaces, as a plotly Figure."""
    rows = [(groups, [count_panel(run, groups, value)]) for groups in group_pairs(run)]
    return _grid_figure(COUNTS[value], rows, count_bounds(run, value))


def _grid_figure(title: str, rows: list[tuple[tuple[str, str], list[Panel]]], bounds: tuple[float, float]) -> Any:
    """A row of panels for each pair of groups, with one colour scale."""
    from plotly.subplots import make_subplots

    columns = len(rows[0][1])
    heights = [_height(panels[0]) for _, panels in rows]
    top, total = 80, sum(heights)
    figure = make_subplots(
        rows=len(rows),
        cols=columns,
        row_heights=heights,
        subplot_titles=[escape(panel.title) for panel in rows[0][1]] if columns > 1 else None,
        horizontal_spacing=0.07,
        vertical_spacing=min(64 / total, 1 / len(rows)) if len(rows) > 1 else 0,
    )
    for row, (groups, panels) in enumerate(rows, start=1):
        for column, panel in enumerate(panels, start=1):
            figure.add_trace(_heatmap(panel), row=row, col=column)
            place = (row - 1) * columns + column
            for annotation in _numbers(panel, bounds, str(place) if place > 1 else ""):
                figure.add_annotation(annotation)
            figure.update_xaxes(_axis(groups[1], panel.z.columns), row=row, col=column)
            figure.update_yaxes(_axis(groups[0] if column == 1 else "", panel.z.index), row=row, col=column)
    figure.update_layout(
        layout(top + 48 + total),
        coloraxis={
            "colorscale": SCALE,
            "cmin": bounds[0],
            "cmax": bounds[1],
            "colorbar": {"thickness": 10, "outlinewidth": 0},
        },
        title={"text": escape(title), "x": 0.01, "font": {"size": 16}},
        margin={"l": 64, "r": 8, "t": top, "b": 48},
        template="none",
    )
    return figure


def panel_figure(
    panel: Panel, groups: tuple[str, str] | None, bounds: tuple[float, float], row: int = 46
) -> dict[str, Any]:
    """One heatmap without a colour bar, as plain data that `plotly.graph_objects.Figure` accepts.

    Args:
        groups: what the axes are layers of; None for a panel of whole spaces.
        row: the height of a row in pixels, where there are not too many of them. If they are low, the axes do not name
            the groups, for which there is no room.
    """
    from plotly.colors import get_colorscale

    scale = {"colorscale": get_colorscale(SCALE), "cmin": bounds[0], "cmax": bounds[1], "showscale": False}
    down, across = groups or ("", "")
    named = row >= _NAMED_ROW
    axes = {
        "xaxis": _axis(across, panel.z.columns, named=named),
        "yaxis": _axis(down, panel.z.index, named=named),
    }
    own = {"coloraxis": scale, "annotations": _numbers(panel, bounds)} | axes
    return {"data": [_heatmap(panel)], "layout": layout(_height(panel, row)) | own}


def score_panel(run: Run, measure: Measure, groups: tuple[str, str] | None, value: str) -> Panel:
    """A heatmap of one of `VALUES`, or `SAME_TOKEN`, of a measure over the layers of two groups, nulls on hovering.

    Args:
        groups: the pair of groups; None for all ordinary pairs of spaces in one grid of spaces.
    """
    table = scores_with_reasons(run, measure)
    shown = [decimal(getattr(r, value)) + (_marks(r) if value == "score" else "") for r in rows_of(table)]
    table = table.assign(shown=shown, hover=[_score_hover(measure, row) for row in rows_of(table)])
    title = VALUES.get(value, "mean when rows of the same token are permuted")
    return _panel(run, title, table, value, groups)


def count_panel(run: Run, groups: tuple[str, str] | None, value: str, *, null: str | None = None) -> Panel:
    """A heatmap of one of `COUNTS`, over the layers of two groups (see `score_panel`).

    Args:
        null: instead of the pairs kept, those that are kept on average in this null (a name of `AGAIN`).
    """
    table = cells(run)
    title = COUNTS[value]
    if null:
        title = f"{title}, {AGAIN[null].label}, on average"
        kept = [facts["kept"] if isinstance(facts, dict) else [] for facts in table[null]]
        table = table.assign(by_chance=[sum(own) / len(own) if own else math.nan for own in kept])
    show = number if value == "kept" else decimal
    hover = [
        f"<b>{escape(row.space_a)} × {escape(row.space_b)}</b><br>{row.kept:,} pairs kept of {row.candidates:,} "
        f"candidates<br>mean r {decimal(row.mean_correlation, 3)}, held out {decimal(row.mean_correlation_heldout, 3)}"
        for row in rows_of(table)
    ]
    column = "by_chance" if null else value
    table = table.assign(shown=[show(v) for v in table[column]], hover=hover)
    return _panel(run, title, table, column, groups)


def score_bounds(run: Run, measure: Measure) -> tuple[float, float]:
    """The range of the colour scale for a measure's score, nulls and corrected score: 0 or below to the largest."""
    table = scores_of(run, measure)
    return _bounds(table[[value for value in (*VALUES, SAME_TOKEN) if value in table]].to_numpy(float))


def count_bounds(run: Run, value: str) -> tuple[float, float]:
    """The range of the colour scale for one of `COUNTS`; the two correlations have the same range."""
    columns = ["kept"] if value == "kept" else [name for name in COUNTS if name != "kept"]
    return _bounds(cells(run)[columns].to_numpy(float))


def _panel(run: Run, title: str, table: pd.DataFrame, value: str, groups: tuple[str, str] | None) -> Panel:
    columns = (value, "shown", "hover", "cell")
    if groups:
        return Panel(title, *(layer_grid(table, column, groups) for column in columns))
    return Panel(title, *(space_grid(run, table, column) for column in columns))


def _marks(row: Any) -> str:
    return mark(row.q, row.undecidable) + ("†" if len(row.flags) else "")


def _score_hover(measure: Measure, row: Any) -> str:
    lines = [
        f"<b>{escape(row.space_a)} × {escape(row.space_b)}</b>",
        f"{escape(measure.label)} {decimal(row.score, 3)}",
        f"shuffled pairs {decimal(row.null_mean, 3)} ± {decimal(row.null_sd, 3)}",
        f"chance-corrected {decimal(row.corrected, 3)}",
        f"p {probability(row.p)}, q {probability(row.q)}",
        *([f"° undecidable: {escape(row.undecidable)}"] if row.undecidable else []),
        f"{row.n_pairs:,} pairs",
    ]
    if not is_missing(getattr(row, SAME_TOKEN, None)):
        lines.append(
            f"rows of the same token permuted {decimal(row.token_mean, 3)}, own at that n "
            f"{decimal(row.token_score, 3)}, p {probability(row.token_p)}"
        )
    if not is_missing(getattr(row, "ceiling_share", None)):
        lines.append(f"{share_text(row)} of the ceiling {decimal(row.ceiling, 3)}, at {row.ceiling_pairs:,} pairs")
    details = json.loads(row.details)
    if "dims_a" in details:
        lines.append(f"components used: {details['dims_a']} and {details['dims_b']}")
    return "<br>".join(lines + [f"† {escape(flag)}" for flag in row.flags])


def _heatmap(panel: Panel) -> dict[str, Any]:
    z = panel.z.to_numpy(float).tolist()
    return {
        "type": "heatmap",
        "z": [[None if is_missing(value) else round(value, 5) for value in row] for row in z],
        "x": _layers(panel.z.columns),
        "y": _layers(panel.z.index),
        "customdata": [[None if is_missing(v) else int(v) for v in row] for row in panel.cell.to_numpy(float).tolist()],
        "hovertext": panel.hover.fillna("").to_numpy().tolist(),
        "hoverinfo": "text",
        "hoverongaps": False,
        "coloraxis": "coloraxis",
        "xgap": 2,
        "ygap": 2,
    }


def _numbers(panel: Panel, bounds: tuple[float, float], axes: str = "") -> list[dict[str, Any]]:
    """The number in each cell, light on dark or dark on light; "n/a" if a comparison has no value."""
    if panel.z.shape[1] > _MOST_LABELLED_COLUMNS:
        return []
    from plotly.colors import sample_colorscale, unlabel_rgb

    written = []
    narrow = panel.z.shape[1] > 8
    size = 10 if narrow else 13
    for row, column in zip(*np.nonzero(panel.cell.notna().to_numpy()), strict=True):
        value, text = panel.z.iloc[row, column], panel.text.iloc[row, column]
        colour = COLOURS["muted"]
        if not is_missing(value):
            place = min(max((value - bounds[0]) / (bounds[1] - bounds[0]), 0.0), 1.0)
            red, green, blue = unlabel_rgb(sample_colorscale(SCALE, [place])[0])
            colour = "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#f7f7f7"
        written.append(
            {"x": int(column), "y": int(row), "xref": f"x{axes}", "yref": f"y{axes}", "showarrow": False}
            | {"text": _written(value, text, narrow)}
            | {"font": {"color": colour, "size": size}}
        )
    return written


def _written(value: Any, text: str, narrow: bool) -> str:
    if is_missing(value):
        return text if text.startswith("n=") else "n/a"
    return text.replace("0.", ".", 1) if narrow else text


def _bounds(values: Any) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = (min(0.0, float(known.min())), float(known.max())) if len(known) else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _layers(index: pd.Index) -> list[str]:
    return [str(layer) for layer in index]


def _height(panel: Panel, row: int = 46) -> int:
    return MARGIN["t"] + MARGIN["b"] + min(max(row * len(panel.z), 2 * row), 10 * row)


def _axis(group: str, layers: pd.Index, *, named: bool = True) -> dict[str, Any]:
    name = f"{escape(group)} layer" if named else "layer"
    title = {"text": name if group else "", "standoff": 6, "font": TITLE_FONT}
    limits = [-0.5, len(layers) - 0.5]  # given explicitly for grids in which no cell has a value
    axis = {"type": "category", "categoryarray": _layers(layers), "range": limits, "title": title}
    return axis | {"showgrid": False, "zeroline": False, "ticks": ""} | ({} if group else {"automargin": True})
