"""Correlation within groups, against pandas' group means, NumPy and SciPy's analysis of variance."""

from itertools import pairwise, product

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy import sparse, stats

import unifeat as uf
from oracles import awkward
from unifeat.correlation.correlate import correlate_within
from unifeat.correlation.within import within_groups
from unifeat.errors import UserError
from unifeat.vocabulary.grouped_codes import in_groups
from unifeat.vocabulary.paired_codes import as_paired


def deviations(x: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows less the means of their groups; exactly zero where a feature is constant in every group."""
    frame = pd.DataFrame(x.astype(np.float64))
    by = frame.groupby(groups)
    left = (frame - by.transform("mean")).to_numpy().copy()
    left[:, ((by.transform("max") - by.transform("min")).to_numpy() == 0).all(axis=0)] = 0
    return left


def expected(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    a, b = deviations(x, groups), deviations(y, groups)
    norm = np.sqrt((a**2).sum(0))[:, None] * np.sqrt((b**2).sum(0))
    with np.errstate(invalid="ignore"):
        return np.where(norm > 0, (a.T @ b) / norm, np.nan)


def share_between(values: np.ndarray, groups: np.ndarray) -> float:
    """ε² from the F statistic."""
    parts = [values[groups == g] for g in np.unique(groups)]
    between, within = len(parts) - 1, len(values) - len(parts)
    f = stats.f_oneway(*parts).statistic
    return between * (f - 1) / (between * f + within)


@pytest.fixture(params=range(3))
def codes(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Dense, dead, constant and negative features; groups of all sizes; features of the groups alone."""
    rng = np.random.default_rng(request.param)
    x, y = awkward(rng, 400, 30), awkward(rng, 400, 40)
    groups = rng.zipf(1.3, 400) % 90
    x[:, 5] = np.where(groups % 3 == 0, 2.0 + groups, 0)
    y[:, 6] = x[:, 0] + 0.3 * y[:, 6]
    x[:, 7] = 1000 + rng.random(400)
    return x, y, groups


def best(r: np.ndarray, top: int) -> np.ndarray:
    return np.sort(np.nan_to_num(r, nan=-np.inf), axis=1)[:, ::-1][:, :top]


@pytest.mark.parametrize("chunk_rows", [None, 1, 37])
@pytest.mark.parametrize("memory_gb", [None, 1e-5])
def test_the_best_partners(codes, chunk_rows: int | None, memory_gb: float | None) -> None:
    x, y, groups = codes
    paired = as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=chunk_rows)
    corr = uf.correlate(paired, groups=groups, top=3, memory_gb=memory_gb)
    r = expected(x, y, groups)
    for found, wanted in ((corr.a_to_b, r), (corr.b_to_a, r.T)):
        np.testing.assert_allclose(np.nan_to_num(found.value, nan=-np.inf), best(wanted, 3), rtol=0, atol=1e-9)
        for feature, partners in enumerate(found.index):
            for place, partner in enumerate(partners):
                if partner >= 0:
                    assert wanted[feature, partner] == pytest.approx(found.value[feature, place], abs=1e-9)
    np.testing.assert_array_equal(corr.moments_a.count, (x != 0).sum(0))
    both = ((x != 0)[:, :, None] & (y != 0)[:, None, :]).sum(0)
    known = corr.a_to_b.index >= 0
    np.testing.assert_array_equal(
        corr.a_to_b.count[known], np.take_along_axis(both, np.maximum(corr.a_to_b.index, 0), 1)[known]
    )


@pytest.mark.parametrize("chunk_rows", [None, 1, 37])
def test_given_pairs(codes, chunk_rows: int | None) -> None:
    x, y, groups = codes
    a, b = (list(ids) for ids in zip(*product(range(30), range(40)), strict=True))
    paired = as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=chunk_rows)
    pairs = pd.DataFrame({"feature_a": a, "feature_b": b}, index=np.arange(1200) + 7)
    found = uf.pair_correlation(paired, None, pairs, groups=groups * 11 - 400)
    assert list(found.index) == list(pairs.index)
    np.testing.assert_allclose(found["correlation_within"], expected(x, y, groups)[a, b], rtol=0, atol=1e-9)
    with np.errstate(invalid="ignore"):
        plain = np.corrcoef(x.astype(np.float64), y, rowvar=False)[:30, 30:]
    varies = found["correlation"].notna()
    np.testing.assert_allclose(found["correlation"][varies], plain[a, b][varies], rtol=0, atol=1e-9)
    for side, values in (("a", x), ("b", y)):
        for feature in range(values.shape[1]):
            share = found[f"share_{side}"][found[f"feature_{side}"] == feature].unique()
            if np.ptp(values[:, feature]) == 0:
                assert np.isnan(share).all()
            elif deviations(values[:, [feature]], groups).any():
                assert share == pytest.approx(share_between(values[:, feature].astype(np.float64), groups), abs=1e-9)
            else:
                assert share == [1]


def test_without_groups_there_is_nothing_within(codes) -> None:
    x, y, _ = codes
    pairs = pd.DataFrame({"feature_a": [1, 2], "feature_b": [3, 4]})
    assert list(uf.pair_correlation(sparse.csr_array(x), sparse.csr_array(y), pairs)) == [
        *("feature_a", "feature_b", "correlation", "cofiring")
    ]


def test_blocks_add_up_to_the_sums_of_deviations_from_the_means_of_all(codes) -> None:
    x, y, groups = codes
    edges = np.array([0, 0, 50, 51, 200, 400])
    a, b = np.array([0, 1, 2, 7, 5]), np.array([6, 2, 2, 0, 1])
    for chunk_rows in (None, 30):
        paired = as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=chunk_rows)
        sums = within_groups(in_groups(paired, groups), edges, a, b, threads=2).sums
        left, right = deviations(x, groups)[:, a], deviations(y, groups)[:, b]
        for block, (low, high) in enumerate(pairwise(edges)):
            some = slice(low, high)
            np.testing.assert_allclose(sums.product[block], (left[some] * right[some]).sum(0), rtol=0, atol=1e-8)
            np.testing.assert_allclose(sums.a.squares[block][sums.pair_a], (left[some] ** 2).sum(0), atol=1e-8)
            np.testing.assert_allclose(sums.b.squares[block][sums.pair_b], (right[some] ** 2).sum(0), atol=1e-8)
            np.testing.assert_array_equal(sums.a.count[block][sums.pair_a], (x[some][:, a] != 0).sum(0))
            np.testing.assert_array_equal(sums.b.count[block][sums.pair_b], (y[some][:, b] != 0).sum(0))


def test_rows_alone_in_their_group_say_nothing() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 3)), rng.random((60, 3))
    groups = np.r_[np.arange(20), np.repeat([100, 200], 20)]
    pairs = pd.DataFrame({"feature_a": [0, 1, 2], "feature_b": [0, 1, 2]})
    found = [
        uf.pair_correlation(sparse.csr_array(x[rows]), sparse.csr_array(y[rows]), pairs, groups[rows])
        for rows in (slice(None), slice(20, None))
    ]
    np.testing.assert_allclose(found[0]["correlation_within"], found[1]["correlation_within"], rtol=0, atol=1e-12)
    alone = within_groups(
        in_groups(as_paired(sparse.csr_array(x), sparse.csr_array(y)), groups), np.array([0, 60]), [0], [0], threads=1
    )
    assert alone.alone == 20


@pytest.mark.parametrize("groups", [np.zeros(40, int), np.arange(40)], ids=["one group", "all alone"])
def test_one_group_and_all_alone(groups: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 4)), rng.random((40, 4))
    codes = sparse.csr_array(x), sparse.csr_array(y)
    corr = uf.correlate(*codes, groups=groups)
    if groups.any():
        assert (corr.a_to_b.index == -1).all()
    else:
        np.testing.assert_allclose(corr.a_to_b.value, uf.correlate(*codes).a_to_b.value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 3, 2), (9, 0, 4), (9, 4, 0)])
def test_small_shapes(shape: tuple[int, int, int]) -> None:
    n, features_a, features_b = shape
    codes = sparse.csr_array(np.ones((n, features_a))), sparse.csr_array(np.ones((n, features_b)))
    corr = uf.correlate(*codes, groups=np.zeros(n, int))
    assert corr.a_to_b.index.shape == (features_a, 4)
    pairs = pd.DataFrame({"feature_a": [], "feature_b": []}, dtype=int)
    assert len(uf.pair_correlation(*codes, pairs, groups=np.zeros(n, int))) == 0


def test_threads_and_memory_change_no_bit(codes) -> None:
    x, y, groups = codes
    grouped = in_groups(as_paired(sparse.csr_array(x), sparse.csr_array(y), chunk_rows=50), groups)
    first = correlate_within(grouped, threads=1)
    for threads, memory_gb in ((2, None), (3, 1e-5)):
        again = correlate_within(grouped, memory_gb=memory_gb, threads=threads)
        np.testing.assert_array_equal(first.a_to_b.value, again.a_to_b.value)
        np.testing.assert_array_equal(first.b_to_a.index, again.b_to_a.index)


def test_token_detectors_and_what_goes_beyond_them() -> None:
    """Planted: pairs of the same token alone, and pairs that share a context within the token."""
    rng = np.random.default_rng(0)
    tokens, context = rng.integers(0, 40, 6000), rng.random(6000) < 0.3
    detector = np.where(tokens == 3, 1.0, 0.0)

    def side() -> np.ndarray:
        noise = rng.uniform(0.5, 1.5, (6000, 2))
        beyond = np.where((tokens == 3) & context, 1.0, 0.0)
        return np.stack([detector, beyond], axis=1) * noise

    a, b = side(), side()
    pairs = pd.DataFrame({"feature_a": [0, 1], "feature_b": [0, 1]})
    found = uf.pair_correlation(sparse.csr_array(a), sparse.csr_array(b), pairs, tokens)
    assert (found["correlation"] > 0.8).all()
    assert abs(found["correlation_within"][0]) < 0.25  # 150 rows of the token
    assert found["correlation_within"][1] > 0.7
    assert found["share_a"][0] > 0.9
    assert found["share_a"][1] < 0.4


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.zeros(9, int), "there are 9 groups for 10 rows of codes"),
        (np.zeros((10, 1), int), "one integer a row, not 2-D int64"),
        (np.zeros(10), "one integer a row, not 1-D float64"),
        (["a"] * 10, "one integer a row, not 1-D <U1"),
    ],
)
def test_groups_that_are_none(groups, message: str) -> None:
    codes = sparse.csr_array(np.eye(10))
    pairs = pd.DataFrame({"feature_a": [0], "feature_b": [0]})
    for call in (
        lambda: uf.correlate(codes, codes, groups=groups),
        lambda: uf.pair_correlation(codes, codes, pairs, groups),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_pairs_in_every_form() -> None:
    codes = sparse.random(50, 10, density=0.4, format="csr", rng=np.random.default_rng(0))
    columns = {"feature_a": [3, 0], "feature_b": [4, 0]}
    expected = uf.pair_correlation(codes, codes, pd.DataFrame(columns))

    class Polars:  # (as far as it is asked)
        columns = ("feature_a", "feature_b")

        def __getitem__(self, name: str) -> list[int]:
            return {"feature_a": [3, 0], "feature_b": [4, 0]}[name]

    listed = [(3, 4), (0, 0)]
    for form in (columns, pa.table(columns), Polars(), listed, np.array(listed), torch.tensor(listed)):
        pd.testing.assert_frame_equal(uf.pair_correlation(codes, codes, form), expected)
    assert len(uf.pair_correlation(codes, codes, [])) == 0


def test_wrong_pairs_and_devices() -> None:
    codes = sparse.csr_array(np.eye(10))
    for wrong in ([(1, 2, 3)], [1, 2], [(1, 2), (3,)], None):
        with pytest.raises(UserError, match=r"or a list of pairs \(a, b\)"):
            uf.pair_correlation(codes, codes, wrong)
    with pytest.raises(UserError, match=r"features of A: 0\.5 is not one of 10 features"):
        uf.pair_correlation(codes, codes, [(0.5, 1)])
    with pytest.raises(UserError, match=r"columns feature_a and feature_b .feature_b is missing"):
        uf.pair_correlation(codes, codes, pd.DataFrame({"feature_a": [0]}))
    with pytest.raises(UserError, match="features of B: 10 is not one of 10 features"):
        uf.pair_correlation(codes, codes, pd.DataFrame({"feature_a": [0, 0], "feature_b": [0, 10]}))
    with pytest.raises(UserError, match="correlation within groups runs on the cpu"):
        uf.correlate(codes, codes, groups=np.zeros(10, int), device="cuda")
