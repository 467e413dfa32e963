"""Pairs at random: kept pairs that exchanged partners among those that fire about as often, and what they reach.

Their features are the same as those of the pairs themselves, and only what belongs together is not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from unifeat.vocabulary.paired_codes import Array

LEVEL = 0.95  # the share of pairs at random that the line leaves below it

_STRATUM = 50  # pairs that fire about as often, within which partners are exchanged
_EXCHANGES = 10  # other partners for each pair
_FEWEST_AT_RANDOM = 40  # pairs at random; a share of 95 % of fewer would be one or two of them


def exchange_partners(pairs: pd.DataFrame, seed: int, stream: int) -> tuple[Array, Array]:
    """Exchange partners among 50 neighbours in the order of √(count_a · count_b).

    Args:
        pairs: `feature_a`, `feature_b`, `count_a`, `count_b`; each pair once.
        stream: separates these draws from others made with the study's seed.

    Returns:
        chosen: (exchanges, 2) int64, the places of the pairs that give the feature of A and that of B.
        stratum: (pairs,) int64, the stratum of each pair.
    """
    n = len(pairs)
    often = np.sqrt(pairs["count_a"].to_numpy(np.float64) * pairs["count_b"].to_numpy(np.float64))
    order = np.argsort(often, kind="stable")
    stratum = np.empty(n, np.int64)
    rng = np.random.default_rng([stream, seed])
    parts = []
    for number, own in enumerate(np.array_split(order, max(n // _STRATUM, 1))):
        stratum[own] = number
        for shift in rng.permutation(np.arange(1, len(own)))[:_EXCHANGES]:
            parts.append(np.stack([own, np.roll(own, shift)], axis=1))
    chosen = np.concatenate(parts) if parts else np.zeros((0, 2), np.int64)
    a, b = (pairs[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
    # A feature of several pairs can meet one of its own partners.
    own_pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    keys = zip(a[chosen[:, 0]].tolist(), b[chosen[:, 1]].tolist(), strict=True)
    return chosen[np.array([key not in own_pairs for key in keys], bool)], stratum


def chance_line(r: Array, of: Array, stratum: Array) -> Array:
    """What 95 % of the pairs at random of a pair's stratum do not exceed.

    Args:
        r: (exchanges,) float64, NaN where undefined.
        of: (exchanges,) the stratum of each.
        stratum: (pairs,) the stratum of each pair.

    Returns:
        (pairs,) float64, NaN where a stratum has fewer than 40 pairs at random.
    """
    chance = np.full(len(stratum), np.nan)
    for number in np.unique(stratum):
        own = r[of == number]
        own = own[~np.isnan(own)]
        if len(own) >= _FEWEST_AT_RANDOM:
            chance[stratum == number] = np.quantile(own, LEVEL, method="higher")
    return chance
