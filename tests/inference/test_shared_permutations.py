"""Permutations shared between tests on different rows, and the family-wise p they make possible."""

import numpy as np
import pytest

import unifeat as uf
from unifeat.errors import UserError
from unifeat.inference import SharedRows, family_wise, induced, permutation_test, permutations


def test_the_induced_permutation_follows_the_whole_one_until_it_returns():
    order = np.array([3, 0, 4, 1, 5, 2])  # cycles (0 3 1) and (2 4 5)
    assert induced(order, SharedRows(np.array([0, 1]), 6)).tolist() == [1, 0]
    assert induced(order, SharedRows(np.array([5, 0, 2]), 6)).tolist() == [2, 1, 0]
    np.testing.assert_array_equal(induced(order, SharedRows(np.arange(6), 6)), order)


def test_induced_permutations_are_uniform():
    rows = SharedRows(np.array([7, 2, 5, 0]), 9)
    orders = np.array([induced(order, rows) for order in permutations(9, 4800, 1)])
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.size == 24
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # chi², 23 degrees of freedom, p = .001


def test_sets_with_most_rows_in_common_are_permuted_mostly_alike():
    a, b = np.arange(0, 95), np.arange(5, 100)
    same = []
    for order in permutations(100, 50, 2):
        to_a, to_b = (rows.ids[induced(order, rows)] for rows in (SharedRows(a, 100), SharedRows(b, 100)))
        same.append(np.mean(to_a[5:] == to_b[:-5]))
    assert np.mean(same) > 0.8


def test_one_seed_and_whole_serve_any_number_of_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.standard_normal((40, 4))
    chosen = np.sort(rng.permutation(200)[:40])
    test = permutation_test(uf.rsa, x, y, permutations=6, seed=3, rows=SharedRows(chosen, 200))
    orders = [induced(order, SharedRows(chosen, 200)) for order in permutations(200, 6, 3)]
    np.testing.assert_allclose(test.null, [float(uf.rsa(x, y[order])) for order in orders], atol=1e-10)
    # The order in which the pairs are listed does not matter, only which they are.
    back = rng.permutation(40)
    again = permutation_test(uf.rsa, x[back], y[back], permutations=6, seed=3, rows=SharedRows(chosen[back], 200))
    np.testing.assert_allclose(again.null, test.null, atol=1e-10)


@pytest.mark.parametrize("ids", [[0, 0], [0, 9], [-1, 2]])
def test_rows_that_cannot_be(ids):
    with pytest.raises(UserError, match="different whole numbers below 9"):
        SharedRows(np.array(ids), 9)


def single_step(observed, null):
    """Westfall & Young's single step, written out."""
    values = np.column_stack([observed, null])
    values = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    return [(1 + sum(values[:, b].max() >= t - 1e-9 for b in range(1, values.shape[1]))) / values.shape[1]
            for t in values[:, 0]]  # fmt: skip


def test_the_largest_score_has_the_single_step_p_and_the_others_no_more():
    rng = np.random.default_rng(0)
    null = rng.standard_normal((6, 199)) * rng.uniform(0.1, 3, (6, 1)) + rng.uniform(-2, 2, (6, 1))
    observed = null.mean(1) + null.std(1) * np.array([4, 2.4, 0, -1, 2.9, 1])
    p, single = family_wise(observed, null), np.array(single_step(observed, null))
    assert p[0] == single[0] == 1 / 200
    assert (p <= single + 1e-12).all()
    assert (np.diff(p[[0, 4, 1, 5, 2, 3]]) >= 0).all()
    assert p[3] > 0.5


def test_the_family_wise_error_is_as_asked_and_identical_cells_cost_nothing():
    rng = np.random.default_rng(1)
    errors = {"apart": 0, "alike": 0}
    alone = 0
    for _ in range(600):
        values = rng.standard_normal((8, 40))
        errors["apart"] += family_wise(values[:, 0], values[:, 1:]).min() <= 0.05
        same = np.repeat(values[:1], 8, axis=0)
        errors["alike"] += family_wise(same[:, 0], same[:, 1:]).min() <= 0.05
        alone += family_wise(values[:1, 0], values[:1, 1:])[0] <= 0.05
    assert 12 <= errors["apart"] <= 50  # 600 × .05 = 30, ± 3.7 sd
    assert errors["alike"] == alone


def test_undefined_scores_are_left_out_and_a_still_null_is_worth_nothing():
    rng = np.random.default_rng(2)
    null = rng.standard_normal((3, 99))
    null[1] = 1.0
    p = family_wise(np.array([9.0, 1.0, np.nan]), null)
    assert p[0] == 0.01
    assert p[1] == 1.0
    assert np.isnan(p[2])
    assert np.isnan(family_wise(np.array([np.nan]), np.full((1, 5), np.nan))).all()
