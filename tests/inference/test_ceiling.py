"""A score as a share of its ceiling: Spearman's correction, Fieller's interval, and what has no share."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import t

from unifeat.inference.ceiling import Estimate, share_of_ceiling


def test_a_correlation_is_corrected_for_attenuation():
    """Two noisy readings each of two quantities that correlate at .5: the share is the correlation without noise."""
    rng = np.random.default_rng(0)
    a, b = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 200_000).T
    read = [truth + rng.normal(0, spread, truth.size) for truth, spread in ((a, 0.8), (a, 0.8), (b, 1.5), (b, 1.5))]
    r = np.corrcoef(read)
    share = share_of_ceiling(
        Estimate(r[0, 2], 0.01), [[Estimate(r[0, 1], 0.01)], [Estimate(r[2, 3], 0.01)]], level=0.95, df=59
    )
    assert r[0, 2] < 0.25
    assert share.share == pytest.approx(0.5, abs=0.02)
    assert share.ceiling == pytest.approx(math.sqrt(r[0, 1] * r[2, 3]))
    assert share.low < share.share < share.high


@pytest.mark.parametrize(
    ("score", "sides"),
    [
        (Estimate(0.2, 0.02), [[Estimate(0.5, 0.05)]]),
        (Estimate(-0.01, 0.02), [[Estimate(0.5, 0.1)], [Estimate(0.3, 0.06)]]),
        (Estimate(0.6, 0.02), [[Estimate(0.5, 0.05), Estimate(0.7, 0.03)], [Estimate(0.3, 0.0)]]),
    ],
)
def test_its_ends_are_the_ratios_that_the_data_just_do_not_reject(score, sides):
    """Fieller's ends by search: at them, (s − ratio × ceiling) is t standard errors from 0."""
    means = [np.mean([one.score for one in side]) for side in sides]
    spreads = [math.sqrt(sum(one.sd**2 for one in side)) / len(side) for side in sides]
    ceiling = math.prod(means) ** (1 / len(means))
    spread = ceiling * math.sqrt(sum((s / m) ** 2 for s, m in zip(spreads, means, strict=True))) / len(means)

    def excess(ratio: float) -> float:
        return abs(score.score - ratio * ceiling) / math.hypot(score.sd, ratio * spread) - t.ppf(0.975, 59)

    found = share_of_ceiling(score, sides, level=0.95, df=59)
    assert found.ceiling == pytest.approx(ceiling)
    assert found.share == pytest.approx(score.score / ceiling)
    ends = brentq(excess, found.share - 5, found.share), brentq(excess, found.share, found.share + 5)
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-9)


def test_what_has_no_share_or_no_interval():
    score = Estimate(0.1, 0.02)
    for ceiling in (0.0, -0.2, math.nan):
        found = share_of_ceiling(score, [[Estimate(0.4, 0.01)], [Estimate(ceiling, 0.01)]], level=0.95, df=59)
        assert all(map(math.isnan, found))
    unsure = share_of_ceiling(score, [[Estimate(0.4, 0.25)]], level=0.95, df=59)  # its interval reaches 0
    assert unsure.share == pytest.approx(0.25)
    assert math.isnan(unsure.low)
    unknown = share_of_ceiling(Estimate(0.1, math.nan), [[Estimate(0.4, 0.01)]], level=0.95, df=59)
    assert (unknown.share, math.isnan(unknown.high)) == (pytest.approx(0.25), True)
