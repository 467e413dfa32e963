"""How the documents of many spaces are re-paired: in each draw, every space reads its documents in another order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unifeat.correlation.rearranged import ALIKE, Stretch
from unifeat.errors import UserError

Documents = NDArray[np.int64]


def orders(length: Documents, spaces: int, seed: int, number: int) -> NDArray[np.int64]:
    """For each space, which document stands at each place; the first space keeps its own.

    Documents are exchanged among those of like length, max(8, spaces) at a time. No two spaces ever have the same
    document at one place, so nothing that a document alone says can be shared; the space is shifted along a random
    circle of the like ones by a number of places that is its own.

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
    alike = max(ALIKE, spaces)
    for some in np.array_split(by_length, max(documents // alike, 1)):
        circle = rng.permutation(some)
        shifts = np.concatenate([[0], 1 + rng.permutation(len(some) - 1)[: spaces - 1]])
        for space, shift in enumerate(shifts.tolist()):
            order[space, circle] = np.roll(circle, -shift)
    return order


def rows_beside(
    stretch: Stretch, documents: Documents, order_a: Documents, order_b: Documents
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of A and of B that stand beside each other: two (n,) int64 arrays.

    At each place, A's document and B's, both from their first row on, cut to the shorter. (Rows are those that both
    spaces have of a document, so that the first is the same place of the text.)

    Args:
        stretch: the aligned rows.
        documents: (documents,) their numbers in the corpus, ascending.
        order_a, order_b: (documents,) from `orders`: which of these stands at each place.
    """
    start = np.searchsorted(stretch.document, documents[order_a], side="left")
    end = np.searchsorted(stretch.document, documents[order_a], side="right")
    start_b = np.searchsorted(stretch.document, documents[order_b], side="left")
    end_b = np.searchsorted(stretch.document, documents[order_b], side="right")
    shorter = np.minimum(end - start, end_b - start_b)
    within = np.arange(int(shorter.sum())) - np.repeat(np.cumsum(shorter) - shorter, shorter)
    return np.repeat(start, shorter) + within, np.repeat(start_b, shorter) + within
