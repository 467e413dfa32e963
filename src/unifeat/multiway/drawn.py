"""Pairs of two spaces among many, drawn: with documents re-paired in every space, and with documents resampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.store import CodeStore
from unifeat.codes.stretches import stretches
from unifeat.correlation.block_sums import MOST_BLOCKS
from unifeat.correlation.csls import csls
from unifeat.correlation.rearranged import RearrangedCodes, Stretch, taken
from unifeat.matching.bootstrap import draw_weights, resampled_counts, resampled_r
from unifeat.matching.by_chance import MOST_ENTRIES_IN_MEMORY
from unifeat.matching.candidates import Comparison, sums_in_blocks, table_of
from unifeat.matching.rule import Rule
from unifeat.multiway.rearrange import Blocks
from unifeat.text.halves import fitting_documents
from unifeat.vocabulary.paired_codes import InMemoryCodes, PairedCodes

VERSION = 1  # raised whenever the drawn pairs change
_MOST_ROWS = MOST_ENTRIES_IN_MEMORY // 100  # of a block: at fifty active features a token on either side
COLUMNS = ["draw", "feature_a", "feature_b", "correlation"]


@dataclass(frozen=True)
class Text:
    """The documents on which pairs were found, as one space reads them: the same for all pairs of the spaces.

    Attributes:
        store: the codes of the first space.
        documents: how many the text has.
        heldout: whether half of them are held out.
        seed: of the study.
    """

    store: CodeStore
    documents: int
    heldout: bool
    seed: int

    def identity(self) -> list[object]:
        """Everything that determines it, as JSON data."""
        return [self.store.identity, self.documents, self.heldout, self.seed]

    def read(self, fewest: int) -> tuple[Blocks, list[int]]:
        """Its documents in blocks, and the shard with which each block begins.

        Args:
            fewest: documents that a block must have; the last ones are joined where they have fewer.
        """
        whole = np.ones(self.documents, bool)
        fit = fitting_documents(self.documents, self.seed) if self.heldout else whole
        length, first = np.zeros(self.documents, np.int64), np.full(self.documents, -1)
        begins, rows, fitted = [0], 0, 0
        for number, shard in enumerate(self.store.shards()):
            document, count = np.unique(shard.places.document, return_counts=True)
            new = document[first[document] < 0]
            if rows > _MOST_ROWS and fitted >= fewest:
                begins.append(number)
                rows = fitted = 0
            length[document] += count
            first[new] = len(begins) - 1
            rows += int(count.sum())
            fitted += int(fit[new].sum())
        if len(begins) > 1 and fitted < fewest:
            begins.pop()
            first = np.minimum(first, len(begins) - 1)
        chosen = np.flatnonzero(fit & (first >= 0))
        return Blocks(chosen, length[chosen], first[chosen]), begins


def repaired_pairs(
    text: Text,
    comparison: Comparison,
    rule: Rule,
    places: tuple[int, int],
    spaces: int,
    numbers: Sequence[int],
    threads: int | None = None,
) -> pd.DataFrame:
    """The pairs that are kept when every space reads its documents in another order.

    Args:
        places: which of the spaces the two are, from 0.
        spaces: how many there are.
        numbers: which draws. The same number stands for the same draw in every pair of the spaces.
        threads: threads to use; all cores by default.

    Returns:
        `draw`, `feature_a`, `feature_b`, `correlation`.

    Raises:
        UserError: fewer documents than spaces.
    """  # fmt: skip
    blocks, begins = text.read(spaces)
    aligned = comparison.halves()[0]

    def read() -> Iterator[Stretch]:
        return stretches(aligned, 1, MOST_ENTRIES_IN_MEMORY, begins)

    held = list(read()) if len(begins) == 1 else []
    sizes = comparison.a.features, comparison.b.features
    found = []
    for number in numbers:
        order = blocks.orders(spaces, text.seed, number)
        draw = blocks.repaired(order[places[0]], order[places[1]])
        codes: PairedCodes
        if held:
            rows_a, rows_b = draw.rows(held[0])
            codes = InMemoryCodes(taken(held[0].a, rows_a), taken(held[0].b, rows_b), *sizes)
        else:
            codes = RearrangedCodes.of(read, draw, *sizes)
        table = table_of(comparison.correlate(codes, comparison.top, threads=threads))
        found.append(_kept(table[rule.decide(table)["kept"]], number))
    return _together(found)


def resampled_pairs(text: Text, comparison: Comparison, rule: Rule, table: pd.DataFrame, draws: int) -> pd.DataFrame:
    """The pairs that are kept when documents are drawn with replacement, the same ones in every pair of spaces.

    Only candidates can be pairs (see `matching.bootstrap`).

    Args:
        table: the candidates.

    Returns:
        `draw`, `feature_a`, `feature_b`, `correlation`.
    """
    codes = comparison.halves()[0]
    document, start = codes.document_starts()
    edges = text_blocks(text)
    rows = np.append(start, codes.n_rows)[np.searchsorted(document, edges)]
    rows[0], rows[-1] = 0, codes.n_rows
    sums = sums_in_blocks(comparison.grouped(codes), rows, table)
    weights = draw_weights(sums.blocks, draws, text.seed, "families")
    keep = rule.keep(table)
    found = []
    for number in range(draws):
        weight = weights[number : number + 1]
        counts = resampled_counts(sums, weight)
        drawn = table.assign(correlation=resampled_r(sums, weight)[0], count_a=counts[0][0], count_b=counts[1][0])
        if rule.method == "csls":
            a, b = (table[f"feature_{side}"].to_numpy(np.int64) for side in "ab")
            drawn["csls"] = csls(a, b, drawn["correlation"].to_numpy(), comparison.top)
        found.append(_kept(drawn[np.asarray(keep(drawn), bool)], number))
    return _together(found)


def text_blocks(text: Text) -> NDArray[np.int64]:
    """(blocks + 1,) numbers of documents at which blocks of whole documents begin and end, at most 128 blocks."""
    documents = text.read(1)[0].documents
    blocks = min(len(documents), MOST_BLOCKS)
    first = np.linspace(0, len(documents), blocks + 1).astype(np.int64)[:-1]
    return np.append(documents[first], documents[-1] + 1 if len(documents) else 0)


def _kept(table: pd.DataFrame, number: int) -> pd.DataFrame:
    """The columns that are stored, as narrow as they can be: there is a table for each draw and pair of spaces."""
    kept = table[["feature_a", "feature_b", "correlation"]].dropna()
    kept = kept.astype({"feature_a": np.int32, "feature_b": np.int32, "correlation": np.float32})
    return kept.assign(draw=np.int32(number))[COLUMNS]


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    nothing = pd.DataFrame({name: [] for name in COLUMNS}).astype(
        {"draw": np.int32, "feature_a": np.int32, "feature_b": np.int32, "correlation": np.float32}
    )
    return pd.concat([nothing, *tables], ignore_index=True)
