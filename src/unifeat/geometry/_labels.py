"""Labels of pairs as numbers, and which rows are the same."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.geometry._input import Matrix

Labels = NDArray[np.intp]


def codes_of(labels: Any, n: int, name: str) -> Labels:
    """Labels as whole numbers from 0 in the order in which they appear, (n,) intp: the same number for equal labels.

    Args:
        labels: n hashable labels; or an array or tensor, (n,) or (n, k), whose rows are the labels.

    Raises:
        UserError: not n labels, or some are NaN.
    """
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    values: Any = labels if isinstance(labels, np.ndarray) else None
    if values is None and not isinstance(labels, list | tuple):
        values = np.asarray(labels)  # a column of a table
    count = len(labels) if values is None or values.ndim else None
    if count != n:
        raise UserError(f"{name}: give one label for each of {n} pairs" + ("" if count is None else f", not {count}"))
    if values is None or values.dtype == object:
        numbers: dict[Any, int] = {}
        try:
            codes = [numbers.setdefault(label, len(numbers)) for label in labels]
        except TypeError:
            values = np.asarray(labels)
            if values.dtype == object:
                raise UserError(f"{name}: give labels that can be hashed, such as numbers or text") from None
        else:
            if any(label != label for label in numbers):
                raise UserError(f"{name}: some labels are NaN")
            return np.array(codes, np.intp)
    if values.dtype.kind in "fc" and np.isnan(values).any():
        raise UserError(f"{name}: some labels are NaN")
    return in_order(np.unique(values, axis=0, return_inverse=True)[1].reshape(-1))


def in_order(codes: NDArray[np.intp]) -> Labels:
    """The same labels, numbered in the order in which they appear."""
    first = np.unique(codes, return_index=True)[1]
    number = np.empty(len(first), np.intp)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[codes]


class Distinct(NamedTuple):
    """How many different rows there are.

    Attributes:
        n: rows on each side.
        x, y: different rows of each side.
        pairs: different pairs of rows.
    """

    n: int
    x: int
    y: int
    pairs: int

    @classmethod
    def of(cls, a: Matrix, b: Matrix) -> Distinct:
        """The different rows of a: (n, d_a) and b: (n, d_b)."""
        return EqualRows.of(a, b).distinct()

    @property
    def fewest(self) -> int:
        """Different rows of the side that has fewer."""
        return min(self.x, self.y)

    def described(self, count: int) -> str:
        """`80 pairs`, or `12 different of 80 pairs`."""
        return f"{self.n} pairs" if count == self.n else f"{count} different of {self.n} pairs"


class EqualRows(NamedTuple):
    """Which rows are the same: those with the same number. Each (n,).

    Attributes:
        x, y: of the rows of each side.
        pairs: of the pairs of rows.
    """

    x: Labels
    y: Labels
    pairs: Labels

    @classmethod
    def of(cls, a: Matrix, b: Matrix) -> EqualRows:
        """The equal rows of a: (n, d_a) and b: (n, d_b)."""
        x, y = _equal_rows(a), _equal_rows(b)
        return cls(x, y, x * (y.max(initial=0) + 1) + y)

    def distinct(self, rows: Labels | None = None) -> Distinct:
        """How many of the rows, or of those with these numbers, are different."""
        x, y, pairs = self if rows is None else (labels[rows] for labels in self)
        return Distinct(len(x), *(len(np.unique(labels)) for labels in (x, y, pairs)))


def _equal_rows(matrix: Matrix) -> Labels:
    """The same number for rows that are equal."""
    rows = np.ascontiguousarray(matrix + 0.0)  # −0 becomes 0
    if not len(rows):
        return np.zeros(0, np.intp)
    whole = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).reshape(-1)
    return np.unique(whole, return_inverse=True)[1].reshape(-1).astype(np.intp)
