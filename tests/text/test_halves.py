"""The halves that pairs are found on and held out from."""

from __future__ import annotations

import numpy as np

from unifeat.text.halves import fitting_documents


def test_halves_are_disjoint_and_as_large() -> None:
    for documents in (2, 3, 30, 31):
        halves = [fitting_documents(documents, seed) for seed in range(20)]
        assert all(half.sum() == (documents + 1) // 2 for half in halves)
        assert len({half.tobytes() for half in halves}) > 1
        np.testing.assert_array_equal(fitting_documents(documents, 3), halves[3])
