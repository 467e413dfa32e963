"""What the draws of a null that matches again say: p-values, family-wise p-values, decoys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.inference import family_wise
from unifeat.inference.nulls import NAN
from unifeat.study.spec import MetricSpec

Floats = NDArray[np.float64]
R_BINS = np.round(np.linspace(0, 1, 201), 3)  # of the histograms of r
_OF_PAIRS = ("kept", "mean_correlation")
_ROUNDING = 1e-12


def summary(
    own: dict[str, Any], found: list[dict[str, Any]], observed: dict[int, list[float]], geometry: list[MetricSpec]
) -> dict[str, Any]:
    """The facts of one cell under one null.

    Args:
        own: the cell's facts from matching.
        found: what each draw gave.
        observed: the scores of the run's own strongest pairs, by how many.
    """
    of_pairs = {name: [draw[name] for draw in found] for name in _OF_PAIRS}
    kept, r = _kept_and_r(of_pairs)
    mean_r = own["mean_correlation"]
    return {
        "draws": len(found),
        "least_p": 1 / (len(found) + 1) if found else None,
        **of_pairs,
        "same": [draw["same"] for draw in found],
        "p_kept": against(float(own["kept"]), kept)[2] if found else None,
        "p_mean_correlation": against(NAN if mean_r is None else mean_r, r)[2] if found else None,
        "pairs_scored": [draw["pairs_scored"] for draw in found],
        "r": np.sum([draw["r"] for draw in found], axis=0, dtype=int).tolist() if found else [],
        "scores": [[draw["scores"][i] for draw in found] for i in range(len(geometry))],
        "observed": [[observed[draw["pairs_scored"]][i] for draw in found] for i in range(len(geometry))],
    }


def _kept_and_r(found: dict[str, Any]) -> tuple[Floats, Floats]:
    kept, r = (np.array(found[name], np.float64) for name in _OF_PAIRS)  # None becomes NaN
    # A draw that keeps no pairs has no mean r, so it does not reach the observed one.
    return kept, np.nan_to_num(r, nan=-1.0)


def with_family(summaries: list[dict[str, Any]], facts: list[dict[str, Any]], draws: int) -> list[dict[str, Any]]:
    """Add the p-values of the number of pairs and of their mean r over the whole grid.

    Args:
        draws: cells with fewer are not part of it.
    """
    full = [i for i, found in enumerate(summaries) if found["draws"] == draws]
    family: dict[str, list[float | None]] = {f"p_{name}_family": [None] * len(summaries) for name in _OF_PAIRS}
    for place, name in enumerate(_OF_PAIRS) if full else ():
        nulls = np.array([_kept_and_r(summaries[i])[place] for i in full])
        observed = np.array([NAN if facts[i][name] is None else facts[i][name] for i in full], np.float64)
        for i, p in zip(full, family_wise(observed, nulls).tolist(), strict=True):
            family[f"p_{name}_family"][i] = None if np.isnan(p) else p
    return [found | {name: values[i] for name, values in family.items()} for i, found in enumerate(summaries)]


def add_rematch(
    scores: pd.DataFrame, prefix: str, draws: int, cells: list[tuple[str, str]], facts: list[dict[str, Any]]
) -> pd.DataFrame:
    """The scores of all kept pairs with a null's columns, except q.

    Args:
        prefix: the beginning of the columns' names (see `AGAIN`).
        draws: cells with fewer are not part of the family.
        cells: the names of both spaces of each cell.
    """
    found: dict[str, Floats] = {name: np.full(len(scores), NAN) for name in ("score", "mean", "sd", "p", "p_family")}
    differences: dict[int, Floats] = {}
    for (a, b), own in zip(cells, facts, strict=True):
        of_cell = (scores["space_a"] == a) & (scores["space_b"] == b) & (scores["subspace"] == "all")
        for row, drawn, observed in zip(np.flatnonzero(of_cell).tolist(), own["scores"], own["observed"], strict=True):
            values, beside = np.array(drawn, np.float64), np.array(observed, np.float64)
            if not len(values):
                continue
            known, own_known = values[~np.isnan(values)], beside[~np.isnan(beside)]
            found["score"][row] = own_known.mean() if len(own_known) else NAN
            found["mean"][row] = known.mean() if len(known) else NAN
            found["sd"][row] = known.std(ddof=1) if len(known) > 1 else NAN
            # Each draw beside the run's own pairs at its number. A draw with too few pairs for a score reaches it.
            found["p"][row] = against(0.0 if len(own_known) else NAN, values - beside)[2]
            if len(values) == draws:
                differences[row] = values - beside
    rows = np.array(sorted(differences), np.int64)
    for _, at in scores.iloc[rows].groupby(["metric", "settings"], sort=False).indices.items():
        own_rows = rows[at]
        nulls = np.array([differences[row] for row in own_rows.tolist()])
        found["p_family"][own_rows] = family_wise(np.zeros(len(own_rows)), nulls)
    return scores.assign(**{f"{prefix}_{name}": values for name, values in found.items()})


def against(observed: float, null: Floats) -> tuple[float, float, float]:
    """(mean, sd, p) of a null. A draw that cannot be scored counts as reaching the observed score."""
    known = null[~np.isnan(null)]
    if not len(null) or np.isnan(observed):
        return NAN, NAN, NAN
    spread = float(known.std(ddof=1)) if len(known) > 1 else NAN
    centre = float(known.mean()) if len(known) else NAN
    return centre, spread, float((~(null < observed - _ROUNDING)).sum() + 1) / (len(null) + 1)


def decoys(r: pd.Series, found: dict[str, Any]) -> Floats:
    """For each kept pair, the false discoveries to expect among pairs at least as strong.

    The mean number of pairs in rearranged text with r in its bin or above, over the number of the run's own pairs with
    r at or above it, made monotone: at most that of any weaker pair. (Target–decoy: Elias & Gygi 2007, "Target-decoy
    search strategy", Nat. Methods 4. Bins are 0.005 wide, and the decoys of a pair's own bin count in full.)

    Args:
        r: the kept pairs' r.
        found: the cell's facts of `rematch_cells`.

    Returns:
        (pairs,) float64 in [0, 1]; NaN without draws.
    """
    if not found["draws"]:
        return np.full(len(r), NAN)
    from_here = np.cumsum(np.array(found["r"], np.float64)[::-1])[::-1] / found["draws"]
    values = r.to_numpy(np.float64)
    at = np.clip(np.searchsorted(R_BINS, values, side="right") - 1, 0, len(from_here) - 1)
    order = np.argsort(values, kind="stable")
    above = len(values) - np.searchsorted(values[order], values, side="left")
    share = np.minimum(from_here[at] / above, 1.0)
    monotone = np.minimum.accumulate(share[order])
    result = np.empty(len(values))
    result[order] = monotone
    return result
