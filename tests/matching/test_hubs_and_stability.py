"""Hubness, reciprocity and agreement: against whole matrices of r, SciPy's skewness, and drawing pairs anew."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import skew

from oracles import awkward, pearson
from unifeat.correlation.correlate import correlate
from unifeat.matching.hubs import hubness, reciprocity
from unifeat.matching.stability import agreement


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("top", [1, 3])
def test_hubs_and_reciprocity_of_a_whole_matrix(seed: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(200, f)) * (rng.random((200, f)) < 0.4) for f in (30, 50))
    y[:, :20] += x[:, [7]]
    x[:, 3] = y[:, 4] = y[:, 45] = 0  # features that never fire are nobody's partner
    corr = correlate(sparse.csr_array(x), sparse.csr_array(y), top=top)
    r = np.nan_to_num(pearson(x, y), nan=-2)
    alive_a, alive_b = np.delete(np.arange(30), 3), np.delete(np.arange(50), [4, 45])
    best_b, best_a = r.argmax(axis=1), r.argmax(axis=0)
    for direction, scores, own, others in (("a_to_b", r, alive_a, alive_b), ("b_to_a", r.T, alive_b, alive_a)):
        got = hubness(corr)[direction]
        first = scores[own].argmax(axis=1).tolist()
        assert got["largest_share"] == pytest.approx(max(first.count(f) for f in first) / len(own))
        assert got["distinct"] == len(set(first))
        listed = np.argsort(-scores[own], axis=1)[:, :top]
        assert got["skewness"] == pytest.approx(skew([(listed == f).sum() for f in others]))
    assert hubness(corr)["b_to_a"]["largest_share"] > 0.3
    assert reciprocity(corr)["a_to_b"] == pytest.approx(np.mean([best_a[best_b[a]] == a for a in alive_a]))
    assert reciprocity(corr)["b_to_a"] == pytest.approx(np.mean([best_b[best_a[b]] == b for b in alive_b]))


def test_a_space_with_itself_has_no_hubs() -> None:
    codes = sparse.csr_array(np.random.default_rng(0).exponential(1, (100, 12)))
    corr = correlate(codes, codes, top=1)
    even = {"largest_share": pytest.approx(1 / 12), "distinct": 12, "skewness": None}
    assert hubness(corr) == {"a_to_b": even, "b_to_a": even}
    assert reciprocity(corr) == {"a_to_b": 1.0, "b_to_a": 1.0}


@pytest.mark.parametrize("shape", [(0, 5, 3), (9, 0, 4), (9, 3, 0), (9, 3, 4)])
def test_nobody_has_a_partner(shape: tuple[int, int, int]) -> None:
    corr = correlate(*(sparse.csr_array((shape[0], f)) for f in shape[1:]))
    nothing = {"largest_share": None, "distinct": 0, "skewness": None}
    assert hubness(corr) == {"a_to_b": nothing, "b_to_a": nothing}
    assert reciprocity(corr) == {"a_to_b": None, "b_to_a": None}


def test_codes_of_all_kinds() -> None:
    rng = np.random.default_rng(5)
    corr = correlate(*(sparse.csr_array(awkward(rng, 150, f)) for f in (40, 25)))
    for part in hubness(corr).values():
        assert 0 < part["largest_share"] <= 1
    for share in reciprocity(corr).values():
        assert 0 <= share <= 1


def pairs(*rows: tuple[int, int]) -> pd.DataFrame:
    return pd.DataFrame(np.array(rows, int).reshape(-1, 2), columns=["feature_a", "feature_b"])


def test_pairs_found_again() -> None:
    got = agreement(pairs((0, 0), (1, 1), (2, 3), (7, 7)), pairs((1, 1), (0, 0), (2, 2), (3, 3), (4, 4)))
    assert (got["pairs_1"], got["pairs_2"], got["shared"]) == (4, 5, 2)
    assert got["share"] == 0.5
    assert got["jaccard"] == 2 / 7
    assert got["chance"] == pytest.approx((1 + 1 + 1 + 0) / 4 / 5)


@pytest.mark.parametrize("many_to_one", [False, True])
def test_chance_is_what_pairing_anew_gives(many_to_one: bool) -> None:
    rng = np.random.default_rng(int(many_to_one))
    one = pairs(*zip(range(12), rng.permutation(15)[:12], strict=True))
    partner = rng.integers(0, 8, 20) if many_to_one else rng.permutation(20)
    other = pairs(*zip(range(20), partner, strict=True))
    shares = [agreement(one, other.assign(feature_b=rng.permutation(other["feature_b"])))["share"] for _ in range(3000)]
    standard_error = np.std(shares) / np.sqrt(len(shares))
    assert agreement(one, other)["chance"] == pytest.approx(np.mean(shares), abs=4 * standard_error)


def test_without_pairs() -> None:
    nothing, some = pairs(), pairs((0, 0), (1, 2))
    unknown = {"share": None, "jaccard": None, "chance": None}
    assert agreement(nothing, nothing) == {"pairs_1": 0, "pairs_2": 0, "shared": 0} | unknown
    assert agreement(nothing, some) == {"pairs_1": 0, "pairs_2": 2, "shared": 0} | unknown | {"jaccard": 0.0}
    assert agreement(some, nothing) == {
        "pairs_1": 2, "pairs_2": 0, "shared": 0, "share": 0.0, "jaccard": 0.0, "chance": 0.0,
    }  # fmt: skip
