"""The README's pictures of a finished run: layer × layer heatmaps, and every comparison beside its controls.

Prints the README's table of the same numbers.

python scripts/picture.py runs/demo docs/heatmaps.png docs/controls.png
"""

from __future__ import annotations

import sys

import plotly.graph_objects as go

import unifeat as uf
from drawing import save, save_page, table
from unifeat.report.figures.controls import controls_figure
from unifeat.report.figures.heatmaps import count_bounds, count_panel, panel_figure, score_bounds, score_panel
from unifeat.report.figures.style import COLOURS
from unifeat.report.overview import group_overview
from unifeat.report.tables import group_pairs, measures


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
    figure = go.Figure(controls_figure(run))
    figure.update_layout(template="none", width=1200, paper_bgcolor=COLOURS["surface"], plot_bgcolor=COLOURS["surface"])
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
