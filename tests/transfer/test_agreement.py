"""Agreement of effects: against NumPy and SciPy, and planted: found where effects are shared, calibrated where not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

import unifeat as uf
from unifeat.errors import UserError
from unifeat.transfer import profiles
from unifeat.transfer.agreement import AgreementSums, effect_agreement
from unifeat.transfer.relation import relation

Array = NDArray[np.float64]


def planted(pairs: int, n: int, shared: float, seed: int = 0, contexts: int | None = None) -> tuple[Array, Array]:
    """Profiles of which a share of the variance is the same on both sides."""
    rng = np.random.default_rng(seed)
    shape = (pairs, n) if contexts is None else (pairs, contexts, n)
    common, own_a, own_b = rng.standard_normal((3, *shape))
    return tuple(np.sqrt(shared) * common + np.sqrt(1 - shared) * own for own in (own_a, own_b))  # type: ignore[return-value]


def correlations(a: Array, b: Array) -> Array:
    """Every row of a with every row of b, by NumPy."""
    return np.corrcoef(a, b)[: len(a), len(a) :]


class TestAgainstOthers:
    def test_every_figure(self) -> None:
        a, b = planted(30, 80, 0.3)
        found = effect_agreement(a, b, draws=200)
        r = correlations(a, b)
        np.testing.assert_allclose(found.pearson, np.diag(r))
        assert found.value == pytest.approx(np.diag(r).mean())
        np.testing.assert_allclose(found.spearman, [stats.spearmanr(x, y)[0] for x, y in zip(a, b, strict=True)])
        rank = np.array([1 + (r[i] > r[i, i]).sum() for i in range(30)])
        assert np.array_equal(found.rank, rank)
        assert float(found.top_1) == np.mean(rank == 1)
        assert float(found.top_10) == np.mean(rank <= 10)
        assert float(found.mrr) == pytest.approx(np.mean(1 / rank))
        assert [x.chance for x in (found.top_1, found.top_10)] == pytest.approx([1 / 30, 10 / 30])
        assert found.mrr.chance == pytest.approx(np.mean(1 / np.arange(1, 31)))

    def test_the_null_is_that_of_exchanged_partners(self) -> None:
        """Its mean and spread are those of all permutations, which five pairs have few of."""
        from itertools import permutations

        a, b = planted(5, 40, 0.5)
        r = correlations(a, b)
        every = np.array([r[range(5), order].mean() for order in permutations(range(5))])
        found = effect_agreement(a, b, draws=4000)
        assert set(np.round(found.null, 9)) == set(np.round(every, 9))
        assert found.null_mean == pytest.approx(every.mean(), abs=4 * every.std() / 4000**0.5)
        assert found.p == pytest.approx(np.mean(every >= found.value), abs=0.02)

    def test_it_does_not_depend_on_how_much_is_worked_on_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = planted(23, 60, 0.3)
        a[4, 7] = np.nan
        whole = effect_agreement(a, b, draws=50)
        monkeypatch.setattr(profiles, "_BLOCK_CELLS", 5 * 60)
        parts = effect_agreement(a, b, draws=50)
        for name in ("pearson", "spearman", "top_overlap", "rank", "null"):
            np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-12)

    def test_contexts_are_averaged(self) -> None:
        a, b = planted(12, 50, 0.3, contexts=4)
        found = effect_agreement(a, b, draws=50)
        r = np.mean([correlations(a[:, c], b[:, c]) for c in range(4)], axis=0)
        np.testing.assert_allclose(found.pearson, np.diag(r))
        assert np.array_equal(found.rank, [1 + (row > own).sum() for row, own in zip(r, np.diag(r), strict=True)])
        by_context = [[stats.spearmanr(a[i, c], b[i, c])[0] for c in range(4)] for i in range(12)]
        np.testing.assert_allclose(found.spearman, np.mean(by_context, axis=1))

    def test_context_by_context_it_is_the_same(self) -> None:
        a, b = planted(12, 50, 0.3, contexts=4)
        a[3, 2], b[5, 0, 7] = np.nan, np.nan
        sums = AgreementSums(12)
        for context in range(4):
            sums.add(a[:, context], b[:, context])
        one, other = sums.result(draws=20, seed=4), effect_agreement(a, b, draws=20, seed=4)
        assert repr(one) == repr(other)
        assert np.array_equal(one.null, other.null)

    def test_arrays_and_tensors(self) -> None:
        a, b = planted(12, 50, 0.3)
        expected = effect_agreement(a, b, draws=20)
        for dtype, error in ((torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
            found = effect_agreement(torch.tensor(a).to(dtype), torch.tensor(b).to(dtype), draws=20)
            np.testing.assert_allclose(found.pearson, expected.pearson, atol=error)


class TestPlanted:
    def test_shared_effects_are_found(self) -> None:
        a, b = planted(60, 200, 0.6)
        found = uf.effect_agreement(a, b)
        assert found.value == pytest.approx(0.6, abs=0.03)
        assert found.low < 0.6 < found.high
        assert found.p == found.top_1.p == found.mrr.p == pytest.approx(1 / 1001)
        assert float(found.top_1) == 1
        assert np.all(found.rank == 1)
        assert abs(found.null_mean) < 0.03

    def test_effects_that_share_nothing_are_not(self) -> None:
        found = effect_agreement(*planted(60, 200, 0.0))
        assert abs(found.value) < 0.03
        assert found.p > 0.05
        assert float(found.top_1) < 0.1
        assert float(found.mrr) == pytest.approx(found.mrr.chance, abs=0.06)

    def test_some_shared_pairs_among_others(self) -> None:
        """A third of the pairs work alike: they are told apart, and their number is what the mean says."""
        a, b = planted(60, 200, 0.0)
        a[:20], b[:20] = planted(20, 200, 0.7, seed=1)
        found = effect_agreement(a, b)
        assert found.value == pytest.approx(0.7 / 3, abs=0.03)
        assert found.low < 0.7 / 3 < found.high
        assert found.p < 0.01
        assert found.pearson[:20].min() > found.pearson[20:].max()
        assert float(found.top_1) == pytest.approx(1 / 3, abs=0.1)

    def test_what_all_effects_have_in_common_is_not_agreement(self) -> None:
        """Every feature promotes the same strings: the value is high, and so is the null."""
        rng = np.random.default_rng(0)
        common = 3 * rng.standard_normal(200)
        a, b = (common + side for side in planted(40, 200, 0.0))
        found = effect_agreement(a, b)
        assert found.value > 0.8
        assert found.p > 0.05
        assert float(found.top_1) < 0.15

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["plain", "strata", "contexts"])
    def test_p_is_uniform_where_nothing_is_shared(self, kind: str) -> None:
        """Also for profiles that depend on the stratum alone, if partners are exchanged within it."""
        found = []
        for seed in range(400):
            a, b = planted(20, 15, 0.0, seed, contexts=3 if kind == "contexts" else None)
            labels = None
            if kind == "strata":
                labels = np.repeat(range(4), 5)
                kinds = np.random.default_rng(seed + 1000).standard_normal((4, 15))
                a, b = a + kinds[labels], b + kinds[labels]
            result = effect_agreement(a, b, draws=99, seed=seed, strata=labels)
            found.append([result.p, result.mrr.p])
        p = np.array(found)
        assert stats.kstest(p[:, 0] - np.random.default_rng(0).random(400) / 100, "uniform").pvalue > 0.01
        # Reciprocal ranks tie often, so their p-values are at least uniform.
        for level in (0.05, 0.2, 0.5):
            assert (p <= level + 1e-9).mean(axis=0).max() < level + 3 * np.sqrt(level * (1 - level) / 400)

    def test_without_strata_what_depends_on_them_is_found(self) -> None:
        labels = np.repeat(range(4), 10)
        kinds = np.random.default_rng(0).standard_normal((4, 50))
        a, b = (kinds[labels] + side for side in planted(40, 50, 0.0))
        assert effect_agreement(a, b).p < 0.01
        within = effect_agreement(a, b, strata=labels)
        assert within.p > 0.05
        assert within.strata == 4
        # A partner is among the ten of its kind, and so chance is better than 1 in 40.
        assert within.top_10.chance > 1.5 * effect_agreement(a, b).top_10.chance

    @pytest.mark.slow
    def test_intervals_cover(self) -> None:
        """Pairs drawn from a population in which half work alike."""
        covered = []
        for seed in range(300):
            rng = np.random.default_rng(seed)
            a, b = planted(40, 60, 0.0, seed)
            alike = rng.random(40) < 0.5
            b[alike] = a[alike] + rng.standard_normal((int(alike.sum()), 60))
            found = effect_agreement(a, b, draws=400, seed=seed)
            covered.append(found.low < 0.5 * _mean_r(60) < found.high)
        assert 0.9 < np.mean(covered) < 0.98


def _mean_r(n: int) -> float:
    """Expected Pearson's r of n draws at a true correlation of √½ (Olkin & Pratt 1958: to order 1/n)."""
    rho = np.sqrt(0.5)
    return float(rho * (1 - (1 - rho**2) / (2 * n)))


class TestUndefined:
    def test_pairs_without_an_effect_are_left_out(self) -> None:
        a, b = planted(12, 50, 0.3)
        expected = effect_agreement(a[2:], b[2:], draws=50)
        a[0], b[1] = np.nan, 3.0  # no number; the same everywhere
        found = effect_agreement(a, b, draws=50)
        assert (found.n, found.value) == (10, pytest.approx(expected.value))
        assert np.array_equal(found.rank[2:], expected.rank)
        assert np.isnan(found.pearson[:2]).all()
        assert found.flags == ("undefined: 2 of 12 pairs have no effect on one side and are left out",)

    def test_in_some_contexts(self) -> None:
        a, b = planted(12, 50, 0.3, contexts=3)
        a[4, 1] = np.nan
        found = effect_agreement(a, b, draws=50)
        assert found.pearson[4] == pytest.approx(np.mean([np.corrcoef(a[4, c], b[4, c])[0, 1] for c in (0, 2)]))
        assert found.flags == ()

    def test_features_that_share_no_context(self) -> None:
        a, b = planted(12, 50, 0.3, contexts=2)
        a[:6, 0], b[:6, 0], a[6:, 1], b[6:, 1] = (np.nan,) * 4
        found = effect_agreement(a, b, draws=50)
        assert any("no context in common" in flag for flag in found.flags)
        assert np.isfinite(found.null).all()
        assert found.rank.max() <= 6

    def test_contexts_that_no_two_pairs_share(self) -> None:
        """Each pair has a context of its own: there is nothing to exchange, and no figure has a p."""
        a, b = (np.full((6, 6, 20), np.nan) for _ in range(2))
        for pair in range(6):
            a[pair, pair], b[pair, pair] = np.random.default_rng(pair).standard_normal((2, 20))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = effect_agreement(a, b, draws=99)
        assert np.isfinite(found.value)
        assert np.isnan([found.p, found.top_1.p, found.top_10.p, found.mrr.p]).all()
        assert any("there is no p" in flag for flag in found.flags)

    @pytest.mark.slow
    def test_retrieval_is_calibrated_where_contexts_are_missing(self) -> None:
        """Half of the pairs are measured in each of two contexts, few in both: others that are undefined are no
        candidates, so that the true partner is not the most alike because nothing else is there.
        """
        p = []
        for seed in range(300):
            a, b = np.random.default_rng(seed).standard_normal((2, 12, 2, 30))
            for sides in (a, b):
                sides[:5, 0] = np.nan
                sides[7:, 1] = np.nan
            found = effect_agreement(a, b, draws=99, seed=seed)
            p.append([found.p, found.mrr.p, found.top_1.p])
        for column in np.transpose(p):
            few = int((column <= 0.05).sum())
            assert stats.binomtest(few, len(column), 0.05, alternative="greater").pvalue > 0.001

    def test_few_columns(self) -> None:
        few = effect_agreement(*planted(20, 10, 0.5))
        assert np.isnan(few.top_overlap).all()
        assert any("few columns: 10 are no more than 10" in flag for flag in few.flags)
        assert "top overlap" in few._repr_html_()
        assert effect_agreement(*planted(20, 50, 0.5)).flags == ()

    def test_few_pairs(self) -> None:
        a, b = planted(4, 50, 0.3)
        assert effect_agreement(a, b).flags == ("few pairs: there are only 24 exchanges",)
        alone = effect_agreement(*planted(9, 50, 0.3), strata=[0, 0, 0, 0, 0, 0, 0, 0, 1])
        assert alone.flags == ("strata: 1 of 9 pairs are alone in their stratum and keep their partner",)

    def test_nothing_to_exchange(self) -> None:
        found = effect_agreement(*planted(5, 50, 0.3), strata=range(5))
        assert found.p == found.mrr.p == 1


def test_how_it_is_shown() -> None:
    found = effect_agreement(*planted(20, 50, 0.5), draws=99)
    assert repr(found).startswith(f"effect agreement {found.value:.4f}  95% interval ")
    assert "(n=20, 99 exchanges, seed 0)" in repr(found)
    assert f"top 1 {found.top_1.value:.4f} (chance 0.0500, p 0.01)" in repr(found)
    assert f"effect agreement = {found.value:.4f}" in found._repr_html_()
    assert float(found) == found.value
    with pytest.raises(ValueError, match="read-only"):
        found.null[0] = 0


class TestRelation:
    def test_against_scipy(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.standard_normal(80).round(1)
        y = x + rng.standard_normal(80)
        y[3] = np.nan
        found = relation(x, y)
        known = ~np.isnan(y)
        expected = stats.spearmanr(x[known], y[known])
        assert float(found) == pytest.approx(expected.statistic)
        assert found.low < found.value < found.high
        assert (found.n, found.p) == (79, pytest.approx(1 / 1001))
        # Bonett & Wright 2000: the standard error of Fisher's z of a rank correlation.
        width = np.tanh(np.arctanh(found.value) + np.array([-1.96, 1.96]) * np.sqrt((1 + found.value**2 / 2) / 76))
        assert [found.low, found.high] == pytest.approx(width, abs=0.06)

    @pytest.mark.slow
    def test_calibrated_and_covering(self) -> None:
        """At a true Spearman of 0: p uniform. At 6/π·asin(½·½): the interval covers."""
        p, covered = [], []
        for seed in range(300):
            x, e = np.random.default_rng(seed).standard_normal((2, 50))
            p.append(relation(x, e, draws=99, seed=seed).p)
            found = relation(x, 0.5 * x + np.sqrt(0.75) * e, draws=300, seed=seed)
            covered.append(found.low < 6 / np.pi * np.arcsin(0.25) < found.high)
        assert stats.kstest(np.array(p) - np.random.default_rng(0).random(300) / 100, "uniform").pvalue > 0.01
        assert 0.9 < np.mean(covered) < 0.985

    def test_pairs_that_go_together(self) -> None:
        """Each number four times: the interval and p are those of a quarter of the pairs."""
        rng = np.random.default_rng(1)
        x = rng.standard_normal(25)
        y = 0.5 * x + rng.standard_normal(25)
        alone, units = relation(x, y), np.repeat(range(25), 4)
        found, apart = relation(x[units], y[units], units=units), relation(x[units], y[units])
        assert found.value == pytest.approx(alone.value, abs=0.01)
        assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.15)
        assert apart.high - apart.low < 0.7 * (found.high - found.low)
        assert found.p == pytest.approx(alone.p, abs=0.02)

    def test_what_does_not_vary(self) -> None:
        found = relation(np.ones(10), np.arange(10))
        assert np.isnan([found.value, found.low, found.high, found.p]).all()


class TestWrongInput:
    def test_shapes(self) -> None:
        with pytest.raises(UserError, match=r"profiles_a has shape \(4, 9\), profiles_b \(5, 9\)"):
            effect_agreement(np.zeros((4, 9)), np.zeros((5, 9)))
        with pytest.raises(UserError, match="profiles_b: give an array of 2 or 3 dimensions, not 1"):
            effect_agreement(np.zeros((4, 9)), np.zeros(4))
        with pytest.raises(UserError, match="profiles_a: give an array of numbers"):
            effect_agreement([["a"]], np.zeros((4, 9)))

    def test_infinite(self) -> None:
        a, b = planted(5, 9, 0.5)
        b[2, 3] = np.inf
        with pytest.raises(UserError, match="profiles_b: an effect is infinite"):
            effect_agreement(a, b)

    def test_too_few(self) -> None:
        with pytest.raises(UserError, match="2 of 2 pairs have effects on both sides: give at least 3"):
            effect_agreement(*planted(2, 9, 0.5))
        with pytest.raises(UserError, match="0 of 4 pairs have effects"):
            effect_agreement(np.zeros((4, 9)), np.ones((4, 9)))

    @pytest.mark.parametrize("settings", [{"draws": 0}, {"seed": -1}, {"level": 1}, {"strata": [1, 2]}])
    def test_settings(self, settings: dict[str, object]) -> None:
        with pytest.raises(UserError, match=next(iter(settings))):
            effect_agreement(*planted(5, 9, 0.5), **settings)  # type: ignore[arg-type]

    def test_of_relations(self) -> None:
        with pytest.raises(UserError, match="3 values of x and 4 of y"):
            relation([1, 2, 3], [1, 2, 3, 4])
        with pytest.raises(UserError, match="only 2 pairs have both numbers"):
            relation([1, 2, 3, np.nan], [1, 2, np.nan, 4])
