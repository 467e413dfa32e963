"""Sets of pairs: a study's shuffles within strata, and pairs that share a feature."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

import unifeat as uf
from homes import Place, write_study
from unifeat.inference import family_wise, frequency_strata, permutation_test, strata_of
from unifeat.pipeline.pair_set import PairSet
from unifeat.pipeline.score import _interval_unit, _shuffle_unit, _strata_unit
from unifeat.study.measures import MetricSpec
from unifeat.study.spec import InferenceSpec, Study

COLUMNS = ["null_strata_mean", "p_strata", "p_strata_family", "q_strata", "least_p_strata"]


def pair_set(n: int = 40, seed: int = 0, **columns: Any) -> PairSet:
    """Pairs of two spaces with decoders of their own, and a table with these columns."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"feature_a": rng.permutation(90)[:n], "feature_b": rng.permutation(90)[:n]}
        | {"count_a": rng.integers(10, 900, n), "count_b": rng.integers(10, 900, n)}
        | columns
    )
    decoders = [rng.standard_normal((90, width)).astype(np.float32) for width in (12, 15)]
    a, b = (
        SimpleNamespace(
            name=name, layer=0, decoder=SimpleNamespace(rows=rows.__getitem__),
            store=SimpleNamespace(features=90, settings={"sae": name}),
        )
        for name, rows in zip("ab", decoders, strict=True)
    )  # fmt: skip
    return PairSet.of(SimpleNamespace(a=a, b=b, near_copies=None), "all", table)  # type: ignore[arg-type]


def study_with(**inference: Any) -> Study:
    plain = Study.model_construct(seed=3)
    return plain.model_copy(update={"inference": InferenceSpec(**{"permutations": 19} | inference)})


def unit(pairs: PairSet, kind: str = "frequency", **inference: Any) -> Any:
    return _strata_unit(study_with(**inference), pairs, MetricSpec(metric="rsa"), kind)


class TestUnit:
    def test_it_is_the_permutation_test_within_strata_of_frequency(self):
        pairs = pair_set()
        labels = frequency_strata(pairs.traits["count_a"], pairs.traits["count_b"])
        np.testing.assert_array_equal(pairs.strata("frequency"), labels)
        test = permutation_test("rsa", *pairs.rows, permutations=19, seed=3, rows=pairs.shared, strata=labels)
        found = unit(pairs).compute()
        assert found == {
            "null_strata_mean": test.null_mean, "p_strata": test.p, "least_p_strata": test.least_p,
            "null_strata": test.null.tolist(), "flags": [],
        }  # fmt: skip

    def test_its_key_holds_the_setting_and_the_labels(self):
        pairs = pair_set(token_share_a=np.linspace(0, 1, 40), token_share_b=np.linspace(0, 1, 40))
        more = replace(pairs, traits=pairs.traits | {"count_a": pairs.traits["count_a"][::-1]})
        keys = {unit(own, kind).piece.key for own in (pairs, more) for kind in ("frequency", "token_share", "both")}
        assert len(keys) == 5  # the token shares are the same in both
        again = replace(pairs, traits=pairs.traits | {"count_a": 4 * pairs.traits["count_a"]})
        assert unit(again).piece.key == unit(pairs).piece.key  # the same strata

    def test_token_shares_come_from_the_pairs(self):
        rng = np.random.default_rng(1)
        a, b = rng.random((2, 40))
        a[3] = np.nan
        pairs = pair_set(token_share_a=a, token_share_b=b)
        share = np.nan_to_num((pairs.traits["token_share_a"] + pairs.traits["token_share_b"]) / 2, nan=-1)
        np.testing.assert_array_equal(pairs.strata("token_share"), strata_of(share))
        frequency = pairs.traits["count_a"] * pairs.traits["count_b"]
        np.testing.assert_array_equal(pairs.strata("both"), strata_of(frequency, share))

    @pytest.mark.parametrize("kind", ["token_share", "both"])
    def test_pairs_without_token_shares_are_named(self, kind):
        with pytest.raises(uf.UserError, match=f"inference.strata: {kind} needs the columns token_share_a, token_sh"):
            unit(pair_set(), kind)

    def test_pairs_that_cannot_move_are_flagged(self):
        pairs = pair_set(2)
        assert np.isnan(unit(pairs).compute()["p_strata"])  # too few for the measure
        found = unit(pair_set(5)).compute()
        assert found["flags"] == []
        few = unit(pair_set(5), permutations=200).compute()["flags"]
        assert few == ["few shuffles: 5 pairs have only 120 pairings within their strata"]


def by_max(side: str = "b", n: int = 40) -> PairSet:
    """Pairs as `max` gives them: features of one side with up to four partners."""
    rng = np.random.default_rng(5)
    one, several = rng.permutation(90)[:n], rng.permutation(90)[np.sort(rng.integers(0, n // 2, n))]
    counts = rng.integers(10, 900, 90)
    ids = {"b": (one, several), "a": (several, one)}[side]
    return pair_set(n, feature_a=ids[0], feature_b=ids[1], count_a=counts[ids[0]], count_b=counts[ids[1]])


class TestPairsThatShareAFeature:
    def test_they_are_one_unit(self):
        assert pair_set().units is None
        for side in "ab":
            pairs = by_max(side)
            units, ids = pairs.units, getattr(pairs, f"features_{side}")
            assert units is not None
            assert ((units[:, None] == units) == (ids[:, None] == ids)).all()
        chain = replace(pair_set(4), features_a=np.array([1, 1, 2, 3]), features_b=np.array([5, 6, 6, 7]))
        units = chain.units
        assert units is not None
        assert units[0] == units[1] == units[2] != units[3]

    @pytest.mark.parametrize("metric", [{"metric": "cka"}, {"metric": "ridge_map"}, {"metric": "procrustes"}])
    def test_they_are_shuffled_and_held_out_together(self, metric):
        pairs, spec = by_max(), MetricSpec(**metric)
        name, labels = spec.metric, pairs.features_b
        groups = {"groups": labels} if name != "cka" else {}
        test = permutation_test(name, *pairs.rows, permutations=19, seed=3, rows=pairs.shared, units=labels, **groups)
        found = _shuffle_unit(study_with(), pairs, spec).compute()
        assert found["null"] == test.null.tolist()
        assert (found["score"], found["p"]) == (test.score, test.p)
        assert f'"units": {len(np.unique(labels))}' in found["details"]
        held = {"cka": uf.cka(*pairs.rows, debiased=True), "ridge_map": uf.ridge_map(*pairs.rows, groups=labels),
                "procrustes": uf.procrustes(*pairs.rows, heldout=True, groups=labels)}  # fmt: skip
        assert found["score_heldout"] == held[name].value

    def test_their_strata_are_of_units_as_large(self):
        pairs = by_max()
        assert pairs.units is not None
        sizes = np.bincount(pairs.units)[pairs.units]
        strata = pairs.strata("frequency")
        for stratum in np.unique(strata):
            assert len(np.unique(sizes[strata == stratum])) == 1
        for unit_of in np.unique(pairs.units):
            assert len(np.unique(strata[pairs.units == unit_of])) == 1
        assert unit(pairs).compute()["p_strata"] <= 1

    def test_keys_are_new_for_them_alone(self):
        plain, shared = pair_set(), by_max()
        for make in (_shuffle_unit, _interval_unit):
            assert "units" not in make(study_with(), plain, MetricSpec(metric="cka")).piece.made_from
            assert make(study_with(), shared, MetricSpec(metric="cka")).piece.made_from["units"] == 1

    def test_intervals_hold_out_together_too(self):
        pairs = by_max()
        found = _interval_unit(study_with(), pairs, MetricSpec(metric="ridge_map")).compute()
        score = float(uf.ridge_map(*pairs.rows, groups=pairs.features_b))
        assert found["low"] < score < found["high"]


def test_the_setting_is_checked():
    assert InferenceSpec().strata is None
    with pytest.raises(ValidationError, match=r"'frequency', 'token_share' or 'both'"):
        InferenceSpec(strata="words")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["frequency", "token_share", "both"])
def test_a_study(place: Place, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    plain = uf.open(place.run).scores
    assert plain[COLUMNS].isna().all().all()
    run = uf.run(write_study(place.home, inference={"permutations": 20, "strata": kind}), force=True)
    scores = run.scores
    assert scores[COLUMNS].notna().all().all()
    same = [name for name in plain if name not in (*COLUMNS, "q", "flags")]
    pd.testing.assert_frame_equal(scores[same], plain[same])
    for _, grid in scores.groupby(["metric", "settings"]):
        assert (grid["p_strata_family"] >= grid["p_strata"] - 1e-12).all()
    assert "p within strata" in run.report.read_text()


def test_a_study_with_strata_of_token_shares(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    found = {}
    for kind in ("frequency", "token_share", "both"):
        study = write_study(place.home, inference={"permutations": 20, "strata": kind}, geometry=["rsa"])
        found[kind] = uf.run(study, force=True)
    means = [run.scores["null_strata_mean"].to_numpy() for run in found.values()]
    assert not np.isnan(means).any()
    assert len({tuple(mean) for mean in means}) == 3
    run = found["token_share"]
    cell = run.scores.iloc[0]
    pairs = run.space_pair(cell["space_a"], cell["space_b"]).query("kept").sort_values(["feature_a", "feature_b"])
    share = np.nan_to_num(pairs[["token_share_a", "token_share_b"]].mean(axis=1, skipna=False).to_numpy(), nan=-1)
    assert len(share) == cell["n_pairs"]
    alone = int((np.bincount(strata_of(share))[strata_of(share)] == 1).sum())
    said = [flag for flag in cell["flags"] if flag.startswith("strata:")]
    assert bool(alone) == bool(said)


def test_family_wise_p_takes_the_nulls_of_the_strata(monkeypatch: pytest.MonkeyPatch) -> None:
    from unifeat.pipeline.score import _family

    rng = np.random.default_rng(0)
    nulls = [rng.standard_normal(19) for _ in range(3)]
    table = pd.DataFrame(
        {"metric": "rsa", "settings": "{}", "subspace": "all", "score": [3.0, 0.0, 1.0]}
        | {"role": "ordinary", "null": [np.zeros(0)] * 3, "null_strata": nulls}
    )
    np.testing.assert_array_equal(
        _family(table, "null_strata"), family_wise(np.array([3.0, 0.0, 1.0]), np.array(nulls))
    )
    assert np.isnan(_family(table, "null")).all()


def test_several_values_are_those_of_each_measure() -> None:
    specs = [
        MetricSpec(metric=name, settings=settings)
        for name, settings in (
            ("svcca", {"dims": 1}), ("rsa", {}), ("svcca", {"dims": 6}), ("svcca", {"dims": 3}), ("cka", {}),
            ("svcca", {"variance": 0.9}),
        )
    ]  # fmt: skip
    pairs = pair_set()
    found = pairs.values(specs)
    np.testing.assert_allclose(found, [pairs.value(spec).value for spec in specs], atol=1e-12)
    few = replace(pairs, features_a=pairs.features_a[:1], features_b=pairs.features_b[:1])
    assert np.isnan(few.values(specs)).all()
