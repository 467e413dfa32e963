"""Pairs → scores: each measure of the geometry with its nulls, its interval and its held-out counterpart.

A unit of work is one measure on one set of pairs: its shuffles, or its interval. Units are pure functions of decoder
rows and settings.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.geometry import heldout_counterpart
from unifeat.inference import (
    SharedRows,
    false_discovery_rate,
    family_wise,
    find_measure,
    permutation_test,
    with_settings,
)
from unifeat.inference.nulls import NAN, NULLS
from unifeat.inference.subsampling import VERSION, subsample_interval
from unifeat.pipeline.match import Cell
from unifeat.pipeline.spaces import Space
from unifeat.progress import track
from unifeat.store import JSON, Piece
from unifeat.store.keys import digest_of
from unifeat.study.spec import MetricSpec, Study

Floats = NDArray[np.float64]
_PAIR_TESTS = ("p_kept", "p_mean_correlation")  # tests of the pairs themselves, see `rematch_cells`
# Above this, one measure keeps all cores busy and takes too much memory to run twice at a time.
_PAIRS_TO_FILL_MACHINE = 4_000
_OTHER_NULL_COLUMNS = {
    column: value for name, null in NULLS.items() if name != "shuffle" for column, value in null.columns.items()
}
COLUMNS = [
    *("space_a", "layer_a", "space_b", "layer_b", "subspace", "metric", "settings", "n_pairs", "score"),
    *("score_heldout", *NULLS["shuffle"].columns, "ci_low", "ci_high", *_OTHER_NULL_COLUMNS, "details", "flags"),
]


@dataclass(frozen=True)
class PairSet:
    """A set of pairs of two spaces that are scored together.

    Attributes:
        subspace: "all", or the name of a category.
        features_a, features_b: (n,) feature ids.
    """

    a: Space
    b: Space
    subspace: str
    features_a: NDArray[np.int64]
    features_b: NDArray[np.int64]

    @classmethod
    def of(cls, cell: Cell, subspace: str, pairs: pd.DataFrame) -> PairSet:
        """The pairs of a table with columns `feature_a` and `feature_b`, in the order of their ids."""
        ordered = pairs.sort_values(["feature_a", "feature_b"])
        a, b = (ordered[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
        return cls(cell.a, cell.b, subspace, a, b)

    @property
    def rows(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The decoder rows of both sides, (n, d_a) and (n, d_b)."""
        return self.a.decoder.rows(self.features_a), self.b.decoder.rows(self.features_b)

    @property
    def shared(self) -> SharedRows:
        """The ids by which cells share permutations: the pairs' features of A or, if one has several partners, of B."""
        unique = len(np.unique(self.features_a)) == len(self.features_a)
        ids = self.features_a if unique else self.features_b
        # The same size in both cases; otherwise the cells of a grid would not share their permutation.
        return SharedRows(ids, max(self.a.store.features, self.b.store.features))

    @property
    def fills_machine(self) -> bool:
        """Whether one measure on these pairs keeps all cores busy and takes too much memory to run twice at a time."""
        return len(self.features_a) > _PAIRS_TO_FILL_MACHINE

    def unit(self, what: str, version: int, spec: MetricSpec, compute: Callable[[], Any], **settings: Any) -> Unit[Any]:
        """A unit of work: one measure on these pairs.

        Args:
            what, version: what is computed, and the version of the code.
            settings: everything else that determines the result.
        """
        made_from = {
            "what": [what, version],
            "saes": [space.store.settings["sae"] for space in (self.a, self.b)],
            "pairs": digest_of([self.features_a.tolist(), self.features_b.tolist()]),
            "measure": find_measure(spec.metric).identity(spec.settings),
            "settings": settings,
        }
        gpu = "device" in settings
        return Unit(Piece("scores", made_from, JSON, "the scores"), compute, self.fills_machine, gpu=gpu)


def score_sets(
    study: Study, sets: Iterable[PairSet], number: int, geometry: list[MetricSpec], engine: Engine
) -> pd.DataFrame:
    """Score every set of pairs by every measure: one row each, without q (see `with_q`), with arrays in `null`.

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
                yield _interval_unit(study, pairs, spec)

    rows = []
    with track("scoring", number * len(geometry), unit="scores") as advance:
        results = engine.map(units())
        for shuffled in results:
            rows.append(_row(*waiting.popleft(), shuffled, next(results)))
            advance(1)
    table = pd.DataFrame(rows, columns=None if rows else [*COLUMNS, "null"])
    return table.assign(p_family=_family(table))


def _shuffle_unit(study: Study, pairs: PairSet, spec: MetricSpec) -> Unit[dict[str, Any]]:
    permutations, seed = study.inference.permutations, study.seed
    # Named only where it is used, so that other scores keep their keys.
    on_gpu = study.inference.device if find_measure(spec.metric).on_device else "cpu"
    device = {"device": on_gpu} if on_gpu != "cpu" else {}
    work = partial(_shuffles, pairs, spec, permutations, seed, **device)
    # The held-out score may come from another measure, which has its own version.
    counterpart = heldout_counterpart(spec.metric, spec.settings)
    heldout = find_measure(counterpart[0]).identity(counterpart[1]) if counterpart else None
    settings = {"permutations": permutations, "seed": seed, "size": pairs.shared.size, "heldout": heldout} | device
    return pairs.unit("shuffle", NULLS["shuffle"].version, spec, work, **settings)


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

    One question is one null, of ordinary pairs of spaces, of ceilings or of controls, and of all pairs or of
    categories. (Tests whose outcome is certain, such as those of ceilings, would make room for false discoveries among
    the others.)

    Args:
        rematched: for each null that matches again, the facts of each cell; `q_kept` and `q_mean_correlation` are
            added.
        roles: what each pair of spaces is compared for, see `spaces.role`.
    """
    whole = np.where(scores["subspace"] == "all", "all", "categories")
    of_scores = [f"{part} {roles[pair]}" for part, pair in zip(whole, _pairs_of(scores), strict=True)]
    q = {null.q: _q(scores[null.p], of_scores) for null in NULLS.values()}
    scores = scores.assign(**q)[COLUMNS]
    rates = rates.assign(q=_q(rates["p"], [roles[pair] for pair in _pairs_of(rates)]))
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


def _pairs_of(table: pd.DataFrame) -> Iterator[tuple[str, str]]:
    return zip(table["space_a"], table["space_b"], strict=True)


def _q(p: pd.Series, family: list[str]) -> Floats:
    """q-values within each family of tests."""
    values, names = p.to_numpy(np.float64), np.array(family, dtype=object)
    q = np.full(len(values), NAN)
    for name in dict.fromkeys(family):
        q[names == name] = false_discovery_rate(values[names == name])
    return q


def _family(table: pd.DataFrame) -> Floats:
    """Family-wise p within each grid: all cells scored by one measure, for all pairs or for one category."""
    p = np.full(len(table), NAN)
    for _, own in table.groupby(["metric", "settings", "subspace"], sort=False):
        nulls = list(own["null"])
        if len(nulls[0]):
            at = table.index.get_indexer(own.index)
            p[at] = family_wise(own["score"].to_numpy(np.float64), np.array(nulls, np.float64))
    return p


def _row(pairs: PairSet, spec: MetricSpec, shuffled: dict[str, Any], interval: dict[str, Any]) -> dict[str, Any]:
    return {
        "space_a": pairs.a.name,
        "layer_a": pairs.a.layer,
        "space_b": pairs.b.name,
        "layer_b": pairs.b.layer,
        "subspace": pairs.subspace,
        "metric": spec.metric,
        "settings": json.dumps(spec.settings, sort_keys=True),
        "n_pairs": len(pairs.features_a),
        **_OTHER_NULL_COLUMNS,
        **shuffled,
        "null": np.array(shuffled["null"], np.float64),
        "ci_low": interval["low"],
        "ci_high": interval["high"],
        "flags": [*shuffled["flags"], *interval["flags"]],
    }


def _shuffles(pairs: PairSet, spec: MetricSpec, permutations: int, seed: int, *, device: str = "cpu") -> dict[str, Any]:
    """The score, its shuffle null and its held-out counterpart."""
    x, y = pairs.rows
    nothing = dict.fromkeys(("null_mean", "null_sd", "corrected", "p"), NAN)
    try:
        if permutations and find_measure(spec.metric).sees_pairing:
            test = permutation_test(
                with_settings(spec.metric, spec.settings),
                x,
                y,
                permutations=permutations,
                seed=seed,
                rows=pairs.shared,
                device=device,
            )
            observed, flags = test.observed, list(test.flags)
            found = {"null_mean": test.null_mean, "null_sd": test.null_sd, "corrected": test.corrected, "p": test.p}
            null = test.null.tolist()
        else:
            observed = find_measure(spec.metric).function(x, y, **spec.settings)
            flags, found, null = list(observed.flags), nothing, []
        used = {k: v for k, v in observed.details.items() if isinstance(v, (int, float))}
        return {
            "score": observed.value,
            "score_heldout": _heldout(x, y, spec, observed.value),
            **found,
            "details": json.dumps(used),
            "flags": flags,
            "null": null,
        }
    except UserError as error:
        # Too few pairs for a measure is a result, not a mistake: it is flagged in its row.
        empty = {"score": NAN, "score_heldout": NAN, **nothing, "details": "{}"}
        return {**empty, "flags": [f"undefined: {error}"], "null": [NAN] * permutations}


def _heldout(x: Any, y: Any, spec: MetricSpec, value: float) -> float:
    """The held-out counterpart of a score; the score itself if the measure fits nothing."""
    counterpart = heldout_counterpart(spec.metric, spec.settings)
    if counterpart is None:
        return NAN
    if counterpart == (spec.metric, spec.settings):
        return value
    try:
        return find_measure(counterpart[0]).function(x, y, **counterpart[1]).value
    except UserError:
        return NAN


def _interval(pairs: PairSet, spec: MetricSpec, subsamples: int, level: float, seed: int) -> dict[str, Any]:
    if not subsamples:
        return {"low": NAN, "high": NAN, "flags": []}
    x, y = pairs.rows
    try:
        found = subsample_interval(
            with_settings(spec.metric, spec.settings),
            x,
            y,
            subsamples=subsamples,
            level=level,
            seed=seed,
        )
    except UserError:
        return {"low": NAN, "high": NAN, "flags": []}
    return {"low": found.low, "high": found.high, "flags": list(found.flags)}
