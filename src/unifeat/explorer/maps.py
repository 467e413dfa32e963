"""Maps of a space's features: UMAP of where their decoder rows point, and of when they fire.

UMAP (McInnes, Healy, Melville 2018, arXiv 1802.03426) with exact neighbours. Near points of a map are near in the
space; distances between far ones mean little.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.codes.align import align
from unifeat.codes.store import CodeStore
from unifeat.correlation.correlate import correlate
from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.progress import say
from unifeat.runs.opened import OpenedSpace
from unifeat.saes.weights import decoder_piece
from unifeat.store import Form, Piece

VERSION = 1  # raised whenever the same spaces give other maps
NEIGHBOURS = 15
_SEED = 0
_FEWEST = NEIGHBOURS + 2
_BLOCK = 1024
Array = NDArray[Any]


def _write(map_: Array, folder: Path) -> None:
    np.save(folder / "map.npy", map_)


def _read(value: Any, folder: Path) -> Array:
    found: Array = np.load(folder / "map.npy")
    return found


_FORM: Form[Array] = Form(_write, _read)


def decoder_map(space: OpenedSpace) -> Unit[Array] | None:
    """The map of decoder rows, (features, 2) float32, as a unit of work; None if the cache no longer holds the rows.

    A feature whose row is zero is nowhere: NaN.
    """
    piece = decoder_piece(space.store.settings["sae"])
    if not piece.exists():
        say(f"the decoder rows of {space.name} are not in the cache (any more): there is no map of them")
        return None
    made_from = {"of": "decoder", "sae": space.store.settings["sae"]}
    return _unit(made_from, partial(_map_of_piece, piece), f"a map of the decoder rows of {space.name}")


def firing_map(space: OpenedSpace) -> Unit[Array]:
    """The map of firing profiles, (features, 2) float32, as a unit of work; NaN for features that never fire."""
    made_from = {"of": "firing", "codes": space.store.identity}
    return _unit(made_from, partial(map_of_codes, space.store), f"a map of when the features of {space.name} fire")


def _unit(made_from: dict[str, Any], work: Callable[[], Array], what: str) -> Unit[Array]:
    settings = {"version": VERSION, "neighbours": NEIGHBOURS, "seed": _SEED}
    piece: Piece[Array] = Piece("feature-maps", made_from | settings, _FORM, what)
    return Unit(piece, work, fills_machine=True)


def _map_of_piece(piece: Piece[Array]) -> Array:
    rows = piece.read()
    if rows is None:
        raise UserError(f"{piece.path} was damaged: run the study again, which makes it again")
    return map_of_rows(rows)


def map_of_rows(rows: Array) -> Array:
    """UMAP of unit vectors by their cosine distances.

    Args:
        rows: (n, d) of unit norm, or zero.

    Returns:
        (n, 2) float32; NaN for zero rows, and for all if there are too few.
    """
    there = np.flatnonzero(np.any(rows, axis=1))
    place = np.full((len(rows), 2), np.nan, np.float32)
    if len(there) >= _FEWEST:
        own = np.ascontiguousarray(rows[there], np.float32)
        place[there] = _umap(*nearest(own, NEIGHBOURS), own)
    return place


def map_of_codes(store: CodeStore) -> Array:
    """UMAP of features by 1 − r of their activations over all tokens.

    Returns:
        (features, 2) float32; NaN for features that never fire or never change, and for all if there are too few.
    """
    found = correlate(align(store, store), top=NEIGHBOURS + 1).a_to_b
    there = np.flatnonzero(np.isfinite(found.value).any(axis=1))
    place = np.full((store.features, 2), np.nan, np.float32)
    if len(there) < _FEWEST:
        return place
    renamed = np.full(store.features + 1, -1, np.int32)
    renamed[there] = np.arange(len(there))
    index, distance = renamed[found.index[there]], 1 - found.value[there]
    own = index == np.arange(len(there))[:, None]
    # Each feature is its own first neighbour; one with more exact copies than neighbours may not list itself.
    distance = np.where(own, -1.0, np.where((index < 0) | np.isnan(distance), np.inf, np.maximum(distance, 0)))
    order = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
    index, distance = np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)
    index[:, 0], distance[:, 0] = np.arange(len(there)), 0
    missing = np.isinf(distance)
    index[missing], distance[missing] = -1, 1
    place[there] = _umap(index, distance.astype(np.float32), None)
    return place


def nearest(rows: Array, k: int) -> tuple[Array, Array]:
    """The `k` nearest of unit rows (n, d) by cosine distance, itself first: indices (n, k) int32, distances float32.

    Exact, from blocks of products; needs memory for 1,024 × n products.
    """
    n = len(rows)
    index, distance = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start in range(0, n, _BLOCK):
        cosine = rows[start : start + _BLOCK] @ rows.T
        own = np.arange(len(cosine))
        cosine[own, start + own] = np.inf
        some = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        value = np.take_along_axis(cosine, some, 1)
        order = np.lexsort((some, -value), axis=1)
        index[start : start + _BLOCK] = np.take_along_axis(some, order, 1)
        distance[start : start + _BLOCK] = 1 - np.take_along_axis(value, order, 1)
    distance[:, 0] = 0
    return index, np.maximum(distance, 0)


def _umap(index: Array, distance: Array, rows: Array | None) -> Array:
    """UMAP from neighbours; `rows` (n, d) only place parts of the graph that nothing joins."""
    umap = _import_umap()
    # (A row that stands for its feature where there are none: all are equally far from each other.)
    data = rows if rows is not None else np.arange(len(index), dtype=np.float32)[:, None] + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that new points cannot be added, and that the graph has several parts
        made = umap(
            n_neighbors=index.shape[1],
            metric="cosine" if rows is not None else "euclidean",
            precomputed_knn=(index, distance),
            random_state=_SEED,
            n_jobs=1,
        )
        return np.asarray(made.fit_transform(data), np.float32)


def _import_umap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # (it tells about TensorFlow, which we do not use)
            from umap import UMAP
    except ImportError as error:
        raise UserError(f"a map needs umap-learn ({error}): pip install umap-learn") from error
    return UMAP
