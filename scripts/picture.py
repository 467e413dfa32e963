"""The README's pictures of a finished run: layer × layer heatmaps, and every comparison beside its controls.

Prints the README's table of the same numbers.

python scripts/picture.py runs/demo docs/heatmaps.png docs/controls.png
"""

from __future__ import annotations

import sys

import plotly.graph_objects as go
from plotly.subplots import make_subplots

import unifeat as uf
from drawing import save, save_page, style, table
from unifeat.report.figures import COLOURS, count_bounds, count_panel, panel_figure, score_bounds, score_panel
from unifeat.report.overview import group_overview
from unifeat.report.tables import cells, group_pairs, measures, role, rows_of, scores_of


def heatmaps(run: uf.Run, picture: str) -> None:
    groups = group_pairs(run)[0]
    measure = measures(run)[0]
    heldout, scale = "mean_correlation_heldout", score_bounds(run, measure)
    panels = [
        ("pairs kept", count_panel(run, groups, "kept"), count_bounds(run, "kept")),
        ("mean held-out r", count_panel(run, groups, heldout), count_bounds(run, heldout)),
        (measure.label, score_panel(run, measure, groups, "score"), scale),
        ("the same, pairs shuffled", score_panel(run, measure, groups, "null_mean"), scale),
        ("chance-corrected", score_panel(run, measure, groups, "corrected"), scale),
    ]
    figures = []
    for title, panel, bounds in panels:
        figure = go.Figure(panel_figure(panel, groups, bounds))
        figure.update_layout(width=300, height=250, title={"text": title, "font": {"size": 14}}, margin={"t": 40})
        figures.append(figure)
    save_page(figures, picture, 1500, 250)


def controls(run: uf.Run, picture: str) -> None:
    """A dot for each two layers: what is compared, its ceiling and its controls, one below the other."""
    found = cells(run)
    pairs = group_pairs(run)
    names = [f"{a} × {b}" + (f"<br>({role(run, (a, b))})" if role(run, (a, b)) else "") for a, b in pairs]
    ways = [measure for measure in measures(run) if "dims" not in measure.settings]
    titles = ["pairs kept", *(measure.short for measure in ways)]
    figure = make_subplots(rows=1, cols=len(titles), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)

    def dots(column: int, y: list[str], x: list[float], colour: str, hollow: bool = False) -> None:
        marker = {"size": 10, "color": colour, "symbol": "line-ns-open" if hollow else "circle", "opacity": 0.8}
        figure.add_trace(
            go.Scatter(x=x, y=y, mode="markers", marker=marker, showlegend=False, cliponaxis=False), row=1, col=column
        )

    for groups, name in reversed(list(zip(pairs, names, strict=True))):
        own = found[(found["group_a"] == groups[0]) & (found["group_b"] == groups[1])]
        colour = COLOURS["muted"] if role(run, groups).startswith("control") else COLOURS["a"]
        colour = COLOURS["held"] if role(run, groups).startswith("ceiling") else colour
        for null, tick in (("rematch", COLOURS["fit"]), ("same_token", COLOURS["b"])):
            again = [sum(f["kept"]) / max(len(f["kept"]), 1) for f in own[null]]
            dots(1, [name] * len(own), again, tick, hollow=True)
        dots(1, [name] * len(own), own["kept"].tolist(), colour)
        for column, measure in enumerate(ways, start=2):
            scores = rows_of(scores_of(run, measure))
            mine = [row for row in scores if (row.group_a, row.group_b) == groups]
            dots(column, [name] * len(mine), [row.null_mean for row in mine], COLOURS["fit"], hollow=True)
            dots(column, [name] * len(mine), [row.score for row in mine], colour)
    style(figure, 1200, 130 + 52 * len(names), top=48)
    figure.update_layout(margin={"l": 250})
    figure.update_xaxes(rangemode="tozero")
    save(figure, picture)


def glance(run: uf.Run) -> str:
    """The comparisons at a glance, as a markdown table."""
    ways, lines = group_overview(run)
    header = ["", "pairs kept", "other text", "same token", "held-out r", "within token", "found again"]
    header += [way.short for way in ways]
    rows = []
    for line in lines:
        name = " × ".join(line.groups) + (f" ({line.role})" if line.role else "")
        again = [line.kept_again.get(null, "–") for null in ("other text", "same token")]
        rows.append([name, line.kept, *again, line.heldout, line.within, line.found_again, *line.scores])
    return table(header, rows)


if __name__ == "__main__":
    finished = uf.open(sys.argv[1])
    heatmaps(finished, sys.argv[2])
    controls(finished, sys.argv[3])
    print(glance(finished))
