"""Pairs → scores: each measure of the geometry with its nulls, its interval and its held-out counterpart.

A unit of work is one measure on one set of pairs: its shuffles, or its interval. Units are pure functions of decoder
rows and settings.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.geometry import heldout_counterpart
from unifeat.inference import (
    cluster_test,
    effective_pairs,
    false_discovery_rate,
    family_wise,
    find_measure,
    permutation_test,
)
from unifeat.inference.nulls import NAN, NULLS
from unifeat.inference.subsampling import VERSION, subsample_interval
from unifeat.pipeline.ceilings import COLUMNS as CEILINGS
from unifeat.pipeline.equivalence import COLUMNS as EQUIVALENCE
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.spaces import role
from unifeat.progress import track
from unifeat.runs.roles import questions
from unifeat.store.keys import digest_of
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import Study

Floats = NDArray[np.float64]
_PAIR_TESTS = ("p_kept", "p_mean_correlation")  # tests of the pairs themselves, see `rematch_cells`
_STRATA_FLAGS = ("strata:", "units:", "few shuffles:")
_NEARLY_ALL = 0.95  # pairs that have no near-copies
_NULL_SCORES = {"null": "p_family", "null_strata": "p_strata_family"}  # null scores by permutation -> family-wise p
_OTHER_NULL_COLUMNS = {
    column: value for name, null in NULLS.items() if name != "shuffle" for column, value in null.columns.items()
}
COLUMNS = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "metric", "settings", "n_pairs", "score"),
    *(
        "score_heldout",
        *NULLS["shuffle"].columns,
        "ci_low",
        "ci_high",
        "ci_sd",
        *EQUIVALENCE,
        *CEILINGS,
        *_OTHER_NULL_COLUMNS,
    ),
    *("details", "flags"),
]


def score_sets(
    study: Study, sets: Iterable[PairSet], number: int, geometry: list[MetricSpec], engine: Engine
) -> pd.DataFrame:
    """Score every set of pairs by every measure: one row each, without q (see `with_q`).

    The null scores of each row are in `null` and `null_strata`, as arrays; what its spaces are compared for is in
    `role`.

    Args:
        sets: made one by one, as the engine asks for work.
        number: how many there are.
    """
    waiting: deque[tuple[PairSet, MetricSpec]] = deque()

    def units() -> Iterator[Unit[dict[str, Any]]]:
        for pairs in sets:
            for spec in geometry:
                waiting.append((pairs, spec))
                yield _shuffle_unit(study, pairs, spec)
                if study.inference.strata:
                    yield _strata_unit(study, pairs, spec, study.inference.strata)
                if study.inference.clusters:
                    yield _cluster_unit(study, pairs, spec)
                yield _interval_unit(study, pairs, spec)

    rows = []
    with track("scoring", number * len(geometry), unit="scores") as advance:
        results = engine.map(units())
        for shuffled in results:
            within = next(results) if study.inference.strata else _NO_STRATA
            clustered = next(results) if study.inference.clusters else {}
            rows.append(_row(*waiting.popleft(), shuffled, within, clustered, next(results)))
            advance(1)
    table = pd.DataFrame(rows, columns=None if rows else [*COLUMNS, "role", *_NULL_SCORES])
    return table.assign(**{p: _family(table, null) for null, p in _NULL_SCORES.items()})


def _on_device(study: Study, spec: MetricSpec) -> dict[str, str]:
    """The device of a measure's shuffles. Named only where it is not the CPU, so that other scores keep their keys."""
    on_gpu = study.inference.device if find_measure(spec.metric).on_device else "cpu"
    return {"device": on_gpu} if on_gpu != "cpu" else {}


def _shuffle_unit(study: Study, pairs: PairSet, spec: MetricSpec) -> Unit[dict[str, Any]]:
    permutations, seed = study.inference.permutations, study.seed
    device = _on_device(study, spec)
    work = partial(_shuffles, pairs, spec, permutations, seed, **device)
    # The held-out score may come from another measure, which has its own version.
    counterpart = heldout_counterpart(spec.metric, spec.settings)
    heldout = find_measure(counterpart[0]).identity(counterpart[1]) if counterpart else None
    settings = {"permutations": permutations, "seed": seed, "size": pairs.shared.size, "heldout": heldout} | device
    return pairs.unit("shuffle", NULLS["shuffle"].version, spec, work, **settings)


def _strata_unit(study: Study, pairs: PairSet, spec: MetricSpec, kind: str) -> Unit[dict[str, Any]]:
    permutations, seed = study.inference.permutations, study.seed
    device, labels = _on_device(study, spec), pairs.strata(kind)
    work = partial(_within_strata, pairs, spec, labels, permutations, seed, **device)
    of_shuffles = {"permutations": permutations, "seed": seed, "size": pairs.shared.size}
    of_strata = {"strata": kind, "labels": digest_of(labels.tolist())}
    return pairs.unit("strata", NULLS["strata"].version, spec, work, **of_shuffles, **of_strata, **device)


def _cluster_unit(study: Study, pairs: PairSet, spec: MetricSpec) -> Unit[dict[str, Any]]:
    permutations, seed = study.inference.permutations, study.seed
    work = partial(_by_cluster, pairs, spec, permutations, seed)
    return pairs.unit("cluster", NULLS["cluster"].version, spec, work, permutations=permutations, seed=seed)


def _interval_unit(study: Study, pairs: PairSet, spec: MetricSpec) -> Unit[dict[str, Any]]:
    subsamples, level, seed = study.inference.subsamples, study.inference.level, study.seed
    work = partial(_interval, pairs, spec, subsamples, level, seed)
    return pairs.unit("interval", VERSION, spec, work, subsamples=subsamples, level=level, seed=seed)


def with_q(
    scores: pd.DataFrame,
    rates: pd.DataFrame,
    rematched: dict[str, list[dict[str, Any]]],
    roles: dict[tuple[str, str], str],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list[dict[str, Any]]]]:
    """Add q-values to all three: Benjamini–Hochberg within one question.

    One question is one null, of ordinary pairs of spaces, of ceilings, of layers of one model or of controls, and of
    all pairs or of categories. (Tests whose outcome is certain, such as those of ceilings, would make room for false
    discoveries among the others.)

    Args:
        rematched: for each null that matches again, the facts of each cell; `q_kept` and `q_mean_correlation` are
            added.
        roles: what each pair of spaces is compared for, see `spaces.role`.
    """
    of_scores = questions(scores, lambda a, b: roles[a, b])
    q = {null.q: _q(scores[null.p], of_scores) for null in NULLS.values()}
    scores = scores.assign(**q)[COLUMNS]
    rates = rates.assign(
        q=_q(rates["p"], [roles[pair] for pair in zip(rates["space_a"], rates["space_b"], strict=True)])
    )
    with_q_values = {}
    for name, cells in rematched.items():
        own_roles = list(roles.values())
        tests = {f"q{test[1:]}": pd.Series([cell[test] for cell in cells], dtype=np.float64) for test in _PAIR_TESTS}
        values = {name: _q(p, own_roles) for name, p in tests.items()}
        with_q_values[name] = [
            cell | {q: None if np.isnan(of[i]) else float(of[i]) for q, of in values.items()}
            for i, cell in enumerate(cells)
        ]
    return scores, rates, with_q_values


def _q(p: pd.Series, family: list[str]) -> Floats:
    """q-values within each family of tests."""
    values, names = p.to_numpy(np.float64), np.array(family, dtype=object)
    q = np.full(len(values), NAN)
    for name in dict.fromkeys(family):
        q[names == name] = false_discovery_rate(values[names == name])
    return q


def _family(table: pd.DataFrame, null: str) -> Floats:
    """Family-wise p within each grid: all cells of one role scored by one measure, for all pairs or for one category.

    Args:
        null: the column with each cell's null scores.
    """
    p = np.full(len(table), NAN)
    for _, own in table.groupby(["metric", "settings", "subspace", "role"], sort=False):
        nulls = list(own[null])
        if len(nulls[0]):
            at = table.index.get_indexer(own.index)
            p[at] = family_wise(own["score"].to_numpy(np.float64), np.array(nulls, np.float64))
    return p


def _row(
    pairs: PairSet,
    spec: MetricSpec,
    shuffled: dict[str, Any],
    within: dict[str, Any],
    clustered: dict[str, Any],
    interval: dict[str, Any],
) -> dict[str, Any]:
    if clustered.get("clusters") == len(pairs.features_a):  # one pair each: whole clusters are shuffled already
        same = {"cluster_score": "score", "null_cluster_mean": "null_mean", "p_cluster": "p"}
        same["least_p_cluster"] = "least_p"
        clustered = clustered | {name: shuffled[as_shuffled] for name, as_shuffled in same.items()}
    return {
        "space_a": pairs.a.name,
        "layer_a": pairs.a.layer,
        "space_b": pairs.b.name,
        "layer_b": pairs.b.layer,
        "subspace": pairs.subspace,
        "metric": spec.metric,
        "settings": json.dumps(spec.settings, sort_keys=True),
        "n_pairs": len(pairs.features_a),
        "role": role(pairs.a, pairs.b),
        **_OTHER_NULL_COLUMNS,
        **shuffled,
        **within,
        **clustered,
        **{
            null: np.array(found[null], np.float64)
            for null, found in zip(_NULL_SCORES, (shuffled, within), strict=True)
        },
        "ci_low": interval["low"],
        "ci_high": interval["high"],
        "ci_sd": interval["sd"],
        "flags": [*shuffled["flags"], *within["flags"], *clustered.get("flags", ()), *interval["flags"]],
    }


def _shuffles(pairs: PairSet, spec: MetricSpec, permutations: int, seed: int, *, device: str = "cpu") -> dict[str, Any]:
    """The score, its shuffle null and its held-out counterpart."""
    nothing = dict.fromkeys(("null_mean", "null_sd", "corrected", "p", "least_p"), NAN)
    try:
        measure, of_rows = pairs.measure(spec)
        if permutations and measure.sees_pairing:
            test = permutation_test(
                measure,
                *pairs.rows,
                permutations=permutations,
                seed=seed,
                rows=pairs.shared,
                units=pairs.units,
                device=device,
                **of_rows,
            )
            observed, flags = test.observed, list(test.flags)
            found = {"null_mean": test.null_mean, "null_sd": test.null_sd, "corrected": test.corrected, "p": test.p}
            found["least_p"] = test.least_p
            null = test.null.tolist()
        else:
            observed = pairs.value(spec)
            flags, found, null = list(observed.flags), nothing, []
        used = {k: v for k, v in observed.details.items() if isinstance(v, (int, float))}
        if pairs.units is not None:
            used["units"] = len(np.unique(pairs.units))
        return {
            "score": observed.value,
            "score_heldout": _heldout(pairs, spec, observed.value),
            **found,
            "details": json.dumps(used),
            "flags": flags,
            "null": null,
        }
    except UserError as error:
        # Too few pairs for a measure is a result, not a mistake: it is flagged in its row.
        empty = {"score": NAN, "score_heldout": NAN, **nothing, "details": "{}"}
        return {**empty, "flags": [f"undefined: {error}"], "null": [NAN] * permutations}


_NO_STRATA: dict[str, Any] = dict.fromkeys(("null_strata_mean", "p_strata", "least_p_strata"), NAN)
_NO_STRATA |= {"null_strata": [], "flags": []}


def _within_strata(
    pairs: PairSet,
    spec: MetricSpec,
    labels: NDArray[np.intp],
    permutations: int,
    seed: int,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """The score against shuffles within strata."""
    if not permutations or not find_measure(spec.metric).sees_pairing:
        return _NO_STRATA
    try:
        measure, of_rows = pairs.measure(spec)
        test = permutation_test(
            measure,
            *pairs.rows,
            permutations=permutations,
            seed=seed,
            rows=pairs.shared,
            strata=labels,
            units=pairs.units,
            device=device,
            **of_rows,
        )
    except UserError:
        return _NO_STRATA | {"null_strata": [NAN] * permutations}  # too few pairs, which the shuffle's flags say
    flags = [flag for flag in test.flags if flag.startswith(_STRATA_FLAGS)]
    found = {"null_strata_mean": test.null_mean, "p_strata": test.p, "least_p_strata": test.least_p}
    return found | {"null_strata": test.null.tolist(), "flags": flags}


def _by_cluster(pairs: PairSet, spec: MetricSpec, permutations: int, seed: int) -> dict[str, Any]:
    """The score of one pair of each cluster, against shuffles of whole clusters."""
    n, labels = len(pairs.features_a), pairs.clusters
    if labels is None:
        return {"clusters": n, "effective_pairs": float(n), "flags": []}
    effective = effective_pairs(labels)
    found = {"clusters": int(labels.max()) + 1, "effective_pairs": effective, "flags": []}
    if not permutations or not find_measure(spec.metric).sees_pairing:
        return found
    try:
        measure, of_rows = pairs.measure(spec)
        test = cluster_test(
            measure,
            *pairs.rows,
            labels,
            permutations=permutations,
            # Where few pairs have near-copies, it hardly matters which one of them is scored.
            choices=1 if effective > _NEARLY_ALL * n else None,
            seed=seed,
            **of_rows,
        )
    except UserError:
        return found  # too few clusters for the measure
    flags = [flag for flag in test.flags if flag.startswith("few shuffles: ")]
    scores = {"cluster_score": test.score, "null_cluster_mean": test.null_mean, "p_cluster": test.p}
    scores["least_p_cluster"] = test.least_p
    return found | scores | {"flags": flags}


def _heldout(pairs: PairSet, spec: MetricSpec, value: float) -> float:
    """The held-out counterpart of a score; the score itself if the measure fits nothing."""
    counterpart = heldout_counterpart(spec.metric, spec.settings)
    if counterpart is None:
        return NAN
    if counterpart == (spec.metric, spec.settings):
        return value
    try:
        same = MetricSpec(metric=counterpart[0], settings=counterpart[1])
        return pairs.value(same).value
    except UserError:
        return NAN


def _interval(pairs: PairSet, spec: MetricSpec, subsamples: int, level: float, seed: int) -> dict[str, Any]:
    nothing = {"low": NAN, "high": NAN, "sd": NAN, "flags": []}
    if not subsamples:
        return nothing
    try:
        measure, of_rows = pairs.measure(spec)
        found = subsample_interval(
            measure,
            *pairs.rows,
            subsamples=subsamples,
            level=level,
            seed=seed,
            clusters=pairs.clusters,
            **of_rows,
        )
    except UserError:
        return nothing
    return {"low": found.low, "high": found.high, "sd": found.sd, "flags": list(found.flags)}
