"""Would matching alone give this? Correlation, matching, filters and scores anew with one model's text shifted.

A shifted text has fewer pairs above the least r, and most measures rise as pairs get fewer: on a handful of pairs SVCCA
is 1 by construction. So two things are counted. How many pairs pass filters and method, as in the run itself, and their
mean r. And what each measure says of as many pairs as the run kept: the strongest that the same method makes of
the shifted text.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.inference import find_measure
from unifeat.matching.candidates import VERSION, Rematching
from unifeat.progress import track
from unifeat.steps.match import Cell, mean
from unifeat.steps.score import PairSet, in_parallel
from unifeat.storage import cache_root, key_of, write_json
from unifeat.study import MetricSpec, Study

Floats = NDArray[np.float64]
NAN = float("nan")


def rematch_cells(study: Study, cells: list[Cell], documents: int, geometry: list[MetricSpec]) -> list[dict[str, Any]]:
    """For each cell the facts of its rematches: `kept`, `mean_correlation`, `p_kept`, `p_mean_correlation`, and
    `scores`: for each measure of the geometry, in order, its values over the rematches."""
    facts = []
    # A short text has fewer rotations than may be asked for.
    counts = [min(study.inference.rematches, cell.found.facts["rotations"]) for cell in cells]
    with track("matching shifted text", sum(counts), unit="rematches") as advance:
        for cell, count in zip(cells, counts, strict=True):
            spec = study.matching
            rematching = Rematching(cell.a.store, cell.b.store, spec.top, spec.heldout, documents, study.seed)
            pieces: list[dict[str, Any]] = []
            for number in range(count):
                pieces.append(_piece(study, cell, rematching, number, geometry))
                advance(1)
            facts.append(_summary(cell, pieces, geometry))
    return facts


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
    """(mean, sd, p) of a null; a rematch that cannot be scored counts as one that reaches the observed score."""
    known = null[~np.isnan(null)]
    if not len(null) or np.isnan(observed):
        return NAN, NAN, NAN
    spread = float(known.std(ddof=1)) if len(known) > 1 else NAN
    centre = float(known.mean()) if len(known) else NAN
    return centre, spread, float((~(null < observed - 1e-12)).sum() + 1) / (len(null) + 1)


def _summary(cell: Cell, pieces: list[dict[str, Any]], geometry: list[MetricSpec]) -> dict[str, Any]:
    kept = np.array([piece["kept"] for piece in pieces], np.float64)
    r = np.array([piece["mean_correlation"] for piece in pieces], np.float64)  # None becomes NaN
    observed = mean(cell.kept["correlation"])
    # What the rematches are held against is made in the same way: for most methods that is all pairs kept.
    pairs = PairSet.of(cell, "all", cell.rule.strongest(cell.found.table, len(cell.kept)))
    return {
        "observed": list(in_parallel(partial(_score, pairs), geometry, [len(pairs.features_a)])) if pieces else [],
        "kept": kept.astype(int).tolist(),
        "mean_correlation": [None if np.isnan(v) else v for v in r.tolist()],
        "p_kept": _against(float(len(cell.kept)), kept)[2] if len(pieces) else None,
        # A rematch that keeps no pair has no mean r to reach anything with.
        "p_mean_correlation": _against(NAN if observed is None else observed, np.nan_to_num(r, nan=-1.0))[2]
        if len(pieces)
        else None,
        "pairs_scored": [piece["pairs_scored"] for piece in pieces],
        "scores": [[piece["scores"][i] for piece in pieces] for i in range(len(geometry))],
    }


def _piece(study: Study, cell: Cell, rematching: Rematching, number: int, geometry: list[MetricSpec]) -> dict[str, Any]:
    """One rematch of one cell; None where the text has no such shift."""
    spec = study.matching
    n = len(cell.kept)
    key = key_of(
        {
            "what": ["rematch/2", VERSION],
            "codes": [cell.a.store.folder.name, cell.b.store.folder.name],
            "shards": [[e["sha256"] for e in store.manifest["shards"]] for store in (cell.a.store, cell.b.store)],
            "matching": spec.model_dump(mode="json"),
            "pairs": n,
            "number": [number, study.seed, rematching.documents],
            "geometry": [[m.metric, m.settings] for m in geometry],
        }
    )
    path = cache_root() / "rematches" / f"{key}.json"
    if not path.exists():
        table = rematching.find(number)
        kept = cell.rule.decide(table).query("kept")
        pairs = PairSet.of(cell, "all", cell.rule.strongest(table, n))
        write_json(
            path,
            {
                "kept": len(kept),
                "mean_correlation": mean(kept["correlation"]),
                "pairs_scored": len(pairs.features_a),
                "scores": list(in_parallel(partial(_score, pairs), geometry, [n])),
            },
        )
    return json.loads(path.read_text(encoding="utf-8"))


def _score(pairs: PairSet, spec: MetricSpec) -> float:
    try:
        return find_measure(spec.metric).function(*pairs.rows, **spec.settings).value
    except UserError:
        return NAN
