"""The routines that release the GIL, against SciPy's wrappers of them."""

import numpy as np
import pytest
from scipy import linalg
from scipy.linalg import lapack

from unifeat.geometry._lapack import solve_lower, tridiagonal


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("order", ["C", "F", "neither"])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (1, 4), (5, 1), (6, 9), (9, 0), (0, 3)])
def test_solve_lower(k, m, order, transposed):
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((k, k)) + 5 * np.eye(k)  # what is above the diagonal is not read
    columns = rng.standard_normal((k, m))
    given = rng.standard_normal((2 * k, 2 * m))[::2, ::2] if order == "neither" else np.array(columns, order=order)
    given[:] = columns
    solved = solve_lower(whole, given, transposed=transposed)
    lower = np.tril(whole)
    np.testing.assert_allclose((lower.T if transposed else lower) @ solved, columns, atol=1e-13)
    np.testing.assert_array_equal(given, columns)


@pytest.mark.parametrize("k", [2, 3, 50])
def test_tridiagonal(k):
    rows = np.random.default_rng(0).standard_normal((k, k + 3))
    gram = rows @ rows.T
    diagonal, beside, reflections, factors = tridiagonal(gram.copy())
    whole = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    np.testing.assert_allclose(linalg.eigvalsh(whole), linalg.eigvalsh(gram), atol=1e-11 * np.trace(gram))
    turn = np.eye(k)
    turn[1:, 1:] = lapack.dormqr("L", "N", reflections, factors, np.asfortranarray(np.eye(k - 1)), lwork=64 * k)[0]
    np.testing.assert_allclose(turn @ whole @ turn.T, gram, atol=1e-12 * np.trace(gram))
