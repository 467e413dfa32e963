"""Unrelated sides pass for unrelated: the shuffle test of every measure keeps its level."""

import numpy as np
import pytest
from scipy.stats import binom

from unifeat.geometry import MEASURES
from unifeat.inference import permutation_test

pytestmark = pytest.mark.slow

STUDIES = 60
SETTINGS = [
    ("pwcca", {}),
    ("heldout_cca", {"dims": 3}),
    ("heldout_cca", {}),
    ("procrustes", {}),
    ("procrustes", {"heldout": True}),
    ("ridge_map", {}),
    ("mutual_knn", {"k": 3}),
]


# n far above d, and below it, where PWCCA is saturated (see below)
CASES = [(name, settings, d) for name, settings in SETTINGS for d in (3, 15) if (name, d) != ("pwcca", 15)]


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(("name", "settings", "d"), CASES)
def test_p_of_unrelated_sides_is_uniform(name, settings, d):
    rng = np.random.default_rng(d)
    p = []
    for seed in range(STUDIES):
        x, y = rng.lognormal(size=(14, d)), rng.standard_normal((14, d + 1))
        p.append(permutation_test(name, x, y, permutations=19, seed=seed, **settings).p)
    assert (np.array(p) <= 0.05).sum() <= binom.ppf(0.999, STUDIES, 0.05)
    assert np.mean(p) > 0.525 - 4 * 0.29 / np.sqrt(STUDIES)
    if name != "mutual_knn":  # ties between its few possible values make p larger than uniform
        assert np.mean(p) < 0.525 + 4 * 0.29 / np.sqrt(STUDIES)


@pytest.mark.parametrize("n", [6, 10])
def test_saturated_measures_find_nothing(n):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, 15)), rng.standard_normal((n, 16))
    for name, settings in (("pwcca", {}), ("mutual_knn", {"k": n})):
        assert any(flag.startswith("saturated:") for flag in MEASURES[name].function(x, y, **settings).flags)
        assert permutation_test(name, x, y, permutations=19, **settings).p == 1.0
