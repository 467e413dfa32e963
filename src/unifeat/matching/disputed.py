"""What speaks against a kept pair: evidence that took no part in choosing it."""

from __future__ import annotations

import pandas as pd

FALLS = "r falls by more than half on held-out documents"
TOKEN = "within a token, no more alike than random pairs"
ELSEWHERE = "on another kind of text, no more alike than random pairs"


def against(kept: pd.DataFrame) -> pd.DataFrame:
    """For each kept pair, which of the reasons hold: a column of bool for each, false where nothing is known.

    Args:
        kept: rows of `pairs.parquet`.
    """
    return pd.DataFrame(
        {
            FALLS: _below(kept, "correlation_heldout", kept["correlation"].abs() / 2),
            TOKEN: _below(kept, "correlation_within_token", kept.get("within_token_chance")),
            ELSEWHERE: _below(kept, "correlation_elsewhere", kept.get("elsewhere_chance")),
        },
        index=kept.index,
    )


def _below(kept: pd.DataFrame, column: str, line: pd.Series | None) -> pd.Series:
    """Whether a value is known and not above a line."""
    if column not in kept or line is None:
        return pd.Series(False, index=kept.index)
    return kept[column] <= line
