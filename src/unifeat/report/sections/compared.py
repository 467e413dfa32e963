"""The section on what was compared: models, spaces, masked and aligned tokens."""

from __future__ import annotations

from typing import Any

from unifeat.report.figures.style import Drawn
from unifeat.report.tables import cells, percent, span
from unifeat.runs.folder import Run
from unifeat.vocabulary.hook_points import HOOKS


def compared(run: Run, drawn: Drawn) -> dict[str, Any]:
    """Spaces with their hook points, and the tokens that two groups of spaces share."""
    return {
        "spaces": run.info["spaces"],
        "hooks": {kind: hook.label for kind, hook in HOOKS.items()},
        "alignment": _alignment(run),
    }


def _alignment(run: Run) -> list[dict[str, Any]]:
    """One row for each pair of groups: tokens that both sides have, as ranges over layers."""
    rows = []
    for groups, own in cells(run).groupby(["group_a", "group_b"], sort=False):
        row: dict[str, Any] = {"groups": groups}
        row |= {name: span(own[name]) for name in ("tokens_aligned", "tokens_fitted", "tokens_heldout")}
        rows.append(row | {name: span(own[name], percent) for name in ("share_a", "share_b")})
    return rows
