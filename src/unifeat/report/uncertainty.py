"""How certain the pairs of a cell are: intervals, values in shifted text, and hubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unifeat.report.tables import decimal, is_missing, number, percent

# Facts about the pairs of two spaces: (name in the facts, label, how to write it).
_PAIR_FACTS: list[tuple[str, str, Callable[[Any], str]]] = [
    ("kept", "pairs kept", number),
    ("share_a", "share of A’s features that are in a pair", percent),
    ("share_b", "share of B’s features that are in a pair", percent),
    ("mean_correlation", "mean r where found", lambda value: decimal(value, 3)),
    ("mean_correlation_heldout", "mean r on held-out documents", lambda value: decimal(value, 3)),
]


def pair_lines(cell: Any) -> list[dict[str, Any]]:
    """Lines of (label, value, interval, value in shifted text, p) about the pairs of one cell (a row of `cells`)."""
    facts = cell._asdict()
    intervals, shifted = (_part(facts, name) for name in ("intervals", "rematch"))
    lines = []
    for name, words, show in _PAIR_FACTS:
        own = _part(intervals, name)
        # The facts' own share_a and share_b are shares of tokens.
        value, low, high = own.get("estimate", facts.get(name)), own.get("low"), own.get("high")
        null = shifted.get(name) or []
        known = [v for v in null if not is_missing(v)]
        if is_missing(low) and not known:
            continue
        lines.append(
            {
                "what": words,
                "value": show(value),
                "interval": "–" if is_missing(low) else f"{show(low)} to {show(high)}",
                "shifted": show(float(np.mean(known))) if known else "–",
                "p": shifted.get(f"p_{name}"),
            }
        )
    again = _part(facts, "stability")
    if not is_missing(again.get("share")):
        lines.append(
            {
                "what": "share found again on the other half of the documents",
                "value": percent(again["share"]),
                "interval": "–",
                "shifted": percent(again.get("chance")),
                "p": None,
            }
        )
    return lines


def hubs(cell: Any) -> str:
    """A sentence on hubs and reciprocity."""
    facts = cell._asdict()
    found, returned = _part(facts, "hubness"), _part(facts, "reciprocity")
    if not found:
        return ""
    shares = " and ".join(percent(found[way]["largest_share"]) for way in ("a_to_b", "b_to_a"))
    reciprocal = " and ".join(percent(returned.get(way)) for way in ("a_to_b", "b_to_a"))
    return (
        f"Before any filter, a single feature of the other side is the best partner of {shares} of A’s and B’s "
        f"features; {reciprocal} of them are the best partner of their own best partner."
    )


def _part(facts: dict[str, Any], name: str) -> dict[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, dict) else {}
