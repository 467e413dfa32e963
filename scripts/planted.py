"""Precision and recall of the matching methods on planted spaces, drawn over the knobs: docs/matching.png.

    python scripts/planted.py [docs/matching.png] [--seeds 8]

A point is the mean over spaces that differ in their seed alone. All knobs but the panel's own stay at `BASE`.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from plotly.subplots import make_subplots

import unifeat as uf
from drawing import LINES, save, style
from unifeat.matching.methods import METHODS

BASE: dict[str, Any] = {"features_a": 200, "features_b": 400, "noise": 0.5, "dropout": 0.3}
MIN_CORRELATION = 0.1  # the demo's
WIDTHS = {"mutual": 3.5, "one-to-one": 5}  # below thinner ones that often lie on them
KNOBS: dict[str, tuple[str, list[float]]] = {
    "dropout": ("firings lost", [0.0, 0.2, 0.4, 0.6, 0.7, 0.8]),
    "noise": ("noise of activations", [0.0, 0.5, 1.0, 1.5, 2.0]),
    "split": ("shared features split in B", [0.0, 0.25, 0.5, 0.75, 1.0]),
    "hubs_a": ("hubs in A", [0, 10, 20, 40, 60]),
    "skew": ("skew of frequencies", [0.0, 0.4, 0.8, 1.2, 1.6]),
}


def recoveries(settings: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Method -> precision and recall on one planted pair of spaces."""
    world = uf.synthetic.plant(**settings)
    corr = uf.correlate(world.codes_a, world.codes_b)
    found = {m: uf.match(corr, m, min_correlation=MIN_CORRELATION) for m in METHODS}
    found["max, B's best"] = uf.match(corr, "max", direction="b_to_a", min_correlation=MIN_CORRELATION)
    return {name: tuple(world.recovery(pairs)) for name, pairs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", default="docs/matching.png")
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    figure = make_subplots(2, len(KNOBS), shared_yaxes=True, vertical_spacing=0.08, horizontal_spacing=0.018)
    for column, (knob, (title, values)) in enumerate(KNOBS.items(), start=1):
        runs = [[recoveries(BASE | {knob: v, "seed": s}) for s in range(options.seeds)] for v in values]
        for i, method in enumerate(runs[0][0]):
            of_max = method.startswith("max,")
            colour, dash = (LINES[0][0], "dot") if of_max else LINES[i]
            name = "max, A's best" if method == "max" else method
            for row in (0, 1):
                mean = [float(np.mean([run[method][row] for run in seeds])) for seeds in runs]
                print(f"{knob:8} {name:14} {'precision' if row == 0 else 'recall':9}",
                      *(f"{v:g}: {m:.3f} " for v, m in zip(values, mean, strict=True)))  # fmt: skip
                line = {"color": colour, "dash": dash, "width": WIDTHS.get(method, 2)}
                figure.add_scatter(
                    x=values, y=mean, mode="lines+markers", line=line, marker={"size": 5}, name=name,
                    showlegend=column == 1 and row == 0, row=row + 1, col=column,
                )  # fmt: skip
        figure.update_xaxes(title_text=title, row=2, col=column)
    figure.update_yaxes(title_text="precision", row=1, col=1)
    figure.update_yaxes(title_text="recall", row=2, col=1)
    figure.update_yaxes(range=[0, 1.03])
    figure.update_xaxes(nticks=6)
    save(style(figure, 1240, 470, top=44, legend=1.01), options.picture)


if __name__ == "__main__":
    main()
