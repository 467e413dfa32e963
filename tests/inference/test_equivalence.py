"""Two one-sided tests: against SciPy's t tests and the interval they are equivalent to; what they refuse."""

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from unifeat.errors import UserError
from unifeat.inference.equivalence import equivalence_p


@pytest.mark.parametrize("middle", [-0.2, 0.0, 0.03, 0.4])
def test_it_is_two_t_tests(middle):
    x = np.random.default_rng(3).normal(middle, 0.3, 40)
    above = ttest_1samp(x, -0.1, alternative="greater").pvalue
    below = ttest_1samp(x, 0.1, alternative="less").pvalue
    p = equivalence_p(x.mean(), x.std(ddof=1) / math.sqrt(40), 0.1, 39)
    assert p == pytest.approx(max(above, below), rel=1e-12)


def test_it_rejects_where_the_interval_lies_within_the_margin():
    rng = np.random.default_rng(0)
    decided = set()
    for difference, sd in zip(rng.normal(0, 0.04, 200), rng.uniform(0.001, 0.05, 200), strict=True):
        reach = t.ppf(0.95, 59) * sd
        within = difference - reach >= -0.05 and difference + reach <= 0.05
        assert (equivalence_p(difference, sd, 0.05, 59) <= 0.05) == within
        decided.add(within)
    assert decided == {True, False}


def test_a_difference_of_the_margin_is_a_coin():
    assert equivalence_p(0.05, 0.01, 0.05, 59) == pytest.approx(0.5)
    assert equivalence_p(-0.05, 0.01, 0.05, 59) == pytest.approx(0.5)
    assert equivalence_p(0.0, 0.01, 0.05, 59) < 1e-5
    assert equivalence_p(0.2, 0.01, 0.05, 59) > 0.999


def test_what_says_nothing():
    for difference, sd in ((math.nan, 0.1), (0.0, math.nan), (0.0, 0.0)):
        assert math.isnan(equivalence_p(difference, sd, 0.05, 59))
    for margin, df in ((0.0, 59), (-1.0, 59), (math.nan, 59), (0.05, 0)):
        with pytest.raises(UserError, match="give a number above 0"):
            equivalence_p(0.0, 0.1, margin, df)
