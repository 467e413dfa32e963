"""The text that contexts show, each stretch of it once, and where the tokens of each space end in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.peaks import Peaks, places
from unifeat.codes.store import CodeStore
from unifeat.text.corpus import Corpus

Array = NDArray[Any]
_DOCUMENT = 1 << 32


@dataclass(frozen=True)
class Excerpts:
    """Stretches of documents, one after the other in one text.

    Attributes:
        text: all of them.
        document, start: (n,) int64, where each begins in its document.
        at: (n + 1,) int64, where each begins in `text`, and its length.
    """

    text: str
    document: Array
    start: Array
    at: Array

    def where(self, place: Array) -> Array:
        """The offsets in `text` of places (document · 2³² + character), −1 for those in no stretch.

        A place at which a stretch begins is not in it: tokens are given by where they end.
        """
        first = self.document * _DOCUMENT + self.start
        which = np.searchsorted(first, place, side="left") - 1
        at = np.maximum(which, 0)
        offset = place - first[at] if len(first) else np.zeros(len(place), np.int64)
        inside = (which >= 0) & (offset <= np.diff(self.at)[at]) if len(first) else np.zeros(len(place), bool)
        return np.where(inside, self.at[at] + offset, -1)

    def units(self, offsets: Array) -> Array:
        """Offsets in UTF-16 code units, as JavaScript counts them, of offsets in characters."""
        points = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), "<u4")
        before = np.concatenate([[0], np.cumsum(points > 0xFFFF)])
        return offsets + before[offsets]


def excerpts(corpus: Corpus, windows: list[tuple[Peaks, int]]) -> Excerpts:
    """All that the windows show.

    Args:
        windows: places, and how many characters before and after each are shown.
    """
    part = corpus.cut.part
    wanted = [
        np.stack([peaks.document.astype(np.int64), *peaks.reach(around, part)], axis=1) for peaks, around in windows
    ]
    spans = merged(np.concatenate(wanted) if wanted else np.zeros((0, 3), np.int64))
    first = spans[:, 0] * _DOCUMENT + spans[:, 1]
    pieces: list[str] = []
    for group in range(corpus.groups) if len(spans) else ():
        for own in corpus.parts(group):
            base = own.document * _DOCUMENT + own.start
            low, high = np.searchsorted(first, [base, base + max(len(own.text), 1)])
            pieces += [own.text[start - own.start : end - own.start] for _, start, end in spans[low:high].tolist()]
    at = np.concatenate([[0], np.cumsum([len(piece) for piece in pieces], dtype=np.int64)])
    return Excerpts("".join(pieces), spans[:, 0], spans[:, 1], at)


def merged(spans: Array) -> Array:
    """Spans (document, start, end), in order; those that overlap become one. (n, 3) int64.

    Spans that only touch stay two: so none crosses from one part of a long document to the next.
    """
    spans = spans[np.lexsort((spans[:, 1], spans[:, 0]))]
    if not len(spans):
        return spans
    # The furthest end so far of the same document, as one number that grows with the document.
    reach = np.maximum.accumulate(spans[:, 0] * _DOCUMENT + spans[:, 2])
    new = np.ones(len(spans), bool)
    new[1:] = spans[1:, 0] * _DOCUMENT + spans[1:, 1] >= reach[:-1]
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(spans)) - 1
    return np.stack([spans[first, 0], spans[first, 1], reach[last] - spans[first, 0] * _DOCUMENT], axis=1)


@dataclass(frozen=True)
class Tokens:
    """The tokens of one space in some excerpts.

    Attributes:
        end: (tokens,) int64, ascending, where each ends in the text.
        cut: (tokens,) int64, by how much it begins later than where the one before it ends.
    """

    end: Array
    cut: Array


def tokens_in(store: CodeStore, shown: Excerpts) -> Tokens:
    """Where a space's tokens end in the excerpts.

    Masked tokens are in no store of codes. The token after one would seem to begin where the masked one does; but no
    token is longer than it is where it is shortest.
    """
    ends, ids, spans = [], [], []
    before = -1
    for place, token in places(store):
        previous = np.concatenate([[before], place[:-1]])
        before = int(place[-1]) if len(place) else before
        offset = shown.where(place)
        inside = offset >= 0
        ends.append(offset[inside])
        ids.append(token[inside])
        spans.append((place - previous)[inside])
    end, ids_, span = (np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in (ends, ids, spans))
    shortest: Array = np.full(int(ids_.max(initial=0)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(shortest, ids_[span > 0], span[span > 0])
    gap = np.diff(end, prepend=0)
    return Tokens(end, np.where(gap > 0, np.maximum(gap - shortest[ids_], 0), 0))
