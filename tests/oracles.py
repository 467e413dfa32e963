"""What correlation ought to give, computed the plain way, and codes to try it on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from unifeat.correlation.correlate import Correlation, Partners


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(features of x, features of y) float64 from numpy.corrcoef, NaN where a feature never varies."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    varies = [np.ptp(z, axis=0) > 0 if len(z) else np.zeros(z.shape[1], bool) for z in (x, y)]
    r = np.full((x.shape[1], y.shape[1]), np.nan)
    if varies[0].any() and varies[1].any():
        split = int(varies[0].sum())
        if varies[1].sum() < 5000:
            both = np.corrcoef(x[:, varies[0]], y[:, varies[1]], rowvar=False)
            r[np.ix_(*varies)] = np.atleast_2d(both)[:split, split:]
        else:  # corrcoef would also correlate y with itself
            u, v = (z[:, keep] - z[:, keep].mean(axis=0) for z, keep in zip((x, y), varies, strict=True))
            r[np.ix_(*varies)] = (u / np.linalg.norm(u, axis=0)).T @ (v / np.linalg.norm(v, axis=0))
    return r


def exact_order(x: np.ndarray, y: np.ndarray) -> list[list[int]]:
    """For each feature of x all partners in y, best first, in rational arithmetic; ties to the lower id. Small ints."""
    n = len(x)

    def moments(u: np.ndarray, v: np.ndarray) -> Fraction:
        return Fraction(int(n * (u * v).sum() - u.sum() * v.sum()))

    order = []
    for u in x.astype(object).T:
        keys = {}
        for j, v in enumerate(y.astype(object).T):
            spread = moments(u, u) * moments(v, v)
            if spread > 0:
                cov = moments(u, v)
                keys[j] = cov * abs(cov) / spread
        order.append(sorted(keys, key=lambda j: (-keys[j], j)))
    return order


def check(partners: Partners, r: np.ndarray, cofiring: np.ndarray, top: int, tolerance: float = 1e-9) -> None:
    """Partners must be the `top` largest r of each row, and say what r and the co-firing count are."""
    assert partners.index.shape == partners.value.shape == partners.count.shape == (len(r), top)
    assert (partners.index.dtype, partners.value.dtype, partners.count.dtype) == (np.int32, np.float64, np.int64)
    for row, (index, value, count) in enumerate(zip(partners.index, partners.value, partners.count, strict=True)):
        known = r[row][~np.isnan(r[row])]
        held = min(len(known), top)
        np.testing.assert_array_equal(index[held:], -1)
        assert np.isnan(value[held:]).all()
        assert not count[held:].any()
        assert (np.abs(value[:held]) <= 1).all()
        assert (np.diff(value[:held]) <= 0).all()
        np.testing.assert_allclose(value[:held], np.sort(known)[::-1][:held], rtol=0, atol=tolerance)
        np.testing.assert_allclose(value[:held], r[row, index[:held]], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(count[:held], cofiring[row, index[:held]])
        assert len(set(index[:held].tolist())) == held


def check_both(corr: Correlation, x: np.ndarray, y: np.ndarray, top: int, tolerance: float = 1e-9) -> None:
    """`check` in both directions, and the moments."""
    r = pearson(x, y)
    cofiring = (x != 0).astype(np.int64).T @ (y != 0)
    assert corr.n == len(x)
    check(corr.a_to_b, r, cofiring, top, tolerance)
    check(corr.b_to_a, r.T, cofiring.T, top, tolerance)
    for moments, codes in ((corr.moments_a, x), (corr.moments_b, y)):
        np.testing.assert_array_equal(moments.count, (codes != 0).sum(axis=0))
        if len(codes):
            wide = codes.astype(np.float64)
            np.testing.assert_allclose(moments.mean, wide.mean(axis=0), rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(
                moments.sd, wide.std(axis=0), rtol=1e-6, atol=1e-12 * np.abs(wide).max(initial=0)
            )
            np.testing.assert_array_equal(moments.sd == 0, np.ptp(wide, axis=0) == 0)


def same(one: Correlation, other: Correlation) -> None:
    """Equal bit for bit."""
    assert one.n == other.n
    for left, right in ((one.a_to_b, other.a_to_b), (one.b_to_a, other.b_to_a)):
        np.testing.assert_array_equal(left.index, right.index)
        np.testing.assert_array_equal(left.value, right.value)
        np.testing.assert_array_equal(left.count, right.count)
    for a, b in ((one.moments_a, other.moments_a), (one.moments_b, other.moments_b)):
        for field in ("count", "mean", "sd"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def awkward(rng: np.random.Generator, rows: int, features: int, dtype: type = np.float32) -> np.ndarray:
    """Codes of all kinds side by side: rare, frequent, always on, dead, constant, silent once, of both signs."""
    codes = rng.gamma(2.0, 1.0, (rows, features))
    kind = rng.integers(0, 8, features)
    fires = rng.random((rows, features)) < np.choose(kind, [0.02, 0.1, 0.4, 0.6, 0.95, 1.0, 0.3, 1.0])
    codes *= fires
    codes[:, kind == 6] *= rng.choice([-1.0, 1.0], (rows, (kind == 6).sum()))
    once = np.flatnonzero(kind == 7)
    codes[:, once] = 1.7
    if rows:
        codes[rng.integers(0, rows, len(once)), once] = 0
    if features > 4:
        codes[:, 0], codes[:, 1] = 0, 2.5
        codes[:, 3] = codes[:, 2]  # a tie in every list
    return codes.astype(dtype)
