"""Stores of codes written without a language model: what is in them is known exactly."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from unifeat.codes.shard import FORMAT, Shard, write_shard
from unifeat.codes.store import CodeStore
from unifeat.text.windows import _order_from_the_end
from unifeat.vocabulary.places import Places

SETTINGS: dict[str, Any] = {
    "format": FORMAT,
    "text": "the text",
    "cut": [1, 2],
    "tokenizer": "one",
    "sae": "an sae",
    "d_sae": 32,
    "hook": [1, "resid_post"],
}


def places(document: Any, char_end: Any) -> Places:
    """Places of tokens in order; `order` follows from them and the tokens are numbered."""
    document, char_end = np.asarray(document, np.int32), np.asarray(char_end, np.int32)
    order = _order_from_the_end(document.astype(np.int64) << 32 | char_end)
    return Places(document, char_end, order, np.arange(len(document), dtype=np.int32))


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a file mapped into memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap)


def shard_of(dense: np.ndarray, where: Places, stats: dict[str, Any] | None = None) -> Shard:
    """A shard that holds a (rows, features) array."""
    rows, features = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(len(dense) + 1)).astype(np.int64)
    values = dense[rows, features].astype(np.float32)
    return Shard(indptr, features.astype(np.int32), values, where, stats or {"read": len(dense)})


def random_dense(rng: np.random.Generator, rows: int, features: int = 32, share: float = 0.1) -> np.ndarray:
    """(rows, features) float32, mostly zeros, of both signs; the last row and the last feature are silent."""
    dense = rng.normal(size=(rows, features)) * (rng.random((rows, features)) < share)
    dense[-1:] = 0
    dense[:, -1] = 0
    return dense.astype(np.float32)


def random_shard(rng: np.random.Generator, rows: int = 50, features: int = 32, document: int = 0) -> Shard:
    """Tokens of one document that end at every second character."""
    where = places([document] * rows, 2 * np.arange(1, rows + 1))
    return shard_of(random_dense(rng, rows, features), where, {"read": rows + 3, "sink": 3, "fvu_error": rng.random()})


def written(root: Path, shards: list[Shard], *, finish: bool = True, **settings: Any) -> CodeStore:
    """A store with these shards."""
    store = CodeStore.create(root, SETTINGS | settings)
    for number, shard in enumerate(shards):
        write_shard(store.shard_path(number), shard)
    if finish:
        store.finish(len(shards))
    return store


def dense_of(shard: Shard, features: int = 32) -> np.ndarray:
    """The shard's codes, (rows, features) float32."""
    return dense_rows(shard.indptr, shard.feature, shard.value, features)


def dense_rows(indptr: np.ndarray, index: np.ndarray, value: np.ndarray, features: int) -> np.ndarray:
    """CSR arrays as (rows, features) float32."""
    out = np.zeros((len(indptr) - 1, features), np.float32)
    out[np.repeat(np.arange(len(out)), np.diff(indptr)), index[indptr[0] : indptr[-1]]] = value[indptr[0] : indptr[-1]]
    return out
