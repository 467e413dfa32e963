"""Which features belong to a category, and which candidate pairs are inside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.subspaces.wholewords import fold

COLUMNS = ["feature", "category", "hits"]


def members(
    words: pd.DataFrame, categories: Mapping[str, Iterable[str]], *, top_tokens: int, at_least: int
) -> pd.DataFrame:
    """The features of each category: a word of its list is at `at_least` of their `top_tokens` strongest tokens.

    An activation counts once, however many words of the list are in its window. Words are compared whole and folded:
    `days`, `day's` and `daylight` are not `day`. If a feature has fewer than `top_tokens` activations, only those
    count, so a feature that fired once can belong only if `at_least` is 1. A feature can belong to several categories.
    arXiv 2410.06981 used `at_least` 1, `top_tokens` 5 and a window of 2 tokens on either side.

    Args:
        words: `feature`, `rank`, `word`, from `words_at`.
        categories: name → words.

    Returns:
        `feature` (int32), `category` (category, in the given order), `hits` (int32), sorted by category and feature.

    Raises:
        UserError: `at_least` below 1 or above `top_tokens`.
    """
    if not 1 <= at_least <= top_tokens:
        raise UserError(f"at_least={at_least} of top_tokens={top_tokens}: give a whole number from 1 to {top_tokens}")
    inside = words[words["rank"] < top_tokens]
    vocabulary = inside["word"].astype("category")
    code, known = vocabulary.cat.codes.to_numpy(), vocabulary.cat.categories
    found = []
    for number, listed in enumerate(categories.values()):
        hit = np.asarray(known.isin({fold(word) for word in listed}), bool)
        rows = inside.loc[hit[code], ["feature", "rank"]].drop_duplicates()
        hits = rows.groupby("feature", sort=True).size()
        hits = hits[hits >= at_least]
        found.append(pd.DataFrame({"feature": hits.index.to_numpy(), "category": number, "hits": hits.to_numpy()}))
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)
    names = pd.Categorical.from_codes(
        table["category"].to_numpy(np.int64), categories=pd.Index(list(categories), dtype=object)
    )
    return table.assign(category=names).astype({"feature": "int32", "hits": "int32"})


def within(candidates: pd.DataFrame, members_a: Any, members_b: Any) -> NDArray[np.bool_]:
    """(rows,) mask of the candidate pairs inside a category: both features belong to it.

    If these are filtered and matched again, a feature whose best partner is outside the category gets the best one
    inside it.

    Args:
        candidates: a table with `feature_a` and `feature_b`.
        members_a, members_b: ids of the category's features in each space, (any,) integers.
    """
    both = candidates["feature_a"].isin(np.asarray(members_a)) & candidates["feature_b"].isin(np.asarray(members_b))
    return both.to_numpy(bool)
