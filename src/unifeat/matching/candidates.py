"""The candidate pairs of two spaces: found on half the documents, read again on the other half. Cached by content."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.aligned import AlignedCodes, align
from unifeat.codes.store import CodeStore
from unifeat.errors import UserError
from unifeat.matching.blocks import MOST_BLOCKS, BlockSums, block_edges, block_sums, read_blocks, write_blocks
from unifeat.matching.correlation import Correlation, correlate
from unifeat.matching.match import select
from unifeat.matching.paired import PairedCodes, in_memory
from unifeat.matching.pairs import pair_correlation
from unifeat.matching.quality import hubness, reciprocity
from unifeat.matching.rotated import RotatedCodes, rotations
from unifeat.storage import cache_root, key_of, write_json, written_aside

VERSION = "candidates/3"
_HELD = (
    50_000_000  # entries of either side together, 400 MB: reading and aligning them anew costs as much as correlating
)


@dataclass(frozen=True)
class Candidates:
    """Candidates of one pair of spaces.

    Attributes:
        table: `feature_a`, `feature_b`, `correlation`, `correlation_heldout`, `cofiring`, `csls`, `count_a`, `count_b`.
        other: the same table made on the other half of the documents, where `correlation_heldout` is r on this one;
            None if nothing is held out.
        facts: tokens aligned and fitted on, best r of each feature here and in rotated text, how many rotations there
            are, hubness and reciprocity.
    """

    table: pd.DataFrame
    other: pd.DataFrame | None
    facts: dict[str, Any]


def find_candidates(a: CodeStore, b: CodeStore, *, top: int, heldout: bool, documents: int, seed: int) -> Candidates:
    """Correlate two stores and keep each feature's `top` best partners, both ways.

    Args:
        top: partners kept a feature.
        heldout: find them on one half of the documents and report their r on the other half too, and find them
            again on that half alone; otherwise all documents are fitted on and `correlation_heldout` is NaN.
        documents: how many documents the text has.
        seed: which documents are held out, and where the text is rotated.

    Raises:
        UserError: fewer than two documents to split.
    """
    folder = cache_root() / "candidates" / key_of(_settings(VERSION, a, b, top, heldout, seed))
    if not folder.exists():
        fit = fitting_documents(documents, seed) if heldout else None
        found = _find(align(a, b), fit, top, seed)
        found.facts["share_a"], found.facts["share_b"] = (found.facts["tokens_aligned"] / s.rows for s in (a, b))
        with written_aside(folder) as aside:
            aside.mkdir()
            found.table.to_parquet(aside / "candidates.parquet", index=False)
            if found.other is not None:
                found.other.to_parquet(aside / "other.parquet", index=False)
            write_json(aside / "facts.json", found.facts)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    other = pd.read_parquet(folder / "other.parquet") if heldout else None
    return Candidates(pd.read_parquet(folder / "candidates.parquet"), other, facts)


@dataclass(frozen=True)
class Rematching:
    """The candidates of chance: B's text rotated by whole documents, then correlated as in `find_candidates`.

    Attributes:
        top, heldout, documents, seed: as for `find_candidates`, whose fitting documents are the ones rotated.
    """

    a: CodeStore
    b: CodeStore
    top: int
    heldout: bool
    documents: int
    seed: int

    def find(self, number: int) -> pd.DataFrame:
        """The candidates of one rotation.

        Args:
            number: which, from 0; `facts["rotations"]` of `find_candidates` says how many there are. The same number
                is the same document in every pair of spaces over the text, unless its rotation is not allowed there.

        Returns:
            `feature_a`, `feature_b`, `correlation`, `cofiring`, `csls`, `count_a`, `count_b`.

        Raises:
            UserError: fewer than two documents to split, or no such rotation.
        """
        settings = _settings(VERSION, self.a, self.b, self.top, self.heldout, self.seed) | {"rotation": number}
        path = cache_root() / "rematched" / f"{key_of(settings)}.parquet"
        if not path.exists():
            codes, by_rows = self._rotated
            if not 0 <= number < len(by_rows):
                raise UserError(
                    f"rotation {number} of the text: there are {len(by_rows)}, numbered from 0, that take every token "
                    "out of its document; ask for fewer rematches or give more documents"
                )
            corr = correlate(RotatedCodes(codes, int(by_rows[number])), top=self.top)
            with written_aside(path) as aside:
                _table(corr).to_parquet(aside, index=False)
        return pd.read_parquet(path)

    @cached_property
    def _rotated(self) -> tuple[PairedCodes, NDArray[np.int64]]:
        """The fitting documents' codes, held in memory where they are few, and by how many rows B can be rotated."""
        codes = align(self.a, self.b)
        fitted = codes.only(fitting_documents(self.documents, self.seed)) if self.heldout else codes
        return in_memory(fitted, _HELD), _rotations(fitted, self.seed)


def find_blocks(
    a: CodeStore, b: CodeStore, found: Candidates, *, top: int, heldout: bool, documents: int, seed: int
) -> tuple[BlockSums, BlockSums | None]:
    """Sums of the candidates in blocks of documents, for `bootstrap`: over the half fitted on and the one held out.

    Args:
        found: what `find_candidates` gave for the same arguments.

    Raises:
        UserError: fewer than two documents to split.
    """
    settings = _settings(VERSION, a, b, top, heldout, seed) | {"blocks": MOST_BLOCKS}
    folder = cache_root() / "blocks" / key_of(settings)
    if not folder.exists():
        codes = align(a, b)
        fit = fitting_documents(documents, seed) if heldout else None
        halves = [codes] if fit is None else [codes.only(fit), codes.only(~fit)]
        with written_aside(folder) as aside:
            aside.mkdir()
            for name, half in zip(("fitted", "heldout"), halves, strict=False):
                edges = block_edges(half.document_starts()[1], half.n_rows)
                sums = block_sums(half, edges, found.table["feature_a"], found.table["feature_b"])
                write_blocks(aside / f"{name}.npz", sums)
    return read_blocks(folder / "fitted.npz"), read_blocks(folder / "heldout.npz") if heldout else None


def _settings(version: str, a: CodeStore, b: CodeStore, top: int, heldout: bool, seed: int) -> dict[str, Any]:
    """Everything that determines the candidates of two stores, as JSON data."""
    return {
        "what": version,
        "a": a.folder.name,
        "b": b.folder.name,
        "shards": [[e["sha256"] for e in store.manifest["shards"]] for store in (a, b)],
        "top": top,
        "heldout": heldout,
        "seed": seed,
    }


def fitting_documents(documents: int, seed: int) -> NDArray[np.bool_]:
    """A (documents,) mask of the half that pairs are found on; the other half is held out."""
    if documents < 2:
        raise UserError("one document cannot be split into two halves: give more, or set matching.heldout to false")
    fit = np.zeros(documents, bool)
    fit[np.random.default_rng([seed, documents]).permutation(documents)[: (documents + 1) // 2]] = True
    return fit


def _find(codes: AlignedCodes, fit: NDArray[np.bool_] | None, top: int, seed: int) -> Candidates:
    fitted = codes if fit is None else codes.only(fit)
    corr = correlate(fitted, top=top)
    table, other = _table(corr), None
    if fit is not None:
        heldout = codes.only(~fit)
        other = _table(correlate(heldout, top=top))
        other.insert(3, "correlation_heldout", _read_again(fitted, other))
    table.insert(3, "correlation_heldout", _read_again(heldout, table) if fit is not None else np.nan)
    by_rows = _rotations(fitted, seed)
    facts: dict[str, Any] = {
        "tokens_aligned": codes.n_rows,
        "tokens_fitted": fitted.n_rows,
        "tokens_heldout": codes.n_rows - fitted.n_rows,
        "rotations": len(by_rows),
        "best_r": _best(corr),
        "best_r_shifted": {"a_to_b": [], "b_to_a": []},
        "mutual_shifted_over_0.1": None,
        "hubness": hubness(corr),
        "reciprocity": reciprocity(corr),
    }
    if len(by_rows):
        # What best partners look like where no token meets its own: the yardstick for every r above.
        shifted = correlate(RotatedCodes(fitted, int(by_rows[0])), top=1)
        chance = shifted.candidates()
        facts["best_r_shifted"] = _best(shifted)
        facts["mutual_shifted_over_0.1"] = int((select(chance, "mutual") & (chance["correlation"] > 0.1)).sum())
    return Candidates(table, other, facts)


def _table(corr: Correlation) -> pd.DataFrame:
    table = corr.candidates()[["feature_a", "feature_b", "correlation", "cofiring", "csls"]]
    return table.assign(
        count_a=corr.moments_a.count[table["feature_a"]], count_b=corr.moments_b.count[table["feature_b"]]
    )


def _rotations(fitted: AlignedCodes, seed: int) -> NDArray[np.int64]:
    """By how many rows B can be rotated, in the order drawn by the seed."""
    document, start = fitted.document_starts()
    return start[rotations(document, start, fitted.n_rows, None, seed)]


def _read_again(codes: PairedCodes, table: pd.DataFrame) -> NDArray[np.float64]:
    """r of the same pairs on other documents."""
    if codes.n_rows < 2:
        return np.full(len(table), np.nan)
    return pair_correlation(codes, table["feature_a"].to_numpy(), table["feature_b"].to_numpy())[0]


def _best(corr: Correlation) -> dict[str, list[float]]:
    """Deciles of each feature's best r, both ways: enough to draw the distribution."""
    deciles = {}
    for direction, partners in (("a_to_b", corr.a_to_b), ("b_to_a", corr.b_to_a)):
        best = partners.value[:, 0]
        best = best[~np.isnan(best)]
        deciles[direction] = [float(v) for v in np.quantile(best, np.linspace(0, 1, 21))] if len(best) else []
    return deciles
