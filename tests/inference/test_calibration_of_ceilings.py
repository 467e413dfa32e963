"""Shares of the ceiling and equivalence on planted truth: fast forms of the two scripts, with studies of their own."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binom

from repo_scripts import load_script

FIRST = 40_000  # seeds that the scripts do not use

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shapes_unchecked")]


def few_cases(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CASES", {case: module.CASES[case] for case in ("RSA", "CKA, debiased")})


class TestEquivalence:
    def test_at_the_margin_it_is_hardly_ever_claimed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module, n, studies = load_script("calibration_equivalence"), 80, 100
        few_cases(module, monkeypatch)
        found = [module.differences(n, FIRST + i) for i in range(60)]
        shares = {case: module.share_at_margin(np.array([one[case] for one in found])) for case in module.CASES}
        assert all(0.1 < share < 0.6 for share in shares.values())
        drawn = [module.study(n, shares, FIRST + i) for i in range(studies)]
        for case in module.CASES:
            p, difference, _, _ = np.array([one[case] for one in drawn]).T
            assert difference.mean() == pytest.approx(module.MARGIN, abs=0.01)
            assert (p <= 0.05).sum() <= binom.ppf(0.999, studies, 0.05), case
            assert np.quantile(p, 0.2) > 0.1, "most are far from it"

    def test_where_nothing_is_shared_enough_pairs_find_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = load_script("calibration_equivalence")
        few_cases(module, monkeypatch)
        for case in module.CASES:
            p = [module.p_of(case, *module.drawn(320, 0.0, FIRST + i), i)[0] for i in range(20)]
            few = [module.p_of(case, *module.drawn(24, 0.0, FIRST + i), i)[0] for i in range(20)]
            assert np.mean(np.array(p) <= 0.05) >= 0.8, case
            assert np.mean(np.array(few) <= 0.05) <= 0.2, "few pairs show nothing"


class TestShares:
    @pytest.fixture
    def module(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        found = load_script("calibration_ceilings")
        few_cases(found, monkeypatch)
        return found

    def test_the_noise_of_the_saes_is_undone_and_intervals_hold_the_truth(self, module: ModuleType) -> None:
        studies = 30
        drawn = [module.study(0.5, 0.5, FIRST + i) for i in range(studies)]
        for case in module.CASES:
            score, share, low, high, ab, aa, bb, true = np.array([one[case] for one in drawn]).T
            assert score.mean() < 0.8 * true.mean()
            assert share.mean() == pytest.approx(true.mean(), rel=0.15)
            expected = ab.mean() / np.sqrt(aa.mean() * bb.mean())
            assert ((low <= expected) & (expected <= high)).sum() >= binom.ppf(0.001, studies, 0.95), case
            assert (low > 0).mean() > 0.8, "and say something"

    def test_what_shares_nothing_and_what_shares_all(self, module: ModuleType) -> None:
        nothing, everything = ([module.study(shared, 0.5, FIRST + i) for i in range(8)] for shared in (0.0, 1.0))
        for case in module.CASES:
            _, share, low, high, *_ = np.array([one[case] for one in nothing]).T
            assert abs(share.mean()) < 0.05
            assert ((low < 0) & (high > 0)).sum() >= 7
            score, share, low, high, *_ = np.array([one[case] for one in everything]).T
            assert score.mean() < 0.75
            assert share.mean() == pytest.approx(0.94, abs=0.04)
            assert (low > 0.7).all()
