"""How the documents of many spaces are re-paired: in each draw, every space reads its documents in another order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unifeat.correlation.rearranged import ALIKE, Stretch, cycles
from unifeat.errors import UserError

Documents = NDArray[np.int64]


def orders(length: Documents, spaces: int, seed: int, number: int) -> Documents:
    """For each space, which document stands at each place; the first space keeps its own.

    Documents are exchanged among those of like length, max(8, spaces) at a time: they are put on a random circle, and
    each space is shifted along it by a number of places of its own. So no two spaces ever have the same document at one
    place, where all that it is about would be shared again.

    Args:
        length: (documents,) how long each is.
        spaces: how many spaces; not more than documents.
        seed, number: which draw.

    Returns:
        (spaces, documents) int64, each row a permutation.

    Raises:
        UserError: fewer documents than spaces.
    """
    documents = len(length)
    if documents < spaces:
        raise UserError(f"{documents} documents cannot be re-paired over {spaces} spaces: give at least as many")
    rng = np.random.default_rng([seed, number, 11])
    order = np.tile(np.arange(documents), (spaces, 1))
    by_length = np.lexsort((np.arange(documents), length))
    for some in np.array_split(by_length, max(documents // max(ALIKE, spaces), 1)):
        circle = rng.permutation(some)
        shifts = np.concatenate([[0], 1 + rng.permutation(len(some) - 1)[: spaces - 1]])
        for space, shift in enumerate(shifts.tolist()):
            order[space, circle] = np.roll(circle, -shift)
    return order


@dataclass(frozen=True, eq=False)
class Repaired:
    """Two of the spaces in one draw (a `Rearrangement`). All pairs of the spaces are rearranged alike.

    Attributes:
        documents: (documents,) their numbers in the corpus, ascending.
        block: (documents,) ascending: documents are exchanged within blocks, which are read one by one.
        a, b: (documents,) which of the documents stands at each place, of either space.
    """

    documents: Documents
    block: Documents
    a: Documents
    b: Documents

    def rows(self, stretch: Stretch) -> tuple[Documents, Documents]:
        """The rows of A and of B that stand beside each other: two (n,) int64 arrays.

        At each place, A's document and B's, both from their first row on, cut to the shorter. Rows are those that both
        spaces have of a document.

        Args:
            stretch: the rows of one block. (What a document has in the block after its own is left out.)
        """
        last = int(stretch.document[-1]) if len(stretch.document) else -1
        at = max(int(np.searchsorted(self.documents, last, side="right")) - 1, 0)
        own = self.block == self.block[at]
        start, length = [], []
        for order in (self.a[own], self.b[own]):
            first, end = (np.searchsorted(stretch.document, self.documents[order], side) for side in ("left", "right"))
            start.append(first)
            length.append(end - first)
        shorter = np.minimum(*length)
        within = np.arange(int(shorter.sum())) - np.repeat(np.cumsum(shorter) - shorter, shorter)
        return np.repeat(start[0], shorter) + within, np.repeat(start[1], shorter) + within


@dataclass(frozen=True, eq=False)
class Blocks:
    """The documents of a text, and the blocks in which they are re-paired.

    Attributes:
        documents, block: as for `Repaired`.
        length: (documents,) how long each is.
    """

    documents: Documents
    length: Documents
    block: Documents

    def orders(self, spaces: int, seed: int, number: int) -> Documents:
        """`orders` within each block: (spaces, documents).

        Raises:
            UserError: a block has fewer documents than there are spaces.
        """
        blocks = np.unique(self.block)
        whole = np.empty((spaces, len(self.documents)), np.int64)
        for place, block in enumerate(blocks.tolist()):
            own = np.flatnonzero(self.block == block)
            whole[:, own] = own[orders(self.length[own], spaces, seed, number * len(blocks) + place)]
        return whole

    def arrangements(self, spaces: int) -> int:
        """In how many ways the documents can be re-paired, at least: more draws than that would repeat each other."""
        sizes = np.unique(self.block, return_counts=True)[1].tolist()
        return math.prod(cycles(size, max(ALIKE, spaces)) for size in sizes) if min(sizes, default=0) >= spaces else 0

    def repaired(self, order_a: Documents, order_b: Documents) -> Repaired:
        """Two of the spaces in one draw, by their rows of `orders`."""
        return Repaired(self.documents, self.block, order_a, order_b)
