"""The tokens that activate each feature most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore
from unifeat.engine import Held, Unit
from unifeat.progress import track
from unifeat.store import JSON, TABLE, Piece, cache_root, key_of

VERSION = 1  # raised whenever the table made from the same codes changes
_KEPT = 10  # strongest activations of each feature
_HELD = Held(6)
COLUMNS = ["feature", "rank", "activation", "document", "char_end", "token"]


def top_unit(store: CodeStore, n: int = _KEPT) -> Unit[pd.DataFrame]:
    """`top_activations` as a unit of work."""
    made_from = {"version": VERSION, "codes": store.identity, "n": n}
    piece = Piece("top-activations", made_from, TABLE, "the strongest activations")
    return Unit(piece, partial(top_activations, store, n), fills_machine=True)


def top_activations(store: CodeStore, n: int) -> pd.DataFrame:
    """The `n` strongest activations of each feature, one row each, strongest first; ties to the earlier token.

    Needs memory for the result and one shard.

    Returns:
        Columns `feature`, `rank` (from 0), `activation`, `document`, `char_end`, `token` (id).
    """
    best = pd.DataFrame({column: [] for column in ("feature", "activation", "document", "char_end", "token")})
    floor = np.full(store.features, -np.inf, np.float32)  # the n-th best so far: weaker ones can be skipped
    with track("finding the strongest activations", store.n_shards, unit="shards") as advance:
        for shard in store.shards():
            new = _above(floor, shard)
            both = pd.concat([best, new], ignore_index=True) if len(best) else new
            # Shards come in text order, so a stable sort puts the earlier token first among equals.
            both = both.sort_values(["feature", "activation"], ascending=[True, False], kind="stable")
            rank = both.groupby("feature", sort=False).cumcount()
            best = both[rank < n]
            last = best[rank[rank < n] == n - 1]
            floor[last["feature"]] = last["activation"]
            advance(1)
    best = best.assign(rank=best.groupby("feature", sort=False).cumcount()).reset_index(drop=True)
    return best[COLUMNS].astype(
        {"feature": "int32", "rank": "int32", "document": "int32", "char_end": "int32", "token": "int32"}
    )


def _above(floor: NDArray[np.float32], shard: Shard) -> pd.DataFrame:
    """The activations of a shard that are stronger than their feature's floor, in text order."""
    strong = np.flatnonzero(np.asarray(shard.value, np.float32) > floor[shard.feature])
    row = np.searchsorted(shard.indptr, strong, side="right") - 1
    return pd.DataFrame(
        {
            "feature": shard.feature[strong],
            "activation": shard.value[strong].astype(np.float32),
            "document": shard.places.document[row],
            "char_end": shard.places.char_end[row],
            "token": shard.places.token[row],
        }
    )


def top_token_texts(tops: pd.DataFrame, tokenizer: Any, n: int) -> dict[int, list[str]]:
    """The texts of each feature's `n` strongest tokens, each token decoded separately."""
    strongest = tops[tops["rank"] < n]
    texts = {token: tokenizer.decode([token]) for token in strongest["token"].unique()}
    tokens = strongest.groupby("feature", sort=False)["token"].agg(list)
    return {
        int(feature): [texts[token] for token in own]
        for feature, own in zip(tokens.index.to_numpy(), tokens, strict=True)
    }


@dataclass(frozen=True)
class TopTokens:
    """`top_token_texts` of a space, stored; read when they are first used, and held for a while.

    Attributes:
        tops: the unit of the space's strongest activations.
        tokenizer: loads the tokenizer.
        tokenizer_digest: its identity.
        n: tokens of each feature.
    """

    tops: Unit[pd.DataFrame]
    tokenizer: Callable[[], Any]
    tokenizer_digest: str
    n: int

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the texts, as JSON data."""
        assert isinstance(self.tops.piece, Piece)
        return {
            "version": VERSION,
            "tops": self.tops.piece.made_from,
            "tokenizer": self.tokenizer_digest,
            "n": self.n,
        }

    @property
    def unit(self) -> Unit[dict[str, Any]]:
        """The unit of work that stores them."""
        return Unit(Piece("top-tokens", self.identity, JSON, "the strongest tokens"), self._texts)

    def _texts(self) -> dict[str, Any]:
        texts = top_token_texts(self.tops.result(), self.tokenizer(), self.n)
        return {"features": list(texts), "texts": list(texts.values())}

    def _read(self) -> dict[int, list[str]]:
        found = self.unit.result()
        return dict(zip(found["features"], found["texts"], strict=True))

    def texts(self) -> dict[int, list[str]]:
        """The texts of each feature's strongest tokens."""
        return _HELD.get(key_of([str(cache_root()), self.identity]), self._read)
