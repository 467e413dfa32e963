"""Precision and recall of the methods for families on planted spaces, drawn over the knobs: docs/families.png.

    python scripts/planted_families.py [docs/families.png] [--seeds 6]

A point is the mean over draws that differ in their seed alone. All knobs but the panel's own stay at `BASE`. Pairs are
mutual best partners with r above `MIN_CORRELATION`. The grey line is the pairs themselves, before any grouping.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from typing import Any

import numpy as np
from plotly.subplots import make_subplots

import unifeat as uf
from drawing import LINES, save, style
from unifeat.multiway import METHODS
from unifeat.synthetic import PlantedFamilies

BASE: dict[str, Any] = {"spaces": 5, "features": 100, "families": 60, "presence": 0.8, "n_tokens": 8000,
                        "documents": 100, "noise": 0.5, "dropout": 0.4}  # fmt: skip
MIN_CORRELATION = 0.1  # the demo's
KNOBS: dict[str, tuple[str, list[float]]] = {
    "dropout": ("firings lost", [0.0, 0.2, 0.4, 0.6, 0.7, 0.8]),
    "noise": ("noise of activations", [0.0, 0.5, 1.0, 1.5, 2.0]),
    "split": ("features split in two", [0.0, 0.15, 0.3, 0.45, 0.6]),
    "presence": ("share of spaces with a family", [0.3, 0.5, 0.7, 0.9, 1.0]),
    "spaces": ("spaces", [2, 3, 5, 8, 12]),
}
KINDS = ("precision", "recall", "whole")


def pairs_of(world: PlantedFamilies) -> dict[tuple[str, str], Any]:
    """Mutual pairs of every two spaces."""
    return {
        (a, b): uf.match(uf.correlate(world.codes[a], world.codes[b], top=1), min_correlation=MIN_CORRELATION)
        for a, b in combinations(world.codes, 2)
    }


def recoveries(settings: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Method -> precision, recall and the share of whole families, on one draw of planted spaces."""
    world = uf.synthetic.plant_families(**settings)
    pairs = pairs_of(world)
    found = {method: tuple(world.recovery(uf.families(pairs, method))) for method in METHODS}
    right = given = reached = 0
    for (a, b), table in pairs.items():
        one, other = world.concept[a][table["feature_a"]], world.concept[b][table["feature_b"]]
        same = (one == other) & (one >= 0)
        # (Of a concept that is split there are several pairs: for recall it counts once.)
        right, given, reached = right + int(same.sum()), given + len(table), reached + len(set(one[same].tolist()))
    true = sum(int((world.has[:, i] & world.has[:, j]).sum()) for i, j in combinations(range(len(world.codes)), 2))
    found["pairs"] = (right / given if given else np.nan, reached / true, np.nan)
    return found  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", default="docs/families.png")
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    figure = make_subplots(3, len(KNOBS), shared_yaxes=True, vertical_spacing=0.06, horizontal_spacing=0.018)
    for column, (knob, (title, values)) in enumerate(KNOBS.items(), start=1):
        kind = int if knob == "spaces" else float
        runs = [[recoveries(BASE | {knob: kind(v), "seed": s}) for s in range(options.seeds)] for v in values]
        for i, method in enumerate((*METHODS, "pairs")):
            colour, dash = LINES[5] if method == "pairs" else LINES[i]
            for row, name in enumerate(KINDS):
                if method == "pairs" and name == "whole":
                    continue
                mean = [float(np.nanmean([run[method][row] for run in seeds])) for seeds in runs]
                print(f"{knob:9} {method:11} {name:9}",
                      *(f"{v:g}: {m:.3f} " for v, m in zip(values, mean, strict=True)), flush=True)  # fmt: skip
                line = {"color": colour, "dash": "dot" if method == "pairs" else dash, "width": 2}
                figure.add_scatter(
                    x=values, y=mean, mode="lines+markers", line=line, marker={"size": 5}, name=method,
                    showlegend=column == 1 and row == 0, row=row + 1, col=column,
                )  # fmt: skip
        figure.update_xaxes(title_text=title, row=3, col=column)
    for row, name in enumerate(("precision", "recall", "whole families"), start=1):
        figure.update_yaxes(title_text=name, row=row, col=1)
    figure.update_yaxes(range=[0, 1.03])
    figure.update_xaxes(nticks=6)
    save(style(figure, 1240, 640, top=44, legend=1.01), options.picture)


if __name__ == "__main__":
    main()
