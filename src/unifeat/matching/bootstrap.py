"""Intervals of r and of match rates: the bootstrap over documents.

Blocks of whole documents are drawn with replacement, not tokens. The tokens of one document share its topic and words,
so a bootstrap over tokens would overestimate n, and its intervals would be far too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unifeat.correlation import kernels
from unifeat.correlation.block_sums import BlockSums, FeatureSums
from unifeat.correlation.csls import csls
from unifeat.progress import track
from unifeat.store import Form
from unifeat.vocabulary.json_values import number_or_none
from unifeat.vocabulary.paired_codes import Array

Keep = Callable[[pd.DataFrame], Array]
VERSION = 3  # raised whenever the intervals change (in 3, of texts of few documents)

# Of a feature that fires in one to four documents, intervals of r are far too short: the draws know no other document
# in which it could fire. Those of texts of so few documents hold far less often than they say, too.
_FEWEST_BLOCKS = 5

# Drawn documents repeat, which adds noise to r. Where little is shared, most candidates lie just below the minimum r,
# and the noise lifts many of them over it: draws then keep twice as many pairs as the text itself. An interval around
# the estimate would say nothing of that, so beyond this share of the estimate there is none.
MOST_BIAS = 0.25

_RNG_STREAMS = {
    "fitted": 2,
    "heldout": 3,
    "beyond_token": 5,
    "elsewhere": 7,
    "families": 9,
}  # separate these draws from others made with the study's seed
_BATCH_CELLS = 4_000_000  # correlations in memory at once
# Below this share of Σx², a variance is a rounding error: the feature does not vary in the drawn blocks.
_ROUNDING_SHARE = 1e-12


@dataclass(frozen=True)
class Bootstrap:
    """Intervals of one pair of spaces.

    Attributes:
        pairs: one row per candidate, in their order: `correlation_low`, `correlation_high`,
            `correlation_heldout_low`, `correlation_heldout_high` (float64, NaN where there is no interval).
        facts: for `kept`, `share_a`, `share_b`, `mean_correlation` and `mean_correlation_heldout`: the `estimate`,
            `low`, `high`, and `bias`, the mean of the draws less the estimate, which has been subtracted (None where
            undefined). Also `draws`, `level`, `blocks` and `blocks_heldout`.
    """

    pairs: pd.DataFrame
    facts: dict[str, Any]


def _write(found: Bootstrap, folder: Path) -> dict[str, Any]:
    found.pairs.to_parquet(folder / "intervals.parquet", index=False)
    return found.facts


FORM: Form[Bootstrap] = Form(
    _write, lambda facts, folder: Bootstrap(pd.read_parquet(folder / "intervals.parquet"), facts)
)


def bootstrap(
    table: pd.DataFrame,
    fitted: BlockSums,
    heldout: BlockSums | None,
    keep: Keep,
    *,
    draws: int,
    level: float,
    seed: int,
    top: int | None = None,
) -> Bootstrap:
    """Draw documents with replacement, many times, and redo the matching for each draw.

    Intervals of r are percentile intervals. They show how much r of a pair depends on the documents. They do not
    correct for choosing the pair by its high r; only `correlation_heldout` is free of that bias.

    For counts, rates and means over kept pairs, the percentiles are centred on the estimate. A drawn text has fewer
    different documents than the original, so its matching is noisier and keeps systematically fewer pairs; plain
    percentiles often exclude the estimate itself. The interval shows where a study of this size on other text of the
    same kind would come out. Where the draws lie off by more than a quarter of the estimate, there is no interval.

    Only candidates in the table can be matched: the best `top` partners of each feature are assumed to be enough.

    Args:
        table: candidates (see `Comparison.candidates`), before any filter.
        fitted: block sums of its pairs, in its order, over the documents they were found on.
        heldout: the same over the held-out documents, which are drawn independently; None if nothing is held out.
        keep: filters and method, as a function from a table like this one to a (rows,) mask of the pairs kept. Its
            tables have `correlation`, `correlation_heldout`, `count_a` and `count_b` of the drawn documents.
        draws: number of draws.
        level: confidence level of the intervals, for instance 0.95.
        seed: seed of the draws.
        top: size of the neighbourhoods for `csls`, which is then computed for each draw. Only CSLS matching needs it.

    Returns:
        The intervals. They are NaN or None with fewer than two blocks or draws.
    """
    weights = draw_weights(fitted.blocks, draws, seed, "fitted")
    weights_heldout = draw_weights(heldout.blocks, draws, seed, "heldout") if heldout is not None else None
    size = len(table["feature_a"].unique()), len(table["feature_b"].unique())
    observed = _rates(table, np.asarray(keep(table), bool), size)
    ids = table["feature_a"].to_numpy(np.int64), table["feature_b"].to_numpy(np.int64)
    drawn: list[dict[str, float]] = []
    with track("bootstrap", draws, unit="draws") as advance:
        for rows in _batches(draws, fitted.pairs):
            r = resampled_r(fitted, weights[rows])
            if heldout is not None and weights_heldout is not None:
                r_heldout = resampled_r(heldout, weights_heldout[rows])
            else:
                r_heldout = np.full(r.shape, np.nan)
            counts = resampled_counts(fitted, weights[rows])
            for k in range(len(r)):
                other = table.assign(
                    correlation=r[k],
                    correlation_heldout=r_heldout[k],
                    count_a=counts[0][k],
                    count_b=counts[1][k],
                )
                if top is not None:
                    other["csls"] = csls(*ids, r[k], top)
                drawn.append(_rates(other, np.asarray(keep(other), bool), size))
                advance(1)
    facts: dict[str, Any] = {"draws": draws, "level": level, "blocks": fitted.blocks}
    facts["blocks_heldout"] = heldout.blocks if heldout is not None else 0
    for name, estimate in observed.items():
        values = np.array([rates[name] for rates in drawn])[:, None]
        blocks = min(fitted.blocks, heldout.blocks) if heldout is not None and "heldout" in name else fitted.blocks
        low, high = percentiles(values, level, blocks)
        bias = np.nanmean(values) - estimate if np.isfinite(values).any() else np.nan
        limits = np.array([low[0], high[0]]) - bias
        if name in ("share_a", "share_b", "kept"):
            limits = np.clip(limits, 0, 1 if name != "kept" else None)
        if abs(bias) > MOST_BIAS * abs(estimate):
            limits[:] = np.nan
        ends = {"low": number_or_none(limits[0]), "high": number_or_none(limits[1])}
        facts[name] = {"estimate": number_or_none(estimate), **ends, "bias": number_or_none(bias)}
    columns = {}
    for name, sums, drawn_weights in (
        ("correlation", fitted, weights),
        ("correlation_heldout", heldout, weights_heldout),
    ):
        low, high = pair_intervals(sums, drawn_weights, level, len(table))
        columns[f"{name}_low"], columns[f"{name}_high"] = low, high
    return Bootstrap(pd.DataFrame(columns, index=table.index), facts)


def draw_weights(blocks: int, draws: int, seed: int, stream: str = "fitted") -> Array:
    """How often each block is drawn: (draws, blocks) float64; each row sums to `blocks`."""
    if not blocks:
        return np.zeros((draws, 0))
    rng = np.random.default_rng([_RNG_STREAMS[stream], seed])
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws).astype(np.float64)


def resampled_r(sums: BlockSums, weights: Array, pairs: slice | Array = slice(None)) -> Array:
    """Pearson's r of the pairs when block k counts `weights[:, k]` times. With weights of 1, as `correlate_pairs`.

    Args:
        weights: (draws, blocks) float64, not negative.
        pairs: which pairs to compute.

    Returns:
        (draws, pairs) float64, NaN where a feature does not vary in the drawn blocks.
    """
    n = (weights @ sums.n.astype(np.float64))[:, None]
    total_a, inverse_a = _moments(n, weights, sums.a, sums.pair_a[pairs])
    total_b, inverse_b = _moments(n, weights, sums.b, sums.pair_b[pairs])
    r = n * (weights @ sums.product[:, pairs]) - total_a * total_b
    r *= inverse_a
    r *= inverse_b
    return np.clip((r + kernels.ROUNDING) - kernels.ROUNDING, -1.0, 1.0)


def _moments(n: Array, weights: Array, sums: FeatureSums, of_pair: Array) -> tuple[Array, Array]:
    """(draws, pairs): Σx, and 1/√(n Σx² − (Σx)²), NaN where the latter is only rounding error."""
    named, place = np.unique(of_pair, return_inverse=True)
    total, squares = weights @ sums.total[:, named], n * (weights @ sums.squares[:, named])
    spread = squares - total**2
    spread[~(spread > _ROUNDING_SHARE * squares)] = np.nan
    return total[:, place], (1 / np.sqrt(spread))[:, place]


def resampled_counts(sums: BlockSums, weights: Array) -> tuple[Array, Array]:
    """(count_a, count_b) of the pairs' features, each (draws, pairs) int64."""
    count_a, count_b = (np.rint(weights @ side.count.astype(np.float64)).astype(np.int64) for side in (sums.a, sums.b))
    return count_a[:, sums.pair_a], count_b[:, sums.pair_b]


def percentiles(values: Array, level: float, blocks: int) -> tuple[Array, Array]:
    """Both ends of percentile intervals down each column, expanded for few blocks.

    A bootstrap of K blocks has (K − 1)/K of the variance, and normal tails instead of those of Student's t. So the
    percentiles are taken at Φ(−√(K/(K − 1)) · t) instead of (1 − level)/2, where t is the corresponding quantile of
    Student's t with K − 1 degrees of freedom (Hesterberg 2015, arXiv 1411.5279).

    Args:
        values: (draws, columns) float64, NaN where undefined.
        level: confidence level of the interval.
        blocks: K.

    Returns:
        low, high: (columns,) float64; NaN with fewer than two blocks or draws, or where half the draws are undefined.
    """
    draws, columns = values.shape
    if blocks < 2 or draws < 2:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    t = stats.t.ppf((1 + level) / 2, blocks - 1)
    tail = stats.norm.cdf(-np.sqrt(blocks / (blocks - 1)) * t)
    ordered = np.sort(values, axis=0)  # NaN last
    known = draws - np.isnan(ordered).sum(axis=0)
    ends = []
    for share in (tail, 1 - tail):
        place = share * np.maximum(known - 1, 0)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, np.maximum(known - 1, 0))
        one, other = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (below, above))
        ends.append(np.where(2 * known > draws, one + (place - below) * (other - one), np.nan))
    return ends[0], ends[1]


def pair_intervals(sums: BlockSums | None, weights: Array | None, level: float, pairs: int) -> tuple[Array, Array]:
    """Both ends of the intervals of r of the first `pairs` pairs; NaN without sums or draws, and where either feature
    fires in too few blocks."""
    low, high = np.full(pairs, np.nan), np.full(pairs, np.nan)
    if sums is None or weights is None:
        return low, high
    for some in _batches(pairs, len(weights)):
        low[some], high[some] = percentiles(resampled_r(sums, weights, some), level, sums.blocks)
    blocks_a, blocks_b = ((side.count > 0).sum(axis=0) for side in (sums.a, sums.b))
    few = np.minimum(blocks_a[sums.pair_a], blocks_b[sums.pair_b])[:pairs] < _FEWEST_BLOCKS
    low[few] = high[few] = np.nan
    return low, high


def mean_interval(
    sums: BlockSums, weights: Array, pairs: Array, level: float, estimate: float
) -> tuple[float | None, float | None]:
    """Both ends of the interval of the mean r of some pairs; None with fewer than two blocks or draws.

    Args:
        weights: (draws, blocks), see `draw_weights`.
        pairs: the numbers of the pairs.
        estimate: their mean r, on which the percentiles are centred: drawn documents are noisier (see `bootstrap`).
    """
    means: list[Array] = []
    for rows in _batches(len(weights), len(pairs)):
        r = resampled_r(sums, weights[rows], pairs)
        known = ~np.isnan(r)
        means.append(np.where(known, r, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))
    drawn = np.concatenate(means) if means else np.zeros(0)
    low, high = percentiles(drawn[:, None], level, sums.blocks)
    bias = drawn.mean() - estimate if len(drawn) else np.nan
    return number_or_none(low[0] - bias), number_or_none(high[0] - bias)


def _rates(table: pd.DataFrame, kept: Array, size: tuple[int, int]) -> dict[str, float]:
    """The figures reported for a matching. Shares are among the features that have any partner."""
    chosen = table[kept]
    return {
        "kept": float(len(chosen)),
        "share_a": chosen["feature_a"].nunique() / size[0] if size[0] else np.nan,
        "share_b": chosen["feature_b"].nunique() / size[1] if size[1] else np.nan,
        "mean_correlation": float(chosen["correlation"].mean()),
        "mean_correlation_heldout": float(chosen["correlation_heldout"].mean()),
    }


def _batches(length: int, width: int) -> Iterator[slice]:
    step = max(_BATCH_CELLS // max(width, 1), 1)
    return (slice(first, min(first + step, length)) for first in range(0, length, step))
