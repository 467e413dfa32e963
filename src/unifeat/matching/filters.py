"""Filters: the conditions that a candidate must meet before a method may choose it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Filters:
    """The conditions that candidates must meet.

    Attributes:
        min_correlation: pairs with r at or below this are dropped.
        min_count: features that fire on fewer tokens are dropped.
        exclude_tokens: pairs with one of these among either feature's top tokens are dropped. Tokens are compared both
            unchanged and without surrounding blanks.
        shared_top_token: drop pairs whose top tokens have none in common, ignoring case and surrounding blanks.
    """

    min_correlation: float
    min_count: int
    exclude_tokens: tuple[str, ...] = ()
    shared_top_token: bool = False


def token_reasons(
    candidates: pd.DataFrame,
    filters: Filters,
    top_tokens_a: Mapping[int, list[str]],
    top_tokens_b: Mapping[int, list[str]],
    excluded: tuple[frozenset[int], frozenset[int]] | None = None,
) -> NDArray[np.object_]:
    """(rows,) text: why the token filters drop a row; empty if they do not.

    Args:
        excluded: the `excluded_features` of both sides, if they are known already.
    """
    reasons = np.full(len(candidates), "", object)

    def drop(bad: NDArray[np.bool_] | pd.Series, why: str) -> None:
        reasons[np.asarray(bad, bool) & (reasons == "")] = why

    if filters.exclude_tokens:
        both = excluded or tuple(excluded_features(filters, tokens) for tokens in (top_tokens_a, top_tokens_b))
        drop(candidates["feature_a"].isin(both[0]), "non-concept token in A")
        drop(candidates["feature_b"].isin(both[1]), "non-concept token in B")
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


def excluded_features(filters: Filters, top_tokens: Mapping[int, list[str]]) -> frozenset[int]:
    """The features with an excluded token among their top tokens."""
    excluded = frozenset(filters.exclude_tokens)
    return frozenset(f for f, tokens in top_tokens.items() if not excluded.isdisjoint(_as_is_and_stripped(tokens)))


def rare(candidates: pd.DataFrame, filters: Filters) -> NDArray[np.bool_]:
    """(rows,) mask of the pairs with a feature that fires on too few tokens."""
    fewest = np.minimum(candidates["count_a"].to_numpy(), candidates["count_b"].to_numpy())
    return fewest < filters.min_count


def weak(candidates: pd.DataFrame, filters: Filters) -> NDArray[np.bool_]:
    """(rows,) mask of the pairs whose r is too small or NaN."""
    return ~(candidates["correlation"].to_numpy(np.float64) > filters.min_correlation)


def _as_is_and_stripped(tokens: Iterable[str]) -> set[str]:
    return {form for token in tokens for form in (token, token.strip())}


def _words(tokens: Iterable[str]) -> frozenset[str]:
    return frozenset(token.strip().casefold() for token in tokens)
