"""Pairs read again on another kind of text: would they be pairs there?

Documents held out of a text are still of its kind. Two features can go together in news because of what news is about
(its weekdays, its ministers), and have nothing to do with each other in an encyclopaedia.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unifeat.correlation.firings import firings
from unifeat.matching.bootstrap import draw_weights, mean_interval, pair_intervals
from unifeat.matching.candidates import r_of_pairs, sums_of_pairs
from unifeat.matching.exchange import chance_line, exchange_partners
from unifeat.store import Form
from unifeat.vocabulary.paired_codes import Array, PairedCodes

VERSION = 2  # raised whenever the results change (in 2, intervals of texts of few documents)
# A feature that fires less on the text elsewhere says nothing there: its pair may hold, but nobody can see it.
FEWEST_ROWS = 5
FEWEST_DOCUMENTS = 5

_RNG_STREAM = 6  # separates these draws from others made with the study's seed


@dataclass(frozen=True)
class Elsewhere:
    """Pairs of one pair of spaces elsewhere.

    Attributes:
        pairs: one row per pair given, with its index, all float64: `correlation_elsewhere` and its interval over
            documents (`_low`, `_high`); `count_elsewhere_a`, `count_elsewhere_b`, the rows on which each feature fires;
            `elsewhere_chance`, what 95 % of pairs at random of like frequency do not exceed there, at least 0; NaN
            where the pair cannot be judged. A pair holds where `correlation_elsewhere` is above it.
        facts: `rows` and `documents` of the text that both spaces have; `pairs`; `judged`, those whose features fire on
            at least 5 rows and in 5 documents there, with enough pairs at random to compare them with; `hold` and
            `hold_share` of the judged ones; `above_min`, the share of them whose r is at least the study's minimum;
            `mean`, their mean r, with its interval over documents (`mean_low`, `mean_high`); `mean_here`, that of the
            same pairs on the study's own text (held-out documents, if there are any); `chance`, the mean of
            `elsewhere_chance`. None where undefined.
    """

    pairs: pd.DataFrame
    facts: dict[str, Any]


def _write(found: Elsewhere, folder: Path) -> dict[str, Any]:
    found.pairs.to_parquet(folder / "elsewhere.parquet")
    return found.facts


FORM: Form[Elsewhere] = Form(
    _write, lambda facts, folder: Elsewhere(pd.read_parquet(folder / "elsewhere.parquet"), facts)
)


def read_elsewhere(
    codes: PairedCodes,
    starts: Array,
    pairs: pd.DataFrame,
    *,
    min_correlation: float,
    draws: int,
    level: float,
    seed: int,
) -> Elsewhere:
    """Read the r of pairs elsewhere, with intervals over documents, and beside pairs at random (see `exchange`).

    The pairs at random are of features of the judged pairs that fire about as often on that text, so about 5 % of the
    pairs of unrelated features hold.

    Args:
        codes: codes of the text elsewhere. If their rows are grouped, every r is that within the groups.
        starts: (documents,) the first row of each of its documents.
        pairs: `feature_a`, `feature_b`, `correlation`, `correlation_heldout`; each pair once.
        min_correlation: the r at or below which pairs were dropped where they were found.
        draws: resampled documents for the intervals; 0 for none.
        level: confidence level of the intervals.
        seed: seed of the draws and of the exchanges.
    """
    fired = firings(codes, starts)
    often, counts = np.ones(len(pairs), bool), []
    for side, found in zip("ab", fired, strict=True):
        ids = pairs[f"feature_{side}"].to_numpy(np.int64)
        counts.append(found.rows[ids])
        often &= (found.rows[ids] >= FEWEST_ROWS) & (found.documents[ids] >= FEWEST_DOCUMENTS)
    r, chance = _beside_chance(codes, pairs.assign(count_a=counts[0], count_b=counts[1]), often, seed)
    judged = ~np.isnan(r) & ~np.isnan(chance)
    low, high = np.full((2, len(pairs)), np.nan)
    facts: dict[str, Any] = {"rows": codes.n_rows, "documents": len(starts), "pairs": len(pairs)}
    facts |= _facts(r[judged], chance[judged], pairs[judged], min_correlation)
    facts["mean_low"] = facts["mean_high"] = None
    if draws and len(pairs):
        sums = sums_of_pairs(codes, starts, pairs)
        weights = draw_weights(sums.blocks, draws, seed, "elsewhere")
        low, high = pair_intervals(sums, weights, level, len(pairs))
        if judged.any():
            ends = mean_interval(sums, weights, np.flatnonzero(judged), level, facts["mean"])
            facts["mean_low"], facts["mean_high"] = ends
    table = pd.DataFrame(
        {
            "correlation_elsewhere": r,
            "correlation_elsewhere_low": low,
            "correlation_elsewhere_high": high,
            "count_elsewhere_a": counts[0].astype(np.float64),
            "count_elsewhere_b": counts[1].astype(np.float64),
            "elsewhere_chance": np.where(judged, chance, np.nan),
        },
        index=pairs.index,
    )
    return Elsewhere(table, facts)


def _beside_chance(codes: PairedCodes, pairs: pd.DataFrame, often: Array, seed: int) -> tuple[Array, Array]:
    """(pairs,) r, and the chance line, NaN where a pair's features do not fire often enough."""
    among = pairs[often]
    exchanged, stratum = exchange_partners(among, seed, _RNG_STREAM)
    ids = [pairs[f"feature_{side}"].to_numpy(np.int64) for side in "ab"]
    random = [own[often][exchanged[:, side]] for side, own in enumerate(ids)]
    both = {f"feature_{side}": np.r_[own, other] for side, own, other in zip("ab", ids, random, strict=True)}
    r = r_of_pairs(codes, pd.DataFrame(both))
    chance = np.full(len(pairs), np.nan)
    # Rare features seldom meet: nearly all pairs at random are slightly negative, and so is a pair that never meets.
    chance[often] = np.maximum(chance_line(r[len(pairs) :], stratum[exchanged[:, 0]], stratum), 0.0)
    return r[: len(pairs)], chance


def _facts(r: Array, chance: Array, pairs: pd.DataFrame, min_correlation: float) -> dict[str, Any]:
    """Facts of the pairs that can be judged: their r there, the chance line, and the pairs themselves."""
    if not len(r):
        return {"judged": 0} | dict.fromkeys(("hold", "hold_share", "above_min", "mean", "mean_here", "chance"))
    here = pairs["correlation_heldout"].where(pairs["correlation_heldout"].notna(), pairs["correlation"])
    hold = int((r > chance).sum())
    return {
        "judged": len(r),
        "hold": hold,
        "hold_share": hold / len(r),
        "above_min": float((r >= min_correlation).mean()),
        "mean": float(r.mean()),
        "mean_here": float(here.mean()),
        "chance": float(chance.mean()),
    }
