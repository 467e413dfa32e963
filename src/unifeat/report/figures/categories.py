"""The heatmap of categories of words: how alike each category's features lie, for every pair of spaces."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from unifeat.report.decidable import mark, undecidable
from unifeat.report.figures.heatmaps import Panel, panel_figure
from unifeat.report.tables import Measure, cells, decimal, probability, role, rows_of, subspaces_of
from unifeat.runs.folder import Run

CONTROL_SUFFIX = " · random words"
_MOST_COLUMNS = 16
_FEWEST_PAIRS = 5


def categories(run: Run) -> list[str]:
    """The categories of a run, without their control lists."""
    return [name for name in subspaces_of(run) if CONTROL_SUFFIX not in name]


def categories_figure(run: Run, measure: Measure) -> dict[str, Any]:
    """A heatmap with categories down and the first ordinary pairs of spaces across, as plain data for plotly.

    Args:
        measure: any of a category's; the same measure of every category is shown.
    """
    table = cells(run)
    ordinary = [not role(run, (row.group_a, row.group_b)) for row in rows_of(table)]
    shown = table[ordinary].head(_MOST_COLUMNS)
    panel = _panel(run, measure, shown)
    known = panel.z.to_numpy(float)
    high = max(float(pd.DataFrame(known).max().max()), 0.01) if pd.notna(known).any() else 1.0
    figure = panel_figure(panel, ("", ""), (0.0, high))
    figure["layout"] |= {
        "height": 70 + 34 * len(panel.z),
        "margin": {"l": 130, "r": 8, "t": 8, "b": 60},
        "xaxis": figure["layout"]["xaxis"] | {"tickangle": 0 if len(shown) < 7 else -30},
    }
    return figure


def _panel(run: Run, measure: Measure, shown: pd.DataFrame) -> Panel:
    rows = []
    for name in categories(run):
        own = run.scores[
            (run.scores["subspace"] == name)
            & (run.scores["metric"] == measure.metric)
            & (run.scores["settings"] == measure.settings)
        ]
        at = {(a, b): i for i, a, b in zip(own.index, own["space_a"], own["space_b"], strict=True)}
        for cell in rows_of(shown):
            row = own.loc[at[cell.space_a, cell.space_b]]
            why = why_not(run, "q", row)
            hover = [
                f"<b>{escape(name)}</b>, {escape(cell.space_a)} × {escape(cell.space_b)}",
                f"score {decimal(row['score'], 3)}, {row['n_pairs']:,} pairs",
                f"shuffled {decimal(row['null_mean'], 3)}, q {probability(row['q'])}",
                f"its {row['subset_n']:,} of all pairs {decimal(row['subset_score'], 3)}, random subsets "
                f"{decimal(row['subset_mean'], 3)}, q {probability(row['subset_q'])}",
                *([f"° undecidable: {escape(why)}"] if why else []),
            ]
            # Scores of very few pairs are meaningless, so the number of pairs is shown instead.
            few = row["n_pairs"] < _FEWEST_PAIRS
            text = f"n={row['n_pairs']}" if few else decimal(row["score"]) + mark(row["q"], why)
            place = {"category": name, "cell": f"{cell.layer_a}×{cell.layer_b}", "number": cell.cell}
            rows.append(place | {"z": float("nan") if few else row["score"], "text": text, "hover": "<br>".join(hover)})
    table = pd.DataFrame(rows)
    order = list(reversed(categories(run)))

    def grid(value: str) -> pd.DataFrame:
        wide = table.pivot(index="category", columns="number", values=value).loc[order]
        return wide.set_axis([table.loc[table["number"] == n, "cell"].iloc[0] for n in wide.columns], axis=1)

    return Panel(measure.label, *(grid(value) for value in ("z", "text", "hover", "number")))


def why_not(run: Run, q: str, row: Any) -> str:
    """Why a score's q could not have been below 0.05; empty where it could.

    Args:
        row: a row of `run.scores`, with its index there.
    """
    found = undecidable(run)
    return str(found[q].loc[row.name]) if q in found else ""
