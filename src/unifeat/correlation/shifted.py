"""The rematch null: the same codes with one side's text rotated by whole documents, so that no token is paired with
itself.

On both sides, firing rates, the order of activations and their differences between documents stay the same; only the
alignment of the two sides is wrong. So whatever correlates or matches here does so by chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unifeat.vocabulary.paired_codes import ChunkPair, CodesOver, CsrArrays, row_slice

_RNG_STREAM = 1  # separates these draws from others made with the study's seed


@dataclass(frozen=True)
class ShiftedCodes(CodesOver):
    """`codes` with row i of A beside row (i + `by_rows`) mod n of B: B's text is cut once and its two parts exchanged.

    Both sides are read at the same time, B from the cut on and then from its start. A chunk ends where either side's
    chunk ends, so that only one chunk of each side is in memory.

    Attributes:
        codes: the codes whose side B is rotated.
        by_rows: 0 … n_rows. It must be the first row of a document if documents are to stay whole (see `shifts`).
    """

    by_rows: int

    def chunks(self) -> Iterator[ChunkPair]:
        """A's chunks in order beside B's rotated rows, as views of the original chunks."""
        shifted = self._shifted_b()
        b: CsrArrays | None = None
        for a, _ in self.codes.chunks():
            done = 0
            while done < a.rows:
                while b is None or not b.rows:
                    b = next(shifted, None)
                    if b is None:
                        return  # fewer rows than n_rows: `checked_chunks` counts them and raises the error
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
    """The documents at which to rotate: all different, in an order drawn with the seed.

    A rotation is allowed if it moves every token out of its own document: by at least the rows of the longest document,
    in both directions. A document's place in the order depends only on the seed and its number, so that all pairs of
    spaces over one text rotate at the same documents, whatever tokens they share.

    Args:
        document: (documents,) their numbers in the corpus, ascending.
        start: (documents,) the first row of each (see `AlignedCodes.document_starts`).
        n_rows: rows in all.
        count: how many rotations; None for all that are allowed.

    Returns:
        (≤ count,) int64 positions in `start`: fewer if the text allows no more, none for a single document.
    """
    if not len(start):
        return np.zeros(0, np.int64)
    longest = int(np.diff(np.append(start, n_rows)).max())
    allowed = np.flatnonzero(np.minimum(start, n_rows - start) >= longest)
    place = np.random.default_rng([_RNG_STREAM, seed]).random(int(document[-1]) + 1)[document]
    return allowed[np.argsort(place[allowed], kind="stable")][:count].astype(np.int64)
