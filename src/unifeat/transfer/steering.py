"""Carrying directions of one model's activations into another, through pairs of features or through a linear map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from unifeat.transfer.maps import LinearMap

Vector = NDArray[np.float64]
_PENALTY = 1.0  # of the decomposition, as a share of the mean squared length of a decoder row


@dataclass(frozen=True)
class Carrier:
    """Carries directions of A into B.

    Attributes:
        weights_a, weights_b: (m, d_a), (m, d_b) what a code of 1 of each paired feature adds.
        gain: (m,) the code of B's feature that goes with a code of 1 of its partner in A.
        affine: the map of A's activations to B's.
        norms: the root mean square norm of A's and of B's activations about their mean.
    """

    weights_a: Vector
    weights_b: Vector
    gain: Vector
    affine: LinearMap
    norms: tuple[float, float]

    def coefficients(self, direction: Vector) -> Vector:
        """A direction as a sum of the matched features of A, (m,) codes.

        Decoder rows are more than dimensions and far from orthogonal, so the sum is not unique. Ridge regression
        spreads it over rows that point alike, with a penalty as large as the mean squared length of a row; then the sum
        is made as long as fits best.
        """
        gram = self.weights_a @ self.weights_a.T
        gram[np.diag_indices_from(gram)] += _PENALTY * np.trace(gram) / len(gram)
        codes = np.asarray(linalg.solve(gram, self.weights_a @ direction, assume_a="pos"))
        made = codes @ self.weights_a
        length = float(made @ made)
        return codes * (float(made @ direction) / length) if length > 0 else codes

    def explained(self, direction: Vector, coefficients: Vector) -> float:
        """The share of a direction's squared length that a sum of features reaches."""
        missed = direction - coefficients @ self.weights_a
        return 1.0 - float(missed @ missed) / float(direction @ direction)

    def through_pairs(self, coefficients: Vector, partners: NDArray[np.integer] | None = None) -> Vector:
        """Codes of A's matched features as a direction of B.

        Args:
            partners: (m,) whose feature of B each contribution goes to; by default the pair's own.
        """
        weights = self.weights_b if partners is None else self.weights_b[partners]
        return np.asarray((coefficients * self.gain) @ weights)

    def through_map(self, direction: Vector) -> Vector:
        """A direction of A through the linear part of the map."""
        return np.asarray(direction @ self.affine.weights)


def as_long(carried: Vector, direction: Vector, norms: Any) -> Vector:
    """A direction of B, scaled to be as long beside B's activations as the one of A is beside A's.

    Args:
        norms: typical norms of A's and of B's activations.
    """
    length = float(np.linalg.norm(carried))
    share = float(np.linalg.norm(direction)) / norms[0]
    return carried * (share * norms[1] / length) if length > 0 else carried


@dataclass(frozen=True)
class Steered:
    """One model's texts.

    Attributes:
        space: the space.
        feature: its feature.
        top_tokens: the tokens on which it fires most.
        added: the code that is added at every token.
        plain, steered: what the model goes on with, without the feature and with it.
    """

    space: str
    feature: int
    top_tokens: list[str]
    added: float
    plain: str
    steered: str


@dataclass(frozen=True)
class SteeredPair:
    """Both models of a pair, and its correlation."""

    correlation: float
    sides: tuple[Steered, Steered]
