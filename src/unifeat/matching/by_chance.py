"""Candidates by chance: B's rows rearranged, and then correlated as the text itself is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.stretches import stretches
from unifeat.correlation.rearranged import Draw, RearrangedCodes, Stretch, taken
from unifeat.correlation.shifted import ShiftedCodes
from unifeat.engine import Held
from unifeat.errors import UserError
from unifeat.matching.candidates import Comparison, shift_rows, table_of
from unifeat.store import cache_root, key_of
from unifeat.vocabulary.grouped_codes import InGroups
from unifeat.vocabulary.paired_codes import InMemoryCodes, PairedCodes, in_memory

Arrangement = Literal["documents", "rotation", "same_token", "same_two_tokens"]
# Both sides together, 400 MB. Reading and aligning them again costs as much as correlating.
MOST_ENTRIES_IN_MEMORY = 50_000_000
_HELD = Held(2)


@dataclass(frozen=True)
class ByChance:
    """A comparison of two spaces with the rows of B rearranged.

    Attributes:
        comparison: the comparison. The documents that it fits on are rearranged.
        how: `documents`: each document beside another of like length; `rotation`: the text shifted by whole documents;
            `same_token`, `same_two_tokens`: rows permuted among those of the same token type (of the token, or of it
            and the one before).
    """

    comparison: Comparison
    how: Arrangement

    def candidates(self, number: int, *, threads: int | None = None) -> pd.DataFrame:
        """The candidates of one draw: the columns of `Candidates.table` without `correlation_heldout`.

        Args:
            number: which draw, from 0. The same number stands for the same draw in every pair of spaces over the text.
            threads: threads to use; all cores by default.

        Raises:
            UserError: no such rotation.
        """
        return table_of(self.comparison.correlate(self.codes(number), self.comparison.top, threads=threads))

    def codes(self, number: int) -> PairedCodes:
        """The rearranged codes of one draw."""
        comparison = self.comparison
        if self.how == "rotation":
            return self._rotated(number)
        draw = Draw("documents" if self.how == "documents" else "types", comparison.seed, number)
        sizes = comparison.a.features, comparison.b.features
        held = self._held("stretches", self._stretches)
        if not held:
            return RearrangedCodes.of(self._read, draw, *sizes)
        rows_a, rows_b = draw.rows(held[0])
        codes = InMemoryCodes(taken(held[0].a, rows_a), taken(held[0].b, rows_b), *sizes)
        return InGroups(codes, held[0].group[rows_a])

    def rows_alone(self) -> dict[str, int]:
        """`rows`, and `rows_alone`: those that no draw moves, as no other is of their token type; nothing for others.

        A null of token types says the less the more rows are alone.
        """
        if self.how in ("documents", "rotation"):
            return {}
        counts = [
            np.unique(stretch.kind, return_counts=True)[1]
            for stretch in self._held("stretches", self._stretches) or self._read()
        ]
        return {"rows": sum(int(n.sum()) for n in counts), "rows_alone": sum(int((n == 1).sum()) for n in counts)}

    def _stretches(self) -> list[Stretch]:
        """The text, if it is one stretch; else nothing, and it is read each time."""
        found = self._read()
        first = next(found, None)
        return [] if first is None or next(found, None) is not None else [first]

    def _read(self) -> Iterator[Stretch]:
        tokens: Literal[1, 2] = 2 if self.how == "same_two_tokens" else 1
        return stretches(self.comparison.halves()[0], tokens, MOST_ENTRIES_IN_MEMORY)

    def _rotated(self, number: int) -> ShiftedCodes:
        codes, by_rows = self._held("rotations", self._rotations)
        if not 0 <= number < len(by_rows):
            raise UserError(
                f"shift {number} of the text: only {len(by_rows)} shifts, numbered from 0, move every token out of its "
                "document; ask for fewer rematches or give more documents"
            )
        return ShiftedCodes(codes, int(by_rows[number]))

    def _rotations(self) -> tuple[PairedCodes, NDArray[np.int64]]:
        fitted = self.comparison.halves()[0]
        return in_memory(fitted, MOST_ENTRIES_IN_MEMORY), shift_rows(fitted, self.comparison.seed)

    def _held(self, what: str, read):  # type: ignore[no-untyped-def]
        tokens = self.how == "same_two_tokens"
        return _HELD.get(key_of([what, tokens, str(cache_root()), self.comparison.made_from()]), read)
