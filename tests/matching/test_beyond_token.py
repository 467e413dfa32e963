"""What pairs share beyond the token: planted detectors of a token, planted contexts, and pairs of noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from unifeat.correlation.block_sums import block_edges
from unifeat.correlation.within import within_groups
from unifeat.matching.beyond_token import beyond_token
from unifeat.matching.bootstrap import draw_weights, resampled_r
from unifeat.vocabulary.grouped_codes import InGroups, in_groups
from unifeat.vocabulary.paired_codes import as_paired

DOCUMENTS, ROWS, TOKENS = 60, 100, 40
STARTS = np.arange(DOCUMENTS) * ROWS


def world(seed: int, pairs: int, shares_context: bool) -> tuple[InGroups, pd.DataFrame]:
    """Each pair fires on a token of its own, in a third of its places: the same third on both sides, or any."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TOKENS, DOCUMENTS * ROWS)
    sides: list[list[np.ndarray]] = [[], []]
    for feature in range(pairs):
        here = tokens == feature % TOKENS
        third = rng.random(len(tokens)) < 1 / 3
        for side in sides:
            chosen = third if shares_context else rng.random(len(tokens)) < 1 / 3
            side.append(np.where(here & chosen, rng.uniform(0.5, 1.5, len(tokens)), 0))
    codes = as_paired(*(sparse.csr_array(np.stack(side, axis=1)) for side in sides), chunk_rows=700)
    counts = [(np.stack(side, axis=1) != 0).sum(0) for side in sides]
    ids = np.arange(pairs)
    table = pd.DataFrame({"feature_a": ids, "feature_b": ids, "count_a": counts[0], "count_b": counts[1]})
    return in_groups(codes, tokens), table


def test_detectors_of_a_token_are_no_more_than_it() -> None:
    """Their r is that of the token; r within token is noise around 0, and intervals hold it."""
    codes, pairs = world(0, 120, shares_context=False)
    found = beyond_token(codes, STARTS, pairs, draws=200, level=0.95, seed=0)
    own = found.pairs
    assert list(own.index) == list(pairs.index)
    assert abs(own["correlation_within_token"].mean()) < 0.02
    holds = (own["correlation_within_token_low"] <= 0) & (own["correlation_within_token_high"] >= 0)
    assert 0.85 < holds.mean() <= 1
    low, high = (found.facts[f"mean_correlation_within_token_{end}"] for end in ("low", "high"))
    assert low < 0 < high
    assert high - low < 0.06
    assert found.facts["types"] == TOKENS
    assert found.facts["rows"] == DOCUMENTS * ROWS
    assert found.facts["rows_alone"] == 0
    assert found.facts["at_random"] > 1000


@pytest.mark.parametrize("seed", range(3))
def test_detectors_of_a_token_are_hardly_ever_more(seed: int) -> None:
    """Pairs at random seldom fire on one token: against them alone, half of the detectors would be more."""
    codes, pairs = world(seed, 120, shares_context=False)
    found = beyond_token(codes, STARTS, pairs, draws=200, level=0.95, seed=0)
    above = found.pairs["correlation_within_token"] > found.pairs["within_token_chance"]
    assert above.mean() > 0.4
    assert found.facts["more_than_a_token"] == found.pairs["more_than_a_token"].mean() <= 0.075


def test_what_is_shared_within_the_token_is_found() -> None:
    codes, pairs = world(1, 120, shares_context=True)
    found = beyond_token(codes, STARTS, pairs, draws=50, level=0.95, seed=0)
    assert (found.pairs["correlation_within_token"] > 0.7).all()
    assert (found.pairs["correlation_within_token_low"] > 0.5).all()
    assert found.facts["more_than_a_token"] == 1.0
    assert found.facts["mean_correlation_within_token_low"] > 0.7
    assert found.facts["mean_correlation_within_token"] == pytest.approx(found.pairs["correlation_within_token"].mean())


def test_pairs_of_noise_pass_as_often_as_pairs_at_random() -> None:
    """Features that fire anywhere: the level is the share that is above the line."""
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, TOKENS, DOCUMENTS * ROWS)
    x, y = (np.where(rng.random((len(tokens), 1000)) < 0.05, 1.0, 0.0) for _ in "ab")
    ids = np.arange(1000)
    table = pd.DataFrame({"feature_a": ids, "feature_b": ids, "count_a": (x != 0).sum(0), "count_b": (y != 0).sum(0)})
    codes = in_groups(as_paired(sparse.csr_array(x), sparse.csr_array(y)), tokens)
    found = beyond_token(codes, STARTS, table, draws=100, level=0.95, seed=0)
    above = found.pairs["correlation_within_token"] > found.pairs["within_token_chance"]
    assert 0.03 < above.mean() < 0.075
    assert found.facts["more_than_a_token"] < 0.05


def test_without_intervals_it_is_not_said() -> None:
    codes, pairs = world(0, 40, shares_context=True)
    found = beyond_token(codes, STARTS, pairs, draws=0, level=0.95, seed=0)
    assert found.pairs["correlation_within_token_low"].isna().all()
    assert found.pairs["more_than_a_token"].isna().all()
    assert found.facts["more_than_a_token"] is None


def test_intervals_are_those_of_drawn_documents() -> None:
    codes, pairs = world(3, 30, shares_context=True)
    sums = within_groups(
        codes, block_edges(STARTS, codes.n_rows), pairs["feature_a"], pairs["feature_b"], threads=1
    ).sums
    weights = draw_weights(sums.blocks, 300, 7, "beyond_token")
    drawn = resampled_r(sums, weights)
    found = beyond_token(codes, STARTS, pairs, draws=300, level=0.9, seed=7).pairs
    assert (found["correlation_within_token_low"] < np.quantile(drawn, 0.06, axis=0)).all()
    assert (found["correlation_within_token_high"] > np.quantile(drawn, 0.94, axis=0)).all()
    width = found["correlation_within_token_high"] - found["correlation_within_token_low"]
    assert (width < 0.4).all()


@pytest.mark.slow
def test_intervals_cover_the_r_of_more_text() -> None:
    """Documents that differ in how much they share, and the r within token of very many of them."""
    rng = np.random.default_rng(4)

    def text(documents: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tokens = rng.integers(0, 10, (documents, ROWS))
        shared = rng.beta(1, 1, (documents, 1))
        context = rng.random((documents, ROWS)) < 0.3
        sides = [
            np.where(rng.random((documents, ROWS)) < shared, context, rng.random((documents, ROWS)) < 0.3) for _ in "ab"
        ]
        a, b = (np.where(tokens == 3, side, 0.0).reshape(-1, 1) for side in sides)
        return a, b, tokens.ravel()

    one = pd.DataFrame({"feature_a": [0], "feature_b": [0], "count_a": [9], "count_b": [9]})

    def r(a: np.ndarray, b: np.ndarray, tokens: np.ndarray, draws: int) -> pd.Series:
        codes = in_groups(as_paired(sparse.csr_array(a), sparse.csr_array(b)), tokens)
        starts = np.arange(0, len(tokens), ROWS)
        return beyond_token(codes, starts, one, draws=draws, level=0.9, seed=0).pairs.iloc[0]

    truth = r(*text(20_000), draws=0)["correlation_within_token"]
    covered = []
    for _ in range(200):
        found = r(*text(60), draws=100)
        covered.append(found["correlation_within_token_low"] <= truth <= found["correlation_within_token_high"])
    assert 0.83 < np.mean(covered) < 0.96


@pytest.mark.parametrize("pairs", [0, 1, 3])
def test_few_pairs(pairs: int) -> None:
    codes, table = world(0, 5, shares_context=True)
    found = beyond_token(codes, STARTS, table.head(pairs), draws=10, level=0.95, seed=0)
    assert len(found.pairs) == pairs
    assert found.pairs["within_token_chance"].isna().all()
    assert found.facts["more_than_a_token"] is None
    assert (found.facts["mean_correlation_within_token_low"] is None) == (pairs == 0)


def test_a_feature_of_several_pairs_never_meets_its_own_partner_at_random() -> None:
    codes, _ = world(0, 40, shares_context=True)
    everything = pd.DataFrame([(a, b) for a in range(8) for b in range(8)], columns=["feature_a", "feature_b"])
    everything = everything.assign(count_a=100, count_b=100)
    found = beyond_token(codes, STARTS, everything, draws=0, level=0.95, seed=0)
    assert found.facts["at_random"] == 0  # all pairs are own pairs
    assert found.facts["more_than_a_token"] is None
