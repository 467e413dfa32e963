"""Codes and sampled activations of two spaces on the same tokens, one stretch of text after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from unifeat.codes.align import align, rows_of, shared_places
from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore
from unifeat.vocabulary.places import Places

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Beside:
    """Tokens of a stretch of text that both samples of activations have, (rows,) in text order.

    Attributes:
        group: number of the group of text.
        places_a, places_b: where each token is; the same document and character on both sides.
        x_a, x_b: (rows, d_a) and (rows, d_b) activations.
        codes_a, codes_b: (rows, features) codes.
    """

    group: int
    places_a: Places
    places_b: Places
    x_a: Floats
    x_b: Floats
    codes_a: csr_array
    codes_b: csr_array

    @property
    def document(self) -> NDArray[np.int32]:
        """Number of the document of each token in the corpus."""
        return self.places_a.document

    def at(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Beside:
        """Some of the tokens: by number, or a mask."""
        places, x = (self.places_a[rows], self.places_b[rows]), (self.x_a[rows], self.x_b[rows])
        return Beside(self.group, *places, *x, self.codes_a[rows], self.codes_b[rows])

    @classmethod
    def joined(cls, parts: list[Beside]) -> Beside:
        """The tokens of several stretches, one after the other, in memory; the group is the first one's."""
        places = [
            Places(*(np.concatenate([getattr(getattr(part, side), f.name) for part in parts]) for f in fields(Places)))
            for side in ("places_a", "places_b")
        ]
        x = [np.concatenate([getattr(part, side) for part in parts]) for side in ("x_a", "x_b")]
        codes = [csr_array(vstack([getattr(part, side) for part in parts])) for side in ("codes_a", "codes_b")]
        return cls(parts[0].group, places[0], places[1], x[0], x[1], codes[0], codes[1])

    def turned(self) -> Beside:
        """The same with the two spaces exchanged."""
        return Beside(self.group, self.places_b, self.places_a, self.x_b, self.x_a, self.codes_b, self.codes_a)


def beside(codes_a: CodeStore, codes_b: CodeStore, sample_a: CodeStore, sample_b: CodeStore) -> Iterator[Beside]:
    """Walk through the text. The samples hold activations of the rows of the codes (see `codes.activations`).

    Raises:
        UserError: the stores come from different texts, or the samples share no place.
    """
    aligned = align(sample_a, sample_b).aligned_shards()
    shards = zip(codes_a.shards(), codes_b.shards(), aligned, strict=True)
    for group, (own_a, own_b, (x_a, x_b, at_a, at_b)) in enumerate(shards):
        to_a, to_b = _rows_in(own_a, x_a)[at_a], _rows_in(own_b, x_b)[at_b]
        known = (to_a >= 0) & (to_b >= 0)  # (thousands of tokens may end at one character, see `align`)
        if known.any():
            at_a, at_b, to_a, to_b = at_a[known], at_b[known], to_a[known], to_b[known]
            yield Beside(
                group,
                x_a.places[at_a],
                x_b.places[at_b],
                _dense(x_a, at_a, sample_a.features),
                _dense(x_b, at_b, sample_b.features),
                _sparse(own_a, to_a, codes_a.features),
                _sparse(own_b, to_b, codes_b.features),
            )


def _rows_in(codes: Shard, sample: Shard) -> NDArray[np.int64]:
    """For each row of a sample, the row of the codes at the same place; −1 where there is none."""
    of_codes, of_sample = shared_places(codes.places, sample.places, same_tokenizer=True)
    found = np.full(sample.rows, -1, np.int64)
    found[of_sample] = of_codes
    return found


def _sparse(shard: Shard, rows: NDArray[np.int64], features: int) -> csr_array:
    taken = rows_of(shard, rows)
    start = taken.indptr[0]
    index, value = (part[start : taken.indptr[-1]] for part in (taken.index, taken.value))
    return csr_array((value, index.astype(np.int32), taken.indptr - start), shape=(len(rows), features))


def _dense(shard: Shard, rows: NDArray[np.int64], width: int) -> Floats:
    return np.asarray(_sparse(shard, rows, width).toarray(), np.float32)
