"""Shuffles within strata: only what may move moves, uniformly; and two sides that share only how often they fire."""

import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom

import unifeat as uf
from unifeat.errors import UserError
from unifeat.inference import (
    Exchange,
    SharedRows,
    frequency_strata,
    permutation_test,
    permutations_within,
    strata_of,
)

within = permutations_within


def by_frequency(n, seed, *, width=32, shared=0.0, slope=0.5):
    """Rows of two sides whose mean direction grows with the frequency of firing, up to a shared part; and frequencies.

    `../shared/cases/frequency.py` in fewer dimensions, where the same slope would show less of it.
    """
    rng = np.random.default_rng(seed)
    frequency = rng.random(n)
    common = rng.standard_normal((n, width))
    common[rng.random(n) >= shared] = 0
    sides = []
    for wide in (width, width + 8):
        rows, mean = rng.standard_normal((n, wide)), rng.standard_normal(wide)
        rows += 1.5 * common @ np.linalg.qr(rng.standard_normal((wide, width)))[0].T
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append(rows + slope * frequency[:, None] * mean / np.linalg.norm(mean))
    return *sides, frequency


class TestPermutations:
    def test_rows_stay_in_their_stratum(self):
        labels = np.random.default_rng(0).integers(0, 4, 50)
        for order in within(Exchange.of(50, labels), 20, 3):
            np.testing.assert_array_equal(np.sort(order), np.arange(50))
            np.testing.assert_array_equal(labels[order], labels)

    def test_they_are_uniform_and_independent_between_strata(self):
        orders = np.array(list(within(Exchange.of(6, [0, 1, 0, 1, 0, 1]), 7200, 0)))
        _, counts = np.unique(orders, axis=0, return_counts=True)
        assert counts.size == 36
        assert ((counts - 200) ** 2 / 200).sum() < 66.6  # chi², 35 degrees of freedom, p = .001

    def test_one_stratum_is_a_uniform_permutation(self):
        orders = np.array(list(within(Exchange.of(4, [7] * 4), 4800, 1)))
        _, counts = np.unique(orders, axis=0, return_counts=True)
        assert counts.size == 24
        assert ((counts - 200) ** 2 / 200).sum() < 49.7

    def test_each_depends_on_seed_size_number_and_what_may_move_alone(self):
        labels = np.array([0, 0, 1, 1, 1, 0, 2, 1])
        first = list(within(Exchange.of(8, labels), 4, 9))
        for number, order in enumerate(first):
            np.testing.assert_array_equal(next(within(Exchange.of(8, labels), 1, 9, start=number)), order)
        named = Exchange.of(8, ["b" if label == 0 else f"a{label}" for label in labels])
        np.testing.assert_array_equal(np.array(list(within(named, 4, 9))), first)
        assert not np.array_equal(list(within(Exchange.of(8, labels), 4, 10)), first)
        # Written down once: these are the same on every machine, or published nulls would move.
        assert first[0].tolist() == [1, 0, 4, 3, 2, 5, 6, 7]

    def test_the_order_in_which_pairs_are_listed_does_not_matter(self):
        rng = np.random.default_rng(0)
        ids, labels = np.sort(rng.permutation(200)[:40]), rng.integers(0, 5, 40)
        back = rng.permutation(40)
        one = within(Exchange.of(40, labels), 5, 3, rows=SharedRows(ids, 200))
        other = within(Exchange.of(40, labels[back]), 5, 3, rows=SharedRows(ids[back], 200))
        for here, there in zip(one, other, strict=True):
            to, again = dict(zip(ids, ids[here], strict=True)), dict(zip(ids[back], ids[back][there], strict=True))
            assert to == again

    def test_sets_with_places_and_strata_in_common_are_permuted_alike(self):
        a, b = np.arange(0, 95), np.arange(5, 100)
        one = within(Exchange.of(95, a // 10), 50, 2, rows=SharedRows(a, 100))
        other = within(Exchange.of(95, b // 10), 50, 2, rows=SharedRows(b, 100))
        same = [np.mean(a[p][5:] == b[q][:-5]) for p, q in zip(one, other, strict=True)]
        assert np.mean(same) > 0.9

    def test_units_move_as_one_and_only_to_units_as_large(self):
        units = np.array([4, 4, 1, 1, 9, 2, 2, 2, 7])
        exchange = Exchange.of(9, units=units)
        assert exchange.fixed == 3  # the three rows of unit 2
        assert exchange.log_arrangements == pytest.approx(math.log(4))
        seen = {tuple(order) for order in within(exchange, 60, 0)}
        pairs, singles = ((0, 1, 2, 3), (2, 3, 0, 1)), ((4, 8), (8, 4))
        assert seen == {(*p, s[0], 5, 6, 7, s[1]) for p in pairs for s in singles}

    def test_units_stay_in_their_stratum(self):
        exchange = Exchange.of(8, strata=[0, 0, 0, 0, 1, 1, 1, 1], units=[0, 0, 1, 1, 2, 2, 3, 3])
        seen = {tuple(order) for order in within(exchange, 60, 0)}
        assert seen == {
            (*a, *b) for a in ((0, 1, 2, 3), (2, 3, 0, 1)) for b in ((4, 5, 6, 7), (6, 7, 4, 5))
        }  # fmt: skip
        with pytest.raises(UserError, match="the rows of a unit move together, so give them one stratum"):
            Exchange.of(4, strata=[0, 1, 0, 1], units=[0, 0, 1, 1])

    def test_labels_of_all_kinds_are_the_same_strata(self):
        numbers = np.array([3, 1, 3, 2, 1, 1])
        expected = list(within(Exchange.of(6, numbers), 5, 0))
        for labels in (
            numbers.tolist(),
            numbers.astype(float),
            torch.from_numpy(numbers),
            pd.Series(numbers, index=list("abcdef")),
            pd.Categorical(numbers),
            ["x" * int(number) for number in numbers],
            [(int(number), None) for number in numbers],
            np.column_stack([numbers % 2, numbers // 2]),
            np.array([f"{number}" for number in numbers], object),
        ):
            np.testing.assert_array_equal(list(within(Exchange.of(6, labels), 5, 0)), expected)

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ([1, 2], "strata: give one label for each of 3 pairs, not 2"),
            (7, "strata: give one label for each of 3 pairs"),
            ([1.0, float("nan"), 2.0], "strata: some labels are NaN"),
            (np.array([1.0, np.nan, 2.0]), "strata: some labels are NaN"),
            ([{1}, {2}, {3}], "strata: give labels that can be hashed"),
        ],
    )
    def test_labels_that_are_none(self, labels, words):
        with pytest.raises(UserError, match=words):
            Exchange.of(3, labels)


class TestTest:
    @pytest.mark.parametrize("measure", ["rsa", "cka", "svcca", "heldout_cca", "ridge_map", "mutual_knn"])
    def test_the_null_is_the_measure_of_rows_shuffled_within_strata(self, measure):
        x, y, frequency = by_frequency(60, 0, width=6)
        labels, rows = strata_of(frequency, size=10), SharedRows(np.arange(60) * 2, 200)
        test = permutation_test(measure, x, y, permutations=5, seed=3, strata=labels, rows=rows)
        orders = within(Exchange.of(60, labels), 5, 3, rows=rows)
        function = getattr(uf, measure)
        np.testing.assert_allclose(test.null, [float(function(x, y[order])) for order in orders], atol=1e-9)
        assert (test.strata, test.fixed) == (6, 0)
        assert "within 6 strata" in repr(test)
        assert "within 6 strata" in test._repr_html_()

    def test_rows_that_cannot_move_and_few_pairings_are_flagged(self):
        x, y, _ = by_frequency(12, 0, width=6)
        test = permutation_test("rsa", x, y, permutations=99, strata=[0, 0, 0, 1, 1, *range(2, 9)])
        assert test.fixed == 7
        assert "strata: 7 of 12 pairs are alone in their stratum and stay where they are" in test.flags
        assert "few shuffles: 12 pairs have only 12 pairings within their strata" in test.flags
        assert test.least_p == pytest.approx(1 / 12)
        assert permutation_test("rsa", x, y, permutations=99, strata=np.arange(12)).p == 1.0

    def test_what_depends_on_frequency_alone_is_found_by_plain_shuffles_only(self):
        plain, strata = 0, 0
        for seed in range(10):
            x, y, frequency = by_frequency(150, seed)
            test = partial(permutation_test, "rsa", x, y, permutations=39, seed=seed)
            plain += test().p <= 0.05
            strata += test(strata=strata_of(frequency)).p <= 0.05
        assert plain == 10
        assert strata <= 3  # of 10 at .05: more than 3 once in 1,000

    def test_what_is_truly_shared_is_still_found(self):
        found = 0
        for seed in range(10):
            x, y, frequency = by_frequency(150, seed, shared=0.6)
            found += permutation_test("rsa", x, y, permutations=39, seed=seed, strata=strata_of(frequency)).p <= 0.05
        assert found == 10

    @pytest.mark.slow
    @pytest.mark.parametrize("measure", ["rsa", "cka", "svcca", "procrustes", "mutual_knn"])
    @pytest.mark.parametrize("n", [60, 120])
    def test_the_nominal_rate(self, measure, n):
        plain, strata, trials = 0, 0, 200
        settings = {"dims": 8} if measure == "svcca" else {}
        for seed in range(trials):
            x, y, frequency = by_frequency(n, seed)
            test = partial(permutation_test, measure, x, y, permutations=19, seed=seed, **settings)
            plain += test().p <= 0.05
            strata += test(strata=strata_of(frequency)).p <= 0.05
        assert plain > 100 or measure != "rsa"  # it is the one that sees a common mean best
        assert strata <= binom.ppf(0.9999, trials, 0.05)  # 24 of 200


class TestMaking:
    def test_bins_are_equally_large_and_ordered(self):
        values = np.random.default_rng(0).lognormal(0, 2, 95)
        strata = strata_of(values)
        assert strata.dtype == np.intp
        np.testing.assert_array_equal(np.sort(np.bincount(strata)), [9] * 5 + [10] * 5)
        assert (np.diff(strata[np.argsort(values)]) >= 0).all()
        np.testing.assert_array_equal(strata_of(np.log(values)), strata)

    def test_frequency_is_the_geometric_mean_of_both_counts(self):
        a, b = np.random.default_rng(0).integers(1, 10_000, (2, 300))
        np.testing.assert_array_equal(frequency_strata(a, b), strata_of(a * b))
        np.testing.assert_array_equal(frequency_strata(a, b, size=30), strata_of(a * b, size=30))

    def test_several_variables_are_crossed_into_strata_as_large(self):
        rng = np.random.default_rng(0)
        first = rng.standard_normal(1000)
        second = first + 0.1 * rng.standard_normal(1000)  # bins of each alone would leave most crossings empty
        strata = strata_of(first, second)
        np.testing.assert_array_equal(np.bincount(strata), [10] * 100)
        for variable in (first, second):
            spread = [np.ptp(variable[strata == number]) for number in range(100)]
            assert np.mean(spread) < 0.3 * variable.std()

    def test_ties_stay_together_and_few_items_are_one_stratum(self):
        strata = strata_of([1.0] * 25 + [2.0] * 5)
        assert len(set(strata[:25])) == 1
        assert strata_of(np.arange(9)).tolist() == [0] * 9
        assert strata_of([]).shape == (0,)

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: strata_of(), "at least one variable"),
            (lambda: strata_of([1, 2], [1, 2, 3]), "the variables have 2, 3 items"),
            (lambda: strata_of([1.0, float("nan")]), "variable 1: give one finite number for each item"),
            (lambda: strata_of([1, 2], size=1), "size=1: give a whole number of items in a stratum, 2 or more"),
            (lambda: frequency_strata([1, 2], [1]), "2 counts of A and 1 of B"),
            (lambda: frequency_strata([1, -2], [1, 1]), "a count is 0 or more"),
        ],
    )
    def test_mistakes_are_one_clear_line(self, make, words):
        with pytest.raises(UserError, match=words):
            make()
