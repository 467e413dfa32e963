"""A few shared features for the report's first screen."""

from __future__ import annotations

from typing import Any

from unifeat.report.contexts import listed_pair
from unifeat.report.tables import cells, richest, rows_of
from unifeat.runs.folder import Run

_SHOWN = 8


def some_pairs(run: Run) -> dict[str, Any] | None:
    """Pairs of the richest pair of spaces, drawn at random among those that the report lists; None if there are none.

    (The strongest are often detectors of function words, and say less about what is shared.)
    """
    if not (run.folder / "shown.parquet").is_file():
        return None
    best = cells(run).iloc[richest(run)]
    shown = run.shown
    own = shown[(shown["space_a"] == best["space_a"]) & (shown["space_b"] == best["space_b"])]
    drawn = own[own["chosen"] == "random"]
    chosen = rows_of((drawn if len(drawn) else own).head(_SHOWN))
    if not chosen:
        return None
    pairs = sorted((listed_pair(row, {}) for row in chosen), key=lambda pair: -pair["r"])
    for pair in pairs:
        for side in pair["sides"]:
            side["words"] = list(dict.fromkeys(word.strip() or word for word in side["words"]))
    within = any(pair["within"] is not None for pair in pairs)
    return {"space_a": best["space_a"], "space_b": best["space_b"], "pairs": pairs, "within": within}
