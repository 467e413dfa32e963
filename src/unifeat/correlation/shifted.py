"""The rematch null: the same codes with one side's text rotated by whole documents, so that no token meets its own.

How often features fire, how their activations follow one another and how they change from document to document stays
as it is on both sides; only what goes with what is wrong. What correlates, matches or scores here does so by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unifeat.vocabulary.paired_codes import ChunkPair, CsrArrays, PairedCodes, row_slice

_STREAM = 1  # keeps these draws apart from others made with the study's seed


@dataclass(frozen=True)
class ShiftedCodes:
    """`codes` with row i of A beside row (i + `by_rows`) mod n of B: B's text cut once, its two parts exchanged.

    Both sides are walked at the same time, B from the cut on and then from its start, and cut where either side's chunk
    ends: a chunk of each is in memory, never more.

    Attributes:
        codes: what is rotated.
        by_rows: 0 … n_rows; where a document begins, if documents are to stay whole (see `shifts`).
    """

    codes: PairedCodes
    by_rows: int

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
        """A's chunks in order beside B's rows after the rotation; views of the chunks wherever those are views."""
        shifted = self._shifted_b()
        b: CsrArrays | None = None
        for a, _ in self.codes.chunks():
            done = 0
            while done < a.rows:
                while b is None or not b.rows:
                    b = next(shifted, None)
                    if b is None:
                        return  # fewer rows than promised: the reader counts them and says so
                rows = min(a.rows - done, b.rows)
                yield row_slice(a, done, done + rows), row_slice(b, 0, rows)
                b = row_slice(b, rows, b.rows)
                done += rows

    def _shifted_b(self) -> Iterator[CsrArrays]:
        seen = 0
        for _, b in self.codes.chunks():
            if seen + b.rows > self.by_rows:
                yield row_slice(b, max(self.by_rows - seen, 0), b.rows)
            seen += b.rows
        seen = 0
        for _, b in self.codes.chunks():
            if seen >= self.by_rows:
                return
            yield row_slice(b, 0, min(b.rows, self.by_rows - seen))
            seen += b.rows


def shifts(
    document: NDArray[np.integer], start: NDArray[np.integer], n_rows: int, count: int | None, seed: int
) -> NDArray[np.int64]:
    """At which documents to rotate: all different, in an order drawn by the seed.

    Allowed is a rotation that takes every token out of its own document: by at least as many rows as the longest
    document has, either way round. Every document of the corpus has a place in the order that depends on the seed
    alone, so that spaces over one text rotate at the same documents, whatever tokens each pair of them shares.

    Args:
        document: (documents,) their numbers in the corpus, ascending.
        start: (documents,) the first row of each (see `AlignedCodes.document_starts`).
        n_rows: rows of them all.
        count: how many rotations; None for all there are.

    Returns:
        (≤ count,) int64 positions in `start`: fewer than asked for where the text has no more, none for one document.
    """
    if not len(start):
        return np.zeros(0, np.int64)
    longest = int(np.diff(np.append(start, n_rows)).max())
    allowed = np.flatnonzero(np.minimum(start, n_rows - start) >= longest)
    place = np.random.default_rng([_STREAM, seed]).random(int(document[-1]) + 1)[document]
    return allowed[np.argsort(place[allowed], kind="stable")][:count].astype(np.int64)
