"""What is summed over tokens to rebuild one model's activations from another's features.

A rebuilt activation is x̂ = t + s · (c W): W are decoder rows, c codes, t what the decoder adds whatever the codes are
(its bias; what a skip transcoder adds), and s a number for each token (1, unless the SAE normalises each token). The m
matched features of B have codes b, their partners in A codes a. Where a feature is "at its mean", its code is its mean
over the rows that are fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Integer
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
OWN, MATCHED, FROM_A, MIXED, ZERO, MEAN = (
    "own",
    "own_matched",
    "from_a",
    "own_and_from_a",
    "matched_at_mean",
    "all_at_mean",
)
VARIANTS = (OWN, MATCHED, FROM_A, MIXED, ZERO, MEAN)


class Tokens(NamedTuple):
    """What the SAEs make of some rows, float64.

    Attributes:
        own: (n, d) the reconstruction by B's SAE.
        constant: (n, d) t.
        scale: (n,) s.
        a, b: (n, m) codes of the pairs' features.
    """

    own: Matrix
    constant: Matrix
    scale: Matrix
    a: Matrix
    b: Matrix


@dataclass
class FitSums:
    """Sums over the rows that are fitted on: of all codes of B, and of the codes of m pairs.

    Memory: m² float64.
    """

    n: int = 0
    total_b: Any = 0.0  # (features of B,)
    sum_a: Any = 0.0  # (m,)
    sum_b: Any = 0.0
    square_a: Any = 0.0  # (m,)
    square_b: Any = 0.0
    product: Any = 0.0  # (m, m): Σ a_i b_j

    def add(
        self, a: Float64[np.ndarray, "n m"], b: Float64[np.ndarray, "n m"], total_b: Float64[np.ndarray, " features"]
    ) -> None:
        """Add rows.

        Args:
            a, b: codes of the pairs' features.
            total_b: sums of all codes of B over these rows.
        """
        self.n += len(a)
        self.total_b = self.total_b + total_b
        self.sum_a, self.sum_b = self.sum_a + a.sum(0), self.sum_b + b.sum(0)
        self.square_a = self.square_a + np.einsum("ij,ij->j", a, a)
        self.square_b = self.square_b + np.einsum("ij,ij->j", b, b)
        self.product = self.product + a.T @ b

    def fitted(self) -> Fitted:
        """Means and slopes."""
        n = max(self.n, 1)
        mean_a, mean_b = np.asarray(self.sum_a) / n, np.asarray(self.sum_b) / n
        variance = np.maximum(self.square_a / n - mean_a**2, 0.0)
        known = variance > 1e-12 * np.maximum(self.square_a / n, np.finfo(np.float64).tiny)
        slope = (self.product / n - np.outer(mean_a, mean_b)) / np.where(known, variance, np.inf)[:, None]
        return Fitted(mean_a, mean_b, np.asarray(self.total_b) / n, slope)


@dataclass(frozen=True)
class Fitted:
    """What is fitted: b_j is predicted as mean_b_j + slope_ij (a_i − mean_a_i) from any partner i.

    Attributes:
        mean_a, mean_b: (m,) means of the pairs' codes.
        mean_all_b: (features of B,) means of all codes of B.
        slope: (m, m) least-squares slopes; 0 where a_i does not vary.
    """

    mean_a: Matrix
    mean_b: Matrix
    mean_all_b: Matrix
    slope: Matrix

    @property
    def gain(self) -> Matrix:
        """The slope of each pair, (m,)."""
        return np.asarray(self.slope.diagonal())

    @property
    def offset(self) -> Matrix:
        """b_j is predicted as offset_j + gain_j a_j, (m,)."""
        return np.asarray(self.mean_b - self.gain * self.mean_a)


@dataclass
class JudgeSums:
    """Sums over the rows that are judged, from which follow the FVU of every variant, and of any exchange of partners.

    With R the residual of the zero line (matched features at their mean), D = s(a − mean_a) and W the decoder rows of
    the matched features, the squared error when feature j gets partner π(j) is
    Σ‖R‖² − 2 Σ_j g_j T_π(j)j + Σ_jk g_j g_k C_π(j)π(k) G_jk, where T = Dᵀ R Wᵀ, C = Dᵀ D and G = W Wᵀ.

    Attributes:
        fitted: means and slopes.
        decoder: (m, d) W.
        at_mean: (d,) the mean of all codes of B times their decoder rows.

    Memory: 3 m² + n documents × variants, float64.
    """

    fitted: Fitted
    decoder: Float64[np.ndarray, "m d"]
    at_mean: Float64[np.ndarray, " d"]
    n: int = 0
    total: Any = 0.0  # (d,) Σ x
    squares: float = 0.0
    errors: dict[str, dict[int, float]] = field(default_factory=dict)  # by variant and document
    counts: dict[int, int] = field(default_factory=dict)  # rows by document
    cross: Any = 0.0  # (m, m) T
    cross_own: Any = 0.0  # (m,) the diagonal of the same with b
    scatter: Any = 0.0  # (m, m) C
    scatter_own: Any = 0.0
    unpredicted: Any = 0.0  # (m,) Σ (b − predicted)²
    sum_b: Any = 0.0
    square_b: Any = 0.0

    def add(
        self,
        document: Integer[np.ndarray, " n"],
        x: Float64[np.ndarray, "n d"],
        tokens: Tokens,
        others: Mapping[str, Float64[np.ndarray, "n d"]] | None = None,
    ) -> None:
        """Add rows.

        Args:
            document: of each row.
            x: activations.
            tokens: what the SAEs make of them.
            others: other variants' reconstructions.
        """
        made = variants(self.fitted, self.decoder, self.at_mean, tokens)
        for name, rebuilt in {**made, **(others or {})}.items():
            self._add_error(name, document, x - rebuilt)
        for number, count in zip(*np.unique(document, return_counts=True), strict=True):
            self.counts[int(number)] = self.counts.get(int(number), 0) + int(count)
        self.n += len(x)
        self.total = self.total + x.sum(0)
        self.squares += float(np.vdot(x, x))
        towards = (x - made[ZERO]) @ self.decoder.T  # R Wᵀ
        a, b = tokens.a - self.fitted.mean_a, tokens.b - self.fitted.mean_b
        moved, moved_own = tokens.scale[:, None] * a, tokens.scale[:, None] * b
        self.cross = self.cross + moved.T @ towards
        self.cross_own = self.cross_own + np.einsum("ij,ij->j", moved_own, towards)
        self.scatter = self.scatter + moved.T @ moved
        self.scatter_own = self.scatter_own + moved_own.T @ moved_own
        missed = b - self.fitted.gain * a
        self.unpredicted = self.unpredicted + np.einsum("ij,ij->j", missed, missed)
        self.sum_b, self.square_b = self.sum_b + b.sum(0), self.square_b + np.einsum("ij,ij->j", b, b)

    def _add_error(self, name: str, document: NDArray[Any], missed: Matrix) -> None:
        own = self.errors.setdefault(name, {})
        ids, place = np.unique(document, return_inverse=True)
        for number, error in zip(ids, np.bincount(place, np.einsum("ij,ij->i", missed, missed)), strict=True):
            own[int(number)] = own.get(int(number), 0.0) + float(error)

    @property
    def about_mean(self) -> float:
        """Σ‖x − mean(x)‖²."""
        return self.squares - float(self.total @ self.total) / self.n if self.n else float("nan")

    def error(self, name: str) -> float:
        """Σ‖x − x̂‖² of a variant."""
        return sum(self.errors[name].values())

    def exchanged(self, partners: Integer[np.ndarray, " m"]) -> float:
        """Σ‖x − x̂‖² of B's own codes of unmatched features, and matched ones from other partners: π, (m,)."""
        gain = self.fitted.slope[partners, np.arange(len(partners))]
        linear = float(gain @ self.cross[partners, np.arange(len(partners))])
        square = float(gain @ (self.scatter[np.ix_(partners, partners)] * self._gram) @ gain)
        return self.error(ZERO) - 2 * linear + square

    @property
    def _gram(self) -> Matrix:
        return np.asarray(self.decoder @ self.decoder.T)

    def lowered(self) -> tuple[Matrix, Matrix]:
        """By how much each pair lowers the squared error below the zero line: from A, and with its own code; (m,) each.

        The sums over pairs are the differences of the variants' errors. What two pairs do together is divided equally
        between them (the Shapley value; it is exact since the error is quadratic in what each pair adds).
        """
        gain, gram = self.fitted.gain, self._gram
        from_a = 2 * gain * self.cross.diagonal() - gain * ((self.scatter * gram) @ gain)
        own = 2 * self.cross_own - (self.scatter_own * gram).sum(1)
        return np.asarray(from_a), np.asarray(own)

    def predicted_share(self) -> Matrix:
        """1 − Σ(b − predicted)² / Σ(b − mean(b))², (m,): of the rows judged; NaN where b does not vary there."""
        varies = self.square_b - self.sum_b**2 / max(self.n, 1)
        known = varies > 1e-12 * np.maximum(self.square_b, np.finfo(np.float64).tiny)
        return np.asarray(np.where(known, 1 - self.unpredicted / np.where(known, varies, 1.0), np.nan))


def variants(
    fitted: Fitted, decoder: Float64[np.ndarray, "m d"], at_mean: Float64[np.ndarray, " d"], tokens: Tokens
) -> dict[str, Matrix]:
    """What stands in for each row's activation, (n, d) by variant.

    Args:
        decoder: (m, d) W of the matched features.
        at_mean: (d,) the mean of all codes times their decoder rows.
        tokens: the rows.
    """
    scale = tokens.scale[:, None]
    matched = (scale * (tokens.b - fitted.mean_b)) @ decoder
    from_a = predicted(fitted, decoder, tokens)
    zero, mean = tokens.own - matched, tokens.constant + scale * at_mean
    return {
        OWN: tokens.own,
        MATCHED: mean + matched,
        FROM_A: mean + from_a,
        MIXED: zero + from_a,
        ZERO: zero,
        MEAN: mean,
    }


def predicted(
    fitted: Fitted,
    decoder: Float64[np.ndarray, "m d"],
    tokens: Tokens,
    partners: Integer[np.ndarray, " m"] | None = None,
) -> Matrix:
    """What matched features add to the zero line when predicted from partners in A, (n, d).

    Args:
        partners: (m,) the pair whose feature of A predicts each feature of B; by default its own.
    """
    order = np.arange(len(decoder)) if partners is None else partners
    slope = fitted.slope[order, np.arange(len(decoder))]
    return np.asarray((tokens.scale[:, None] * (slope * (tokens.a - fitted.mean_a)[:, order])) @ decoder)
