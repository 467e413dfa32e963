"""The section on categories of words: an overview of all pairs of spaces, and a table for each pair."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.report.decidable import mark, undecidable_rates
from unifeat.report.figures.categories import CONTROL_SUFFIX, categories, categories_figure, why_not
from unifeat.report.figures.style import Drawn
from unifeat.report.tables import (
    Measure,
    decimal,
    is_missing,
    measures,
    number,
    percent,
    study_of,
)
from unifeat.runs.folder import Run


def subspaces(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """One heatmap per measure, with categories down and pairs of spaces across; None if the run has no categories."""
    if not categories(run):
        return None
    panels = []
    for place, measure in enumerate(measures(run, categories(run)[0])):
        key = f"categories-{place}"
        drawn[key] = categories_figure(run, measure)
        panels.append({"key": key, "title": measure._replace(subspace="all").short})
    return {"overview": panels, "asked": study_of(run)["subspaces"]}


def of_cell(run: Run, cell: Any) -> dict[str, Any] | None:
    """The categories of one pair of spaces, as headings and lines; None if the run has none."""
    names = categories(run)
    if not names or run.rates is None:
        return None
    ways = measures(run, names[0])
    scores = _own(run.scores, cell)
    rates = _own(run.rates, cell)
    lines = []
    for name in names:
        own = scores[scores["subspace"] == name]
        control = scores[scores["subspace"] == f"{name}{CONTROL_SUFFIX}"]
        lines.append(
            {
                "name": name,
                "rates": [_rate(run, rates[(rates["subspace"] == name) & (rates["side"] == side)]) for side in "ab"],
                "n": number(int(own["n_pairs"].iloc[0])) if len(own) else "–",
                "scores": [_score(run, _by(own, way), _by(control, way)) for way in ways],
            }
        )
    return {"measures": [way._replace(subspace="all").short for way in ways], "lines": lines}


def _own(table: pd.DataFrame, cell: Any) -> pd.DataFrame:
    return table[(table["space_a"] == cell.space_a) & (table["space_b"] == cell.space_b)]


def _by(table: pd.DataFrame, measure: Measure) -> Any:
    own = table[(table["metric"] == measure.metric) & (table["settings"] == measure.settings)]
    return own.iloc[0] if len(own) else None


def _rate(run: Run, table: pd.DataFrame) -> dict[str, str]:
    if table.empty or not table["features"].iloc[0]:
        return {"features": "0", "rate": "–", "odds": "–"}
    row: Any = table.iloc[0]
    sign = mark(row["q"], str(undecidable_rates(run).loc[row.name]))
    spread = (
        ""
        if is_missing(row["odds_ratio_low"])
        else f" ({decimal(row['odds_ratio_low'], 1)}–{decimal(row['odds_ratio_high'], 1)})"
    )
    return {
        "features": number(row["features"]),
        "rate": f"{percent(row['rate'])} / {percent(row['rate_expected'])}",
        "odds": "–" if is_missing(row["odds_ratio"]) else f"{decimal(row['odds_ratio'], 1)}{spread}{sign}",
    }


def _score(run: Run, row: Any, control: Any) -> dict[str, str]:
    if row is None or is_missing(row["score"]):
        return dict.fromkeys(("score", "shuffled", "subsets", "control"), "–")
    return {
        "score": decimal(row["score"]) + mark(row["q"], why_not(run, "q", row)),
        "shuffled": decimal(row["null_mean"]),
        "subsets": f"{decimal(row['subset_score'])} / {decimal(row['subset_mean'])}"
        + mark(row["subset_q"], why_not(run, "subset_q", row)),
        "control": "–"
        if control is None or is_missing(control["score"])
        else f"{decimal(control['score'])} ({control['n_pairs']})",
    }
