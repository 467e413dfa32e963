"""A study's clusters of near-copies: what is drawn, held out and shuffled together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

import unifeat as uf
from homes import Place, write_study
from stores import places, random_dense, shard_of, written
from unifeat.codes.near_copies import NearCopies
from unifeat.inference import cluster_test, effective_pairs, subsample_interval
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.score import _cluster_unit, _interval_unit, _shuffle_unit
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import InferenceSpec, Study

COLUMNS = ["clusters", "effective_pairs", "cluster_score", "null_cluster_mean", "p_cluster", "q_cluster"]
COLUMNS += ["least_p_cluster"]
N, WIDE = 60, 64


def pair_set(tmp_path: Path, *, rows: int = 0, codes: int = 0, shared: int = 0, threshold: float | None = 0.7) -> Any:
    """Pairs (i, i) of two spaces, made near-copies in threes.

    rows: of so many first triples, decoder rows of A are alike. codes: of the following triples, codes of B are.
    shared: of the last so many pairs, all have one feature of B.
    """
    rng = np.random.default_rng(1)
    decoders = [rng.standard_normal((WIDE, 40)).astype(np.float32) for _ in "ab"]
    dense = [random_dense(rng, 300, WIDE) for _ in "ab"]
    for triple in range(rows):
        copies = slice(3 * triple + 1, 3 * triple + 3)
        decoders[0][copies] = decoders[0][3 * triple] + 0.1 * rng.standard_normal((2, 40))
    for triple in range(rows, rows + codes):
        copies = slice(3 * triple + 1, 3 * triple + 3)
        dense[1][:, copies] = dense[1][:, [3 * triple]] * rng.normal(1, 0.1, (300, 2))
    spaces = []
    for name, decoder, own in zip("ab", decoders, dense, strict=True):
        store = written(tmp_path, [shard_of(own, places([0] * 300, np.arange(1, 301)))], sae=name, d_sae=WIDE)
        spaces.append(
            SimpleNamespace(name=name, layer=0, store=store, decoder=SimpleNamespace(rows=decoder.__getitem__))
        )
    near = None if threshold is None else tuple(NearCopies(space.store, threshold) for space in spaces)
    table = pd.DataFrame({"feature_a": np.arange(N), "feature_b": np.arange(N)})
    if shared:
        table.loc[N - shared :, "feature_b"] = N - 1
    return PairSet.of(SimpleNamespace(a=spaces[0], b=spaces[1], near_copies=near), "all", table)  # type: ignore[arg-type]


def study_with(**inference: Any) -> Study:
    plain = Study.model_construct(seed=3)
    return plain.model_copy(update={"inference": InferenceSpec(**{"permutations": 19, "subsamples": 20} | inference)})


def sizes(pairs: Any) -> list[int]:
    return [] if pairs.clusters is None else sorted(np.bincount(pairs.clusters).tolist(), reverse=True)


class TestClusters:
    def test_they_come_from_rows_and_codes_and_shared_features(self, tmp_path: Path) -> None:
        pairs = pair_set(tmp_path, rows=4, codes=5, shared=6)
        assert sizes(pairs) == [6] + [3] * 9 + [1] * (N - 33)
        for triple in range(9):
            assert len(set(pairs.clusters[3 * triple : 3 * triple + 3])) == 1

    def test_there_are_none(self, tmp_path: Path) -> None:
        assert pair_set(tmp_path).clusters is None
        plain = pair_set(tmp_path, rows=4, codes=5, threshold=None)
        assert plain.clusters is None  # the study takes all pairs as independent
        shared = pair_set(tmp_path, rows=4, shared=6, threshold=None)
        np.testing.assert_array_equal(shared.clusters, shared.units)

    def test_a_higher_threshold_finds_fewer(self, tmp_path: Path) -> None:
        assert sizes(pair_set(tmp_path, rows=4, codes=5, threshold=0.9999)) == []

    def test_one_pair(self, tmp_path: Path) -> None:
        pairs = pair_set(tmp_path, rows=4)
        one = replace(pairs, features_a=pairs.features_a[:1], features_b=pairs.features_b[:1])
        assert one.clusters is None


class TestScores:
    @pytest.mark.parametrize("metric", ["cka", "rsa", "ridge_map"])
    def test_they_are_the_cluster_test_and_the_interval_of_clusters(self, tmp_path: Path, metric: str) -> None:
        pairs, spec = pair_set(tmp_path, rows=4, codes=5), MetricSpec(metric=metric)
        found = _cluster_unit(study_with(), pairs, spec).compute()
        test = cluster_test(metric, *pairs.rows, pairs.clusters, permutations=19, choices=5, seed=3)
        assert found["clusters"] == N - 18
        assert found["effective_pairs"] == effective_pairs(pairs.clusters)
        assert (found["cluster_score"], found["p_cluster"]) == (test.score, test.p)
        assert found["null_cluster_mean"] == test.null_mean
        groups = {"groups": pairs.clusters} if metric == "ridge_map" else {}
        interval = subsample_interval(
            metric, *pairs.rows, subsamples=20, seed=3, clusters=pairs.clusters, **groups
        )  # fmt: skip
        drawn = _interval_unit(study_with(), pairs, spec).compute()
        assert (drawn["low"], drawn["high"]) == (interval.low, interval.high)

    def test_few_near_copies_are_scored_once(self, tmp_path: Path) -> None:
        pairs = pair_set(tmp_path, rows=0, codes=0, shared=2)
        found = _cluster_unit(study_with(), pairs, MetricSpec(metric="cka")).compute()
        test = cluster_test("cka", *pairs.rows, pairs.clusters, permutations=19, choices=1, seed=3)
        assert (found["clusters"], found["cluster_score"], found["p_cluster"]) == (N - 1, test.score, test.p)

    def test_held_out_measures_keep_them_together(self, tmp_path: Path) -> None:
        pairs, spec = pair_set(tmp_path, rows=4, codes=5), MetricSpec(metric="ridge_map")
        found = _shuffle_unit(study_with(), pairs, spec).compute()
        assert found["score"] == float(uf.ridge_map(*pairs.rows, groups=pairs.clusters))
        assert found["score"] != float(uf.ridge_map(*pairs.rows))

    def test_too_few_clusters(self, tmp_path: Path) -> None:
        pairs = pair_set(tmp_path, rows=1)
        three = replace(pairs, features_a=np.arange(3), features_b=np.zeros(3, int))
        found = _cluster_unit(study_with(), three, MetricSpec(metric="rsa")).compute()
        assert found == {"clusters": 1, "effective_pairs": 1.0, "flags": []}

    def test_keys_hold_the_threshold_and_the_codes(self, tmp_path: Path) -> None:
        spec, keys = MetricSpec(metric="cka"), set()
        for options in ({}, {"threshold": 0.8}, {"threshold": None}, {"codes": 3}):
            pairs = pair_set(tmp_path / str(len(keys)), **options)
            keys.add(_interval_unit(study_with(), pairs, spec).piece.key)  # type: ignore[attr-defined]
        assert len(keys) == 4


@pytest.mark.parametrize("value", [0, -0.1, 1.2, "near"])
def test_the_setting_is_checked(value: Any) -> None:
    assert InferenceSpec().clusters == 0.7
    assert InferenceSpec(clusters=None).clusters is None
    with pytest.raises(ValidationError):
        InferenceSpec(clusters=value)


def test_a_study(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    inference = {"permutations": 20, "subsamples": 12}
    loose = uf.run(write_study(place.home, inference=inference | {"clusters": 0.3}), force=True)
    scores = loose.scores
    assert (scores["clusters"] < scores["n_pairs"]).any()
    assert (scores["effective_pairs"] <= scores["clusters"] + 1e-9).all()
    assert "p of clusters" in loose.report.read_text()
    off = uf.run(write_study(place.home, inference=inference | {"clusters": None}), force=True).scores
    assert off[["p_cluster", "cluster_score"]].isna().all().all()
    strict = uf.run(write_study(place.home, inference=inference | {"clusters": 1.0}), force=True).scores
    alone = strict["clusters"] == strict["n_pairs"]
    assert alone.any()
    for name, as_shuffled in (("p_cluster", "p"), ("cluster_score", "score"), ("null_cluster_mean", "null_mean")):
        np.testing.assert_array_equal(strict[name][alone], strict[as_shuffled][alone])
    same = [name for name in off if name not in (*COLUMNS, "q", "flags")]
    pd.testing.assert_frame_equal(strict.loc[alone, same], off.loc[alone, same])
