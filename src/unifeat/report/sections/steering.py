"""The section on directions of concepts that are carried from one model into another."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.report.figures.style import Drawn
from unifeat.report.tables import cells, role, rows_of, study_of
from unifeat.runs.folder import Run

ALL = "all"
_VARIANTS = {"own": "own", "from_map": "mapped", "from_pairs": "paired"}


def steering(run: Run, _: Drawn) -> dict[str, Any] | None:
    """Both ways of every cell in which directions were carried; None if there is none."""
    table = run.steering
    if table is None or not len(table):
        return None
    roles = {(row.space_a, row.space_b): role(run, (row.group_a, row.group_b)) for row in rows_of(cells(run))}
    shown = []
    if "direction" not in table:  # a run of an earlier version: A steers B
        table = table.assign(direction="a_to_b")
    for (a, b, direction), own in table.groupby(["space_a", "space_b", "direction"], sort=False):
        source, target = (a, b) if direction == "a_to_b" else (b, a)
        by_category = [_category(name, rows) for name, rows in own.groupby("category", sort=False)]
        shown.append(
            {
                "source": source,
                "target": target,
                "role": roles.get((a, b), ""),
                "contexts": int(own["contexts"].max()),
                "categories": [row for row in by_category if row["name"] != ALL],
                "all": next((row for row in by_category if row["name"] == ALL), None),
            }
        )
    draws = (study_of(run).get("transfer") or {}).get("steering_draws")
    return {"steered": shown, "steering_least": 1 / (draws + 1) if draws else None}


def _category(name: Any, rows: pd.DataFrame) -> dict[str, Any]:
    """One category's figures: a row of the table for each variant."""
    by_variant = {row.variant: row for row in rows_of(rows)}
    return {"name": name} | {key: by_variant[variant] for variant, key in _VARIANTS.items()}
