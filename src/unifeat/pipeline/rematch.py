"""The rematch null: what matching alone gives. One model's text is shifted, and everything is matched and scored again.

Shifted text has fewer pairs above the minimum r, and most measures rise as the number of pairs falls: on a handful of
pairs, SVCCA is 1 by construction. So two things are reported: how many pairs pass the filters and the method, as in the
run itself, with their mean r; and each measure's score on as many pairs as the run kept, the strongest that the same
method chooses on the shifted text.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.inference import find_measure
from unifeat.inference.nulls import NAN, NULLS
from unifeat.matching.candidates import ShiftedComparison
from unifeat.pipeline.match import Cell, mean
from unifeat.pipeline.score import PairSet
from unifeat.progress import track
from unifeat.store import JSON, Piece
from unifeat.study.spec import MetricSpec, Study
from unifeat.threads import each

Floats = NDArray[np.float64]


def rematch_cells(study: Study, cells: list[Cell], facts: list[dict[str, Any]], engine: Engine) -> list[dict[str, Any]]:
    """The facts of each cell's rematches: `kept`, `mean_correlation`, `p_kept`, `p_mean_correlation`, and `scores`: for
    each measure of the geometry, in order, its values over the rematches.

    Args:
        facts: each cell's facts from matching.
    """
    geometry = study.geometry
    # A short text may have fewer possible shifts than the study asks for.
    counts = [min(study.inference.rematches, own["shifts"]) for own in facts]

    def units() -> Iterator[Unit[Any]]:
        for cell, own, count in zip(cells, facts, counts, strict=True):
            if count:
                yield _unit(cell, None, own["kept"], geometry)
            yield from (_unit(cell, number, own["kept"], geometry) for number in range(count))

    rematched = []
    with track("matching shifted text", sum(counts), unit="rematches") as advance:
        results = engine.map(units())
        for own, count in zip(facts, counts, strict=True):
            observed = next(results)["scores"] if count else []
            found = []
            for _ in range(count):
                found.append(next(results))
                advance(1)
            rematched.append(_summary(own, observed, found, geometry))
    return rematched


def add_rematch(scores: pd.DataFrame, cells: list[Cell], facts: list[dict[str, Any]]) -> pd.DataFrame:
    """The scores of all kept pairs with `rematch_mean`, `rematch_sd` and `rematch_p`."""
    scores = scores.copy()
    for cell, found in zip(cells, facts, strict=True):
        if not found["observed"]:
            continue
        own = (scores["space_a"] == cell.a.name) & (scores["space_b"] == cell.b.name) & (scores["subspace"] == "all")
        observed = np.array(found["observed"], np.float64)
        nulls = [np.array(values, np.float64) for values in found["scores"]]
        against = [_against(float(s), null) for s, null in zip(observed, nulls, strict=True)]
        scores.loc[own, ["rematch_mean", "rematch_sd", "rematch_p"]] = against
    return scores


def _against(observed: float, null: Floats) -> tuple[float, float, float]:
    """(mean, sd, p) of a null. A rematch that cannot be scored counts as reaching the observed score."""
    known = null[~np.isnan(null)]
    if not len(null) or np.isnan(observed):
        return NAN, NAN, NAN
    spread = float(known.std(ddof=1)) if len(known) > 1 else NAN
    centre = float(known.mean()) if len(known) else NAN
    return centre, spread, float((~(null < observed - 1e-12)).sum() + 1) / (len(null) + 1)


def _summary(
    own: dict[str, Any], observed: list[float], found: list[dict[str, Any]], geometry: list[MetricSpec]
) -> dict[str, Any]:
    kept = np.array([rematch["kept"] for rematch in found], np.float64)
    r = np.array([rematch["mean_correlation"] for rematch in found], np.float64)  # None becomes NaN
    mean_r = own["mean_correlation"]
    return {
        "observed": observed,
        "kept": kept.astype(int).tolist(),
        "mean_correlation": [None if np.isnan(v) else v for v in r.tolist()],
        "p_kept": _against(float(own["kept"]), kept)[2] if found else None,
        # A rematch that keeps no pairs has no mean r, so it does not reach the observed one.
        "p_mean_correlation": _against(NAN if mean_r is None else mean_r, np.nan_to_num(r, nan=-1.0))[2]
        if found
        else None,
        "pairs_scored": [rematch["pairs_scored"] for rematch in found],
        "scores": [[rematch["scores"][i] for rematch in found] for i in range(len(geometry))],
    }


def _unit(cell: Cell, number: int | None, pairs: int, geometry: list[MetricSpec]) -> Unit[dict[str, Any]]:
    """One rematch of one cell, or what rematches are compared with.

    Args:
        number: which rematch; None scores the observed pairs, chosen as those of the rematches are. (For most methods,
            these are all kept pairs.)
        pairs: how many pairs the run kept.
    """
    made_from = {
        "version": NULLS["rematch"].version,
        "candidates": cell.comparison.made_from(),
        "saes": [space.store.settings["sae"] for space in (cell.a, cell.b)],
        "rule": cell.rule.identity(),
        "pairs": pairs,
        "number": number,
        "geometry": [find_measure(spec.metric).identity(spec.settings) for spec in geometry],
    }
    work = partial(_rematch, cell, number, pairs, geometry)
    gpu = cell.comparison.device == "cuda" and number is not None
    return Unit(Piece("rematches", made_from, JSON, "the rematch"), work, fills_machine=True, gpu=gpu)


def _rematch(cell: Cell, number: int | None, n_pairs: int, geometry: list[MetricSpec]) -> dict[str, Any]:
    if number is None:
        strongest = cell.rule.strongest(cell.candidates().table, n_pairs)
        return {"scores": _scores(PairSet.of(cell, "all", strongest), geometry)}
    table = ShiftedComparison(cell.comparison).candidates(number).result()
    kept = cell.rule.decide(table).query("kept")
    pairs = PairSet.of(cell, "all", cell.rule.strongest(table, n_pairs))
    return {
        "kept": len(kept),
        "mean_correlation": mean(kept["correlation"]),
        "pairs_scored": len(pairs.features_a),
        "scores": _scores(pairs, geometry),
    }


def _scores(pairs: PairSet, geometry: list[MetricSpec]) -> list[float]:
    """The values of the measures, computed in parallel unless one fills the machine."""
    work = partial(_score, pairs)
    return [work(spec) for spec in geometry] if pairs.fills_machine else list(each(work, geometry))


def _score(pairs: PairSet, spec: MetricSpec) -> float:
    try:
        return find_measure(spec.metric).function(*pairs.rows, **spec.settings).value
    except UserError:
        return NAN
