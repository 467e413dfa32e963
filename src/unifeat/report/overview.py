"""The overview of a run: one row for each pair of groups of spaces, including controls and ceilings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from unifeat.inference.nulls import AGAIN
from unifeat.report.ceilings import shares_of_ceiling
from unifeat.report.decidable import scores_with_reasons, tally
from unifeat.report.tables import (
    Measure,
    cells,
    decimal,
    group_pairs,
    measures,
    percent,
    role,
    span,
)
from unifeat.runs.folder import Run


class Line(NamedTuple):
    """The results for two groups of spaces, as ranges over their layers; all as text."""

    groups: tuple[str, str]
    role: str
    cells: int
    kept: str
    kept_again: dict[str, str]
    """For each null that matches again which the run has, the pairs that it keeps."""
    heldout: str
    within: str
    """Mean r within token."""
    found_again: str
    hold_elsewhere: str | None
    """The share of the pairs that hold elsewhere; None if the run has no text elsewhere."""
    scores: list[str]
    """For each measure, the chance-corrected score and how many of the cells that could have q < 0.05."""
    of_ceiling: list[str]
    """For each measure, the score as a share of the ceiling, where there is one."""


def group_overview(run: Run) -> tuple[list[Measure], list[Line]]:
    """The measures, and one line for each pair of groups, in the run's order."""
    # (Those that depend on a number of components come last.)
    table, ways = cells(run), sorted(measures(run), key=lambda way: "dims" in way.settings)
    scores = {measure: scores_with_reasons(run, measure) for measure in ways}
    lines = []
    for groups in group_pairs(run):
        own = _own(table, groups)
        lines.append(
            Line(
                groups,
                role(run, groups),
                len(own),
                span(own["kept"]),
                {null.label: span([_mean_kept(f) for f in own[name]]) for name, null in AGAIN.items() if name in own},
                span(own["mean_correlation_heldout"], decimal),
                span(
                    [(facts or {}).get("mean_correlation_within_token") for facts in own.get("beyond_token", [])],
                    decimal,
                ),
                span([(facts or {}).get("share") for facts in own.get("stability", [])], percent),
                span([facts["hold_share"] for facts in own["elsewhere"]], percent) if "elsewhere" in own else None,
                [_scores(_own(scores[measure], groups)) for measure in ways],
                [shares_of_ceiling(_own(scores[measure], groups)) for measure in ways],
            )
        )
    return ways, lines


def _own(table: pd.DataFrame, groups: tuple[str, str]) -> pd.DataFrame:
    return table[(table["group_a"] == groups[0]) & (table["group_b"] == groups[1])]


def _mean_kept(facts: Any) -> float | None:
    """Pairs kept when text is rearranged, on average over the draws."""
    kept = facts["kept"] if isinstance(facts, dict) else []
    return float(np.mean(kept)) if kept else None


def _scores(table: pd.DataFrame) -> str:
    if table.empty or table["score"].isna().all():
        return "–"
    if table["corrected"].isna().all():
        return f"{span(table['score'], decimal)} raw"
    return f"{span(table['corrected'], decimal)} ({tally(table)})"
