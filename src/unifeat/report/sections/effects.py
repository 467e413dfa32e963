"""The section on what pairs do to the next token."""

from __future__ import annotations

from typing import Any

import pandas as pd

from unifeat.report.contexts import visible
from unifeat.report.figures.style import Drawn
from unifeat.report.figures.transfer import effects_figure
from unifeat.report.tables import cells, role, rows_of
from unifeat.runs.folder import Run

_LISTED = 5
_WAYS = {
    "direct": "direct",
    "added": "a dose added",
    "removed": "removed where the pair fires",
    "kl_agreement": "how much it matters there, token by token",
}


def effects(run: Run, drawn: Drawn) -> dict[str, Any] | None:
    """Every cell whose effects were compared; None if there is none."""
    table = run.effects
    facts = [own for own in run.info["pairs"] if own.get("effects")]
    if table is None or not len(table) or not facts:
        return None
    roles = {(row.space_a, row.space_b): role(run, (row.group_a, row.group_b)) for row in rows_of(cells(run))}
    shown = []
    for number, own in enumerate(facts):
        a, b = own["space_a"], own["space_b"]
        pairs = table[(table["space_a"] == a) & (table["space_b"] == b)]
        for side, name in (("a", a), ("b", b)):
            labels = run.labels_of(name)
            named = [visible(labels.get(feature, "")) for feature in pairs[f"feature_{side}"]]
            pairs = pairs.assign(**{f"label_{side}": named})
        known = pairs.dropna(subset=["removed"])
        if len(known):
            drawn[f"effects-{number}"] = effects_figure(known)
        found = own["effects"]
        shown.append(
            {
                "space_a": a,
                "space_b": b,
                "role": roles.get((a, b), ""),
                "facts": found,
                "pairs": len(pairs),
                "key": f"effects-{number}" if len(known) else None,
                "ways": [(label, found[name]) for name, label in _WAYS.items() if found.get(name)],
                "lists": _lists(known),
                "spread": _spread(pairs, a, b),
                **{f"stability_{side}": pairs[f"stability_{side}"].median() for side in "ab"},
            }
        )
    return {"effects_of": shown}


def _spread(pairs: pd.DataFrame, a: str, b: str) -> dict[str, float]:
    """How many features of a later layer a dose moves, by space, where there is one."""
    medians = {name: pairs[f"spread_{side}"].median() for name, side in ((a, "a"), (b, "b"))}
    return {name: float(value) for name, value in medians.items() if not pd.isna(value)}


def _lists(known: pd.DataFrame) -> dict[str, list[Any]]:
    """Pairs whose effects agree most, least, and against expectation, either way."""
    if len(known) < 2 * _LISTED:
        return {}
    r, removed = known["correlation"].rank(pct=True), known["removed"].rank(pct=True)
    return {
        "agree most": rows_of(known.nlargest(_LISTED, "removed")),
        "agree least": rows_of(known.nsmallest(_LISTED, "removed")),
        "fire alike and work unlike": rows_of(known.loc[(r - removed).nlargest(_LISTED).index]),
        "fire less alike and work alike": rows_of(known.loc[(removed - r).nlargest(_LISTED).index]),
    }
