"""From candidates to pairs: which are kept, and why each of the others is dropped.

The table goes in with every candidate and comes out with every candidate; `kept` and `dropped_because` say what
happened. Filters come first and the method chooses among what is left, so that a feature whose best partner is filtered
out can still be paired with its next best. (Only `first-seen` has the published order: best partners, token filters,
claims, and last the least count and r.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.matching.match import BEFORE_FILTERS

Select = Callable[[pd.DataFrame], NDArray[np.bool_]]


@dataclass(frozen=True)
class Filters:
    """What a candidate must fulfil.

    Attributes:
        min_correlation: pairs with r at or below it are dropped.
        min_count: features that fire on fewer tokens are dropped.
        exclude_tokens: pairs with one of these among either feature's top tokens are dropped. Compared as they are
            and without surrounding blanks.
        shared_top_token: drop pairs whose top tokens have none in common (letter case and blanks aside).
    """

    min_correlation: float
    min_count: int
    exclude_tokens: tuple[str, ...]
    shared_top_token: bool


def decide(
    candidates: pd.DataFrame,
    filters: Filters,
    select: Select,
    top_tokens_a: dict[int, list[str]],
    top_tokens_b: dict[int, list[str]],
    method: str,
) -> pd.DataFrame:
    """Add `kept` (bool) and `dropped_because` (text, empty where kept) to a table of candidates.

    Args:
        candidates: `feature_a`, `feature_b`, `correlation`, `count_a`, `count_b`, one row a candidate pair.
        select: the matching method: which rows of a filtered table form the matching.
        top_tokens_a, top_tokens_b: for each feature its top activating tokens, as text.
        method: the method's name, for the reasons.
    """
    by_tokens = token_reasons(candidates, filters, top_tokens_a, top_tokens_b)
    kept = keep(candidates, filters, select, by_tokens == "", method)
    reasons = np.full(len(candidates), "", object)

    def drop(bad: NDArray[np.bool_] | pd.Series, why: Any) -> None:
        bad = np.asarray(bad, bool) & (reasons == "")
        reasons[bad] = why[bad] if isinstance(why, np.ndarray) else why

    not_chosen = f"not chosen by {method} matching"
    if method in BEFORE_FILTERS:
        drop((by_tokens == "") & ~select(candidates.assign(allowed=by_tokens == "")), not_chosen)
        drop(by_tokens != "", by_tokens)
    drop(_rare(candidates, filters), f"fires on fewer than {filters.min_count} tokens")
    drop(_weak(candidates, filters), f"r at or below {filters.min_correlation:g}")
    drop(by_tokens != "", by_tokens)
    drop(~kept, not_chosen)
    return candidates.assign(kept=kept, dropped_because=reasons)


def keep(
    candidates: pd.DataFrame, filters: Filters, select: Select, allowed: NDArray[np.bool_], method: str
) -> NDArray[np.bool_]:
    """Which rows `decide` keeps, without the reasons: for deciding many times over other counts and correlations.

    Args:
        allowed: (rows,) what the token filters let pass: `token_reasons(...) == ""`.
    """
    passed = allowed & ~_rare(candidates, filters) & ~_weak(candidates, filters)
    if method in BEFORE_FILTERS:
        return passed & select(candidates.assign(allowed=allowed))
    left = np.flatnonzero(passed)
    kept = np.zeros(len(candidates), bool)
    kept[left[select(candidates.iloc[left])]] = True
    return kept


def token_reasons(
    candidates: pd.DataFrame,
    filters: Filters,
    top_tokens_a: dict[int, list[str]],
    top_tokens_b: dict[int, list[str]],
) -> NDArray[np.object_]:
    """Why the features' top tokens drop a row, (rows,) text, empty where they do not."""
    reasons = np.full(len(candidates), "", object)

    def drop(bad: NDArray[np.bool_] | pd.Series, why: str) -> None:
        reasons[np.asarray(bad, bool) & (reasons == "")] = why

    if filters.exclude_tokens:
        drop(candidates["feature_a"].isin(excluded_features(filters, top_tokens_a)), "non-concept token in A")
        drop(candidates["feature_b"].isin(excluded_features(filters, top_tokens_b)), "non-concept token in B")
    if filters.shared_top_token:
        words_a = {f: _words(tokens) for f, tokens in top_tokens_a.items()}
        words_b = {f: _words(tokens) for f, tokens in top_tokens_b.items()}
        none: frozenset[str] = frozenset()
        apart = [
            words_a.get(a, none).isdisjoint(words_b.get(b, none))
            for a, b in zip(candidates["feature_a"], candidates["feature_b"], strict=True)
        ]
        drop(np.array(apart, bool), "no top token in common")
    return reasons


def excluded_features(filters: Filters, top_tokens: dict[int, list[str]]) -> set[int]:
    """The features with an excluded token among their top tokens."""
    excluded = frozenset(filters.exclude_tokens)
    return {f for f, tokens in top_tokens.items() if not excluded.isdisjoint(_as_is_and_stripped(tokens))}


def _rare(candidates: pd.DataFrame, filters: Filters) -> NDArray[np.bool_]:
    fewest = np.minimum(candidates["count_a"].to_numpy(), candidates["count_b"].to_numpy())
    return fewest < filters.min_count


def _weak(candidates: pd.DataFrame, filters: Filters) -> NDArray[np.bool_]:
    return ~(candidates["correlation"].to_numpy(np.float64) > filters.min_correlation)


def _as_is_and_stripped(tokens: Iterable[str]) -> set[str]:
    return {form for token in tokens for form in (token, token.strip())}


def _words(tokens: Iterable[str]) -> frozenset[str]:
    return frozenset(token.strip().casefold() for token in tokens)
