"""The section on one pair of spaces: figures, why candidates were dropped, features in context."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.matching.disputed import against
from unifeat.report.ceilings import cell_geometry
from unifeat.report.contexts import contexts, listed_pair
from unifeat.report.figures import distributions
from unifeat.report.figures.style import Drawn
from unifeat.report.sections.categories import of_cell
from unifeat.report.summary import shifted_sentence
from unifeat.report.tables import cells, richest, rows_of
from unifeat.report.uncertainty import hubs, pair_table
from unifeat.runs.folder import Run
from unifeat.runs.pairs import MOST_SHOWN, shown_cells

LISTS = ("strongest", "random", "disputed")


def one_pair(run: Run, drawn: Drawn) -> dict[str, Any]:
    """The pairs of spaces worth showing in detail: all or, in a large grid, those with the most pairs."""
    table = cells(run)
    chosen = set(range(len(table)))
    if len(table) > MOST_SHOWN:
        chosen = {*shown_cells(table["kept"].tolist()), richest(run)}
    shown = [cell for cell in rows_of(table) if cell.cell in chosen]
    return {
        "cells": _cells(run, drawn, shown, table),
        "first": richest(run),
        "elsewhere": {cell.cell: [cell.space_a, cell.space_b] for cell in rows_of(table) if cell.cell not in chosen},
    }


def _cells(run: Run, drawn: Drawn, cells: list[Any], table: pd.DataFrame) -> list[dict[str, Any]]:
    """For some pairs of spaces, rows of the table of all: figures, why candidates were dropped, features in context."""
    limit = max(200, distributions.MAX_POINTS // len(cells))
    lines, shown_pairs = contexts(run), _shown(run)
    shown = []
    for cell in cells:
        kept = run.space_pair(cell.space_a, cell.space_b).query("kept")
        drawn[f"correlation-{cell.cell}"] = distributions.correlation_figure(kept)
        drawn[f"heldout-{cell.cell}"] = distributions.heldout_figure(kept, limit, run.info["seed"])
        beyond = "correlation_within_token" in kept and bool(kept["correlation_within_token"].notna().any())
        if beyond:
            drawn[f"within-{cell.cell}"] = distributions.beyond_token_figure(kept, limit, run.info["seed"])
        there = "correlation_elsewhere" in kept and bool(kept["correlation_elsewhere"].notna().any())
        if there:
            drawn[f"elsewhere-{cell.cell}"] = distributions.elsewhere_figure(kept, limit, run.info["seed"])
        drawn[f"partner-{cell.cell}"] = distributions.partner_figure(cell)
        own = shown_pairs[(shown_pairs["space_a"] == cell.space_a) & (shown_pairs["space_b"] == cell.space_b)]
        known = int(kept["correlation_heldout"].notna().sum())
        shown.append(
            {
                "facts": cell,
                "dropped": sorted(cell.dropped.items(), key=lambda item: -item[1]),
                "known": known,
                "disputed": int(against(kept).any(axis=1).sum()),
                "uncertainty": pair_table(cell),
                "beyond": cell.beyond_token if beyond else None,
                "there": cell.elsewhere if there else None,
                "hubs": hubs(cell),
                "shifted": shifted_sentence(run, table.iloc[cell.cell]),
                "geometry": cell_geometry(run, cell),
                "categories": of_cell(run, cell),
                "drawn": min(limit, known),
                "lists": {
                    name: [listed_pair(row, lines) for row in rows_of(own[own["chosen"] == name])] for name in LISTS
                },
            }
        )
    return shown


def _shown(run: Run) -> pd.DataFrame:
    if (run.folder / "shown.parquet").is_file():
        return run.shown
    first = run.info["pairs"][0]
    return run.space_pair(first["space_a"], first["space_b"]).iloc[:0].assign(chosen="")
