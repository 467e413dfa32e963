"""Random sets of pairs: matched for frequency, uniform, and a null under which p is uniform."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from unifeat import geometry
from unifeat.errors import UserError
from unifeat.subspaces.strata import frequency_strata, pair_frequency
from unifeat.subspaces.subsets import random_subsets, subset_test


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(4, 2, n).astype(int) + 1


class TestStrata:
    def test_are_quantile_bins(self) -> None:
        frequency = np.random.default_rng(0).permutation(1000) + 1.0
        strata = frequency_strata(frequency, 10)
        np.testing.assert_array_equal(strata, (frequency - 1) // 100)
        np.testing.assert_array_equal(frequency_strata(np.log(frequency), 10), strata)

    @pytest.mark.parametrize("bins", [1, 2, 7, 40])
    def test_keep_ties_together_and_order(self, bins: int) -> None:
        frequency = skewed(300) // 20
        strata = frequency_strata(frequency, bins)
        assert set(strata) == set(range(strata.max() + 1))
        assert strata.max() < bins
        order = np.argsort(frequency, kind="stable")
        assert (np.diff(strata[order]) >= 0).all()
        assert all(len(set(strata[frequency == f])) == 1 for f in set(frequency))

    def test_of_nothing_and_of_one_value(self) -> None:
        assert frequency_strata([]).shape == (0,)
        assert frequency_strata([5, 5, 5]).tolist() == [0, 0, 0]

    @pytest.mark.parametrize(("frequency", "bins"), [([1, np.nan], 2), ([[1, 2]], 2), ([1, 2], 0)])
    def test_of_wrong_input(self, frequency: list, bins: int) -> None:
        with pytest.raises(UserError):
            frequency_strata(frequency, bins)

    def test_a_pair_fires_as_often_as_the_mean_of_its_features(self) -> None:
        got = pair_frequency([4, 0, 10**9], np.array([9, 7, 10**9], np.int32))
        assert got == pytest.approx([6, 0, 1e9])


class TestSets:
    def test_have_the_counts_of_the_chosen_in_every_stratum(self) -> None:
        strata = frequency_strata(skewed(500), 10)
        chosen = np.random.default_rng(1).choice(500, 60, replace=False)
        wanted = np.bincount(strata[chosen], minlength=10)
        sets = list(random_subsets(strata, chosen, 50, seed=0))
        for one in sets:
            assert one.dtype == np.intp
            assert (np.diff(one) > 0).all()
            np.testing.assert_array_equal(np.bincount(strata[one], minlength=10), wanted)
        assert len({tuple(one) for one in sets}) == 50

    def test_are_uniform_over_all_that_could_be_drawn(self) -> None:
        strata = np.array([3, 3, 3, 3, 8, 8, 8, 9])
        possible = {(*two, *one, 7) for two, one in product(combinations(range(4), 2), combinations([4, 5, 6], 1))}
        draws = Counter(tuple(one.tolist()) for one in random_subsets(strata, [0, 2, 5, 7], 3600, seed=0))
        assert set(draws) == possible  # the chosen set among them, and number 7 always: its stratum is all chosen
        # 18 cells of 200 expected; χ² with 17 degrees of freedom is above 46 in one of 5,000 draws.
        assert sum((n - 200) ** 2 / 200 for n in draws.values()) < 46

    def test_can_be_drawn_anywhere(self) -> None:
        strata = frequency_strata(skewed(100), 5)
        first = [s.tolist() for s in random_subsets(strata, range(0, 100, 7), 8, seed=4)]
        assert [s.tolist() for s in random_subsets(strata * 10, np.arange(0, 100, 7), 5, seed=4)] == first[:5]
        assert [s.tolist() for s in random_subsets(strata, range(0, 100, 7), 8, seed=5)] != first

    def test_of_nothing_and_of_everything(self) -> None:
        strata = np.zeros(5, int)
        assert [s.tolist() for s in random_subsets(strata, [], 2, seed=0)] == [[], []]
        assert [s.tolist() for s in random_subsets(strata, [4, 3, 2, 1, 0], 2, seed=0)] == [[0, 1, 2, 3, 4]] * 2

    @pytest.mark.parametrize("chosen", [[5], [-1], [1, 1], [0.5], [[1]], [True, False]])
    def test_of_wrong_indices(self, chosen: list) -> None:
        with pytest.raises(UserError, match="chosen"):
            random_subsets(np.zeros(5, int), chosen, 2, seed=0)

    @pytest.mark.parametrize(("draws", "seed"), [(-1, 0), (1, -1), (1, 2**64), (1.5, 0)])
    def test_of_wrong_numbers(self, draws: int, seed: int) -> None:
        with pytest.raises(UserError):
            random_subsets(np.zeros(5, int), [1], draws, seed=seed)


def planted(n: int, shared: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two spaces; those marked in `shared` are alike, the others less so."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 8))
    noise = np.where(shared, 0.2, 2.0)[:, None]
    return x, x @ rng.normal(size=(8, 6)) + noise * 3 * rng.normal(size=(n, 6))


class TestTest:
    @pytest.mark.parametrize("metric", ["rsa", "cka", "svcca", "heldout_cca"])
    def test_scores_are_those_of_the_measure(self, metric: str) -> None:
        x, y = planted(120, np.arange(120) < 60, 0)
        chosen = np.arange(10, 40)
        frequency = skewed(120)
        test = subset_test(metric, x, y, chosen, frequency, draws=6, seed=2, bins=4)
        function = geometry.MEASURES[metric].function
        assert test.score == float(function(x[chosen], y[chosen]))
        sets = random_subsets(frequency_strata(frequency, 4), chosen, 6, seed=2)
        assert test.null.tolist() == [float(function(x[s], y[s])) for s in sets]
        assert test.p_high == (1 + (test.null >= test.score - 1e-9).sum()) / 7
        assert test.p_low == (1 + (test.null <= test.score + 1e-9).sum()) / 7
        assert (test.n, test.n_all, test.seed) == (30, 120, 2)

    def test_finds_what_is_more_alike_and_what_is_less(self) -> None:
        shared = np.arange(200) < 50
        x, y = planted(200, shared, 1)
        frequency = skewed(200)
        high = subset_test("rsa", x, y, np.flatnonzero(shared)[:40], frequency, draws=99)
        assert (high.p_high, high.p_low) == (1 / 100, 1.0)
        x, y = planted(200, ~shared, 1)
        low = subset_test("rsa", x, y, np.flatnonzero(shared)[:40], frequency, draws=99)
        assert (low.p_high, low.p_low) == (1.0, 1 / 100)

    @pytest.mark.usefixtures("shapes_unchecked")
    @pytest.mark.slow
    def test_p_is_uniform_for_a_category_drawn_at_random(self) -> None:
        """Likeness that grows with frequency, as in real spaces, and categories of frequent features."""
        n, m = 150, 39
        p_high, p_low = [], []
        for study in range(300):
            rng = np.random.default_rng([7, study])
            frequency = rng.lognormal(4, 2, n)
            rank = stats.rankdata(frequency) / n
            x = rng.normal(size=(n, 4))
            y = x + (2 - 1.8 * rank)[:, None] * rng.normal(size=(n, 4))
            strata = frequency_strata(frequency, 5)
            top = np.flatnonzero(strata >= 2)[:25]
            (category,) = random_subsets(strata, top, 1, seed=1000 + study)
            test = subset_test("rsa", x, y, category, frequency, draws=m, seed=study, bins=5)
            p_high.append(test.p_high)
            p_low.append(test.p_low)
        for p in (np.array(p_high), np.array(p_low)):
            counts = np.bincount(np.rint(p * (m + 1)).astype(int) - 1, minlength=m + 1)
            # p takes the values 1/40 … 40/40, each as likely: by fours, 10 cells of 30.
            assert stats.chisquare(counts.reshape(10, 4).sum(1)).pvalue > 1e-3
            assert stats.binomtest(int((p <= 0.05).sum()), len(p), 0.05).pvalue > 1e-3

    def test_without_strata_it_would_mistake_frequency_for_meaning(self) -> None:
        """The same categories against sets that are not matched: that p is not uniform says what matching is for."""
        n = 150
        p = []
        for study in range(40):
            rng = np.random.default_rng([8, study])
            frequency = rng.lognormal(4, 2, n)
            rank = stats.rankdata(frequency) / n
            x = rng.normal(size=(n, 4))
            y = x + (2 - 1.8 * rank)[:, None] * rng.normal(size=(n, 4))
            category = rng.choice(np.flatnonzero(rank > 0.8), 20, replace=False)
            p.append(subset_test("rsa", x, y, category, frequency, draws=19, seed=study, bins=1).p_high)
        assert np.mean(np.array(p) <= 0.05) > 0.9

    def test_everything_chosen_says_so(self) -> None:
        x, y = planted(30, np.zeros(30, bool), 0)
        test = subset_test("cka", x, y, np.arange(30)[::-1], skewed(30), draws=9)
        assert (test.p_high, test.p_low, test.shared) == (1.0, 1.0, 1.0)
        assert any(flag.startswith("overlap: 100%") for flag in test.flags)

    def test_a_measure_blind_to_pairing_can_be_asked(self) -> None:
        x, y = planted(60, np.zeros(60, bool), 0)
        test = subset_test("mean_max_cosine", x[:, :6], y, np.arange(20), skewed(60), draws=9)
        assert 0 < test.p_high <= 1
        assert len(set(test.null)) == 9

    def test_undefined_sets_count_as_reaching(self) -> None:
        x, y = planted(40, np.zeros(40, bool), 0)
        x[20:] = 1.0  # half of the pairs are all the same row in A: a set of them alone has no RSA
        frequency = np.ones(40)
        test = subset_test("rsa", x, y, np.arange(3), frequency, draws=200, seed=0)
        undefined = int(np.isnan(test.null).sum())
        assert 0 < undefined < 200
        defined = test.null[~np.isnan(test.null)]
        assert test.p_high == (1 + undefined + (defined >= test.score - 1e-9).sum()) / 201
        assert test.p_low == (1 + undefined + (defined <= test.score + 1e-9).sum()) / 201
        assert any(flag.startswith(f"undefined: {undefined} of 200") for flag in test.flags)
        assert np.isfinite(test.null_mean)

    def test_an_undefined_score_has_no_p(self) -> None:
        x, y = planted(40, np.zeros(40, bool), 0)
        x[:10] = 1.0
        test = subset_test("rsa", x, y, np.arange(10), np.ones(40), draws=9)
        assert np.isnan([test.score, test.p_high, test.p_low, test.null_mean]).all()
        assert test.flags

    def test_wrong_input(self) -> None:
        x, y = planted(40, np.zeros(40, bool), 0)
        for arguments in ((x, y[:39], [1, 2, 3], np.ones(40)), (x, y, [1, 2, 3], np.ones(39))):
            with pytest.raises(UserError, match="one of each for every pair"):
                subset_test("rsa", *arguments)
        with pytest.raises(UserError, match="draws=0"):
            subset_test("rsa", x, y, [1, 2, 3], np.ones(40), draws=0)
        with pytest.raises(UserError, match="no setting 'innner'"):
            subset_test("rsa", x, y, [1, 2, 3], np.ones(40), innner="cosine")
        for few in ([], [1]):
            with pytest.raises(UserError):
                subset_test("rsa", x, y, few, np.ones(40))
