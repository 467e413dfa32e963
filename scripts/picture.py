"""The README's picture: layer × layer heatmaps of a finished run, drawn by a headless browser.

python scripts/picture.py runs/demo docs/heatmaps.png
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

import unifeat as uf
from unifeat.report.figures import count_bounds, count_panel, panel_figure, score_bounds, score_panel
from unifeat.report.tables import group_pairs, measures


def main(run_folder: str, picture: str) -> None:
    run = uf.open(run_folder)
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
        figures.append(figure.to_html(full_html=False, include_plotlyjs=False, config={"staticPlot": True}))
    page = (
        f"<meta charset=utf-8><script>{get_plotlyjs()}</script>"
        "<body style='margin:10px;background:white;display:flex;gap:6px'>" + "".join(figures)
    )
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "picture.html"
        html.write_text(page, encoding="utf-8")
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        if chromium is None:
            sys.exit("picture.py needs chromium")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        size = ["--window-size=1560,280", "--virtual-time-budget=6000", f"--screenshot={Path(picture).resolve()}"]
        subprocess.run([chromium, *flags, *size, html.as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
