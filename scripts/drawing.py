"""What the scripts that draw for the docs have in common: one look, and a headless browser to draw it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from unifeat.report.figures.style import COLOURS, FONT

# Lines that must be told apart, also in grey: a colour and a dash each.
LINES = [
    (COLOURS["a"], "solid"),
    (COLOURS["b"], "solid"),
    (COLOURS["held"], "solid"),
    ("#8a4fa3", "solid"),
    ("#b3262e", "solid"),
    (COLOURS["muted"], "solid"),
    (COLOURS["a"], "dot"),
    (COLOURS["b"], "dot"),
    (COLOURS["held"], "dot"),
    ("#8a4fa3", "dot"),
    ("#b3262e", "dot"),
    (COLOURS["muted"], "dot"),
]


def style(figure: go.Figure, width: int, height: int, *, top: int = 60, legend: float = 1.0) -> go.Figure:
    """Axes, fonts and colours of the report; `legend` is its height above the panels, in parts of their height."""
    figure.update_layout(
        template="none",
        width=width,
        height=height,
        margin={"l": 60, "r": 16, "t": top, "b": 48},
        font={"family": FONT, "size": 13, "color": COLOURS["ink"]},
        paper_bgcolor=COLOURS["surface"],
        plot_bgcolor=COLOURS["surface"],
        legend={"orientation": "h", "x": 0, "y": legend, "xanchor": "left", "yanchor": "bottom"},
    )
    axis = {"gridcolor": COLOURS["rule"], "zeroline": False, "linecolor": COLOURS["rule"], "ticks": "outside",
            "tickcolor": COLOURS["rule"], "title_standoff": 6, "title_font_size": 13}  # fmt: skip
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    figure.update_annotations(font={"size": 13, "color": COLOURS["ink"]})
    return figure


def save(figure: go.Figure, picture: str | Path) -> None:
    """Write the figure as a PNG of twice its size in pixels, drawn by chromium."""
    save_page([figure], picture, figure.layout.width, figure.layout.height)


def save_page(figures: list[go.Figure], picture: str | Path, width: int, height: int) -> None:
    """Write figures side by side as one PNG of twice that size in pixels."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("drawing needs chromium")
    bodies: list[Any] = [
        f.to_html(full_html=False, include_plotlyjs=False, config={"staticPlot": True}) for f in figures
    ]
    page = (
        f"<meta charset=utf-8><script>{get_plotlyjs()}</script>"
        "<body style='margin:0;background:white;display:flex'>" + "".join(bodies)
    )
    with tempfile.TemporaryDirectory() as folder:
        html = Path(folder) / "figure.html"
        html.write_text(page, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        shot = [
            "--force-device-scale-factor=2",
            "--virtual-time-budget=6000",
            f"--screenshot={Path(picture).resolve()}",
        ]
        subprocess.run(
            [chromium, *flags, f"--window-size={width},{height}", *shot, html.as_uri()], check=True, capture_output=True
        )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"
