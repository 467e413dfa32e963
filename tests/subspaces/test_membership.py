"""Who belongs to a category, against counting by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unifeat.errors import UserError
from unifeat.subspaces.membership import COLUMNS, members, within


def table(*rows: tuple[int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["feature", "rank", "word"]).astype({"word": "category"})


def found(words: pd.DataFrame, categories: dict[str, tuple[str, ...]], m: int, n: int) -> dict[str, dict[int, int]]:
    got = members(words, categories, top_tokens=n, at_least=m)
    assert list(got.columns) == COLUMNS
    assert got.dtypes.astype(str).to_dict() == {"feature": "int32", "category": "category", "hits": "int32"}
    assert list(got["category"].cat.categories) == list(categories)
    return {
        name: dict(zip(own["feature"], own["hits"], strict=True))
        for name, own in got.groupby("category", observed=False)
    }


WORDS = table(
    *((1, 0, "day"), (1, 1, "night"), (1, 2, "sea"), (1, 5, "week")),
    *((2, 0, "day"), (2, 0, "night"), (2, 0, "week")),  # three words of the list in one window: one hit
    *((3, 0, "days"), (3, 1, "daylight"), (3, 2, "day's")),
    *((4, 3, "sea"), (4, 4, "day")),
)
CATEGORIES = {"Time": ("Day", "night", "week"), "Sea": ("sea",), "None": ("zebra",)}


def test_by_hand() -> None:
    assert found(WORDS, CATEGORIES, 1, 5) == {"Time": {1: 2, 2: 1, 4: 1}, "Sea": {1: 1, 4: 1}, "None": {}}
    assert found(WORDS, CATEGORIES, 2, 5) == {"Time": {1: 2}, "Sea": {}, "None": {}}
    assert found(WORDS, CATEGORIES, 3, 6) == {"Time": {1: 3}, "Sea": {}, "None": {}}
    assert found(WORDS, CATEGORIES, 1, 1) == {"Time": {1: 1, 2: 1}, "Sea": {}, "None": {}}


@pytest.mark.parametrize("seed", range(3))
def test_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vocabulary = [f"w{i}" for i in range(30)]
    drawn = rng.integers([40, 7, 30], size=(400, 3)).tolist()
    rows = {(feature, rank, vocabulary[word]) for feature, rank, word in drawn}
    categories = {f"c{k}": tuple(rng.choice(vocabulary, 6, replace=False)) for k in range(3)}
    for m, n in ((1, 5), (2, 5), (3, 7), (5, 5)):
        expected = {}
        for name, own in categories.items():
            hits = {f: len({r for g, r, w in rows if g == f and r < n and w in own}) for f in range(40)}
            expected[name] = {f: h for f, h in hits.items() if h >= m}
        assert found(table(*rows), categories, m, n) == expected


def test_nothing_to_count() -> None:
    assert found(WORDS.iloc[:0], CATEGORIES, 1, 5) == {"Time": {}, "Sea": {}, "None": {}}
    assert members(WORDS, {}, top_tokens=5, at_least=1).empty


@pytest.mark.parametrize(("m", "n"), [(0, 5), (6, 5)])
def test_a_rule_that_makes_no_sense(m: int, n: int) -> None:
    with pytest.raises(UserError, match=f"at_least={m} of top_tokens={n}"):
        members(WORDS, CATEGORIES, top_tokens=n, at_least=m)


def test_candidates_within() -> None:
    candidates = pd.DataFrame({"feature_a": [1, 1, 2, 3], "feature_b": [7, 8, 7, 9]}, index=[4, 3, 2, 1])
    got = within(candidates, np.array([1, 3], np.int32), [7, 9])
    assert got.dtype == bool
    assert got.tolist() == [True, False, False, True]
    assert not within(candidates, [], [7, 9]).any()
    assert within(candidates.iloc[:0], [1], [7]).shape == (0,)
