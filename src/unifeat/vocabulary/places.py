"""Places: where each row of codes comes from. Two spaces are compared at the places they share."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Int32, Integer


@dataclass(frozen=True)
class Places:
    """Where each row of codes comes from; arrays of shape (rows,), int32, in order of document and character.

    Attributes:
        document: number of the document in the corpus.
        char_end: the character of the document at which the token ends.
        order: 0 for the last token ending there (see `text.windows.TokenizedPart`).
        token: the token's id in the model's vocabulary.
    """

    document: Int32[np.ndarray, " rows"]
    char_end: Int32[np.ndarray, " rows"]
    order: Int32[np.ndarray, " rows"]
    token: Int32[np.ndarray, " rows"]

    def __getitem__(self, rows: Bool[np.ndarray, " rows"] | Integer[np.ndarray, " some"]) -> Places:
        return Places(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.document)
