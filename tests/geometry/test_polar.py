"""Rotations of other rows by resolvents of a tridiagonal matrix, against singular value decompositions."""

import numpy as np
import pytest
from scipy import linalg

from unifeat.geometry import _polar, _singular
from unifeat.geometry._kernels import inverse_squares, resolvent_products
from unifeat.geometry._polar import by_resolvents
from unifeat.geometry._singular import rotated_product


def product(k_a, k_b, decades, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.standard_normal((k_a, k_a)))[0]
    columns = np.linalg.qr(rng.standard_normal((k_b, k_b)))[0][:, :k_a]
    return rows * np.geomspace(1, 10.0**-decades, k_a) @ columns.T


def sides(n, k_a, k_b, seed=1):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, k_a)), rng.standard_normal((n, k_b))


def by_decomposition(given, x, y):
    u, _, vt = linalg.svd(given, full_matrices=False)
    return float(np.sum((x @ u @ vt) * y))


@pytest.mark.parametrize(("k_a", "k_b", "n"), [(2, 2, 5), (5, 9, 3), (40, 40, 40), (90, 130, 17), (7, 8, 30)])
@pytest.mark.parametrize("decades", [0.0, 0.5, 2, 3])
def test_equals_the_decomposition(k_a, k_b, n, decades):
    given, (x, y) = product(k_a, k_b, decades), sides(n, k_a, k_b)
    found = by_resolvents(given, x, y, 0.0, 1e-9)
    assert found == pytest.approx(by_decomposition(given, x, y), abs=1e-11 * np.linalg.norm(x) * np.linalg.norm(y))


@pytest.mark.parametrize("decades", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("k", [3, 30, 120])
def test_the_error_is_below_its_bound(k, decades):
    given, (x, y) = product(k, k + 5, decades), sides(11, k, k + 5)
    whole = np.linalg.norm(x) * np.linalg.norm(y)
    off = abs(by_resolvents(given, x, y, 0.0, np.inf) - by_decomposition(given, x, y)) / whole
    for bound in 10.0 ** np.arange(-16, -4):
        if by_resolvents(given, x, y, 0.0, bound) is not None:
            break
        assert bound < 1e-5
    assert off < max(bound, 1e-15)


def test_what_is_hidden_or_too_small_is_left_to_the_decomposition():
    given, (x, y) = product(20, 30, 2), sides(7, 20, 30)
    assert by_resolvents(given, x, y, 0.0099, 1e-9) is not None
    assert by_resolvents(given, x, y, 0.0101, 1e-9) is None
    assert by_resolvents(product(20, 30, 6), x, y, 0.0, np.inf) is None
    deficient = np.vstack([given[:-1], given[0]])
    assert by_resolvents(deficient, x, y, 0.0, np.inf) is None


def test_it_is_taken_where_it_is_faster(monkeypatch):
    taken = []
    real = by_resolvents
    monkeypatch.setattr(_singular, "by_resolvents", lambda *given: taken.append(1) or real(*given))
    for k, n, rank, expected in ((63, 9, 63, 0), (64, 9, 64, 1), (64, 65, 64, 0), (64, 9, 63, 0)):
        taken.clear()
        for given, x, y in ((product(k, 80, 1), *sides(n, k, 80)), (product(k, 80, 1).T, *sides(n, 80, k))):
            found = rotated_product(given, x, y, rank, 0.0)
            if rank == k:
                whole = np.linalg.norm(x) * np.linalg.norm(y)
                assert found == pytest.approx(by_decomposition(given, x, y), abs=1e-11 * whole)
        assert len(taken) == 2 * expected


def tridiagonal(k, seed=0):
    rng = np.random.default_rng(seed)
    beside = rng.standard_normal(k - 1)
    diagonal = np.abs(rng.standard_normal(k)) + np.abs(np.pad(beside, (0, 1))) + np.abs(np.pad(beside, (1, 0))) + 0.1
    return diagonal, beside, np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)


@pytest.mark.parametrize("k", [2, 3, 40])
def test_products_with_inverses_of_tridiagonal_matrices(k):
    diagonal, beside, whole = tridiagonal(k)
    rng = np.random.default_rng(1)
    upper, shifts, rows = rng.standard_normal((k, k)), np.array([0.0, 0.3, 100.0]), rng.standard_normal((4, k))
    expected = [np.sum(np.triu(np.linalg.inv(whole + s * np.eye(k)) * upper)) for s in shifts]
    np.testing.assert_allclose(resolvent_products(diagonal, beside, shifts, upper), expected, rtol=1e-11)
    solved = np.linalg.solve(whole, rows.T).T
    assert inverse_squares(diagonal, beside, rows, False) == pytest.approx(np.sum(rows * solved))
    assert inverse_squares(diagonal, beside, rows, True) == pytest.approx(np.sum(solved**2))


def test_the_inverse_root():
    diagonal, beside, whole = tridiagonal(30)
    upper = np.random.default_rng(2).standard_normal((30, 30))
    values, vectors = np.linalg.eigh(whole)
    expected = np.sum(np.triu(vectors / np.sqrt(values) @ vectors.T * upper))
    found = _polar._inverse_root_product(diagonal, beside, upper, values[0], values[-1])
    assert found == pytest.approx(expected, rel=1e-12)
