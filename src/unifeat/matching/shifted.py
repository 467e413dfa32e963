"""A control: the same codes with one side shifted along the text, so that no token meets its own partner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unifeat.matching.paired import ChunkPair, CsrArrays, PairedCodes


@dataclass(frozen=True)
class ShiftedCodes:
    """`codes` with B's rows rotated by half of each chunk.

    How often features fire, and how their activations follow one another, stays as it is; only which token of A goes
    with which of B is wrong. Whatever correlates here does so by chance.
    """

    codes: PairedCodes

    @property
    def n_rows(self) -> int:
        """Aligned rows."""
        return self.codes.n_rows

    @property
    def features_a(self) -> int:
        """Width of A's dictionary."""
        return self.codes.features_a

    @property
    def features_b(self) -> int:
        """Width of B's dictionary."""
        return self.codes.features_b

    def chunks(self) -> Iterator[ChunkPair]:
        """Aligned chunks, B's rows rotated."""
        for a, b in self.codes.chunks():
            yield a, _rotate(b, b.rows // 2)


def _rotate(codes: CsrArrays, by: int) -> CsrArrays:
    lengths = np.diff(codes.indptr)
    middle = codes.indptr[by]
    begin, end = codes.indptr[0], codes.indptr[-1]
    indptr = np.zeros_like(codes.indptr)
    np.cumsum(np.r_[lengths[by:], lengths[:by]], out=indptr[1:])
    return CsrArrays(
        indptr,
        np.concatenate([codes.index[middle:end], codes.index[begin:middle]]),
        np.concatenate([codes.value[middle:end], codes.value[begin:middle]]),
    )
