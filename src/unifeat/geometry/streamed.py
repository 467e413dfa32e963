"""Linear similarity of two spaces on many rows, read once in chunks: what memory holds is products of columns.

Where rows are tokens there are far more of them than columns, and everything that linear CKA, SVCCA and held-out CCA
need is in the sums of products of columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy import linalg, sparse

from unifeat.errors import UserError
from unifeat.geometry._input import EPS, as_pair

_NAN = float("nan")


@dataclass
class PairedMoments:
    """Sums over paired rows x_i (d_a,) and y_i (d_b,), by fold. Add chunks, then ask for scores.

    Rows are counted from a point near their mean, so that sums do not lose digits; the scores ignore translation.

    Attributes:
        folds: into how many folds the rows are divided.

    Memory: folds × (d_a² + d_b² + d_a d_b) float64.
    """

    folds: int = 5
    _origin: tuple[NDArray[Any], NDArray[Any]] | None = field(default=None, init=False, repr=False)
    _n: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64), init=False, repr=False)
    _sums: list[list[NDArray[np.float64]]] = field(default_factory=list, init=False, repr=False)
    # For sides i, j: Σ|i|²|j|², (2, 2), and Σ|i|² j, (d_j,), over the rows of all folds.
    _fourth: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 2)), init=False, repr=False)
    _weighted: list[list[NDArray[np.float64]]] = field(default_factory=list, init=False, repr=False)

    @property
    def n(self) -> int:
        """Rows added so far."""
        return int(self._n.sum())

    def add(self, x: Any, y: Any, fold: Any) -> None:
        """Add rows x (n, d_a), y (n, d_b), real and finite, and the fold of each, (n,) whole numbers from 0.

        x and y are arrays, tensors, or both SciPy sparse matrices, whose products cost what their entries cost.

        Raises:
            UserError: not two finite 2-D arrays with equally many rows, as wide as those before; a fold out of range.
        """
        rows = _checked(x, y)
        labels, n = np.asarray(fold), rows[0].shape[0]
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise UserError(f"fold: give one whole number for each of {n} rows")
        if labels.size and not 0 <= labels.min() <= labels.max() < self.folds:
            raise UserError(f"fold: give numbers from 0 to {self.folds - 1}")
        if not labels.size:
            return
        if self._origin is None:
            self._begin(*rows)
        assert self._origin is not None
        if (widths := [side.shape[1] for side in rows]) != (own := [len(side) for side in self._origin]):
            raise UserError(f"rows have {widths} columns, those before had {own}")
        a, b = rows if sparse.issparse(x) else (side - origin for side, origin in zip(rows, self._origin, strict=True))
        for number in np.unique(labels):
            own_a, own_b = a[labels == number], b[labels == number]
            self._n[number] += own_a.shape[0]
            new = own_a.sum(0), own_b.sum(0), own_a.T @ own_a, own_b.T @ own_b, own_a.T @ own_b
            for total, value in zip(self._sums[number], new, strict=True):
                total += value.toarray() if sparse.issparse(value) else value
        squares = np.stack([_squares(a), _squares(b)])
        self._fourth += squares @ squares.T
        for of_side, own in zip(self._weighted, squares, strict=True):
            for total, side in zip(of_side, (a, b), strict=True):
                total += own @ side

    def _begin(self, x: Any, y: Any) -> None:
        # Sparse rows are counted from zero: near it their means are.
        means = [np.zeros(side.shape[1]) if sparse.issparse(side) else side.mean(axis=0) for side in (x, y)]
        self._origin = means[0], means[1]
        d_a, d_b = x.shape[1], y.shape[1]
        shapes: list[tuple[int, ...]] = [(d_a,), (d_b,), (d_a, d_a), (d_b, d_b), (d_a, d_b)]
        self._n = np.zeros(self.folds, np.int64)
        self._sums = [[np.zeros(shape) for shape in shapes] for _ in range(self.folds)]
        self._weighted = [[np.zeros(d_a), np.zeros(d_b)] for _ in range(2)]

    def _total(self, fold: int | None = None) -> tuple[int, list[NDArray[np.float64]]]:
        """The number of rows and their sums; without those of one fold, if it is given."""
        kept = [number for number in range(self.folds) if number != fold]
        sums = [np.sum([self._sums[number][k] for number in kept], axis=0) for k in range(5)]
        return int(self._n[kept].sum()), sums

    def cka(self) -> float:
        """Debiased linear CKA of all rows, as `unifeat.cka(x, y, debiased=True)`; NaN for fewer than four rows."""
        if self.n < 4:
            return _NAN
        of_a, of_b = self._hsic(0, 0), self._hsic(1, 1)
        if not (of_a > 0 and of_b > 0):
            return _NAN
        return float(np.clip(self._hsic(0, 1) / np.sqrt(of_a * of_b), -1.0, 1.0))

    def _hsic(self, i: int, j: int) -> float:
        """HSIC₁ of K = XXᵀ, L = YYᵀ (Song et al. 2012, "Feature selection via dependence maximization", JMLR 13).

        Without their diagonals, K̃ and L̃ have tr K̃L̃ = ‖XᵀY‖² − Σ|x|²|y|², 1ᵀK̃1 = |Σx|² − Σ|x|², and row sums
        x·Σx − |x|².

        Args:
            i, j: the sides taken as X and Y, 0 or 1, i ≤ j.
        """
        n, (sum_a, sum_b, aa, bb, ab) = self._total()
        sums, squares = (sum_a, sum_b), (aa, bb)
        product = ab if i != j else squares[i]
        trace = float(np.sum(product * product)) - self._fourth[i, j]
        ones = [float(sums[k] @ sums[k]) - float(np.trace(squares[k])) for k in (i, j)]
        crossed = float(sums[i] @ product @ sums[j]) + self._fourth[i, j]
        crossed -= float(sums[i] @ self._weighted[j][i]) + float(sums[j] @ self._weighted[i][j])
        return float((trace + ones[0] * ones[1] / ((n - 1) * (n - 2)) - 2 * crossed / (n - 2)) / (n * (n - 3)))

    def svcca(self, dims: int) -> float:
        """SVCCA of all rows, as `unifeat.svcca(x, y, dims=dims)`."""
        if self.n < 2:
            return _NAN
        kept = self._components(dims)
        if kept is None:
            return _NAN
        n, (sum_a, sum_b, _, _, ab) = self._total()
        (basis_a, scale_a), (basis_b, scale_b) = kept
        cross = basis_a.T @ (ab - np.outer(sum_a, sum_b) / n) @ basis_b
        return float(np.clip(linalg.svdvals(cross / np.outer(scale_a, scale_b)), 0.0, 1.0).mean())

    def heldout_cca(self, dims: int) -> float:
        """Held-out CCA, as `unifeat.heldout_cca(x, y, dims=dims)` with these folds; folds without rows are left out."""
        kept = self._components(dims) if self.n >= 4 else None
        if kept is None:
            return _NAN
        (basis_a, _), (basis_b, _) = kept
        values = []
        for fold in np.flatnonzero(self._n >= 2):
            n, sums = self._total(int(fold))
            if n < 2:
                continue
            train = _scatters(n, sums, basis_a, basis_b)
            test = _scatters(int(self._n[fold]), self._sums[fold], basis_a, basis_b)
            roots = [_inverse_root(train[0]), _inverse_root(train[1])]
            left, _, right = linalg.svd(roots[0].T @ train[2] @ roots[1], full_matrices=False)
            a, b = roots[0] @ left, roots[1] @ right.T
            variance = np.einsum("ij,ij->j", a, test[0] @ a) * np.einsum("ij,ij->j", b, test[1] @ b)
            covariance = np.einsum("ij,ij->j", a, test[2] @ b)
            values.append(float(np.mean(covariance / np.sqrt(np.maximum(variance, np.finfo(float).tiny)))))
        return float(np.mean(values)) if values else _NAN

    def _components(self, dims: int) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]] | None:
        """For each side the leading directions, (d, k), and their singular values, (k,); None for a constant side."""
        n, sums = self._total()
        found = []
        for total, square in ((sums[0], sums[2]), (sums[1], sums[3])):
            values, vectors = linalg.eigh(square - np.outer(total, total) / n)
            values, vectors = values[::-1], vectors[:, ::-1]
            rank = int(np.sum(values > len(values) * EPS * max(float(values[0]), 0.0)))
            k = min(dims, rank, n - 1)
            if k < 1:
                return None
            found.append((vectors[:, :k], np.sqrt(values[:k])))
        return found


def _checked(x: Any, y: Any) -> list[Any]:
    """The rows of both sides in float64, dense or sparse.

    Raises:
        UserError: as `as_pair` does.
    """
    if sparse.issparse(x) and sparse.issparse(y):
        as_pair(np.zeros((x.shape[0], 1)), np.zeros((y.shape[0], 1)), at_least=0, why="moments")
        rows = [sparse.csr_array(side, dtype=np.float64) for side in (x, y)]
        if not all(np.isfinite(side.data).all() for side in rows):
            raise UserError("codes hold NaN or infinity")
        return rows
    as_pair(x, y, at_least=0, why="moments")  # (what it returns is scaled, by a number of its own for each chunk)
    return [np.asarray(v.detach().cpu() if hasattr(v, "detach") else v, np.float64) for v in (x, y)]


def _squares(rows: Any) -> NDArray[np.float64]:
    """The squared length of each row."""
    return np.asarray(rows.multiply(rows).sum(1) if sparse.issparse(rows) else np.einsum("ij,ij->i", rows, rows))


def _scatters(
    n: int,
    sums: list[NDArray[np.float64]],
    basis_a: Float64[np.ndarray, "d_a k_a"],
    basis_b: Float64[np.ndarray, "d_b k_b"],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Products of rows about their mean, in the bases: (k_a, k_a), (k_b, k_b) and (k_a, k_b)."""
    sum_a, sum_b, aa, bb, ab = sums
    mean_a, mean_b = sum_a @ basis_a, sum_b @ basis_b
    return (
        basis_a.T @ aa @ basis_a - np.outer(mean_a, mean_a) / n,
        basis_b.T @ bb @ basis_b - np.outer(mean_b, mean_b) / n,
        basis_a.T @ ab @ basis_b - np.outer(mean_a, mean_b) / n,
    )


def _inverse_root(scatter: Float64[np.ndarray, "k k"]) -> NDArray[np.float64]:
    """W, (k, r), with Wᵀ S W = 1; directions without variance are left out."""
    values, vectors = linalg.eigh(scatter)
    kept = values > len(values) * EPS * max(float(values[-1]), 0.0)
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))
