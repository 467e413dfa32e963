"""Running one model on another's features: how much of what B's matched features do their partners in A carry.

For each direction of a cell, activations of the *target* model are rebuilt in several ways from the features of the
*source* model. Gains and maps come from the documents that pairs are found on, all figures from the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from unifeat.codes.beside import Beside, beside
from unifeat.engine import Unit
from unifeat.inference.strata import pair_frequency, strata_of
from unifeat.pipeline.match import Cell
from unifeat.pipeline.spaces import Space
from unifeat.store import Form, Piece
from unifeat.store.keys import digest_of
from unifeat.study.transfer import TransferSpec
from unifeat.text.halves import fitting_documents
from unifeat.transfer.carried import Carried, carried_by, summarise
from unifeat.transfer.decoding import Decoding
from unifeat.transfer.documents import ratio_interval
from unifeat.transfer.maps import LinearMap, fit_affine, fit_rotation
from unifeat.transfer.sums import MIXED, VARIANTS, FitSums, Fitted, JudgeSums, Tokens

VERSION = 3  # raised whenever the results change (in 2, the norms of activations; in 3, ties reach the value)
_ARRAYS = ("features", "norms")
MOST_PAIRS = 4096  # products of pairs are held in memory
_MAP_ROWS = 6144  # a map whose smaller side is larger is fitted on so many rows
RIDGE, AFFINE, ROTATION, ROUND_TRIP, OTHERS_SAE, RAW = (
    *("ridge_of_all_codes", "affine", "rotation", "map_and_back", "sae_through_map", "sae_as_it_is"),
)


@dataclass(frozen=True)
class Direction:
    """One direction of a cell: the target's activations are rebuilt from the source's features.

    Attributes:
        source, target: the spaces.
        name: `a_to_b` or `b_to_a`.
        pairs: kept pairs, strongest first, each feature of the target once: `source_feature`, `target_feature`,
            `correlation`, `count` (how often the pair fires).
    """

    cell: Cell = field(repr=False)
    source: Space
    target: Space
    name: str

    @classmethod
    def both(cls, cell: Cell) -> list[Direction]:
        """The two directions of a cell."""
        return [cls(cell, cell.a, cell.b, "a_to_b"), cls(cell, cell.b, cell.a, "b_to_a")]

    @property
    def seed(self) -> int:
        """The study's."""
        return self.cell.comparison.seed

    @property
    def pairs(self) -> pd.DataFrame:
        """The pairs in this direction, at most `MOST_PAIRS`."""
        kept = self.cell.kept
        one, other = ("a", "b") if self.name == "a_to_b" else ("b", "a")
        table = pd.DataFrame(
            {
                "source_feature": kept[f"feature_{one}"],
                "target_feature": kept[f"feature_{other}"],
                "correlation": kept["correlation"],
                "count": pair_frequency(kept["count_a"], kept["count_b"]),
            }
        )
        by = ["correlation", "source_feature", "target_feature"]
        strongest = table.sort_values(by, ascending=[False, True, True]).drop_duplicates("target_feature")
        return strongest.head(MOST_PAIRS).sort_values(by[1:]).reset_index(drop=True)

    @property
    def fitting(self) -> NDArray[np.bool_]:
        """(documents,) which are fitted on."""
        return fitting_documents(self.cell.comparison.documents, self.seed)

    def stretches(self) -> Iterator[Beside]:
        """The sampled tokens of both, with the source as A."""
        a, b = self.cell.a, self.cell.b
        assert a.activations is not None
        assert b.activations is not None
        for rows in beside(a.store, b.store, a.activations, b.activations):
            yield rows if self.name == "a_to_b" else rows.turned()

    @property
    def made_from(self) -> dict[str, Any]:
        """What determines its results, as JSON data."""
        pairs, sides = self.pairs, (self.source, self.target)
        return {
            "version": VERSION,
            "codes": [space.store.identity for space in sides],
            "activations": [space.activations.identity for space in sides if space.activations is not None],
            "pairs": digest_of([pairs[name].tolist() for name in ("source_feature", "target_feature", "count")]),
            "direction": self.name,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Rebuilt:
    """What came of one direction.

    Attributes:
        rows: one row for each variant: `variant`, `tokens`, `fvu` and its interval (`_low`, `_high`), `carried` and its
            interval, `null_mean`, `null_sd`, `p` and `flags` (of `own_and_from_a`).
        pairs: one row for each pair: `source_feature`, `target_feature`, `gain`, `offset`, `predicted`, `lowered`,
            `lowered_own` (see `Carried.pairs`).
        fits: gains and maps, to rebuild any token.
    """

    rows: pd.DataFrame
    pairs: pd.DataFrame
    fits: Fits


@dataclass(frozen=True)
class Fits:
    """What is fitted in one direction.

    Attributes:
        features: (2, m) features of the source and of the target.
        fitted: means and slopes of the pairs' codes.
        maps: linear maps by name: `RIDGE` from all codes of the source, `AFFINE`, `ROTATION` from its activations,
            `back` from the target's activations to the source's.
        norms: (2,) the root mean square norm of the source's and the target's activations about their mean.
    """

    features: NDArray[np.int64]
    fitted: Fitted
    maps: dict[str, LinearMap]
    norms: NDArray[np.float64]

    def save(self, path: Path) -> None:
        """Write them to an `.npz` file."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"fitted.{name}": value for name, value in vars(self.fitted).items()}
        for name, own in self.maps.items():
            arrays |= {f"{name}.{part}": np.asarray(value) for part, value in vars(own).items()}
        np.savez(path, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Fits:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            groups: dict[str, dict[str, Any]] = {}
            for key in stored.files:
                if key not in _ARRAYS:
                    name, part = key.split(".")
                    groups.setdefault(name, {})[part] = stored[key]
            arrays = {name: stored[name] for name in _ARRAYS}
        fitted = Fitted(**groups.pop("fitted"))
        maps = {name: LinearMap(**own | {"penalty": float(own["penalty"])}) for name, own in groups.items()}
        return cls(fitted=fitted, maps=maps, **arrays)


def _write(found: Rebuilt, folder: Path) -> None:
    found.rows.to_parquet(folder / "rows.parquet", index=False)
    found.pairs.to_parquet(folder / "pairs.parquet", index=False)
    found.fits.save(folder / "fits.npz")


def _read(_: Any, folder: Path) -> Rebuilt:
    rows, pairs = (pd.read_parquet(folder / f"{name}.parquet") for name in ("rows", "pairs"))
    return Rebuilt(rows, pairs, Fits.load(folder / "fits.npz"))


FORM: Form[Rebuilt] = Form(_write, _read)


def rebuild_unit(direction: Direction, spec: TransferSpec, level: float) -> Unit[Rebuilt]:
    """A unit of work: fit, rebuild, and judge by squared error."""
    made_from = direction.made_from | {"draws": spec.draws, "level": level}
    piece = Piece("transfer", made_from, FORM, "what features carry")
    return Unit(piece, partial(_rebuild, direction, spec.draws, level), fills_machine=True)


class Rebuilder:
    """Rebuilds the target's activations on any tokens, by every variant."""

    def __init__(self, direction: Direction, fits: Fits) -> None:
        source, target = direction.source, direction.target
        self._fits = fits
        self.decoding = Decoding(sae_of(target), target.info["sae"])
        self.decoder = self.decoding.weights(fits.features[1])
        self.at_mean = self.decoding.combined(fits.fitted.mean_all_b)
        self._source = None
        if "back" in fits.maps and not _writes_elsewhere(source):
            self._source = Decoding(sae_of(source), source.info["sae"])

    def tokens(self, rows: Beside) -> Tokens:
        """What the SAEs make of tokens."""
        parts = self.decoding.parts(rows.x_b, rows.codes_b)
        return Tokens(*parts, *_codes_of(self._fits.features, rows))

    def mapped(self, rows: Beside) -> dict[str, NDArray[np.float64]]:
        """What the linear maps make of tokens, and the source's SAE between two of them: (n, d) each."""
        maps = self._fits.maps
        made = {RIDGE: maps[RIDGE](rows.codes_a), AFFINE: maps[AFFINE](rows.x_a)}
        if ROTATION in maps:
            made[ROTATION] = maps[ROTATION](rows.x_a)
        if self._source is None:
            return made
        in_source = maps["back"](rows.x_b).astype(np.float32)
        made[ROUND_TRIP] = maps[AFFINE](in_source)
        made[OTHERS_SAE] = maps[AFFINE](self._source.reconstructed(in_source))
        if rows.x_a.shape[1] == rows.x_b.shape[1]:
            made[RAW] = self._source.reconstructed(rows.x_b)
        return made


def _rebuild(direction: Direction, draws: int, level: float) -> Rebuilt:
    pairs, fitting = direction.pairs, direction.fitting
    ids = pairs[["source_feature", "target_feature"]].to_numpy(np.int64).T
    sums, rows_of_fit = FitSums(), []
    for rows in direction.stretches():
        own = rows.at(fitting[rows.document])
        if len(own.document):
            sums.add(*_codes_of(ids, own), np.asarray(own.codes_b.sum(0), np.float64).ravel())
            rows_of_fit.append(own)
    fits = Fits(ids, sums.fitted(), _maps(rows_of_fit, direction.seed), _norms(rows_of_fit))
    del rows_of_fit
    rebuilder = Rebuilder(direction, fits)
    judged = JudgeSums(fits.fitted, rebuilder.decoder, rebuilder.at_mean)
    for rows in direction.stretches():
        own = rows.at(~fitting[rows.document])
        if len(own.document):
            judged.add(own.document, own.x_b.astype(np.float64), rebuilder.tokens(own), rebuilder.mapped(own))
    strata = strata_of(pairs["count"].to_numpy())
    found = summarise(judged, ids[0], ids[1], sums.n, strata, draws, level, direction.seed)
    table = found.pairs.rename(columns={"feature_a": "source_feature", "feature_b": "target_feature"})
    return Rebuilt(_rows(judged, found, level, direction.seed), table, fits)


def _norms(parts: list[Beside]) -> NDArray[np.float64]:
    """The root mean square norm of activations about their mean, of both sides."""
    found = []
    for side in ("x_a", "x_b"):
        x = np.concatenate([getattr(part, side) for part in parts]).astype(np.float64)
        found.append(np.sqrt(np.einsum("ij,ij->", x - x.mean(0), x - x.mean(0)) / len(x)))
    return np.array(found)


def _codes_of(ids: NDArray[np.int64], rows: Beside) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The pairs' codes, (n, m) of the source and of the target."""
    both = zip((rows.codes_a, rows.codes_b), ids, strict=True)
    a, b = (codes[:, features].toarray().astype(np.float64) for codes, features in both)
    return a, b


def _rows(judged: JudgeSums, found: Carried, level: float, seed: int) -> pd.DataFrame:
    ids = sorted(judged.counts)
    # A document's share of the variance is that of its tokens: what varies is about one mean.
    variance = judged.about_mean * np.array([judged.counts[d] for d in ids]) / judged.n
    rows = []
    for name in [*VARIANTS, *(n for n in judged.errors if n not in VARIANTS)]:
        error = np.array([judged.errors[name].get(d, 0.0) for d in ids])
        low, high = ratio_interval(error, variance, level, seed)
        carried = carried_by(judged, name, level, seed)
        tested = name == MIXED
        rows.append(
            {
                "variant": name,
                "tokens": judged.n,
                "fvu": error.sum() / judged.about_mean,
                "fvu_low": low,
                "fvu_high": high,
                "carried": carried[0],
                "carried_low": carried[1],
                "carried_high": carried[2],
                "null_mean": found.null_mean if tested else np.nan,
                "null_sd": found.null_sd if tested else np.nan,
                "p": found.p if tested else np.nan,
                "flags": list(found.flags) if tested else [],
            }
        )
    return pd.DataFrame(rows)


def affine_alone(direction: Direction) -> tuple[LinearMap, NDArray[np.float64]]:
    """The affine map of a direction and the norms of activations, as in `Fits`: they need no pair."""
    fitting = direction.fitting
    parts = [rows.at(fitting[rows.document]) for rows in direction.stretches()]
    x_a, x_b, document = (
        np.concatenate([getattr(rows, name) for rows in parts]) for name in ("x_a", "x_b", "document")
    )
    return fit_affine(x_a, x_b, document, direction.seed), _norms(parts)


def _maps(stretches: list[Beside], seed: int) -> dict[str, LinearMap]:
    x_a, x_b = (np.concatenate([getattr(rows, name) for rows in stretches]) for name in ("x_a", "x_b"))
    codes = sparse.csr_array(sparse.vstack([rows.codes_a for rows in stretches]))
    document = np.concatenate([rows.document for rows in stretches])
    some = slice(None)
    if min(codes.shape) > _MAP_ROWS:
        some = np.linspace(0, len(document) - 1, _MAP_ROWS).astype(np.intp)  # type: ignore[assignment]
    found = {
        RIDGE: fit_affine(codes[some], x_b[some], document[some], seed),
        AFFINE: fit_affine(x_a, x_b, document, seed),
        "back": fit_affine(x_b, x_a, document, seed),
    }
    rotation = fit_rotation(x_a, x_b)
    return found | ({ROTATION: rotation} if rotation is not None else {})


def sae_of(space: Space) -> Any:
    """A space's SAE, loaded."""
    assert space.loader is not None
    (planned,) = space.loader.spaces
    return planned.sae.load()


def _writes_elsewhere(space: Space) -> bool:
    assert space.loader is not None
    (planned,) = space.loader.spaces
    return planned.writes_at != planned.point
