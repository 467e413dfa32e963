"""Singular vectors from Gram matrices, against singular value decompositions."""

import numpy as np
import pytest
from scipy import linalg

from unifeat.geometry import _singular
from unifeat.geometry._singular import left_vectors, left_vectors_of_gram, rotated_product, turn_tied


def product(k_a, k_b, decades, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.standard_normal((k_a, k_a)))[0][:, : min(k_a, k_b)]
    columns = np.linalg.qr(rng.standard_normal((k_b, k_b)))[0][:, : min(k_a, k_b)]
    return rows * np.geomspace(1, 10.0**-decades, min(k_a, k_b)) @ columns.T


SHAPES = pytest.mark.parametrize(("k_a", "k_b"), [(1, 1), (8, 8), (20, 33), (33, 20)])


@SHAPES
@pytest.mark.parametrize("decades", [0.5, 3, 4, 5, 9])  # on both sides of the limit, 4.5
def test_left_vectors(k_a, k_b, decades):
    given = product(k_a, k_b, decades)
    left, values = left_vectors(given)
    u, expected, _ = linalg.svd(given, full_matrices=False)
    np.testing.assert_allclose(values, expected, atol=1e-11)
    np.testing.assert_allclose(left.T @ left, np.eye(len(values)), atol=1e-7)
    if decades <= 3:
        np.testing.assert_allclose(np.abs(np.sum(left * u, axis=0)), 1.0, atol=1e-9)


def test_of_a_gram_matrix_or_none():
    given = product(20, 33, 2)
    vectors, values = left_vectors_of_gram(given @ given.T)
    np.testing.assert_allclose(values, linalg.svdvals(given), atol=1e-11)
    np.testing.assert_allclose(vectors * values**2 @ vectors.T, given @ given.T, atol=1e-12)
    steep = product(20, 33, 6)
    assert left_vectors_of_gram(steep @ steep.T) is None
    assert left_vectors_of_gram(np.zeros((0, 0))) is None


@SHAPES
@pytest.mark.parametrize("decades", [0.5, 2, 3.5, 4.5])
def test_rotated_product(k_a, k_b, decades):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((7, k_a)), rng.standard_normal((7, k_b))
    given = product(k_a, k_b, decades)
    u, _, vt = linalg.svd(given, full_matrices=False)
    off = abs(rotated_product(given, x, y, 99, 0.0) - np.sum((x @ u @ vt) * y))
    assert off < 1e-10 * np.linalg.norm(x) * np.linalg.norm(y)


def test_a_rank_below_the_width_and_small_values_map_to_zero():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((7, 20)), rng.standard_normal((7, 30))
    given = rng.standard_normal((20, 6)) @ rng.standard_normal((6, 30))
    u, _, vt = linalg.svd(given, full_matrices=False)
    expected = np.sum((x @ u[:, :6] @ vt[:6]) * y)
    assert rotated_product(given, x, y, 6, 0.0) == pytest.approx(expected, abs=1e-10)
    assert rotated_product(given, x, y, 20, 1e-9) == pytest.approx(expected, abs=1e-10)  # by the decomposition


def test_the_decomposition_is_taken_only_where_digits_would_be_lost(monkeypatch):
    taken = []
    monkeypatch.setattr(_singular, "svd", lambda given: taken.append(1) or linalg.svd(given, full_matrices=False))
    for decades, expected in ((1, 0), (4, 0), (5, 1)):
        taken.clear()
        left_vectors(product(20, 30, decades))
        assert len(taken) == expected
    x, y = np.random.default_rng(1).standard_normal((7, 20)), np.random.default_rng(2).standard_normal((7, 30))
    for decades, expected in ((1, 0), (5, 1)):
        taken.clear()
        rotated_product(product(20, 30, decades), x, y, 20, 0.0)
        assert len(taken) == expected


def test_tied_vectors_become_principal_axes():
    rng = np.random.default_rng(3)
    vectors = np.linalg.qr(rng.standard_normal((8, 5)))[0]
    before, load = vectors.copy(), rng.standard_normal((11, 8))
    turn_tied(np.array([1.0, 1.0, 1.0, 0.5, 0.2]), vectors, load)
    np.testing.assert_array_equal(vectors[:, 3:], before[:, 3:])
    energy = (load @ vectors[:, :3]).T @ (load @ vectors[:, :3])
    np.testing.assert_allclose(energy - np.diag(np.diag(energy)), 0, atol=1e-12)
    assert (np.diff(np.diag(energy)) < 0).all()
    np.testing.assert_allclose(vectors[:, :3] @ vectors[:, :3].T, before[:, :3] @ before[:, :3].T, atol=1e-12)
