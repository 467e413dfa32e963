"""Mean max cosine against scikit-learn, and its blindness to the pairing."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from unifeat.errors import UserError
from unifeat.geometry import mean_max_cosine
from unifeat.inference import permutation_test


@pytest.mark.parametrize("n", [2, 60, 1100])
def test_equals_scikit_learn(n, views):
    x, y = views(n=n, d_b=12)
    cosines = cosine_similarity(x, y)
    forth, back = cosines.max(axis=1).mean(), cosines.max(axis=0).mean()
    score = mean_max_cosine(x, y)
    assert score.details == pytest.approx({"a_to_b": forth, "b_to_a": back}, abs=1e-12)
    assert float(score) == pytest.approx((forth + back) / 2, abs=1e-12)
    assert score.settings == {}
    assert "()" not in repr(score)


def test_the_same_features_in_another_order_score_one(views):
    x, _ = views()
    assert float(mean_max_cosine(x, 3 * x[::-1])) == pytest.approx(1.0, abs=1e-12)
    assert float(mean_max_cosine(x, x @ np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0])) < 0.9


def test_a_shuffle_test_says_that_it_tests_nothing(views):
    x, y = views(d_b=12)
    score = mean_max_cosine(x, y)
    assert score.flags[0].startswith("pairing-blind: ")
    test = permutation_test("mean_max_cosine", x, y, permutations=19)
    assert (test.null == score.value).all()
    assert test.p == 1.0
    assert any(flag.startswith("pairing-blind:") for flag in test.flags)


def test_unequal_widths_are_refused(views):
    with pytest.raises(UserError, match="x has 12 columns and y has 17: mean_max_cosine compares rows of one space"):
        mean_max_cosine(*views())


def test_rows_without_direction_leave_it_undefined(views):
    x, y = views(d_b=12)
    x[4] = 0.0
    score = mean_max_cosine(x, y)
    assert np.isnan(float(score))
    assert score.flags == ("zero rows of x: 1 rows are zero, cosine is undefined there",)
