"""The section on one pair of spaces: figures, why candidates were dropped, features in context."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.report import distributions
from unifeat.report.contexts import contexts, listed_pair
from unifeat.report.drawing import Drawn
from unifeat.report.sections.categories import of_cell
from unifeat.report.tables import cells, richest, rows_of
from unifeat.report.uncertainty import hubs, pair_lines
from unifeat.runs.folder import Run


def one_pair(run: Run, drawn: Drawn) -> dict[str, Any]:
    """All pairs of spaces, and which one is shown first."""
    return {"cells": _cells(run, drawn), "first": richest(run)}


def _cells(run: Run, drawn: Drawn) -> list[dict[str, Any]]:
    """For each pair of spaces: three figures, why candidates were dropped, features in context."""
    table = cells(run)
    limit = max(200, distributions.MAX_POINTS // len(table))
    lines, shown_pairs = contexts(run), _shown(run)
    all_kept = run.pairs[run.pairs["kept"]]
    kept_by_cell = dict(list(all_kept.groupby(["space_a", "space_b"], sort=False)))
    shown = []
    for cell in rows_of(table):
        kept = kept_by_cell.get((cell.space_a, cell.space_b), all_kept.iloc[:0])
        drawn[f"correlation-{cell.cell}"] = distributions.correlation_figure(kept)
        drawn[f"heldout-{cell.cell}"] = distributions.heldout_figure(kept, limit, run.info["seed"])
        drawn[f"partner-{cell.cell}"] = distributions.partner_figure(cell)
        own = shown_pairs[(shown_pairs["space_a"] == cell.space_a) & (shown_pairs["space_b"] == cell.space_b)]
        known = int(kept["correlation_heldout"].notna().sum())
        shown.append(
            {
                "facts": cell,
                "dropped": sorted(cell.dropped.items(), key=lambda item: -item[1]),
                "known": known,
                "uncertainty": pair_lines(cell),
                "hubs": hubs(cell),
                "categories": of_cell(run, cell),
                "drawn": min(limit, known),
                "lists": {
                    name: [listed_pair(row, lines) for row in rows_of(own[own["chosen"] == name])]
                    for name in ("strongest", "random")
                },
            }
        )
    return shown


def _shown(run: Run) -> pd.DataFrame:
    if (run.folder / "shown.parquet").is_file():
        return run.shown
    return run.pairs.iloc[:0].assign(chosen="")
