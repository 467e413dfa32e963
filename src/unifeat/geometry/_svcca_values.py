"""SVCCA at several numbers of components, for nulls that score many sets of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import linalg

from unifeat.geometry._components import singular_values
from unifeat.geometry._input import Matrix, as_pair, centred, constant_flags, precision_of
from unifeat.geometry._svcca import svcca

# Eigenvalues of a Gram matrix are squares of singular values. Below this share of the largest, their vectors lose more
# than seven digits.
_SMALLEST_SHARE = 1e-9


def svcca_values(x: Any, y: Any, dims: Sequence[int]) -> list[float]:
    """The values of `svcca(x, y, dims=k)` for several k, within 1e-9.

    One eigendecomposition of the smaller Gram matrix of each side gives the leading components for all of them, about
    five times as fast as a singular value decomposition for each. Where components are near the rounding of the rows,
    `svcca` itself is called.

    x: (n, d_a) and y: (n, d_b). Raises UserError as `svcca` does.
    """
    a, b = as_pair(x, y, at_least=2, why="SVCCA")
    bases = []
    if not constant_flags(a, b):
        bases = [_leading(rows, max(dims), precision_of(given)) for rows, given in ((a, x), (b, y))]
    if not bases or any(basis is None for basis in bases):
        return [svcca(x, y, dims=k).value for k in dims]
    left, right = bases
    return [float(np.clip(singular_values(left[:, :k].T @ right[:, :k]), 0.0, 1.0).mean()) for k in dims]  # type: ignore[index]


def _leading(matrix: Matrix, k: int, given: Any) -> Float64[np.ndarray, "n k"] | None:
    """The leading left singular vectors of the centred rows; None if some are not far above rounding."""
    rows = centred(matrix)
    n, d = rows.shape
    if k > min(n - 1, d):
        return None
    gram = rows.T @ rows if d <= n else rows @ rows.T
    size = len(gram)
    squares, vectors = linalg.eigh(gram, subset_by_index=[size - k, size - 1], overwrite_a=True, check_finite=False)
    noise = given.most_noise(matrix)
    if not squares[0] > max(_SMALLEST_SHARE * squares[-1], noise**2):
        return None
    basis = vectors[:, ::-1] if d > n else (rows @ vectors[:, ::-1]) / np.sqrt(squares[::-1])
    found: Matrix = basis
    return found
