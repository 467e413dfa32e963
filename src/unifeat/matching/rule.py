"""From candidates to pairs: filters, then a matching method. Every null and every resample uses the same rule.

The result has a row for every candidate; `kept` and `dropped_because` say what happened to it. Filters come first, and
the method chooses among the remaining candidates, so that a feature whose best partner is filtered out can still be
paired with its next best. (Only `first-seen` uses the published order: best partners, token filters, claims, and last
the minimum count and r.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.codes.top_activations import TopTokens
from unifeat.matching.filters import Filters, excluded_features, rare, token_reasons, weak
from unifeat.matching.methods import find_method, select
from unifeat.store.keys import digest_of

Words = Mapping[int, list[str]]
Keep = Callable[[pd.DataFrame], NDArray[np.bool_]]


@dataclass(frozen=True)
class Rule:
    """How the candidates of two spaces become pairs.

    Attributes:
        filters: the conditions that candidates must meet.
        method, direction: as for `methods.select`.
        words_a, words_b: the top activating tokens of every feature, as text, for the token filters; or where they are
            stored.
        excluded: the features of either side that the token filters exclude, if they are known (see `for_many`).
    """

    filters: Filters
    method: str = "mutual"
    direction: str = "a_to_b"
    words_a: Words | TopTokens = field(default_factory=dict, repr=False)
    words_b: Words | TopTokens = field(default_factory=dict, repr=False)
    excluded: tuple[frozenset[int], frozenset[int]] | None = field(default=None, repr=False, compare=False)

    @property
    def texts(self) -> tuple[Words, Words]:
        """`words_a` and `words_b`, read if they are stored."""
        a, b = (w.texts() if isinstance(w, TopTokens) else w for w in (self.words_a, self.words_b))
        return a, b

    def identity(self) -> dict[str, Any]:
        """Everything that determines which pairs are kept, as JSON data."""
        by_tokens = bool(self.filters.exclude_tokens or self.filters.shared_top_token)
        filters = self.filters
        return {
            "filters": [filters.min_correlation, filters.min_count, filters.shared_top_token],
            "exclude_tokens": list(filters.exclude_tokens),
            "method": [self.method, find_method(self.method).version, self.direction],
            "words": digest_of([_identity(words) for words in (self.words_a, self.words_b)]) if by_tokens else None,
        }

    def decide(self, candidates: pd.DataFrame) -> pd.DataFrame:
        """Add `kept` (bool) and `dropped_because` (text, empty where kept) to a table of candidates.

        Args:
            candidates: `feature_a`, `feature_b`, `correlation`, `count_a`, `count_b`, one row per candidate pair.
        """
        by_tokens = self._token_reasons(candidates)
        kept = self._keep(candidates, by_tokens == "")
        reasons = np.full(len(candidates), "", object)

        def drop(bad: NDArray[np.bool_] | pd.Series, why: Any) -> None:
            bad = np.asarray(bad, bool) & (reasons == "")
            reasons[bad] = why[bad] if isinstance(why, np.ndarray) else why

        not_chosen = f"not chosen by {self.method} matching"
        if find_method(self.method).before_filters:
            drop((by_tokens == "") & ~self._select(candidates.assign(allowed=by_tokens == "")), not_chosen)
            drop(by_tokens != "", by_tokens)
        drop(rare(candidates, self.filters), f"fires on fewer than {self.filters.min_count} tokens")
        drop(weak(candidates, self.filters), f"r at or below {self.filters.min_correlation:g}")
        drop(by_tokens != "", by_tokens)
        drop(~kept, not_chosen)
        return candidates.assign(kept=kept, dropped_because=reasons)

    def keep(self, candidates: pd.DataFrame) -> Keep:
        """A function from these candidates, with other counts and correlations, to a mask of those kept. It gives the
        same result as `decide`, and is faster when called many times."""
        allowed = self._token_reasons(candidates) == ""
        return lambda table: self._keep(table, allowed)

    def for_many(self) -> Rule:
        """The same rule for many tables of candidates: the words of all features are looked through only now."""
        a, b = (excluded_features(self.filters, words) for words in self.texts)
        return replace(self, excluded=(a, b))

    def matchable_features(self, candidates: pd.DataFrame, side: str) -> pd.DataFrame:
        """The features of A or B that pass the filters on single features: `feature` and its firing `count`."""
        words = self.texts["ab".index(side)]
        own = candidates[[f"feature_{side}", f"count_{side}"]].set_axis(["feature", "count"], axis=1).drop_duplicates()
        is_rare = own["count"] < self.filters.min_count
        return own[~is_rare & ~own["feature"].isin(excluded_features(self.filters, words))]

    def strongest(self, candidates: pd.DataFrame, n: int) -> pd.DataFrame:
        """The n pairs of highest r that the method chooses when there is no minimum r."""
        free = replace(self, filters=replace(self.filters, min_correlation=-np.inf))
        chosen = candidates[free.keep(candidates)(candidates)]
        return chosen.sort_values("correlation", ascending=False, kind="stable").head(n)

    def _token_reasons(self, candidates: pd.DataFrame) -> NDArray[np.object_]:
        return token_reasons(candidates, self.filters, *self.texts, self.excluded)

    def _select(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        return select(table, self.method, self.direction)

    def _keep(self, table: pd.DataFrame, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(rows,) mask of the rows that are kept.

        Args:
            allowed: (rows,) mask of the rows that pass the token filters.
        """
        passed = allowed & ~rare(table, self.filters) & ~weak(table, self.filters)
        if find_method(self.method).before_filters:
            return passed & self._select(table.assign(allowed=allowed))
        left = np.flatnonzero(passed)
        kept = np.zeros(len(table), bool)
        kept[left[self._select(table.iloc[left])]] = True
        return kept


def _identity(words: Words | TopTokens) -> Any:
    """What determines the words; of stored ones without reading them."""
    return words.identity if isinstance(words, TopTokens) else sorted(words.items())
