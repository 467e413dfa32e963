"""Which features belong to a category, and which candidate pairs lie inside it."""

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
    """The features of each category: at least `at_least` of the `top_tokens` strongest tokens have a word of its list.

    An activation counts once, however many words of the list its window holds. Words are compared whole and folded:
    `days`, `day's` and `daylight` are not `day`. A feature with fewer than `top_tokens` activations has what it has:
    one that fired once can belong only where `at_least` is 1. A feature can belong to several categories.
    arXiv 2410.06981 has `at_least` 1, `top_tokens` 5 and a window of 2 tokens to either side.

    Args:
        words: `feature`, `rank`, `word`, as `words_at` gives them.
        categories: name → words.

    Returns:
        `feature` (int32), `category` (category, in the order given), `hits` (int32), sorted by category and feature.

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
    """The candidate pairs that lie inside a category, both features belonging to it: a (rows,) mask.

    Filters and the matching method can be run on them anew: a feature whose best partner is outside the category then
    finds its best one inside it.

    Args:
        candidates: a table with `feature_a` and `feature_b`.
        members_a, members_b: ids of the category's features in either space, (any,) integers.
    """
    both = candidates["feature_a"].isin(np.asarray(members_a)) & candidates["feature_b"].isin(np.asarray(members_b))
    return both.to_numpy(bool)
