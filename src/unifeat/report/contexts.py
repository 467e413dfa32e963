"""Features in context: the text around their strongest activations, one line each."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

from unifeat.report.tables import is_missing, rows_of
from unifeat.runs.folder import Run

_SIGNS = {"\n": "↵", "\r": "", "\t": " ", "\u2028": "↵", "\u2029": "↵"}


def contexts(run: Run) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Lines of text for each (space, feature), strongest activation first."""
    if not (run.folder / "examples.parquet").is_file():
        return {}
    lines: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows_of(run.examples.sort_values(["space", "feature", "rank"])):
        own = lines.setdefault((row.space, row.feature), [])
        token = str(row.token)
        blank = token[: len(token) - len(token.lstrip(" "))] if token.strip() else ""
        own.append(
            {
                "before": visible(str(row.before) + blank),
                "token": visible(token[len(blank) :]) or "∅",
                "after": visible(str(row.after)),
                "activation": row.activation,
                "weight": row.activation / own[0]["activation"] if own and own[0]["activation"] else 1.0,
                "document": row.document,
                "place": (row.document, row.after),  # tokens that end at the same character have the same text after
            }
        )
    return lines


def listed_pair(row: Any, lines_of: dict[tuple[str, int], list[dict[str, Any]]]) -> dict[str, Any]:
    """One listed pair with the lines of both features; lines that both have are marked."""
    sides = []
    for space, feature, tokens, count, label in (
        (row.space_a, row.feature_a, row.top_tokens_a, row.count_a, getattr(row, "label_a", "")),
        (row.space_b, row.feature_b, row.top_tokens_b, row.count_b, getattr(row, "label_b", "")),
    ):
        lines = [dict(line) for line in lines_of.get((space, feature), [])]
        words = [visible(str(token)) for token in tokens]
        side = {"space": space, "feature": feature, "count": count, "lines": lines, "words": words}
        sides.append(side | {"label": visible(label)})
    places = [{line["place"] for line in side["lines"]} for side in sides]
    for side in sides:
        for line in side["lines"]:
            line["both"] = line["place"] in places[0] & places[1]
    within = getattr(row, "correlation_within_token", None)  # (older runs have none)
    share = (getattr(row, "token_share_a", math.nan) + getattr(row, "token_share_b", math.nan)) / 2
    elsewhere, line = (getattr(row, name, math.nan) for name in ("correlation_elsewhere", "elsewhere_chance"))
    return {
        "r": row.correlation,
        "heldout": row.correlation_heldout,
        "within": None if is_missing(within) else within,
        "judged_within": not is_missing(getattr(row, "within_token_chance", 0.0)),
        "elsewhere": None if is_missing(elsewhere) else elsewhere,
        "holds": None if is_missing(elsewhere) or is_missing(line) else elsewhere > line,
        "token_share": None if is_missing(share) else max(share, 0.0),
        "cofiring": row.cofiring,
        "disputed": getattr(row, "disputed", ""),
        "sides": sides,
    }


def visible(text: str) -> str:
    """Text on one line: newlines become ↵, other control characters ·."""
    signs = [_SIGNS.get(c, "·" if unicodedata.category(c) in ("Cc", "Cs") else c) for c in text]
    return "".join(signs)
