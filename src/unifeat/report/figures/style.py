"""What all figures share: colours, fonts and margins.

All colours come from `COLOURS`, so that the HTML report can replace them in dark mode.
"""

from __future__ import annotations

from typing import Any

Drawn = dict[str, Any]
"""The figures of the report by name: plain data that the page's script passes to plotly."""

COLOURS = {
    "ink": "#1b1d21",
    "muted": "#5f6570",
    "rule": "#dfe1e4",
    "surface": "#ffffff",
    "a": "#1f5fa8",
    "b": "#b8500b",
    "fit": "#a3abb8",
    "held": "#0b7a62",
}
SCALE = "Viridis"  # sequential, perceptually uniform, safe for colour-blind readers
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif'
TITLE_FONT = {"size": 13, "color": COLOURS["muted"]}
MARGIN = {"l": 56, "r": 8, "t": 8, "b": 44}


def layout(height: int) -> dict[str, Any]:
    """The layout that all figures share."""
    return {
        "height": height,
        "margin": MARGIN,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": COLOURS["ink"]},
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        "hoverlabel": {
            "bgcolor": COLOURS["surface"],
            "bordercolor": COLOURS["rule"],
            "font": {"color": COLOURS["ink"]},
        },
    }
