"""p-values that stop early: Besag & Clifford 1991, one by one in plain Python, and their calibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from unifeat.inference import family_wise
from unifeat.inference.sequential import sequential, sequential_family_wise


def drawn_until(reached: list[bool], enough: int | None) -> tuple[float, bool]:
    """One test, draw by draw."""
    count = 0
    for number, one in enumerate(reached, start=1):
        count += one
        if enough is not None and count == enough:
            return enough / number, True
    return (count + 1) / (len(reached) + 1), False


def drawn_together(observed: np.ndarray, null: np.ndarray, enough: int) -> tuple[list[float], list[bool]]:
    """Tests that share their draws, draw by draw, from the family-wise p of all draws so far."""
    p, settled = [np.nan] * len(observed), [False] * len(observed)
    for number in range(1, null.shape[1] + 1):
        now = family_wise(observed, null[:, :number])
        for i in np.flatnonzero(~np.array(settled)):
            reached = round(now[i] * (number + 1)) - 1
            settled[i] = reached >= enough
            p[i] = enough / number if settled[i] else now[i]
    return p, settled


@pytest.mark.parametrize("enough", [1, 3, 10, None])
def test_single_tests_are_those_drawn_one_by_one(enough: int | None) -> None:
    rng = np.random.default_rng(0)
    for draws in (1, 2, 9, 10, 11, 40):
        reached = rng.random((60, draws)) < rng.random((60, 1))
        found = sequential(reached, enough)
        expected = [drawn_until(one, enough) for one in reached.tolist()]
        np.testing.assert_array_equal(found.p, [p for p, _ in expected])
        np.testing.assert_array_equal(found.settled, [settled for _, settled in expected])
        assert not (found.settled.any() and enough is None)


def test_families_are_those_drawn_one_by_one() -> None:
    rng = np.random.default_rng(1)
    for trial in range(30):
        # Cells of very different spread, some of them shifted, some values tied.
        values = rng.standard_normal((5, 41)) * rng.choice([1, 100], (5, 1)) + rng.choice([0, 50], (5, 1))
        values[rng.integers(5)] = np.round(values[rng.integers(5)])
        values[trial % 5, 0] += 400
        found = sequential_family_wise(values[:, 0], values[:, 1:], 4)
        p, settled = drawn_together(values[:, 0], values[:, 1:], 4)
        np.testing.assert_allclose(found.p, p, rtol=1e-12)
        np.testing.assert_array_equal(found.settled, settled)


def test_without_enough_the_family_is_the_usual_one() -> None:
    rng = np.random.default_rng(2)
    observed, null = rng.standard_normal(4) + 1, rng.standard_normal((4, 30))
    found = sequential_family_wise(observed, null, None)
    np.testing.assert_array_equal(found.p, family_wise(observed, null))
    assert not found.settled.any()


def test_what_is_settled_stays_whatever_comes_later() -> None:
    """So the p-values are the same wherever drawing stops, as long as they are settled there."""
    rng = np.random.default_rng(3)
    stopped = 0
    for _ in range(40):
        observed, null = rng.standard_normal(3), rng.standard_normal((3, 80))
        for count in (20, 40):
            early = sequential_family_wise(observed, null[:, :count], 10)
            late = sequential_family_wise(observed, null, 10)
            np.testing.assert_array_equal(early.p[early.settled], late.p[early.settled])
            assert late.settled[early.settled].all()
            reached = null >= observed[:, None]
            one, all_ = sequential(reached[:, :count], 10), sequential(reached, 10)
            np.testing.assert_array_equal(one.p[one.settled], all_.p[one.settled])
            stopped += int(early.settled.all())
    assert stopped > 20


def test_p_below_that_of_enough_draws_is_never_touched() -> None:
    """What could be significant is drawn to the end: its p is (g + 1)/(n + 1)."""
    rng = np.random.default_rng(4)
    reached = rng.random((500, 99)) < rng.random((500, 1)) ** 3
    found, usual = sequential(reached, 10).p, (reached.sum(axis=1) + 1) / 100
    np.testing.assert_array_equal(found[usual < 0.1], usual[usual < 0.1])
    assert (found[usual >= 0.2] >= 0.1).all()
    assert (found[usual >= 0.2] != usual[usual >= 0.2]).any()


def test_p_is_as_uniform_as_it_can_be_where_nothing_is_shared() -> None:
    """At every value that p can take, the share of tests with p at most that."""
    rng = np.random.default_rng(5)
    tests, draws, enough = 40_000, 29, 5
    values = rng.standard_normal((tests, draws + 1))
    p = sequential(values[:, 1:] >= values[:, :1], enough).p
    attained = {enough / at for at in range(enough, draws + 1)} | {(g + 1) / (draws + 1) for g in range(enough)}
    assert set(np.unique(p)) == attained
    for level in sorted(attained):
        low, high = binom.ppf([1e-5, 1 - 1e-5], tests, level) / tests
        assert low <= (p <= level + 1e-12).mean() <= high


def test_the_family_wise_error_is_as_asked_with_stopping() -> None:
    """Also where some cells share something, and at every level."""
    rng = np.random.default_rng(6)
    studies, cells, draws, enough = 1500, 4, 29, 5
    shared = np.array([6.0, 0.0, 0.0, 0.0])
    scale = np.array([1.0, 5.0, 0.2, 1.0])[:, None]
    least, found = [], 0
    for _ in range(studies):
        values = (rng.standard_normal((cells, draws + 1)) + rng.standard_normal(draws + 1)) * scale
        p = sequential_family_wise(values[:, 0] + shared, values[:, 1:], enough).p
        least.append(p[1:].min())
        found += p[0] <= 0.05
    for level in (1 / 30, 3 / 30, 5 / 29, 5 / 20, 5 / 10):
        assert (np.array(least) <= level + 1e-12).mean() <= binom.ppf(1 - 1e-4, studies, level) / studies
    assert found > 0.8 * studies


def test_what_is_no_test_has_no_p_and_stops_nothing() -> None:
    nothing = sequential_family_wise(np.array([np.nan, 1.0]), np.zeros((2, 0)), 10)
    assert np.isnan(nothing.p).all()
    assert nothing.settled.tolist() == [True, False]
    assert np.isnan(sequential(np.zeros((2, 0), bool), 10).p).all()
    null = np.random.default_rng(7).standard_normal((2, 30))
    null[0, 0] = np.nan
    found = sequential_family_wise(np.zeros(2), null, 3)
    assert np.isnan(found.p[0])
    assert found.settled[0]
    assert found.p[1] == sequential_family_wise(np.zeros(1), null[1:], 3).p[0]


@pytest.mark.parametrize("still", [0.0, 3.0])
def test_draws_that_do_not_vary_are_ties(still: float) -> None:
    found = sequential_family_wise(np.array([still]), np.full((1, 20), still), 10)
    assert found.p.tolist() == [1.0]
    assert found.settled.all()
