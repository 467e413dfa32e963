"""Where rows of codes come from: the places at which two tokenizers meet."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Places:
    """Where each row of codes comes from; arrays of shape (rows,), int32, in order of document and character.

    Attributes:
        document: number of the document in the corpus.
        char_end: the character of the document at which the token ends.
        order: 0 for the last token ending there (see `text.windows.TokenizedPart`).
        token: the token's id in the model's vocabulary.
    """

    document: NDArray[np.int32]
    char_end: NDArray[np.int32]
    order: NDArray[np.int32]
    token: NDArray[np.int32]

    def __getitem__(self, keep: NDArray[np.bool_]) -> Places:
        return Places(*(getattr(self, field.name)[keep] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.document)
