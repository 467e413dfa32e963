"""Families beside chance: how many each set of spaces has, when documents are re-paired, and when they are resampled.

`rearrange` says how the documents of many spaces are re-paired, and each draw is matched and grouped as the run was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.inference import family_wise
from unifeat.inference.multiplicity import false_discovery_rate
from unifeat.matching.bootstrap import MOST_BIAS, percentiles
from unifeat.multiway.result import Families, at_least


@dataclass(frozen=True, eq=False)
class Beside:
    """Families beside those of draws.

    Attributes:
        draws: how many draws of re-paired documents.
        sets: the rows of `Families.sets`, and of sets that only draws have; with `null_mean`, `null_sd` and `p` of
            `families`, `q` (Benjamini–Hochberg over the sets that have families), and `at_least_null_mean`,
            `at_least_p` of `at_least`. p is the share of draws, with the families themselves, that have as many.
        sizes: one row for each number of spaces: `size`, `families`, `null_mean`, `null_sd`, `p`, and `p_family` over
            all sizes (max-T).
        models: one row for each set of models that families are of: `models` (tuple), `size`, `families` (of exactly
            these), `null_mean`, `null_sd`, `p`; the largest sets first.
        consistency: the share of walks around three spaces that lead home, of each draw; NaN without walks.
    """

    draws: int
    sets: pd.DataFrame
    sizes: pd.DataFrame
    models: pd.DataFrame
    consistency: list[float]


def beside_chance(found: Families, draws: Iterable[Families], models: Mapping[str, str] | None = None) -> Beside:
    """Compare families with those of draws in which nothing is shared.

    Args:
        found: the families.
        draws: for each draw, the families found in its pairs in the same way, over the same spaces.
        models: the model of each space; by default each is of its own.
    """
    own, spaces = found.sets, found.spaces
    models = models or {name: name for name in spaces}
    consistency: list[float] = []
    drawn: list[dict[tuple[str, ...], int]] = []
    for other in draws:
        drawn.append(_counts(other.sets))
        consistency.append(other.consistency[0])
    kinds = list(dict.fromkeys([*own["spaces"], *sorted({kind for draw in drawn for kind in draw})]))
    place = {name: number for number, name in enumerate(spaces)}
    holds = np.zeros((len(kinds), len(spaces)), bool)
    for row, kind in enumerate(kinds):
        holds[row, [place[name] for name in kind]] = True
    counts = [[source.get(kind, 0) for source in (_counts(own), *drawn)] for kind in kinds]
    exact = np.array(counts, np.float64).reshape(len(kinds), 1 + len(drawn))
    or_more = at_least(holds, exact)
    exactly, null = exact[:, 0], exact[:, 1:]
    sets = pd.DataFrame(
        {
            "spaces": kinds,
            "size": np.array([len(kind) for kind in kinds], np.int64),
            "families": exactly.astype(np.int64),
            "at_least": or_more[:, 0].astype(np.int64),
        }
    )
    sets = sets.assign(**_against(exactly, null))
    sets["q"] = false_discovery_rate(np.where(exactly > 0, sets["p"], np.nan))
    more = _against(or_more[:, 0], or_more[:, 1:])
    sets["at_least_null_mean"], sets["at_least_p"] = more["null_mean"], more["p"]
    ordinal = np.arange(2, len(spaces) + 1)
    of_size = np.array([sets["size"] == size for size in ordinal], np.float64).reshape(len(ordinal), len(kinds))
    counted, null_counted = of_size @ exactly, of_size @ null
    sizes = pd.DataFrame({"size": ordinal, "families": counted.astype(np.int64)} | _against(counted, null_counted))
    sizes["p_family"] = family_wise(counted, null_counted)
    return Beside(len(drawn), sets, sizes, _of_models(kinds, exact, models), consistency)


def _counts(sets: pd.DataFrame) -> dict[tuple[str, ...], int]:
    return dict(zip(sets["spaces"], sets["families"].tolist(), strict=True))


def _of_models(kinds: list[tuple[str, ...]], exact: NDArray[np.float64], models: Mapping[str, str]) -> pd.DataFrame:
    """Counts of sets of spaces, added up over the sets of models that they are of."""
    own = [tuple(dict.fromkeys(models[space] for space in kind)) for kind in kinds]
    names = sorted(dict.fromkeys(map(frozenset, own)), key=lambda some: (-len(some), sorted(some)))
    of = np.array([[some == frozenset(kind) for kind in own] for some in names], np.float64).reshape(-1, len(kinds))
    counts = of @ exact
    order = list(dict.fromkeys(models.values()))
    table = pd.DataFrame(
        {
            "models": [tuple(name for name in order if name in some) for some in names],
            "size": np.array([len(some) for some in names], np.int64),
            "families": counts[:, 0].astype(np.int64),
        }
    )
    return table.assign(**_against(counts[:, 0], counts[:, 1:]))


def _against(observed: NDArray[np.float64], null: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """`null_mean`, `null_sd` and `p` of counts; NaN without draws."""
    draws = null.shape[1]
    unknown = np.full(len(observed), np.nan)
    if not draws:
        return {"null_mean": unknown, "null_sd": unknown, "p": unknown}
    reached = (null >= observed[:, None]).sum(axis=1)
    return {
        "null_mean": null.mean(axis=1),
        "null_sd": null.std(axis=1, ddof=1) if draws > 1 else unknown,
        "p": (reached + 1) / (draws + 1),
    }


def with_intervals(sets: pd.DataFrame, draws: Iterable[Families], blocks: int, level: float) -> pd.DataFrame:
    """Add `low` and `high`, the interval of `families` over documents, to a table of sets.

    As for the number of pairs, percentiles are centred on the estimate, and there is no interval where the draws lie
    off by more than a quarter of it: drawn documents repeat, which makes r noisier.

    Args:
        sets: `spaces`, `families`.
        draws: the families of each drawn text.
        blocks: how many blocks of documents were drawn from.
        level: confidence level.
    """
    drawn = [_counts(other.sets) for other in draws]
    values = np.array([[draw.get(kind, 0) for kind in sets["spaces"]] for draw in drawn], np.float64)
    values = values.reshape(len(drawn), len(sets))
    low, high = percentiles(values, level, blocks)
    estimate = sets["families"].to_numpy(np.float64)
    bias = values.mean(axis=0) - estimate if len(values) else np.full(len(sets), np.nan)
    off = ~(np.abs(bias) <= MOST_BIAS * estimate)
    ends = [np.where(off, np.nan, np.maximum(end - bias, 0.0)) for end in (low, high)]
    return sets.assign(low=ends[0], high=ends[1])
