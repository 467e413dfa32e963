"""Latents against activations: how alike the models' activations are on the same tokens, beside codes and decoder rows.

Superposition alone can make activations look unlike where features are alike (arXiv 2604.00208), and activations can be
alike where a dictionary's directions are not. So the same linear measures are taken of all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from unifeat.codes.beside import Beside, beside
from unifeat.engine import Engine, Unit
from unifeat.errors import UserError
from unifeat.geometry.streamed import PairedMoments
from unifeat.inference import find_measure
from unifeat.pipeline.match import Cell
from unifeat.pipeline.pair_set import PairSet
from unifeat.progress import track
from unifeat.store import JSON, Piece
from unifeat.store.keys import digest_of
from unifeat.study.measures import MetricSpec

VERSION = 2  # raised whenever the results change (in 2, by rounding)
MEASURES = ("cka", "svcca", "heldout_cca")
_FOLDS = 5
_MOST_PAIRS = 4096  # whose codes are compared; products of more columns would fill the memory


def compare_latents(cells: list[Cell], dims: int, engine: Engine) -> Iterator[dict[str, Any]]:
    """The facts of each cell for `run.json`.

    `rows`, `documents` (sampled tokens that both spaces have), `dims`, `codes_pairs` (pairs whose codes are compared),
    and for `activations`, `codes` and `directions` (the decoder rows of the kept pairs) the values of debiased linear
    CKA, SVCCA and held-out CCA (None where undefined).

    Args:
        cells: of spaces with samples of activations.
        dims: components of SVCCA and held-out CCA.
    """
    with track("activations beside codes", len(cells), unit="pairs of spaces") as advance:
        for found in engine.map(_unit(cell, dims) for cell in cells):
            yield found
            advance(1)


def _unit(cell: Cell, dims: int) -> Unit[dict[str, Any]]:
    pairs = PairSet.of(cell, "all", cell.kept)
    specs = _specs(dims)
    samples = [space.activations for space in (cell.a, cell.b)]
    made_from = {
        "version": VERSION,
        "codes": [space.store.identity for space in (cell.a, cell.b)],
        "activations": [sample.identity for sample in samples if sample is not None],
        "pairs": digest_of([pairs.features_a.tolist(), pairs.features_b.tolist()]),
        "measures": [find_measure(spec.metric).identity(spec.settings) for spec in specs.values()],
    }
    piece = Piece("latents", made_from, JSON, "activations beside codes")
    return Unit(piece, partial(_compare, pairs, dims, cell.comparison.seed), fills_machine=True)


def _specs(dims: int) -> dict[str, MetricSpec]:
    settings: list[dict[str, Any]] = [{"debiased": True}, {"dims": dims}, {"dims": dims}]
    return {name: MetricSpec(metric=name, settings=own) for name, own in zip(MEASURES, settings, strict=True)}


def _compare(pairs: PairSet, dims: int, seed: int) -> dict[str, Any]:
    a, b = pairs.a, pairs.b
    assert a.activations is not None
    assert b.activations is not None
    chosen = np.arange(len(pairs.features_a))
    if len(chosen) > _MOST_PAIRS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, _MOST_PAIRS, replace=False))
    ids_a, ids_b = pairs.features_a[chosen], pairs.features_b[chosen]
    activations, codes = PairedMoments(_FOLDS), PairedMoments(_FOLDS)
    documents = 0
    last = -1
    for rows in beside(a.store, b.store, a.activations, b.activations):
        fold = _fold(rows, seed)
        activations.add(rows.x_a, rows.x_b, fold)
        if len(ids_a):
            codes.add(rows.codes_a[:, ids_a], rows.codes_b[:, ids_b], fold)
        own = np.unique(rows.document)
        documents += len(own) - int(own[0] == last)
        last = int(own[-1])
    return {
        "rows": activations.n,
        "documents": documents,
        "dims": dims,
        "codes_pairs": len(ids_a),
        "activations": _values(activations, dims),
        "codes": _values(codes, dims),
        "directions": {name: _of_rows(pairs, spec) for name, spec in _specs(dims).items()},
    }


def _fold(rows: Beside, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The fold of each row: whole documents, drawn at random by number."""
    own, place = np.unique(rows.document, return_inverse=True)
    folds = np.array([np.random.default_rng([seed, int(document)]).integers(_FOLDS) for document in own], np.int64)
    return folds[place]


def _values(moments: PairedMoments, dims: int) -> dict[str, float | None]:
    if not moments.n:
        return dict.fromkeys(MEASURES)
    values = moments.cka(), moments.svcca(dims), moments.heldout_cca(dims)
    return {name: None if np.isnan(value) else value for name, value in zip(MEASURES, values, strict=True)}


def _of_rows(pairs: PairSet, spec: MetricSpec) -> float | None:
    try:
        value = pairs.value(spec).value
    except UserError:
        return None  # too few pairs
    return None if np.isnan(value) else value
