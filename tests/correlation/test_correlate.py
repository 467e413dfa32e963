"""Exact correlation: against numpy.corrcoef, rational arithmetic and closed forms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from oracles import awkward, check, check_both, exact_order, pearson, same
from unifeat.correlation import best_partners as engine
from unifeat.correlation.correlate import correlate
from unifeat.errors import UserError
from unifeat.vocabulary.paired_codes import as_paired


@pytest.fixture(autouse=True, params=["sparse", "dense"], scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Everything here holds whichever way the codes go, so it is tried both ways."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_is_dense", lambda *_: request.param == "dense")
        yield


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float64, np.float64), (np.float32, np.float64)])
def test_codes_of_all_kinds(seed: int, dtypes: tuple[type, type]) -> None:
    rng = np.random.default_rng(seed)
    rows, features_a, features_b = rng.integers([2, 1, 1], [400, 90, 150])
    x, y = awkward(rng, rows, features_a, dtypes[0]), awkward(rng, rows, features_b, dtypes[1])
    y[:, : min(features_a, features_b) // 2] = x[:, : min(features_a, features_b) // 2]
    check_both(correlate(sparse.csr_array(x), sparse.csr_array(y), top=5), x, y, 5)


@pytest.mark.parametrize("density", [0.001, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("signs", [1, 2])
def test_densities_and_signs(density: float, signs: int) -> None:
    rng = np.random.default_rng([signs, int(1000 * density)])
    x, y = (
        rng.exponential(1, (300, f)) * rng.choice([1, -1][:signs], (300, f)) * (rng.random((300, f)) < density)
        for f in (30, 200)
    )
    check_both(correlate(sparse.csr_array(x), sparse.csr_array(y), top=3), x, y, 3)


@pytest.mark.parametrize("shape", [(0, 5, 3), (1, 5, 3), (2, 4, 4), (9, 0, 4), (9, 4, 0), (0, 0, 0), (50, 1, 1)])
def test_small_shapes(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    x, y = (rng.integers(0, 3, (shape[0], f)).astype(np.float32) for f in shape[1:])
    check_both(correlate(sparse.csr_array(x), sparse.csr_array(y), top=4), x, y, 4)


def test_top_beyond_the_features() -> None:
    rng = np.random.default_rng(0)
    x, y = awkward(rng, 60, 6), awkward(rng, 60, 9)
    check_both(correlate(sparse.csr_array(x), sparse.csr_array(y), top=12), x, y, 12)


small = hnp.arrays(np.int64, st.tuples(st.integers(2, 12), st.integers(1, 5)), elements=st.integers(-2, 2))


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 6), st.sampled_from([np.int8, np.int64, np.float32, np.float64]))
def test_order_and_ties_are_exact(data: st.DataObject, top: int, dtype: type) -> None:
    x = data.draw(small)
    y = data.draw(hnp.arrays(np.int64, (len(x), data.draw(st.integers(1, 5))), elements=st.integers(-2, 2)))
    corr = correlate(sparse.csr_array(x.astype(dtype)), sparse.csr_array(y.astype(dtype)), top=top)
    for partners, order in ((corr.a_to_b, exact_order(x, y)), (corr.b_to_a, exact_order(y, x))):
        for index, right in zip(partners.index, order, strict=True):
            assert index[index >= 0].tolist() == right[:top]


def test_ties_go_to_the_lower_id_even_between_multiples() -> None:
    rng = np.random.default_rng(3)
    x = rng.gamma(1, 1, (400, 3)) * (rng.random((400, 3)) < 0.2)
    y = np.hstack([x * 3.1, x, x * 0.7])[:, rng.permutation(9)]
    corr = correlate(sparse.csr_array(x), sparse.csr_array(y), top=3)
    np.testing.assert_array_equal(corr.a_to_b.value, 1)
    assert (np.diff(corr.a_to_b.index) > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_however_it_is_cut(dtype: type) -> None:
    rng = np.random.default_rng(5)
    a, b = (sparse.csr_array(awkward(rng, 500, f, dtype)) for f in (70, 110))
    whole = correlate(a, b, threads=1)
    for chunk_rows, memory_gb, threads in [
        (None, 1.0, 2), (None, 1.0, 7), (1, 1.0, 2), (64, 1.0, 3), (None, 2e-5, 2), (77, 8e-6, 1), (13, 8e-5, 3),
    ]:  # fmt: skip
        same(whole, correlate(as_paired(a, b, chunk_rows=chunk_rows), memory_gb=memory_gb, threads=threads))


def test_swapping_the_sides_swaps_the_result() -> None:
    rng = np.random.default_rng(6)
    a, b = (sparse.csr_array(awkward(rng, 300, f)) for f in (40, 60))
    forth, back = correlate(a, b), correlate(b, a)
    np.testing.assert_allclose(forth.a_to_b.value, back.b_to_a.value, rtol=0, atol=2e-12)
    np.testing.assert_array_equal(forth.b_to_a.index, back.a_to_b.index)


@pytest.mark.parametrize(("dtype", "offset", "spread"), [(np.float64, 1e6, 1e-2), (np.float32, 1000, 1e-2)])
def test_always_on_far_from_zero(dtype: type, offset: float, spread: float) -> None:
    rng = np.random.default_rng(7)
    hidden = rng.standard_normal((2000, 4))
    x = (offset + spread * hidden).astype(dtype)
    y = (-offset + spread * (hidden @ rng.standard_normal((4, 4)))).astype(dtype)
    x[:, 0] *= np.arange(2000) != 11  # always on but once
    y[:, 1] *= np.arange(2000) != 11
    corr = correlate(sparse.csr_array(x), sparse.csr_array(y))
    check_both(corr, x, y, 4, tolerance=1e-6)
    assert corr.a_to_b.index[0, -1] == 1  # where one falls to zero the other rises to it
    assert corr.a_to_b.value[0, -1] < -0.99


@pytest.mark.parametrize("scale", [(1e30, 1e30), (1e-30, 1e-30), (1e30, 1e-30), (2.0**-100, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scale_of_the_codes_does_not_matter(scale: tuple[float, float], dtype: type) -> None:
    rng = np.random.default_rng(8)
    x, y = (awkward(rng, 200, 30, dtype) for _ in range(2))
    y[:, 5:15] += x[:, 5:15]
    plain = correlate(sparse.csr_array(x), sparse.csr_array(y))
    scaled = correlate(*(sparse.csr_array(c * dtype(s)) for c, s in zip((x, y), scale, strict=True)))
    np.testing.assert_allclose(scaled.a_to_b.value, plain.a_to_b.value, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(scaled.a_to_b.index[:, 0], plain.a_to_b.index[:, 0])


def test_one_step_of_a_float_is_variation() -> None:
    step = np.float32(1 + 2**-23)
    x = np.ones((10_000, 2), np.float32)
    x[17, 0] = step
    corr = correlate(sparse.csr_array(x), sparse.csr_array(x))
    assert corr.a_to_b.index[:, 0].tolist() == [0, -1]
    assert corr.a_to_b.value[0, 0] == 1
    assert corr.moments_a.sd[1] == 0 < corr.moments_a.sd[0]


@pytest.mark.slow
def test_ten_million_tokens_lose_no_digits() -> None:
    n = 10_000_000
    once = np.ones(n, bool)
    once[n // 3] = False  # on everywhere but here

    def codes(*columns: tuple[np.ndarray, float]) -> sparse.csr_array:
        rows = np.concatenate([where for where, _ in columns])
        ids = np.repeat(np.arange(len(columns), dtype=np.int32), [len(where) for where, _ in columns])
        values = np.repeat(np.array([v for _, v in columns], np.float32), [len(where) for where, _ in columns])
        return sparse.csc_array(
            (values, rows.astype(np.int32), np.searchsorted(ids, np.arange(len(columns) + 1))), shape=(n, len(columns))
        ).tocsr()

    thirds, sixths = np.arange(0, n, 3), np.arange(0, n, 6)
    a = codes((np.flatnonzero(once), 0.1), (thirds, 0.3))
    b = codes((np.flatnonzero(once), 0.7), (np.arange(1, n), 0.7), (sixths, 1e3))
    corr = correlate(a, b, top=3)
    p, q = len(thirds) / n, len(sixths) / n
    r_thirds = (q - p * q) / np.sqrt(p * (1 - p) * q * (1 - q))
    alone = 1 / (n - 1)
    silent_together = p / (n * np.sqrt(p * (1 - p) * alone * (1 - alone)))  # of the order 1e-4
    assert corr.a_to_b.index[0, 0] == 0
    assert corr.a_to_b.value[0, 0] == 1
    assert corr.a_to_b.index[1, 0] == 2
    np.testing.assert_allclose(corr.a_to_b.value[1, 0], r_thirds, rtol=0, atol=1e-9)
    by_partner = dict(zip(corr.a_to_b.index[0].tolist(), corr.a_to_b.value[0].tolist(), strict=True))
    assert by_partner[1] == pytest.approx(-alone, abs=1e-11)
    assert abs(by_partner[2]) < 2 * silent_together
    assert corr.a_to_b.count[0].tolist()[0] == n - 1


def test_more_features_than_sixteen_bits_hold() -> None:
    rng = np.random.default_rng(9)
    wide = 70_000
    row_of = rng.integers(0, 300, wide)
    y = sparse.csr_array((rng.exponential(1, wide).astype(np.float32), (row_of, np.arange(wide))), shape=(300, wide))
    x = awkward(rng, 300, 6)
    x[:, 4] = y[:, [65_535]].toarray()[:, 0]
    x[:, 5] = y[:, [69_999]].toarray()[:, 0] * 2
    corr = correlate(sparse.csr_array(x), y, top=2)
    r = pearson(x, y.toarray())
    check(corr.a_to_b, r, (x != 0).astype(int).T @ (y != 0), 2)
    np.testing.assert_allclose(corr.b_to_a.value, -np.sort(-r[2:], axis=0)[:2].T, rtol=0, atol=1e-9)
    # Every feature of y fires once: many tie with r = 1, and the lowest ids among them are reported.
    assert corr.a_to_b.index[4].tolist() == np.flatnonzero(row_of == row_of[65_535])[:2].tolist()
    same(corr, correlate(sparse.csr_array(x), y, top=2, memory_gb=2e-3))


def test_explicit_zeros_do_not_fire() -> None:
    rng = np.random.default_rng(10)
    x, y = awkward(rng, 80, 20), awkward(rng, 80, 20)
    full = [sparse.csr_array(np.where(c == 0, 1, c)) for c in (x, y)]
    for matrix, codes in zip(full, (x, y), strict=True):
        matrix.data[:] = codes.ravel()
        matrix.data[3] = -0.0 if codes.ravel()[3] == 0 else matrix.data[3]
    assert full[0].nnz == x.size
    same(correlate(*full), correlate(sparse.csr_array(x), sparse.csr_array(y)))


def test_duplicate_and_unsorted_entries_are_summed_and_the_input_kept() -> None:
    rows, ids = np.array([0, 0, 0, 1, 2, 2]), np.array([3, 1, 3, 0, 2, 2])
    values = np.array([1.0, 2, 3, 4, 5, -5])
    codes = sparse.csr_array(sparse.coo_array((values, (rows, ids)), shape=(4, 4)))
    raw = sparse.csr_array((values, ids, np.array([0, 3, 4, 6, 6])), shape=(4, 4))
    other = sparse.csr_array(np.eye(4))
    same(correlate(raw, other), correlate(codes, other))
    np.testing.assert_array_equal(raw.indices, ids)
    np.testing.assert_array_equal(raw.data, values)


@pytest.mark.parametrize("form", ["csc_matrix", "coo_array", "lil_array", "csr_matrix"])
def test_other_sparse_formats(form: str) -> None:
    rng = np.random.default_rng(11)
    x, y = awkward(rng, 50, 10), awkward(rng, 50, 10)
    same(correlate(*(getattr(sparse, form)(c) for c in (x, y))), correlate(sparse.csr_array(x), sparse.csr_array(y)))


def test_candidates_hold_every_listed_pair_once() -> None:
    rng = np.random.default_rng(12)
    corr = correlate(*(sparse.csr_array(awkward(rng, 100, f)) for f in (15, 25)), top=3)
    table = corr.candidates()
    assert not table.duplicated(["feature_a", "feature_b"]).any()
    assert table[["feature_a", "feature_b"]].apply(tuple, axis=1).is_monotonic_increasing
    found = {(row.feature_a, row.feature_b): row for row in table.itertuples()}
    listed = set()
    for partners, column, turned in ((corr.a_to_b, "rank_a_to_b", False), (corr.b_to_a, "rank_b_to_a", True)):
        for one, rank in zip(*np.nonzero(partners.index >= 0), strict=True):
            pair = (int(one), int(partners.index[one, rank]))
            pair = pair[::-1] if turned else pair
            listed.add(pair)
            assert getattr(found[pair], column) == rank + 1
            assert found[pair].correlation == partners.value[one, rank]
            assert found[pair].cofiring == partners.count[one, rank]
    assert set(found) == listed
    unlisted = table[table["rank_a_to_b"] == 0]
    assert (unlisted["rank_b_to_a"] > 0).all()
    assert len(correlate(sparse.csr_array((5, 3)), sparse.csr_array((5, 2))).candidates()) == 0


def test_settings_out_of_range() -> None:
    codes = sparse.csr_array(np.eye(3))
    with pytest.raises(UserError, match="top must be at least 1, not 0"):
        correlate(codes, codes, top=0)
    with pytest.raises(UserError, match="memory_gb must be positive, not 0"):
        correlate(codes, codes, memory_gb=0)
    with pytest.raises(UserError, match="threads must be at least 1, not 0"):
        correlate(codes, codes, threads=0)
