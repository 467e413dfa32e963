"""Intervals from halves: coverage by simulation, the formula by hand, and what they refuse."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, t

import unifeat as uf
from unifeat.errors import UserError
from unifeat.geometry import MEASURES
from unifeat.synthetic import plant_rows

STUDIES = 60
CASES = [
    ("svcca", {"dims": 4}),
    ("svcca", {}),
    ("rsa", {}),
    ("cka", {"debiased": True}),
    ("heldout_cca", {"dims": 3, "folds": 3}),
]


def drawn(n, seed):
    """n pairs drawn from many, half of which share their direction."""
    x, y = plant_rows(20 * n, 6, 9, shared=0.5, noise=0.6, seed=seed)
    return x[:n], y[:n]


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.slow
def test_coverage_is_nominal(name, settings):
    """Of the expected score of n pairs. Halves err on the wide side (see the docstring), so that from above only an
    interval that always covers at a low level would be wrong: the level here is 0.8, far from both ends."""
    measure, n, level = MEASURES[name].function, 60, 0.8
    expected = np.mean([measure(*drawn(n, 1000 + i), **settings).value for i in range(300)])
    covered = 0
    for seed in range(STUDIES):
        interval = uf.subsample_interval(name, *drawn(n, seed), subsamples=40, level=level, seed=seed, **settings)
        covered += interval.low <= expected <= interval.high
    assert covered >= binom.ppf(0.001, STUDIES, level)
    assert covered < STUDIES


@pytest.mark.usefixtures("shapes_unchecked")
def test_the_standard_error_is_the_spread_over_other_pairs():
    """RSA with much shared: estimated and true standard error agree within a fifth."""
    scores = [float(uf.rsa(*drawn(120, 5000 + i))) for i in range(150)]
    estimated = [uf.subsample_interval("rsa", *drawn(120, i), subsamples=40).sd for i in range(20)]
    assert np.sqrt(np.mean(np.square(estimated))) == pytest.approx(np.std(scores), rel=0.2)


@pytest.mark.parametrize("n", [40, 41])
def test_by_hand(n):
    x, y = drawn(n, 0)
    interval = uf.subsample_interval("rsa", x, y, subsamples=25, level=0.9, seed=3)
    assert interval.score == float(uf.rsa(x, y))
    assert interval.halves.shape == (25,)
    sd = np.std(interval.halves, ddof=1) * math.sqrt((n // 2) / (n - n // 2))
    assert interval.sd == pytest.approx(sd)
    reach = t.ppf(0.95, 24) * sd
    assert tuple(interval) == pytest.approx((interval.score - reach, interval.score + reach))
    assert interval.mean_half == pytest.approx(interval.halves.mean())


def test_a_linear_statistic_has_its_textbook_standard_error():
    """A mean over pairs in disguise: with such a score the halves' spread is the usual sd / √n."""
    from unifeat.geometry import Measure, Score
    from unifeat.geometry.measure import Undefined

    def mean(x, y):
        return Score("mean", float(np.mean(x * y)), {}, len(x), 1, 1)

    measure = Measure("mean", mean, lambda x, y: Undefined(mean(x, y)), ())
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(500, 1)), np.ones((500, 1))
    interval = uf.subsample_interval(measure, x, y, subsamples=2000)
    assert interval.sd == pytest.approx(x.std(ddof=1) / math.sqrt(500), rel=0.06)


def test_halves_are_shared_between_measures_and_follow_the_seed():
    x, y = drawn(50, 1)
    one, again, other = (uf.subsample_interval(uf.cka, x, y, subsamples=5, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.halves, again.halves)
    assert not np.array_equal(one.halves, other.halves)
    with pytest.raises(ValueError, match="read-only"):
        one.halves[0] = 0


def test_more_pairs_shorter_interval():
    lengths = [np.subtract(*reversed(tuple(uf.subsample_interval("rsa", *drawn(n, 2))))) for n in (50, 150, 450)]
    assert lengths[0] > 1.3 * lengths[1] > 1.69 * lengths[2]


def test_it_is_cut_to_the_range():
    x, y = plant_rows(30, 5, 5, noise=0.05)
    assert uf.subsample_interval("svcca", x, y).high <= 1.0
    x, y = plant_rows(40, 5, 5, shared=0.0)
    assert uf.subsample_interval("svcca", x, y, dims=1).low == 0.0
    assert uf.subsample_interval("cka", x, y, debiased=True).low < 0.0
    assert uf.subsample_interval("procrustes", x, y, heldout=True).low < 0.0
    assert uf.subsample_interval("ridge_map", x[:14], y[:14], alpha=1e-4).low < -1.0


def test_saturated_halves_give_no_interval():
    """60 pairs in 20 dimensions are no reason for a score of 1, their halves nearly are: they would all say 1."""
    x, y = plant_rows(60, 20, 24, shared=0.5, noise=0.5)
    interval = uf.subsample_interval("svcca", x, y, variance=1.0)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert any(flag.startswith("saturated halves: 60 of 60") for flag in interval.flags)
    assert not math.isnan(uf.subsample_interval("svcca", x, y, dims=5).low)
    assert math.isnan(uf.subsample_interval("svcca", x[:20], y[:20], variance=1.0).low)  # the whole is, too
    heldout = uf.subsample_interval("heldout_cca", x, y, variance=1.0, subsamples=10)
    assert heldout.low < heldout.score < heldout.high


def test_undefined_halves_are_flagged():
    x, y = plant_rows(40, 5, 6)
    constant = np.ones_like(y)
    interval = uf.subsample_interval("rsa", x, constant)
    assert math.isnan(interval.low)
    assert np.isnan(interval.halves).all()
    assert any(flag.startswith("undefined: only 0 of 60") for flag in interval.flags)
    rare = constant.copy()
    rare[0] = y[0]  # half of the halves see this row, the others see a constant
    interval = uf.subsample_interval("cka", x, rare, subsamples=200)
    known = int((~np.isnan(interval.halves)).sum())
    assert 70 < known < 130
    assert any(flag.startswith(("halves:", "undefined:")) for flag in interval.flags)


def test_few_pairs_are_flagged_and_fewer_refused():
    assert any(f.startswith("few pairs") for f in uf.subsample_interval("rsa", *plant_rows(12, 3, 3)).flags)
    with pytest.raises(UserError, match="7 pairs are too few for an interval"):
        uf.subsample_interval("rsa", *plant_rows(7, 3, 3))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"subsamples": 1}, "subsamples=1"),
        ({"subsamples": 10**12}, "subsamples=1000000000000 is too large: give a whole number, 1,000,000 at most"),
        ({"level": 1.0}, "level=1.0"),
        ({"level": True}, "level=True"),
        ({"seed": -1}, "seed=-1"),
        ({"dims": 2}, "rsa has no setting 'dims'"),
    ],
)
def test_mistakes_are_one_clear_line(settings, words):
    with pytest.raises(UserError, match=words):
        uf.subsample_interval("rsa", *plant_rows(20, 3, 3), **settings)


def test_tensors_and_every_measure():
    torch = pytest.importorskip("torch")
    x, y = plant_rows(60, 5, 5, noise=0.3)
    for name in MEASURES:
        plain = uf.subsample_interval(name, x, y, subsamples=4)
        tensors = uf.subsample_interval(name, torch.from_numpy(x), torch.from_numpy(y), subsamples=4)
        np.testing.assert_array_equal(plain.halves, tensors.halves)
        assert plain.low <= plain.score <= plain.high
    assert "4 halves" in repr(plain)


@pytest.mark.parametrize("name", list(MEASURES))
@pytest.mark.parametrize(("n", "d_a", "d_b"), [(61, 40, 30), (120, 20, 20)])
@pytest.mark.parametrize(
    "how", ["pairs", "clusters", "float32 of low rank", "held out together", "beyond what is given"]
)
def test_halves_scored_from_the_whole_give_the_same_interval(name, n, d_a, d_b, how):
    """As halves that are prepared anew, which a measure without `subset` has."""
    x, y = plant_rows(n, d_a, d_a if MEASURES[name].equal_widths else d_b, shared=0.5, noise=0.5)
    measure, options = MEASURES[name], {}
    label = np.random.default_rng(n).integers(0, n // 3, n)
    if how == "clusters":
        x, y, options = x[label], y + 2 * y[label], {"clusters": label}
    elif how == "float32 of low rank":
        x, y = (
            np.float32(side[:, :4] @ np.random.default_rng(1).standard_normal((4, side.shape[1]))) for side in (x, y)
        )
    elif how == "held out together" and "groups" in measure.row_settings:
        x, options = x[label], {"groups": label, "clusters": label}
    elif how == "beyond what is given" and "given" in measure.row_settings:
        options = {"given": [y[:, :3]]}

    def without_subset(x, y, **settings):
        return Plain(measure.prepare(x, y, **settings))

    fast = uf.subsample_interval(name, x, y, subsamples=12, **options)
    slow = uf.subsample_interval(replace(measure, preparation=without_subset), x, y, subsamples=12, **options)
    np.testing.assert_allclose(fast.halves, slow.halves, atol=1e-9)
    np.testing.assert_allclose(tuple(fast), tuple(slow), atol=1e-9)
    assert fast.flags == slow.flags


class Plain:
    def __init__(self, prepared):
        self.score = prepared.score
