"""Linear maps from one model's activations (or codes) to another's: ridge regression, and a scaled rotation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Integer
from numpy.typing import NDArray
from scipy import linalg, sparse

from unifeat.errors import UserError, did_you_mean
from unifeat.geometry.score import html_card
from unifeat.inference._permutation_test import WithNull
from unifeat.inference.exchange import Exchange
from unifeat.inference.permuting import MOST_DRAWS, permutations_within, whole
from unifeat.transfer.documents import halves, ratio_interval
from unifeat.transfer.given import check_varies, finite, finite_csr
from unifeat.transfer.relation import check_level
from unifeat.transfer.shares import few_orders, p_of

Kind = Literal["affine", "rotation"]
_PENALTIES = np.logspace(-6, 1, 15)  # as shares of the mean variance of a column
_FOR_PENALTY = 5  # one document of so many fitted on chooses the penalty
_ROUNDING = 1e-12  # sums over documents in another order differ in their last bits


@dataclass(frozen=True)
class LinearMap:
    """y ≈ mean_out + (x − mean_in) weights.

    Attributes:
        weights: (d_in, d_out).
        mean_in, mean_out: (d_in,), (d_out,).
        penalty: of the ridge regression, as a share of the mean variance of a column of x; 0 for a rotation.
    """

    weights: NDArray[np.float64]
    mean_in: NDArray[np.float64]
    mean_out: NDArray[np.float64]
    penalty: float = 0.0

    def __call__(self, x: Any) -> NDArray[np.float64]:
        """Map rows (n, d_in), an array or a SciPy sparse matrix, to (n, d_out)."""
        return np.asarray(x @ self.weights, np.float64) + (self.mean_out - self.mean_in @ self.weights)


def fit_affine(x: Any, y: Any, documents: Integer[np.ndarray, " n"], seed: int = 0) -> LinearMap:
    """Ridge regression of y (n, d_out) on x (n, d_in), a dense array or a SciPy sparse matrix, with a constant.

    The penalty is the best of a grid on a fifth of the documents; then all rows are fitted with it. What is factorised
    is the smaller of xᵀx and xxᵀ, so memory is min(n, d_in)² float64.
    """
    ids = np.unique(documents)
    test = np.isin(documents, np.random.default_rng([seed, 13]).permutation(ids)[: max(1, len(ids) // _FOR_PENALTY)])
    penalty = float(_PENALTIES[len(_PENALTIES) // 2])
    if 0 < test.sum() < len(test):
        part = _Ridge(x[~test], y[~test])
        errors = [np.sum((np.asarray(y[test], np.float64) - part.map(p)(x[test])) ** 2) for p in _PENALTIES]
        penalty = float(_PENALTIES[int(np.argmin(errors))])
    return _Ridge(x, y).map(penalty)


class _Ridge:
    """One factorisation that serves every penalty."""

    def __init__(self, x: Any, y: Any) -> None:
        self._x, self._y = x, np.asarray(y, np.float64)
        n, d = x.shape
        self.mean_in = np.asarray(x.mean(axis=0), np.float64).ravel()
        self.mean_out = self._y.mean(axis=0)
        self._wide = d > n
        centre = self.mean_in
        if self._wide:
            gram = _product(x, x.T)
            along = np.asarray(x @ centre, np.float64)
            gram += centre @ centre - along[:, None] - along
            right = self._y - self.mean_out
        else:
            gram = _product(x.T, x) - n * np.outer(centre, centre)
            right = np.asarray(x.T @ self._y, np.float64) - n * np.outer(centre, self.mean_out)
        values, self._vectors = linalg.eigh(gram, overwrite_a=True, check_finite=False)
        self._values = np.maximum(values, 0.0)
        self._right = self._vectors.T @ right
        self._unit = float(self._values.sum()) / max(d, 1)

    def map(self, penalty: float) -> LinearMap:
        """The map for a penalty."""
        ridge = penalty * self._unit + np.finfo(np.float64).tiny
        solved = self._vectors @ (self._right / (self._values + ridge)[:, None])
        if self._wide:
            solved = np.asarray(self._x.T @ solved, np.float64) - np.outer(self.mean_in, solved.sum(0))
        return LinearMap(solved, self.mean_in, self.mean_out, penalty)


def _product(left: Any, right: Any) -> NDArray[np.float64]:
    product = left @ right
    return np.asarray(product.toarray() if sparse.issparse(product) else product, np.float64)


def fit_rotation(x: Any, y: Any) -> LinearMap | None:
    """The scaled rotation of x (n, d_in) that is nearest to y (n, d_out), with a constant: orthogonal Procrustes.

    Needs d_in ≤ d_out (rows are rotated into more dimensions); None otherwise. With U S Vᵀ the singular value
    decomposition of xᵀy about the means, the rotation is U Vᵀ and its scale tr S / ‖x‖² (Schönemann 1966,
    Psychometrika 31; Schönemann & Carroll 1970, Psychometrika 35).
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.shape[1] > b.shape[1]:
        return None
    mean_in, mean_out = a.mean(axis=0), b.mean(axis=0)
    n = len(a)
    left, values, right = linalg.svd(a.T @ b - n * np.outer(mean_in, mean_out), full_matrices=False)
    energy = float(np.vdot(a, a)) - n * float(mean_in @ mean_in)
    scale = float(values.sum()) / energy if energy > 0 else 0.0
    return LinearMap(scale * (left @ right), mean_in, mean_out)


@dataclass(frozen=True, eq=False)
class Stitch(WithNull):
    """How well a linear map of A's activations rebuilds B's, on documents that it was not fitted on."""

    kind: str
    """affine or rotation."""
    value: float
    """1 − FVU: the share of the variance of x_b that is rebuilt; negative if the map does worse than the mean."""
    low: float
    """Lower end of the interval over documents."""
    high: float
    """Upper end."""
    null: NDArray[np.float64]
    """The same when the documents of mapped rows are exchanged, (draws,); read-only."""
    p: float
    """(b + 1) / (draws + 1), where b draws are at least the value. Of k judged documents there are k! orders, their own
    among them, so p is hardly below 1 / k!."""
    map: LinearMap
    """The map: `stitch.map(x_a)`."""
    rows: tuple[int, int]
    """Tokens fitted on, and judged."""
    level: float
    """Nominal coverage of the interval."""
    flags: tuple[str, ...]
    """Reasons to read it with care."""

    @property
    def fvu(self) -> float:
        """Fraction of variance unexplained on the judged rows."""
        return 1.0 - self.value

    def __repr__(self) -> str:
        line = (
            f"{self.kind} stitch {self.value:.3f} ({self.level:.0%} {self.low:.3f} to {self.high:.3f})  null "
            f"{self.null_mean:.3f} ± {self.null_sd:.3f}  p {self.p:.4g}  ({self.rows[0]} tokens fitted on, "
            f"{self.rows[1]} judged)"
        )
        return "\n".join([line] + [f"  ! {flag}" for flag in self.flags])

    def _repr_html_(self) -> str:
        rows = [
            (f"{self.level:.0%} interval", f"{self.low:.3f} to {self.high:.3f}"),
            ("null", f"{self.null_mean:.3f} ± {self.null_sd:.3f}"),
            ("p", f"{self.p:.4g}"),
            ("tokens", f"{self.rows[0]} fitted on, {self.rows[1]} judged"),
        ]
        return html_card(f"{self.kind} stitch = {self.value:.3f}", rows, self.flags)


def stitch(
    x_a: Any,
    x_b: Any,
    *,
    kind: Kind = "affine",
    documents: Any = None,
    fit: Any = None,
    draws: int = 100,
    level: float = 0.95,
    seed: int = 0,
) -> Stitch:
    """Map A's activations linearly to B's: the bound on what features of A can say about B.

    (Stitching by affine maps: arXiv 2506.06609; up to a rotation: arXiv 2605.24577.) The null permutes the judged
    documents of A: each judged row meets the row at the same place of the document that takes its document's place
    (repeated where that is shorter). A document may keep its place, as in any permutation test; the map is not fitted
    anew.

    Args:
        x_a, x_b: (tokens, d_a), (tokens, d_b), the same tokens: arrays or tensors; x_a may be a SciPy sparse matrix.
        kind: affine (ridge regression), or rotation (scaled, orthogonal; needs d_a ≤ d_b).
        documents: (tokens,) whole numbers, the document of each token; by default stretches of 128 tokens.
        fit: (tokens,) mask of the tokens to fit on; by default those of half of the documents, drawn at random.
        draws: of the null.
        level: of the interval over documents.
        seed: of all draws.

    Raises:
        UserError: arrays that do not belong together or hold NaN, an x_b that does not vary, fewer than two documents
            on either side, widths that no rotation maps, a bad count, seed or level.
    """
    if kind not in ("affine", "rotation"):
        raise UserError(f"kind={kind!r}{did_you_mean(str(kind), ['affine', 'rotation'])}: give affine or rotation")
    if sparse.issparse(x_a):
        x = finite_csr(x_a, "x_a") if kind == "affine" else finite_csr(x_a, "x_a").toarray()
    else:
        x = finite(x_a, "x_a", np.float32)
    y = finite(x_b, "x_b", np.float32)
    n = x.shape[0]
    if len(y) != n:
        raise UserError(f"x_a has shape {x.shape} and x_b {y.shape}: give the same tokens in both")
    count, seed = whole(draws, "draws", least=1, most=MOST_DRAWS), whole(seed, "seed", least=0)
    check_level(level)
    document, fitting = halves(documents, fit, n, seed, "stitch")
    check_varies(y[~fitting], "x_b")
    found = fit_affine(x[fitting], y[fitting], document[fitting], seed) if kind == "affine" else None
    if found is None:
        found = fit_rotation(x[fitting], y[fitting])
    if found is None:
        raise UserError(
            f"no rotation maps {x.shape[1]} dimensions into {y.shape[1]}: use kind affine, or swap the sides"
        )
    truth, mapped, own = y[~fitting].astype(np.float64), found(x[~fitting]), document[~fitting]
    centred = truth - truth.mean(axis=0)
    total = np.einsum("ij,ij->i", centred, centred)
    missed = np.einsum("ij,ij->i", truth - mapped, truth - mapped)
    place = np.unique(own, return_inverse=True)[1]
    rebuilt, whole_variance = (np.asarray(np.bincount(place, values), float) for values in (total - missed, total))
    exchange = Exchange.of(len(rebuilt))
    orders = permutations_within(exchange, count, seed)
    null = np.array([1 - _error(truth, mapped, place, order) / total.sum() for order in orders])
    null.flags.writeable = False
    value = 1 - float(missed.sum() / total.sum())
    low, high = ratio_interval(rebuilt, whole_variance, level, seed)
    p = p_of(value, null, _ROUNDING)
    flags = few_orders(exchange, count, "documents", "orders of the judged ones")
    rows = int(fitting.sum()), int((~fitting).sum())
    return Stitch(kind, value, low, high, null, p, found, rows, level, flags)


def _error(
    truth: NDArray[np.float64], mapped: NDArray[np.float64], place: NDArray[np.intp], order: NDArray[np.intp]
) -> float:
    """Σ‖·‖² when every document's rows meet the mapped rows of another, repeated where that is shorter."""
    rows = [np.flatnonzero(place == number) for number in range(len(order))]
    meets = np.concatenate([np.resize(rows[to], len(own)) for own, to in zip(rows, order, strict=True)])
    missed = truth[np.concatenate(rows)] - mapped[meets]
    return float(np.vdot(missed, missed))
