"""Synthetic decoder rows: directions that two spaces share up to a rotation, with noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError

Matrix = NDArray[np.float64]


class Directions:
    """Draws decoder rows of one side: unit vectors in d dimensions, turned by a random rotation for that side.

    Before the rotation and before scaling to unit length, coordinate j has standard deviation (j + 1)^−decay; decay = 0
    is the uniform distribution on the sphere. A shared direction has its coordinates on the first min(d_a, d_b) axes,
    the same on both sides, so the map between the sides is an isometry.
    """

    def __init__(self, d: int, decay: float, rng: np.random.Generator) -> None:
        self._spectrum = np.arange(1.0, d + 1) ** -decay
        self._rotation = random_rotation(d, rng)
        self._rng = rng

    def own(self, n: int) -> Matrix:
        """(n, d) directions that only this side has."""
        return unit(self._rng.standard_normal((n, self._spectrum.size)) * self._spectrum) @ self._rotation

    def of(self, shared: Matrix, noise: float) -> Matrix:
        """(n, d) directions from shared coordinates (n, k ≤ d), plus noise of about `noise` times their length."""
        n, k = shared.shape
        rows = np.zeros((n, self._spectrum.size))
        rows[:, :k] = shared
        error = self._rng.standard_normal(rows.shape) * self._spectrum
        error /= np.linalg.norm(self._spectrum)
        return unit(rows + noise * error) @ self._rotation


def shared_coordinates(n: int, d: int, decay: float, rng: np.random.Generator) -> Matrix:
    """(n, d) unit vectors with the spectrum of `Directions`."""
    return unit(rng.standard_normal((n, d)) * np.arange(1.0, d + 1) ** -decay)


def plant_rows(
    n: int,
    d_a: int,
    d_b: int,
    *,
    shared: float = 1.0,
    noise: float = 0.0,
    decay: float = 0.0,
    seed: int = 0,
) -> tuple[Matrix, Matrix]:
    """Decoder rows of n pairs, of which a given share have the same direction up to a rotation; for testing measures.

    Args:
        n: number of pairs.
        d_a, d_b: dimensions of the two sides.
        shared: share of the pairs with a common direction, in [0, 1], rounded to whole pairs and chosen at random. The
            two rows of the other pairs are independent.
        noise: length of the noise added to a common direction on each side, as a multiple of the direction's length.
            The cosine of the two rows, with the rotation undone, is then about 1 / (1 + noise²).
        decay: the standard deviation of coordinate j is (j + 1)^−decay; 0 is isotropic.
        seed: the same seed gives the same rows.

    Returns:
        x (n, d_a) and y (n, d_b), float64, rows of unit length; row i of x is paired with row i of y.

    Raises:
        UserError: a setting out of its range.
    """
    for name, least, value in (("n", 1, n), ("d_a", 1, d_a), ("d_b", 1, d_b), ("seed", 0, seed)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise UserError(f"{name}={value!r}: give a whole number, {least} or more")
    if not 0 <= shared <= 1:
        raise UserError(f"shared={shared!r}: give a share between 0 and 1")
    if not 0 <= noise < np.inf or not 0 <= decay < np.inf:
        raise UserError(f"noise={noise!r}, decay={decay!r}: give numbers, 0 or more")
    common, which, side_a, side_b = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(4))
    chosen = which.permutation(n)[: round(shared * n)]
    coordinates = shared_coordinates(n, min(d_a, d_b), decay, common)[chosen]
    sides = []
    for d, rng in ((d_a, side_a), (d_b, side_b)):
        directions = Directions(d, decay, rng)
        rows = directions.own(n)
        rows[chosen] = directions.of(coordinates, noise)
        sides.append(rows)
    return sides[0], sides[1]


def random_rotation(d: int, rng: np.random.Generator) -> Matrix:
    """A random orthogonal matrix, uniformly distributed: the Q of a Gaussian matrix, with the signs of R's diagonal
    (Mezzadri 2007, "How to generate random matrices from the classical compact groups", Notices AMS 54)."""
    q, r = np.linalg.qr(rng.standard_normal((d, d)))
    rotation: Matrix = q * np.sign(np.diag(r))
    return rotation


def unit(rows: Matrix) -> Matrix:
    """Rows scaled to length 1."""
    scaled: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
