"""Filters and methods: every candidate comes out again, kept or with the one reason it was dropped for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unifeat.matching.filters import Filters, token_reasons
from unifeat.matching.methods import METHODS, Method
from unifeat.matching.rule import Rule
from unifeat.study.spec import NON_CONCEPT_TOKENS, MatchingSpec

NONE = Filters(min_correlation=-1, min_count=0, exclude_tokens=(), shared_top_token=False)


def best_of_a(a: np.ndarray, b: np.ndarray, r: np.ndarray) -> np.ndarray:
    return (r == pd.Series(r).groupby(a).transform("max")).to_numpy()


OWN = {
    "everything": lambda a, b, r: np.ones(len(r), bool),
    "odd": lambda a, b, r: a % 2 == 1,
    "best of a": best_of_a,
}


@pytest.fixture(autouse=True)
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods simple enough that what filters do can be seen through them."""
    for name, choose in OWN.items():
        monkeypatch.setitem(METHODS, name, Method(choose))


def candidates(**columns: Any) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    plain = {"feature_a": range(n), "feature_b": range(n), "correlation": 0.9, "count_a": 100, "count_b": 100}
    return pd.DataFrame(plain | columns, index=range(n))


def reasons(
    table: pd.DataFrame, words_a: Any = None, words_b: Any = None, method: str = "everything", **filters: Any
) -> list[str]:
    rule = Rule(Filters(**(vars(NONE) | filters)), method, words_a=words_a or {}, words_b=words_b or {})
    out = rule.decide(table)
    pd.testing.assert_frame_equal(out[table.columns], table)
    assert out["kept"].dtype == bool
    np.testing.assert_array_equal(out["kept"], out["dropped_because"] == "")
    np.testing.assert_array_equal(out["kept"], rule.keep(table)(table))
    return out["dropped_because"].tolist()


def test_without_filters_everything_stays() -> None:
    assert reasons(candidates(correlation=[0.5, -0.5, 0.0])) == ["", "", ""]


def test_minimum_correlation_is_not_enough() -> None:
    got = reasons(candidates(correlation=[0.1, 0.1000001, 0.0999, -0.4, np.nan]), min_correlation=0.1)
    assert got == ["r at or below 0.1", "", "r at or below 0.1", "r at or below 0.1", "r at or below 0.1"]


def test_minimum_count_is_enough_and_both_sides_count() -> None:
    got = reasons(candidates(count_a=[9, 10, 500, 500], count_b=[500, 500, 10, 9]), min_count=10)
    assert got == ["fires on fewer than 10 tokens", "", "", "fires on fewer than 10 tokens"]


def test_non_concept_tokens() -> None:
    words_a = {0: ["ship", "."], 1: ["ship", "a."], 2: [" ."], 3: ["ship"], 4: ["\n\n"]}
    words_b = {3: ["sea", " ,"], 4: ["sea"]}
    got = reasons(candidates(feature_a=range(6)), words_a, words_b, exclude_tokens=("", ".", ","))
    a, b = "non-concept token in A", "non-concept token in B"
    assert got == [a, "", a, b, a, ""]


def test_the_list_can_be_edited() -> None:
    words = {0: ["the"], 1: [","]}
    got = reasons(candidates(count_a=[50, 50]), words, words, exclude_tokens=("the",))
    assert got == ["non-concept token in A", ""]
    assert reasons(candidates(count_a=[50, 50]), words, words, exclude_tokens=()) == ["", ""]


def test_the_published_list_is_the_default() -> None:
    assert tuple(MatchingSpec().exclude_tokens) == NON_CONCEPT_TOKENS
    published = {"\\n", "\n", "", " ", ".", ",", "!", "?", "-", "<bos>", "<|endoftext|>", "|bos|"}
    assert set(NON_CONCEPT_TOKENS) == published
    for junk in published:
        words = {0: ["ship", junk, "sea"], 1: ["ship"]}
        got = reasons(candidates(count_a=[50, 50]), words, {}, exclude_tokens=NON_CONCEPT_TOKENS)
        assert got == ["non-concept token in A", ""], junk


def test_shared_top_token() -> None:
    words_a = {0: [" Sea", "ship"], 1: ["sea"], 2: ["Straße"], 3: ["sea"], 5: ["sea"]}
    words_b = {0: ["harbour", "sea"], 1: ["ship"], 2: ["STRASSE"], 4: ["sea"], 5: []}
    apart = "no top token in common"
    assert reasons(candidates(count_a=[50] * 6), words_a, words_b, shared_top_token=True) == [
        "",
        apart,
        "",
        apart,
        apart,
        apart,
    ]


def test_the_first_reason_is_the_one_given() -> None:
    table = candidates(count_a=[1, 50, 50, 50], correlation=[0.0, 0.0, 0.9, 0.9])
    got = reasons(
        table,
        {f: ["."] for f in (0, 1, 2)},
        {f: ["."] for f in range(4)},
        min_count=10,
        min_correlation=0.1,
        exclude_tokens=(".",),
        shared_top_token=True,
    )
    assert got == [
        "fires on fewer than 10 tokens",
        "r at or below 0.1",
        "non-concept token in A",
        "non-concept token in B",
    ]


def test_the_method_chooses_among_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best partner is filtered out, so the next best can be paired."""
    table = candidates(feature_a=[0, 0, 1], feature_b=[5, 6, 6], correlation=[0.9, 0.5, 0.4], count_b=[3, 50, 50])
    seen = []

    def watched(a: np.ndarray, b: np.ndarray, r: np.ndarray) -> np.ndarray:
        seen.append(b.tolist())
        return best_of_a(a, b, r)

    monkeypatch.setitem(METHODS, "watched", Method(watched))
    assert Rule(NONE, "watched").decide(table)["kept"].tolist() == [True, False, True]
    assert Rule(replace(NONE, min_count=10), "watched").decide(table)["kept"].tolist() == [False, True, True]
    assert seen == [[5, 6, 6], [6, 6]]
    assert reasons(table, method="best of a") == ["", "not chosen by best of a matching", ""]
    assert reasons(table, method="best of a", min_count=10) == ["fires on fewer than 10 tokens", "", ""]


def test_nothing_left_to_choose_from() -> None:
    assert reasons(candidates(correlation=[0.0, 0.0]), min_correlation=0.5) == ["r at or below 0.5"] * 2
    empty = candidates(feature_a=np.array([], np.int32))
    assert reasons(empty, min_correlation=0.5, exclude_tokens=(".",), shared_top_token=True) == []


@pytest.mark.parametrize("seed", range(3))
def test_every_candidate_is_accounted_for(seed: int) -> None:
    """Against the same rules written row by row."""
    rng = np.random.default_rng(seed)
    n, letters = 200, list("abcdefgh.,")
    table = candidates(
        feature_a=rng.integers(0, 40, n),
        feature_b=rng.integers(0, 40, n),
        correlation=rng.uniform(-0.2, 1, n).round(2),
        count_a=rng.integers(0, 40, n),
        count_b=rng.integers(0, 40, n),
    ).sample(frac=1, random_state=seed)
    words_a, words_b = ({f: list(rng.choice(letters, 3)) for f in range(35)} for _ in range(2))

    def expected(row: Any) -> str:
        a, b = words_a.get(row.feature_a, []), words_b.get(row.feature_b, [])
        if min(row.count_a, row.count_b) < 5:
            return "fires on fewer than 5 tokens"
        if not row.correlation > 0.15:
            return "r at or below 0.15"
        if {".", ","} & set(a):
            return "non-concept token in A"
        if {".", ","} & set(b):
            return "non-concept token in B"
        if not set(a) & set(b):
            return "no top token in common"
        return "" if row.feature_a % 2 else "not chosen by odd matching"

    filters = {"min_correlation": 0.15, "min_count": 5, "exclude_tokens": (".", ","), "shared_top_token": True}
    got = reasons(table, words_a, words_b, "odd", **filters)
    assert got == [expected(row) for row in table.itertuples()]
    assert len(set(got)) == 7


def test_first_seen_has_the_order_as_published() -> None:
    """Best partners, token filters, claims, least r: what a filter drops is not replaced by a next best."""

    def dropped(table: pd.DataFrame, direction: str = "a_to_b", words_b: Any = None, **changed: Any) -> list[str]:
        limits = Filters(**(vars(NONE) | changed))
        rule = Rule(limits, "first-seen", direction, words_b=words_b or {})
        return rule.decide(table)["dropped_because"].tolist()

    table = candidates(feature_a=[0, 0, 1, 2], feature_b=[0, 1, 0, 2], correlation=[0.5, 0.4, 0.9, 0.05])
    not_chosen = "not chosen by first-seen matching"
    # 0 claims partner 0, although 1 correlates more with it; the least r comes last.
    assert dropped(table, min_correlation=0.1) == ["", not_chosen, not_chosen, "r at or below 0.1"]
    assert dropped(table, min_correlation=0.6) == ["r at or below 0.6", not_chosen, not_chosen, "r at or below 0.6"]
    # A claimant dropped for its tokens claims nothing, and does not turn to its next best.
    table = candidates(feature_a=[0, 0, 1], feature_b=[0, 1, 1], correlation=[0.5, 0.9, 0.4])
    both = candidates(feature_a=[0, 0, 1], feature_b=[0, 1, 0], correlation=[0.5, 0.9, 0.4])
    comma = {"words_b": {0: [","]}, "exclude_tokens": (",",)}
    assert dropped(table, "b_to_a") == ["", not_chosen, not_chosen]
    assert dropped(table, "b_to_a", **comma) == ["non-concept token in B", "", not_chosen]
    assert dropped(both, "b_to_a", **comma) == ["non-concept token in B", "", "non-concept token in B"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
@pytest.mark.parametrize("seed", range(3))
def test_keeping_again_is_deciding_without_the_reasons(method: str, direction: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = candidates(feature_a=rng.integers(0, 12, 60), feature_b=rng.integers(0, 12, 60))
    table = table.drop_duplicates(["feature_a", "feature_b"])  # an index with gaps
    words = [{f: list(rng.choice([".", "ship", "sea", "sky"], 2)) for f in range(12)} for _ in "ab"]
    limits = Filters(0.3, 20, (".",), True)
    allowed = token_reasons(table, limits, *words) == ""
    assert 0 < allowed.sum() < len(table)
    rule = Rule(limits, method, direction, *words)
    keep = rule.keep(table)
    kept = 0
    for _ in range(5):
        r, count_a, count_b = rng.uniform(-1, 1, len(table)), *rng.integers(10, 100, (2, len(table)))
        again = table.assign(correlation=r, count_a=count_a, count_b=count_b)
        decided = rule.decide(again)
        np.testing.assert_array_equal(keep(again), decided["kept"])
        kept += int(decided["kept"].sum())
    assert kept


@pytest.mark.parametrize("seed", range(3))
def test_the_strongest_pairs_ignore_the_least_r_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = candidates(
        feature_a=rng.integers(0, 12, 60),
        feature_b=rng.integers(0, 12, 60),
        correlation=rng.uniform(-1, 1, 60),
        count_a=rng.integers(0, 40, 60),
    ).drop_duplicates(["feature_a", "feature_b"])
    words = {f: ["."] if f < 3 else ["sea"] for f in range(12)}
    limits = Filters(0.9, 10, (".",))
    free = Rule(replace(limits, min_correlation=-2), "mutual", words_a=words).decide(table).query("kept")
    got = Rule(limits, "mutual", words_a=words).strongest(table, 4)
    assert len(got) == 4 < len(free)
    assert got["correlation"].tolist() == sorted(free["correlation"], reverse=True)[:4]
    assert got["feature_a"].min() > 2
    assert got["count_a"].min() >= 10


def test_who_has_a_chance() -> None:
    """The features that filters leave: each once, with its count; whatever it correlates with."""
    table = candidates(feature_a=[0, 0, 1, 2, 3], feature_b=[5, 6, 6, 6, 6], count_a=[9, 9, 50, 50, 4], correlation=-1)
    rule = Rule(Filters(0.5, 5, (",",)), "mutual", words_a={2: [","], 1: ["sea"]}, words_b={6: [" ,"]})
    assert rule.matchable_features(table, "a").to_numpy().tolist() == [[0, 9], [1, 50]]
    assert rule.matchable_features(table, "b").to_numpy().tolist() == [[5, 100]]
