"""Pairs read again on another text: shared on both texts, shared on one only, and too rare to say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import unifeat as uf
from unifeat.correlation.block_sums import block_edges, block_sums
from unifeat.correlation.firings import firings
from unifeat.matching.bootstrap import draw_weights, resampled_r
from unifeat.matching.elsewhere import FEWEST_DOCUMENTS, FEWEST_ROWS, read_elsewhere
from unifeat.vocabulary.grouped_codes import in_groups
from unifeat.vocabulary.paired_codes import PairedCodes, as_paired

DOCUMENTS, ROWS = 60, 100
STARTS = np.arange(DOCUMENTS) * ROWS
ASKED = {"min_correlation": 0.1, "draws": 0, "level": 0.95, "seed": 0}


def sides(seed: int, pairs: int, shared: np.ndarray, rows: int = DOCUMENTS * ROWS) -> list[np.ndarray]:
    """Codes of both sides: a pair fires on the same rows, mostly, where it is shared, else each on its own."""
    rng = np.random.default_rng(seed)
    often = rng.uniform(0.02, 0.1, pairs)
    base, other = (rng.random((rows, pairs)) < often for _ in "ab")
    strength = [rng.uniform(0.5, 1.5, (rows, pairs)) for _ in "ab"]
    return [strength[0] * base, strength[1] * np.where(shared, base, other)]


def paired(codes: list[np.ndarray], chunk_rows: int = 700) -> PairedCodes:
    return as_paired(*(sparse.csr_array(side) for side in codes), chunk_rows=chunk_rows)


def pairs_of(n: int) -> pd.DataFrame:
    """Pairs as they were found, whose index is not their number."""
    ids = np.arange(n)
    here = {"correlation": 0.9, "correlation_heldout": np.linspace(0.5, 0.7, n)}
    return pd.DataFrame({"feature_a": ids, "feature_b": ids, **here}, index=ids * 3 + 7)


def test_pairs_that_are_shared_there_hold_and_others_do_not() -> None:
    """As often as the level says: about 5 % of the pairs of unrelated features."""
    n = 1000
    shared = np.arange(n) < 200
    found = read_elsewhere(paired(sides(0, n, shared)), STARTS, pairs_of(n), **ASKED)
    holds = (found.pairs["correlation_elsewhere"] > found.pairs["elsewhere_chance"]).to_numpy()
    assert holds[shared].all()
    assert 0.025 < holds[~shared].mean() < 0.08
    assert found.facts["judged"] == found.facts["pairs"] == n
    assert found.facts["hold"] == holds.sum()
    assert found.facts["hold_share"] == holds.mean()
    r = found.pairs["correlation_elsewhere"]
    assert found.facts["above_min"] == (r >= 0.1).mean() == pytest.approx(0.2, abs=0.01)
    assert found.facts["mean"] == pytest.approx(r.mean())
    assert found.facts["mean_here"] == pytest.approx(0.6)
    assert found.facts["chance"] == pytest.approx(found.pairs["elsewhere_chance"].mean())
    assert 0 < found.facts["chance"] < 0.06
    assert (found.facts["rows"], found.facts["documents"]) == (DOCUMENTS * ROWS, DOCUMENTS)
    assert list(found.pairs.index) == list(pairs_of(n).index)


def test_no_pair_that_is_shared_on_the_first_text_alone_is_above_the_minimum_elsewhere() -> None:
    n = 300
    here, there = (sides(seed, n, np.full(n, shared)) for seed, shared in ((1, True), (2, False)))
    ids = np.arange(n)
    table = uf.pair_correlation(
        *(sparse.csr_array(side) for side in here), pd.DataFrame({"feature_a": ids, "feature_b": ids})
    )
    assert (table["correlation"] > 0.7).all()
    found = read_elsewhere(paired(there), STARTS, table.assign(correlation_heldout=np.nan), **ASKED).facts
    assert found["judged"] == n
    assert found["hold_share"] < 0.1
    assert found["above_min"] == 0
    assert abs(found["mean"]) < 0.01
    assert found["mean_here"] == pytest.approx(table["correlation"].mean())


def test_r_is_that_of_scipy() -> None:
    codes = sides(3, 40, np.arange(40) < 20)
    found = read_elsewhere(paired(codes), STARTS, pairs_of(40), **ASKED)
    expected = [stats.pearsonr(a, b).statistic for a, b in zip(codes[0].T, codes[1].T, strict=True)]
    np.testing.assert_allclose(found.pairs["correlation_elsewhere"], expected, rtol=0, atol=1e-10)
    for side, own in zip("ab", codes, strict=True):
        np.testing.assert_array_equal(found.pairs[f"count_elsewhere_{side}"], (own != 0).sum(0))


def test_rare_features_are_not_judged_but_keep_their_r() -> None:
    """Five rows in five documents are enough; four, or five in four, or none are not."""
    n = 60
    codes = sides(4, n, np.full(n, True))
    for feature, rows in enumerate(
        (
            STARTS[:5] + 3,  # five documents
            STARTS[:4] + 3,  # four rows
            np.r_[STARTS[:4] + 3, 4],  # five rows in four documents
            np.zeros(0, np.int64),
        )
    ):
        for side in codes:
            side[:, feature] = 0
            side[rows, feature] = 1
    codes[1][:, 4] = 0  # only A's feature is there
    found = read_elsewhere(paired(codes), STARTS, pairs_of(n), **ASKED | {"draws": 50})
    own = found.pairs.reset_index(drop=True)
    assert (FEWEST_ROWS, FEWEST_DOCUMENTS) == (5, 5)
    np.testing.assert_array_equal(own["elsewhere_chance"].isna(), np.isin(np.arange(n), [1, 2, 3, 4]))
    np.testing.assert_allclose(own["correlation_elsewhere"][:3], 1)
    assert own["correlation_elsewhere"][3:5].isna().all()
    assert own["count_elsewhere_a"][:4].tolist() == [5, 4, 5, 0]
    assert found.facts["judged"] == found.facts["hold"] == n - 4
    assert found.facts["pairs"] == n


def test_firings_across_chunks_and_documents() -> None:
    rng = np.random.default_rng(5)
    dense = rng.normal(size=(200, 30)) * (rng.random((200, 30)) < 0.1)
    starts = np.array([0, 7, 7 + 60, 150])
    document = np.searchsorted(starts, np.arange(200), side="right") - 1
    holds_zeros = sparse.csr_array(dense)
    holds_zeros.data[::5] = 0  # stored, but silent
    expected = [(holds_zeros.toarray() != 0), dense != 0]
    found = firings(as_paired(holds_zeros, sparse.csr_array(dense), chunk_rows=11), starts)
    for side, fires in zip(found, expected, strict=True):
        np.testing.assert_array_equal(side.rows, fires.sum(0))
        in_documents = [[fires[document == d, f].any() for d in range(4)] for f in range(30)]
        np.testing.assert_array_equal(side.documents, np.sum(in_documents, axis=1))


def test_intervals_are_those_of_drawn_documents() -> None:
    n = 30
    codes, pairs = paired(sides(6, n, np.full(n, True))), pairs_of(n)
    sums = block_sums(codes, block_edges(STARTS, codes.n_rows), np.arange(n), np.arange(n))
    drawn = resampled_r(sums, draw_weights(sums.blocks, 300, 7, "elsewhere"))
    found = read_elsewhere(codes, STARTS, pairs, **ASKED | {"draws": 300, "level": 0.9, "seed": 7})
    own = found.pairs
    assert (own["correlation_elsewhere_low"] < np.quantile(drawn, 0.06, axis=0)).all()
    assert (own["correlation_elsewhere_high"] > np.quantile(drawn, 0.94, axis=0)).all()
    assert (own["correlation_elsewhere_high"] - own["correlation_elsewhere_low"] < 0.4).all()
    width = found.facts["mean_high"] - found.facts["mean_low"]
    assert found.facts["mean_low"] < found.facts["mean"] < found.facts["mean_high"]
    assert width == pytest.approx(2 * 1.645 * drawn.mean(axis=1).std(), rel=0.25)
    without = read_elsewhere(codes, STARTS, pairs, **ASKED)
    assert without.pairs["correlation_elsewhere_low"].isna().all()
    assert (without.facts["mean_low"], without.facts["mean_high"]) == (None, None)


@pytest.mark.slow
@pytest.mark.usefixtures("shapes_unchecked")
def test_intervals_cover_the_r_of_more_text() -> None:
    """Documents that differ in how much they share: r of each pair, and the mean r, of very many of them."""
    rng = np.random.default_rng(8)
    n, rows = 12, 50

    def text(documents: int) -> PairedCodes:
        shape = (documents, rows, n)
        shared = rng.beta(1, 1, (documents, 1, n))
        base = rng.random(shape) < 0.15
        codes = [np.where(rng.random(shape) < shared, base, rng.random(shape) < 0.15) * 1.0 for _ in "ab"]
        return paired([side.reshape(-1, n) for side in codes], chunk_rows=20_000)

    def read(documents: int, draws: int) -> tuple[pd.DataFrame, dict[str, float]]:
        starts = np.arange(documents) * rows
        found = read_elsewhere(text(documents), starts, pairs_of(n), **ASKED | {"draws": draws, "level": 0.9})
        return found.pairs, found.facts

    many, facts = read(5000, 0)
    truth, of_mean = many["correlation_elsewhere"], facts["mean"]
    covered, means = [], []
    for _ in range(120):
        own, facts = read(60, 100)
        covered.append((own["correlation_elsewhere_low"] <= truth) & (truth <= own["correlation_elsewhere_high"]))
        means.append(facts["mean_low"] <= of_mean <= facts["mean_high"])
    assert 0.86 < np.mean(covered) < 0.94
    assert 0.82 < np.mean(means) < 0.97


def test_within_groups_every_r_is_that_within() -> None:
    """Detectors of one token correlate through it, and hold on no text within it."""
    rng = np.random.default_rng(9)
    n = 60
    tokens = rng.integers(0, 20, DOCUMENTS * ROWS)
    here = tokens[:, None] == np.arange(n) % 2
    codes = [np.where(here & (rng.random(here.shape) < 0.6), rng.uniform(0.5, 1.5, here.shape), 0) for _ in "ab"]
    plain = read_elsewhere(paired(codes), STARTS, pairs_of(n), **ASKED)
    assert plain.facts["above_min"] == 1
    within = read_elsewhere(in_groups(paired(codes), tokens), STARTS, pairs_of(n), **ASKED | {"draws": 20})
    assert within.facts["hold_share"] < 0.3
    assert abs(within.facts["mean"]) < 0.02
    assert within.facts["above_min"] < 0.1
    expected = uf.pair_correlation(*(sparse.csr_array(side) for side in codes), pairs_of(n), groups=tokens)
    np.testing.assert_allclose(
        within.pairs["correlation_elsewhere"], expected["correlation_within"], rtol=0, atol=1e-10
    )
    assert (within.pairs["correlation_elsewhere_low"] < within.pairs["correlation_elsewhere_high"]).all()


@pytest.mark.parametrize("pairs", [0, 1, 5])
def test_too_few_pairs_have_nothing_to_be_compared_with(pairs: int) -> None:
    codes = paired(sides(10, 8, np.full(8, True)))
    found = read_elsewhere(codes, STARTS, pairs_of(8).head(pairs), **ASKED | {"draws": 10})
    assert len(found.pairs) == pairs
    assert found.pairs["correlation_elsewhere"].notna().all()
    assert found.pairs["elsewhere_chance"].isna().all()
    assert found.facts["judged"] == 0
    assert found.facts["hold"] is found.facts["hold_share"] is found.facts["mean"] is found.facts["mean_low"] is None


def test_the_same_seed_gives_the_same_line() -> None:
    codes = paired(sides(11, 120, np.full(120, False)))
    lines = [
        read_elsewhere(codes, STARTS, pairs_of(120), **ASKED | {"seed": seed}).pairs["elsewhere_chance"].to_numpy()
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(lines[0], lines[1])
    assert not np.array_equal(lines[0], lines[2])


def test_pairs_that_never_fire_together_do_not_hold() -> None:
    """Nor do they where all pairs at random are as silent: their r is slightly below 0."""
    n = 100
    codes = [np.zeros((DOCUMENTS * ROWS, n)) for _ in "ab"]
    for feature in range(n):
        for place, side in enumerate(codes):
            rows = STARTS[: 5 + feature % 7] + (2 * feature + place) % ROWS  # of all features, no two share a row
            side[rows, feature] = 1
            if 2 * feature + place >= ROWS:
                side[:, feature] = np.roll(side[:, feature], 7 * ROWS * 4)
    found = read_elsewhere(paired(codes), STARTS, pairs_of(n), **ASKED)
    assert found.facts["judged"] == n
    assert (found.pairs["correlation_elsewhere"] < 0).all()
    assert (found.pairs["elsewhere_chance"] == 0).all()
    assert found.facts["hold"] == 0
