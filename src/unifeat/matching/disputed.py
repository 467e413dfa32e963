"""What speaks against a kept pair: evidence that took no part in choosing it."""

from __future__ import annotations

import pandas as pd

FALLS = "r falls by more than half on held-out documents"
TOKEN = "no more than a token"
ELSEWHERE = "on another kind of text, no more alike than random pairs"


def against(kept: pd.DataFrame) -> pd.DataFrame:
    """For each kept pair, which of the reasons hold: a column of bool for each, false where nothing is known.

    Args:
        kept: rows of `pairs.parquet`.
    """
    return pd.DataFrame(
        {
            FALLS: _below(kept, "correlation_heldout", kept["correlation"].abs() / 2),
            TOKEN: _no_more_than_a_token(kept),
            ELSEWHERE: _below(kept, "correlation_elsewhere", kept.get("elsewhere_chance")),
        },
        index=kept.index,
    )


def _no_more_than_a_token(kept: pd.DataFrame) -> pd.Series:
    if "more_than_a_token" not in kept:  # an older run
        return _below(kept, "correlation_within_token", kept.get("within_token_chance"))
    more = kept["more_than_a_token"].astype("boolean")
    return ~more.fillna(True).astype(bool)


def _below(kept: pd.DataFrame, column: str, line: pd.Series | None) -> pd.Series:
    """Whether a value is known and not above a line."""
    if column not in kept or line is None:
        return pd.Series(False, index=kept.index)
    return kept[column] <= line
