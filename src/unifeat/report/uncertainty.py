"""How certain the pairs of a cell are: intervals, values under the nulls that match again, and hubs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from unifeat.inference.nulls import AGAIN
from unifeat.report.decidable import MARK, draws_asked
from unifeat.report.tables import SIGNIFICANCE_LEVEL, decimal, is_missing, number, percent, probability

# Facts about the pairs of two spaces: (name in the facts, label, how to write it).
_PAIR_FACTS: list[tuple[str, str, Callable[[Any], str]]] = [
    ("kept", "pairs kept", number),
    ("share_a", "share of A’s features that are in a pair", percent),
    ("share_b", "share of B’s features that are in a pair", percent),
    ("mean_correlation", "mean r where found", lambda value: decimal(value, 3)),
    ("mean_correlation_heldout", "mean r on held-out documents", lambda value: decimal(value, 3)),
]


class PairTable(NamedTuple):
    """How certain the pairs of a cell are.

    Attributes:
        nulls: the nulls that match again which the run has: (label, what it asks, number of draws, least p). Where
            drawing stopped early, the number is "40 of 99".
        lines: for each fact its label, value, interval, and for each null its mean, p and family-wise p; all as text.
    """

    nulls: list[tuple[str, str, str, str]]
    lines: list[dict[str, Any]]


def pair_table(cell: Any) -> PairTable:
    """The facts about the pairs of one cell (a row of `cells`), beside the nulls that match again."""
    facts = cell._asdict()
    nulls = {name: found for name in AGAIN if (found := _part(facts, name)).get("kept")}
    intervals, beyond = _part(facts, "intervals"), _part(facts, "beyond_token")
    lines: list[dict[str, Any]] = []
    for name, words, show in _PAIR_FACTS:
        own = _part(intervals, name)
        # The facts' own share_a and share_b are shares of tokens.
        value, low, high = own.get("estimate", facts.get(name)), own.get("low"), own.get("high")
        beside = [_beside(null, name, show) for null in nulls.values()]
        if is_missing(low) and all(one["mean"] == "–" for one in beside):
            continue
        interval = "–" if is_missing(low) else f"{show(low)} to {show(high)}"
        lines.append({"what": words, "value": show(value), "interval": interval, "nulls": beside})
        if name == "kept" and nulls:
            same = [_beside(null, "same", show) for null in nulls.values()]
            lines.append({"what": "of them, pairs of this run", "value": show(value), "interval": "–", "nulls": same})
    nothing = [{"mean": "–", "p": "–", "family": "–"} for _ in nulls]
    ends = [beyond.get(f"mean_correlation_within_token_{end}") for end in ("low", "high")]
    interval = "–" if any(map(is_missing, ends)) else " to ".join(decimal(end, 3) for end in ends)
    for value, words, shown in (
        (decimal(beyond.get("mean_correlation_within_token"), 3), "mean r within token", interval),
        (percent(beyond.get("mean_token_share")), "share of the features’ variance that is the token’s", "–"),
        (percent(beyond.get("more_than_a_token")), "share of pairs that are more than a token", "–"),
    ):
        if beyond and value != "–":
            lines.append({"what": words, "value": value, "interval": shown, "nulls": nothing})
    there = _part(facts, "elsewhere")
    if there.get("judged"):
        ends = [there["mean_low"], there["mean_high"]]
        interval = "–" if any(map(is_missing, ends)) else " to ".join(decimal(end, 3) for end in ends)
        of = f"of the {number(there['judged'])} pairs that can be judged elsewhere"
        for value, words, shown in (
            (percent(there["hold_share"]), f"share {of} that hold there", "–"),
            (decimal(there["mean"], 3), f"mean r {of} (here {decimal(there['mean_here'], 3)})", interval),
        ):
            lines.append({"what": words, "value": value, "interval": shown, "nulls": nothing})
    agreed = _part(facts, "labels")
    if agreed.get("pairs"):
        made = " (made from contexts)" if agreed["automatic"] else ""
        what = f"word stems that the labels{made} of {number(agreed['pairs'])} pairs have in common"
        what += f" (partners at random {percent(agreed['chance'])})"
        lines.append({"what": what, "value": percent(agreed["mean"]), "interval": "–", "nulls": nothing})
    again = _part(facts, "stability")
    if not is_missing(again.get("share")):
        words = f"share found again on the other half (by chance {percent(again.get('chance'))})"
        lines.append({"what": words, "value": percent(again["share"]), "interval": "–", "nulls": nothing})
    heads = []
    for name, found in nulls.items():
        asked, drawn = draws_asked(found), len(found["kept"])
        draws = number(asked) if drawn >= asked else f"{number(drawn)} of {number(asked)}"
        what = AGAIN[name].what
        if found.get("rows"):
            what += f"; {percent(found['rows_alone'] / found['rows'])} of the rows are the only ones of theirs and stay"
        heads.append((AGAIN[name].label, what, draws, probability(1 / (asked + 1))))
    return PairTable(heads, lines)


def _beside(null: dict[str, Any], name: str, show: Callable[[Any], str]) -> dict[str, str]:
    known = [value for value in null.get(name) or [] if not is_missing(value)]
    return {
        "mean": show(float(np.mean(known))) if known else "–",
        "p": _marked(null, null.get(f"p_{name}")),
        "family": _marked(null, null.get(f"p_{name}_family")),
    }


def _marked(null: dict[str, Any], p: Any) -> str:
    """A p; marked if with so few draws it could not have been below 0.05."""
    least = 1 / (draws_asked(null) + 1)
    return probability(p) + (MARK if least >= SIGNIFICANCE_LEVEL and not is_missing(p) else "")


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
