"""What the scripts behind the docs' figures compute, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest

import unifeat as uf
from repo_scripts import load_script


@pytest.fixture(scope="module")
def script():
    return load_script


@pytest.mark.parametrize(("n", "k_a", "k_b"), [(400, 20, 30), (100, 20, 30), (41, 20, 30), (26, 20, 30), (300, 40, 40)])
def test_wachters_law_is_what_independent_sides_score(script, n, k_a, k_b):
    rng = np.random.default_rng(n)
    scores = [
        uf.svcca(rng.standard_normal((n, k_a)), rng.standard_normal((n, k_b)), variance=1.0).value for _ in range(20)
    ]
    assert script("one_component").expected_svcca(n, k_a, k_b) == pytest.approx(np.mean(scores), abs=0.015)


def test_the_published_nulls_follow_their_law(script):
    """method.md, 3.1: the ratio of the nulls of categories to √(2/(πn)) is about 1, over several hundred cells."""
    module = script("one_component")
    scores = module.published()
    parts = scores[scores["category"].notna()].dropna(subset=["svcca_null"])
    ratio = parts["svcca_null"] / module.half_normal_mean(parts["n_pairs"])
    assert len(ratio) > 300
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    assert ratio.std() < 0.1


@pytest.mark.parametrize("case", ["RSA", "SVCCA, dims 4", "mutual kNN, k 5"])
def test_shuffling_that_ends_early_decides_as_the_whole_test_does(script, case):
    power = script("power")
    name, settings = power.CASES[case]
    decisions = []
    for seed in range(40):
        x, y = uf.synthetic.plant_rows(
            30, power.D_A, power.D_B, shared=0.4, noise=power.NOISE, decay=power.DECAY, seed=seed
        )
        test = uf.permutation_test(name, x, y, permutations=power.SHUFFLES, seed=seed, **settings)
        decisions.append((power.detected(case, 30, 0.4, seed), test.p <= power.ALPHA))
    assert all(early == whole for early, whole in decisions)
    assert 0 < sum(early for early, _ in decisions) < 40


def test_the_smallest_share_is_where_power_crosses(script, monkeypatch):
    """With detection at random, at a rate known for each share."""
    power = script("power")
    found = []
    for world in range(5):
        draws = np.random.default_rng(world).random(2000)
        monkeypatch.setattr(power, "detected", lambda case, n, share, seed, d=draws: d[seed] < share**0.5)
        share, tried = power.smallest_share("RSA", 40, 2000)
        found.append(share)
        assert len(tried) <= 6
    assert np.mean(found) == pytest.approx(0.64, abs=0.02)  # √.64 = .8
    monkeypatch.setattr(power, "detected", lambda case, n, share, seed: draws[seed] < 0.7)
    assert np.isnan(power.smallest_share("RSA", 40, 1000)[0])
    monkeypatch.setattr(power, "detected", lambda case, n, share, seed: True)
    assert power.smallest_share("RSA", 40, 50)[0] == power.SHARES[0]
