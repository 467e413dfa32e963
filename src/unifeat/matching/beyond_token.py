"""What pairs share beyond the token: their correlation within token types, beside pairs at random.

A feature that fires on one token in any context correlates with every other detector of that token. Within rows of one
token type such features do not vary together. See `unifeat.correlation.within`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifeat.correlation.block_sums import block_edges
from unifeat.correlation.within import Within, within_groups
from unifeat.matching.bootstrap import draw_weights, mean_interval, pair_intervals
from unifeat.matching.exchange import chance_line, exchange_partners
from unifeat.store import Form
from unifeat.threads import cores
from unifeat.vocabulary.grouped_codes import GroupedCodes
from unifeat.vocabulary.paired_codes import Array

VERSION = 3  # raised whenever the results change (in 3, what is more than a token)
_RNG_STREAM = 4  # separates these draws from others made with the study's seed


@dataclass(frozen=True)
class BeyondToken:
    """Pairs of one pair of spaces within token types.

    Attributes:
        pairs: one row per pair given, with its index: `correlation_within_token`, `correlation_within_token_low` and
            `_high`, `token_share_a`, `token_share_b`, `within_token_chance` (float64, NaN where undefined);
            `more_than_a_token` (boolean, missing where there are no intervals, or nothing to compare with).
        facts: `types`, `rows`, `rows_alone` (in a type with no other row), `mean_correlation_within_token` and its
            interval over documents (`_low`, `_high`), `mean_token_share` (of both sides),
            `more_than_a_token` (the share of all pairs), `at_random` (pairs at random); None where undefined.
    """

    pairs: pd.DataFrame
    facts: dict[str, Any]


def _write(found: BeyondToken, folder: Path) -> dict[str, Any]:
    found.pairs.to_parquet(folder / "beyond_token.parquet")
    return found.facts


FORM: Form[BeyondToken] = Form(
    _write, lambda facts, folder: BeyondToken(pd.read_parquet(folder / "beyond_token.parquet"), facts)
)


def beyond_token(
    codes: GroupedCodes, starts: Array, pairs: pd.DataFrame, *, draws: int, level: float, seed: int
) -> BeyondToken:
    """Correlate pairs within token types, with intervals over documents, and beside pairs at random (see `exchange`).

    Args:
        codes: codes grouped by token type: of the held-out documents, if there are any.
        starts: (documents,) the first row of each.
        pairs: `feature_a`, `feature_b`, `count_a`, `count_b`; each pair once.
        draws: resampled documents for the intervals; 0 for none.
        level: confidence level of the intervals.
        seed: seed of the draws and of the exchanges.
    """
    a, b = (pairs[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
    exchanged, stratum = exchange_partners(pairs, seed, _RNG_STREAM)
    n = len(pairs)
    found = within_groups(
        codes,
        block_edges(starts, codes.n_rows),
        np.r_[a, a[exchanged[:, 0]]],
        np.r_[b, b[exchanged[:, 1]]],
        threads=cores(),
    )
    r = found.correlation()
    chance = chance_line(r[n:], stratum[exchanged[:, 0]], stratum)
    weights = draw_weights(found.sums.blocks, draws, seed, "beyond_token")
    low, high = pair_intervals(found.sums if draws else None, weights, level, n)
    table = pd.DataFrame(
        {
            "correlation_within_token": r[:n],
            "correlation_within_token_low": low,
            "correlation_within_token_high": high,
            "token_share_a": found.share_a[:n],
            "token_share_b": found.share_b[:n],
            "within_token_chance": chance,
        },
        index=pairs.index,
    )
    table["more_than_a_token"] = _more_than_a_token(table, intervals=draws > 1)
    facts = _facts(table, codes, found, len(exchanged))
    known, mean = np.flatnonzero(~np.isnan(r[:n])), facts["mean_correlation_within_token"]
    ends = mean_interval(found.sums, weights, known, level, mean) if len(known) else (None, None)
    names = ("mean_correlation_within_token_low", "mean_correlation_within_token_high")
    return BeyondToken(table, facts | dict(zip(names, ends, strict=True)))


def _more_than_a_token(table: pd.DataFrame, *, intervals: bool) -> pd.Series:
    """Whether r within token is above that of pairs at random, and its interval above 0.

    Pairs at random seldom fire on the same tokens, so that their line is near 0: half of all pairs of mere detectors of
    one token are above it. The interval says which r are more than noise of that kind.
    """
    r, low, line = (
        table[name] for name in ("correlation_within_token", "correlation_within_token_low", "within_token_chance")
    )
    # A pair without r within token does not vary there, and one that fires in few documents shows nothing.
    more = ((r > line) & (low > 0)).astype("boolean")
    known = line.notna() | r.isna() if intervals and line.notna().any() else np.zeros(len(table), bool)
    return more.where(known)


def _facts(table: pd.DataFrame, codes: GroupedCodes, found: Within, at_random: int) -> dict[str, Any]:
    more = table["more_than_a_token"]
    return {
        "types": len(codes.sizes),
        "rows": codes.n_rows,
        "rows_alone": found.alone,
        "mean_correlation_within_token": _mean(table["correlation_within_token"]),
        "mean_token_share": _mean(table[["token_share_a", "token_share_b"]].mean(axis=1)),
        "more_than_a_token": float(more.sum() / len(table)) if more.notna().any() else None,
        "at_random": at_random,
    }


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if values.notna().any() else None
