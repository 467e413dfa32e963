"""Which pairs the report lists: the strongest, random ones, and those that evidence speaks against."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unifeat.matching.disputed import ELSEWHERE, FALLS, TOKEN
from unifeat.pipeline.examples import DISPUTED, RANDOM, STRONGEST, pick_shown


def pairs(n: int, **columns) -> pd.DataFrame:
    """Kept pairs of falling r, whose features fire on two words each."""
    table = pd.DataFrame(
        {
            "feature_a": np.arange(n),
            "correlation": np.linspace(0.9, 0.3, n),
            "correlation_heldout": np.linspace(0.9, 0.3, n),
            "top_tokens_a": [[" one", " two"]] * n,
            "top_tokens_b": [[" two", " one"]] * n,
            "kept": True,
        }
    )
    return table.assign(**columns)


def chosen(table: pd.DataFrame, name: str) -> list[int]:
    shown = pick_shown(table, 0)
    return shown.loc[shown["chosen"] == name, "feature_a"].tolist()


def test_strongest_and_random_ones_are_different():
    table = pairs(100)
    assert chosen(table, "strongest") == list(range(STRONGEST))
    drawn = chosen(table, "random")
    assert len(set(drawn)) == RANDOM
    assert not set(drawn) & set(range(STRONGEST))
    assert chosen(table, "disputed") == []


def test_detectors_of_one_word_come_last_among_the_strongest():
    table = pairs(100)
    for side in "ab":
        table[f"top_tokens_{side}"] = [[" The", "the"] if n < 10 else [" one", " two"] for n in range(100)]
    assert chosen(table, "strongest") == list(range(10, 10 + STRONGEST))
    few = table.head(12)
    assert chosen(few, "strongest") == [10, 11, *range(10)]


def test_two_detectors_of_different_words_are_not_of_one():
    table = pairs(2, top_tokens_a=[[" tax"], [" tax"]], top_tokens_b=[[" tax"], [" domestic"]])
    assert chosen(table, "strongest") == [1, 0]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"correlation_heldout": 0.2}, FALLS),
        ({"correlation_within_token": 0.1, "within_token_chance": 0.1}, TOKEN),
        ({"correlation_elsewhere": -0.1, "elsewhere_chance": 0.05}, ELSEWHERE),
    ],
)
def test_each_reason(columns, why):
    table = pairs(3)
    for name, value in columns.items():
        table[name] = np.where(np.arange(3) == 1, value, 1.0 if "chance" not in name else value)
    shown = pick_shown(table, 0).query("chosen == 'disputed'")
    assert shown["feature_a"].tolist() == [1]
    assert shown["disputed"].tolist() == [why]


def test_more_reasons_first_then_larger_r():
    n = 40
    table = pairs(n, correlation_elsewhere=0.0, elsewhere_chance=0.1)
    table.loc[30, "correlation_heldout"] = 0.0
    assert chosen(table, "disputed") == [30, *range(DISPUTED - 1)]
    assert pick_shown(table, 0).query("feature_a == 30 and chosen == 'disputed'")["disputed"].item() == (
        f"{FALLS}; {ELSEWHERE}"
    )


def test_what_is_unknown_is_no_reason():
    table = pairs(5, correlation_heldout=np.nan, correlation_elsewhere=np.nan, elsewhere_chance=np.nan)
    assert chosen(table, "disputed") == []


def test_what_was_not_kept_is_not_listed():
    assert len(pick_shown(pairs(20, kept=False), 0)) == 0
    assert {"chosen", "disputed"} <= {*pick_shown(pairs(20, kept=False), 0)}
