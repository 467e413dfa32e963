"""The Cochran–Mantel–Haenszel test, against statsmodels, SciPy and shuffling."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

from unifeat.errors import UserError
from unifeat.subspaces.rates import rate_test
from unifeat.subspaces.strata import frequency_strata


def study(
    seed: int, n: int = 400, effect: float = 0.0, share: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that are matched more often, and are more often inside, the more they fire; `effect`: log odds ratio."""
    rng = np.random.default_rng(seed)
    frequency = rng.lognormal(4, 2, n).astype(int) + 1
    height = stats.zscore(np.log(frequency))
    inside = rng.random(n) < share * np.exp(0.8 * height) / np.exp(0.8 * height).mean()
    matched = rng.random(n) < 1 / (1 + np.exp(-(-0.5 + 1.5 * height + effect * inside)))
    return matched, inside, frequency


def tables(matched: np.ndarray, inside: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """(2, 2, strata), cell by cell."""
    out = np.zeros((2, 2, strata.max() + 1))
    for m, i, s in zip(matched, inside, strata, strict=True):
        out[0 if i else 1, 0 if m else 1, s] += 1
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bins", [1, 5, 10])
@pytest.mark.parametrize("effect", [0.0, 0.9])
def test_equals_statsmodels(seed: int, bins: int, effect: float) -> None:
    contingency = pytest.importorskip("statsmodels.stats.contingency_tables")
    matched, inside, frequency = study(seed, effect=effect)
    got = rate_test(matched, inside, frequency, bins=bins, level=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = contingency.StratifiedTable(tables(matched, inside, frequency_strata(frequency, bins)))
        null = known.test_null_odds(correction=False)
        low, high = known.oddsratio_pooled_confint(alpha=0.1)
    assert got.odds_ratio == pytest.approx(known.oddsratio_pooled, rel=1e-12)
    assert got.chi2 == pytest.approx(null.statistic, rel=1e-10)
    assert got.p_chi2 == pytest.approx(null.pvalue, rel=1e-9)
    assert (got.ci_low, got.ci_high) == pytest.approx((low, high), rel=1e-10)
    assert (got.rate_inside, got.rate_outside) == (matched[inside].mean(), matched[~inside].mean())
    assert (got.n_inside, got.n_outside) == (inside.sum(), (~inside).sum())


@pytest.mark.parametrize("seed", range(8))
def test_one_stratum_is_fishers_exact_test(seed: int) -> None:
    matched, inside, frequency = study(seed, n=60, effect=seed % 3)
    table = tables(matched, inside, np.zeros(60, int))[:, :, 0]
    got = rate_test(matched, inside, frequency, bins=1)
    assert got.p == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)
    assert got.odds_ratio == pytest.approx(table[0, 0] * table[1, 1] / (table[0, 1] * table[1, 0]))


@pytest.mark.parametrize("seed", range(3))
def test_exact_p_is_what_shuffling_inside_strata_gives(seed: int) -> None:
    matched, inside, frequency = study(seed, n=50, effect=1.2)
    strata = frequency_strata(frequency, 4)
    got = rate_test(matched, inside, frequency, bins=4)
    rng = np.random.default_rng(seed)
    totals = np.empty(20_000, int)
    for b in range(len(totals)):
        order = np.lexsort((rng.random(50), strata))
        totals[b] = (matched[order] & inside[np.argsort(strata, kind="stable")]).sum()
    chance = np.bincount(totals, minlength=51) / len(totals)
    seen = int((matched & inside).sum())
    assert got.expected_inside * inside.sum() == pytest.approx(totals.mean(), abs=0.06)
    # As likely as the one seen or less; totals about as likely are counted in neither bound.
    sure, perhaps = chance[chance < chance[seen] * 0.93].sum(), chance[chance <= chance[seen] * 1.07].sum()
    assert sure - 0.01 <= got.p <= perhaps + 0.01


def test_frequency_alone_is_no_effect_and_an_effect_is_found() -> None:
    none = [rate_test(*study(seed, n=1000)) for seed in range(200)]
    crude = [rate_test(*study(seed, n=1000), bins=1) for seed in range(40)]
    assert np.mean([r.p <= 0.05 for r in crude]) > 0.9  # not stratified, frequency looks like meaning
    # Ten strata leave a little of frequency's slope inside them: the size is near its level, not at it.
    assert np.mean([r.p <= 0.05 for r in none]) < 0.12
    assert abs(np.mean([np.log(r.odds_ratio) for r in none])) < 0.12
    found = [rate_test(*study(seed, n=1000, effect=1.0)) for seed in range(60)]
    assert np.mean([r.p <= 0.05 for r in found]) > 0.9
    assert np.mean([np.log(r.odds_ratio) for r in found]) == pytest.approx(1.0, abs=0.15)
    assert np.mean([r.ci_low <= np.e <= r.ci_high for r in found]) > 0.85


def test_size_is_at_its_level_where_strata_hold_all_that_frequency_does() -> None:
    p = []
    for seed in range(600):
        rng = np.random.default_rng([3, seed])
        frequency = rng.integers(1, 6, 300)
        matched = rng.random(300) < frequency / 6
        inside = rng.random(300) < frequency / 12
        p.append(rate_test(matched, inside, frequency, bins=5).p)
    # Exact tests of counts are conservative, never the other way.
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_by_hand() -> None:
    # One stratum: 3 of 4 inside matched, 1 of 4 outside.
    matched = np.array([1, 1, 1, 0, 1, 0, 0, 0], bool)
    inside = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    got = rate_test(matched, inside, np.ones(8))
    assert (got.rate_inside, got.rate_outside, got.expected_inside, got.odds_ratio) == (0.75, 0.25, 0.5, 9.0)
    assert got.p == pytest.approx(34 / 70)  # 2 · (16 + 1) of 70 ways
    assert (got.strata, got.flags) == (1, ())


def test_strata_that_say_nothing_are_left_out() -> None:
    matched = np.array([1, 1, 0, 0, 1, 1, 1, 0, 1], bool)
    inside = np.array([1, 0, 1, 0, 1, 1, 0, 0, 0], bool)
    frequency = np.array([1, 1, 1, 1, 50, 50, 90, 90, 90])  # in the second all are inside, in the third none
    got = rate_test(matched, inside, frequency, bins=3)
    assert got.strata == 1
    assert got.p == pytest.approx(1.0)
    assert got.odds_ratio == 1.0
    assert (got.n_inside, got.n_outside) == (4, 5)


@pytest.mark.parametrize(
    ("matched", "inside", "flag"),
    [
        ([1, 0, 1, 0], [0, 0, 0, 0], "empty"),
        ([1, 0, 1, 0], [1, 1, 1, 1], "everything"),
        ([1, 1, 1, 1], [1, 0, 1, 0], "undefined"),
        ([0, 0, 0, 0], [1, 0, 1, 0], "undefined"),
        ([], [], "empty"),
    ],
)
def test_nothing_to_compare(matched: list[int], inside: list[int], flag: str) -> None:
    got = rate_test(np.array(matched, bool), np.array(inside, bool), np.ones(len(matched)))
    assert np.isnan([got.odds_ratio, got.p, got.p_chi2, got.chi2, got.ci_low, got.ci_high]).all()
    assert got.flags[0].startswith(flag)
    assert got.strata == 0


def test_an_infinite_odds_ratio_has_no_interval_but_a_p() -> None:
    matched = inside = np.arange(30) < 10
    got = rate_test(matched, inside, np.ones(30))
    assert got.odds_ratio == np.inf
    assert np.isnan(got.ci_low)
    assert got.p == pytest.approx(1 / 30045015)  # 1 of (30 choose 10)
    none = rate_test(matched, ~inside, np.ones(30))
    assert none.odds_ratio == 0.0
    assert none.p == pytest.approx(got.p)


def test_chances_too_small_for_a_float() -> None:
    matched = inside = np.arange(8000) < 4000
    got = rate_test(matched, inside, np.arange(8000) % 100)
    assert 0 < got.p < 1e-300


def test_wrong_input() -> None:
    yes = np.ones(4, bool)
    with pytest.raises(UserError, match="unequal length"):
        rate_test(yes, yes, np.ones(3))
    with pytest.raises(UserError, match="inside: give one true or false"):
        rate_test(yes, np.ones(4), np.ones(4))
    with pytest.raises(UserError, match="level=1"):
        rate_test(yes, yes, np.ones(4), level=1)
    with pytest.raises(UserError, match="finite"):
        rate_test(yes, yes, [1, 2, 3, np.nan])
