"""The candidate pairs of two spaces: found on half the documents, correlated again on the other half."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.align import AlignedCodes, align
from unifeat.codes.store import CodeStore
from unifeat.codes.token_types import ByTokenType
from unifeat.correlation.block_sums import BlockSums, block_edges, block_sums
from unifeat.correlation.correlate import Correlation, correlate, correlate_within
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.correlation.shifted import ShiftedCodes, shifts
from unifeat.correlation.within import within_groups
from unifeat.engine import Unit
from unifeat.matching.hubs import hubness, reciprocity
from unifeat.matching.methods import mutual_over
from unifeat.store import Form, Piece
from unifeat.text.halves import fitting_documents
from unifeat.threads import cores
from unifeat.vocabulary.grouped_codes import GroupedCodes
from unifeat.vocabulary.paired_codes import PairedCodes

VERSION = 5  # raised whenever the candidates change


@dataclass(frozen=True)
class Candidates:
    """Candidates of one pair of spaces.

    Attributes:
        table: `feature_a`, `feature_b`, `correlation`, `correlation_heldout`, `cofiring`, `csls`, `count_a`, `count_b`.
        other: the same table with the two halves of the documents exchanged; None if nothing is held out.
        facts: tokens aligned and fitted on, best r of each feature in this text and in shifted text, the number of
            possible shifts, hubness and reciprocity.
    """

    table: pd.DataFrame
    other: pd.DataFrame | None
    facts: dict[str, Any]


def _write(found: Candidates, folder: Path) -> dict[str, Any]:
    found.table.to_parquet(folder / "candidates.parquet", index=False)
    if found.other is not None:
        found.other.to_parquet(folder / "other.parquet", index=False)
    return found.facts


def _read(facts: dict[str, Any], folder: Path) -> Candidates:
    other = folder / "other.parquet"
    return Candidates(
        pd.read_parquet(folder / "candidates.parquet"), pd.read_parquet(other) if other.exists() else None, facts
    )


_FORM: Form[Candidates] = Form(_write, _read)


@dataclass(frozen=True)
class Comparison:
    """Two stores of codes over one text, and how they are compared.

    Attributes:
        a, b: the stores.
        top: best partners kept per feature, in both directions.
        heldout: find candidates on one half of the documents, compute their r on the other half too, and also find
            candidates on that half alone. If false, all documents are fitted on and `correlation_heldout` is NaN.
        documents: number of documents in the text.
        seed: seed for which documents are held out and how the text is shifted.
        device: "cpu", or "cuda": correlations are computed on a GPU.
        by: "correlation", or "within_token": every r is that of deviations from the means of a token type.
        names: of the two spaces, for messages.
    """

    a: CodeStore
    b: CodeStore
    top: int
    heldout: bool
    documents: int
    seed: int
    device: Literal["cpu", "cuda"] = "cpu"
    by: Literal["correlation", "within_token"] = "correlation"
    names: tuple[str, str] | None = None

    def made_from(self) -> dict[str, Any]:
        """Everything that determines the candidates, as JSON data."""
        return {
            "version": VERSION,
            "a": self.a.identity,
            "b": self.b.identity,
            "top": self.top,
            "heldout": self.heldout,
            "documents": self.documents,
            "seed": self.seed,
            # The last digits of r depend on it; that of the CPU was there first and is not named.
            **({"device": self.device} if self.device != "cpu" else {}),
            **({"by": self.by} if self.by != "correlation" else {}),
        }

    def candidates(self) -> Unit[Candidates]:
        """A unit that correlates the stores and keeps each feature's best partners.

        Raises (when it runs):
            UserError: fewer than two documents to split.
        """
        piece = Piece("candidates", self.made_from(), _FORM, "the candidate pairs")
        return Unit(piece, partial(_candidates, self), fills_machine=True, gpu=self.device == "cuda")

    def halves(self) -> list[AlignedCodes]:
        """The codes of the documents fitted on, and of those held out if there are any."""
        codes = align(self.a, self.b, self.names)
        if not self.heldout:
            return [codes]
        fit = fitting_documents(self.documents, self.seed)
        return [codes.only(fit), codes.only(~fit)]

    def block_sums(self, table: pd.DataFrame) -> tuple[BlockSums, BlockSums | None]:
        """Sums of candidates in blocks of documents, for `bootstrap`: on the half fitted on, and on the held-out half.

        They are computed each time: stored, they were the largest part of a grid's cache.
        """
        sums = [sums_of_pairs(self.grouped(half), half.document_starts()[1], table) for half in self.halves()]
        return sums[0], sums[1] if self.heldout else None

    def correlate(self, codes: PairedCodes, top: int, *, threads: int | None = None) -> Correlation:
        """The best partners in rows of codes, by r or by r within the codes' groups."""
        if self.by == "within_token":
            assert isinstance(codes, GroupedCodes)
            return correlate_within(codes, top, threads=threads)
        return correlate(codes, top=top, device=self.device, threads=threads)

    def grouped(self, codes: AlignedCodes) -> PairedCodes:
        """The codes, grouped by token if they are to be correlated so."""
        return codes if self.by == "correlation" else ByTokenType(codes)


def _candidates(comparison: Comparison) -> Candidates:
    codes = align(comparison.a, comparison.b, comparison.names)
    fit = fitting_documents(comparison.documents, comparison.seed) if comparison.heldout else None
    found = _find(codes, fit, comparison)
    found.facts["share_a"], found.facts["share_b"] = (
        found.facts["tokens_aligned"] / store.rows for store in (comparison.a, comparison.b)
    )
    return found


def _find(codes: AlignedCodes, fit: NDArray[np.bool_] | None, how: Comparison) -> Candidates:
    fitted = codes if fit is None else codes.only(fit)
    corr = how.correlate(how.grouped(fitted), how.top)
    table, other = table_of(corr), None
    if fit is not None:
        heldout = codes.only(~fit)
        other = table_of(how.correlate(how.grouped(heldout), how.top))
        other.insert(3, "correlation_heldout", r_of_pairs(how.grouped(fitted), other))
    table.insert(3, "correlation_heldout", r_of_pairs(how.grouped(heldout), table) if fit is not None else np.nan)
    # Tokens of other text are hardly ever of one type, so there is nothing to correlate within.
    by_rows = shift_rows(fitted, how.seed) if how.by == "correlation" else np.zeros(0, np.int64)
    facts: dict[str, Any] = {
        "tokens_aligned": codes.n_rows,
        "tokens_fitted": fitted.n_rows,
        "tokens_heldout": codes.n_rows - fitted.n_rows,
        "documents_fitted": len(fitted.document_starts()[0]),
        "shifts": len(by_rows),
        "best_r": _best(corr),
        "best_r_shifted": {"a_to_b": [], "b_to_a": []},
        "mutual_shifted_over_0.1": None,
        "hubness": hubness(corr),
        "reciprocity": reciprocity(corr),
    }
    if len(by_rows):
        # The best partners by chance, where no token is paired with itself: what every r above is compared with.
        shifted = how.correlate(ShiftedCodes(fitted, int(by_rows[0])), 1)
        chance = shifted.candidates()
        facts["best_r_shifted"] = _best(shifted)
        facts["mutual_shifted_over_0.1"] = mutual_over(chance, 0.1)
    return Candidates(table, other, facts)


def table_of(corr: Correlation) -> pd.DataFrame:
    """The candidates: `feature_a`, `feature_b`, `correlation`, `cofiring`, `csls`, and both counts."""
    table = corr.candidates()[["feature_a", "feature_b", "correlation", "cofiring", "csls"]]
    return table.assign(
        count_a=corr.moments_a.count[table["feature_a"]], count_b=corr.moments_b.count[table["feature_b"]]
    )


def shift_rows(fitted: AlignedCodes, seed: int) -> NDArray[np.int64]:
    """The numbers of rows by which B can be shifted, in the order drawn with the seed."""
    document, start = fitted.document_starts()
    return start[shifts(document, start, fitted.n_rows, None, seed)]


def r_of_pairs(codes: PairedCodes, table: pd.DataFrame) -> NDArray[np.float64]:
    """(pairs,) r of the given pairs, for instance on other documents; within the codes' groups, if they have any.

    Args:
        table: `feature_a` and `feature_b`.
    """
    if codes.n_rows < 2:
        return np.full(len(table), np.nan)
    ids = table["feature_a"].to_numpy(), table["feature_b"].to_numpy()
    if isinstance(codes, GroupedCodes):
        return within_groups(codes, np.array([0, codes.n_rows]), *ids, threads=cores()).correlation()
    return correlate_pairs(codes, *ids)[0]


def sums_of_pairs(codes: PairedCodes, starts: NDArray[np.int64], table: pd.DataFrame) -> BlockSums:
    """Sums of the given pairs in blocks of documents; within the codes' groups, if they have any.

    Args:
        starts: (documents,) the first row of each.
        table: `feature_a` and `feature_b`.
    """
    return sums_in_blocks(codes, block_edges(starts, codes.n_rows), table)


def sums_in_blocks(codes: PairedCodes, edges: NDArray[np.int64], table: pd.DataFrame) -> BlockSums:
    """`sums_of_pairs` in given blocks: (blocks + 1,) rows at which they begin and end."""
    a, b = (table[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
    if isinstance(codes, GroupedCodes):
        return within_groups(codes, edges, a, b, threads=cores()).sums
    return block_sums(codes, edges, a, b)


def _best(corr: Correlation) -> dict[str, list[float]]:
    """Every 5 % quantile of the features' best r, in both directions: enough to draw the distribution."""
    quantiles = {}
    for direction, partners in (("a_to_b", corr.a_to_b), ("b_to_a", corr.b_to_a)):
        best = partners.value[:, 0]
        best = best[~np.isnan(best)]
        quantiles[direction] = [float(v) for v in np.quantile(best, np.linspace(0, 1, 21))] if len(best) else []
    return quantiles
