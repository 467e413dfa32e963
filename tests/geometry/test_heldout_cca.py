"""Held-out CCA against CCA solved otherwise, fold by fold; and what the folds promise."""

from itertools import permutations

import numpy as np
import pytest
from scipy.linalg import eigh
from sklearn.cross_decomposition import CCA
from sklearn.decomposition import PCA

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, _fold_correlations, heldout_cca, svcca
from unifeat.geometry._folds import held_out
from unifeat.inference import permutation_test
from unifeat.synthetic import plant_rows


def by_generalised_eigenvectors(x, y, folds, seed, ridge=0.0):
    """C_ab C_bb⁻¹ C_ba a = ρ² C_aa a on the training rows; correlations of the held-out rows by numpy."""
    n, m = len(x), min(x.shape[1], y.shape[1])
    x, y = x - x.mean(0), y - y.mean(0)
    values = []
    for test in held_out(n, folds, seed)[0]:
        train = np.setdiff1d(np.arange(n), test)
        a, b = x[train] - x[train].mean(0), y[train] - y[train].mean(0)
        caa, cbb = (
            m.T @ m + ridge * len(train) / n * np.mean(np.sum(whole**2, axis=0)) * np.eye(m.shape[1])
            for m, whole in ((a, x), (b, y))
        )
        cab = a.T @ b
        _, vectors = eigh(cab @ np.linalg.solve(cbb, cab.T), caa)
        wa = vectors[:, ::-1][:, :m]
        wb = np.linalg.solve(cbb, cab.T @ wa)
        values.append([np.corrcoef(x[test] @ wa[:, i], y[test] @ wb[:, i])[0, 1] for i in range(m)])
    return np.array(values)


@pytest.mark.parametrize(("folds", "seed", "ridge"), [(5, 0, 0.0), (2, 3, 0.0), (7, 1, 0.0), (5, 0, 0.3)])
def test_equals_cca_of_each_fold_by_another_route(folds, seed, ridge, views):
    x, y = views(n=120)
    expected = by_generalised_eigenvectors(x, y, folds, seed, ridge)
    score = heldout_cca(x, y, variance=1.0, folds=folds, seed=seed, ridge=ridge)
    assert float(score) == pytest.approx(expected.mean(), abs=1e-9)
    np.testing.assert_allclose(score.details["by_fold"], expected.mean(axis=1), atol=1e-9)
    np.testing.assert_allclose(score.details["correlations"], expected.mean(axis=0), atol=1e-9)
    assert score.details["folds_used"] == folds


@pytest.mark.parametrize("dims", [1, 4, 9])
def test_components_are_those_of_all_rows(dims, views):
    x, y = views(n=90)
    expected = by_generalised_eigenvectors(PCA(dims).fit_transform(x), PCA(dims).fit_transform(y), 5, 0)
    assert float(heldout_cca(x, y, dims=dims)) == pytest.approx(expected.mean(), abs=1e-9)


def test_equals_scikit_learn(views):
    x, y = views(n=150, d_a=4, d_b=5)
    expected = []
    for test in held_out(150, 3, 0)[0]:
        train = np.setdiff1d(np.arange(150), test)
        a, b = CCA(4, max_iter=5000, tol=1e-12).fit(x[train], y[train]).transform(x[test], y[test])
        expected.append([np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)])
    assert float(heldout_cca(x, y, variance=1.0, folds=3)) == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize("n", [4, 5, 11, 100])
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_are_a_partition_that_the_seed_decides(n, folds):
    tests, flags = held_out(n, folds, 0)
    np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(n))
    assert len(tests) == min(folds, n // 2)
    assert {t.size for t in tests} <= {n // len(tests), -(-n // len(tests))}
    assert bool(flags) == (n // 2 < folds)
    assert all(np.array_equal(a, b) for a, b in zip(tests, held_out(n, folds, 0)[0], strict=True))
    others = [np.concatenate(held_out(n, folds, seed)[0]).tolist() for seed in range(6)]
    assert len({tuple(other) for other in others}) > 1


@pytest.mark.parametrize(
    ("n", "d", "settings"),
    [(6, 2, {"folds": 3}), (6, 9, {"folds": 2}), (7, 3, {"folds": 2, "dims": 2}), (6, 4, {"ridge": 0.5})],
)
@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.slow
def test_the_mean_over_every_pairing_is_exactly_zero(n, d, settings):
    rng = np.random.default_rng(n)
    x, y = rng.lognormal(size=(n, d)), rng.standard_normal((n, d + 1))
    prepared = MEASURES["heldout_cca"].prepare(x, y, **settings)
    orders = permutations(range(n))
    values = [prepared.shuffled(np.array(order)) for order in orders]
    assert np.std(values) > 0.05
    assert np.mean(values) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("n", [10, 30, 100, 400])
def test_unrelated_sides_average_zero_whatever_n(n):
    rng = np.random.default_rng(n)
    values = [float(heldout_cca(rng.standard_normal((n, 20)), rng.standard_normal((n, 30)))) for _ in range(60)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60)
    assert min(values) < 0 < max(values)
    assert float(svcca(rng.standard_normal((n, 20)), rng.standard_normal((n, 30)))) > 0.15


def test_a_shared_subspace_is_read_on_unseen_pairs(views):
    x, y = views(n=600, noise=0.1)
    score = heldout_cca(x, y, dims=5)
    assert float(score) > 0.98
    assert score.details["fitted"] == pytest.approx(float(score), abs=0.01)
    noisy = heldout_cca(*views(n=80, noise=3))
    assert noisy.details["fitted"] > float(noisy) + 0.2


@pytest.mark.parametrize("n", [4, 6, 13, 20])
def test_few_pairs_are_flagged_and_far_from_one(n):
    rng = np.random.default_rng(0)
    scores = [heldout_cca(*(rng.standard_normal((n, d)) for d in (12, 17))) for _ in range(20)]
    assert all(any(flag.startswith("saturated:") for flag in score.flags) for score in scores)
    assert abs(np.mean([float(score) for score in scores])) < 0.5
    assert all(any(flag.startswith("folds:") for flag in score.flags) == (n < 10) for score in scores)


@pytest.mark.parametrize("n", [8, 13, 24])
def test_forced_correlations_do_not_leave_the_value_to_rounding(n, views):
    x, y = views(n=n, noise=2)
    expected = float(heldout_cca(x, y, variance=1.0))
    rng = np.random.default_rng(0)
    for _ in range(5):
        qa, qb = (np.linalg.qr(rng.standard_normal((d, d)))[0] for d in (12, 17))
        assert float(heldout_cca(3 * x @ qa + 1, y @ qb, variance=1.0)) == pytest.approx(expected, abs=1e-8)


def test_a_side_that_stands_still_in_a_fold_predicts_nothing(views):
    x, y = views(n=40)
    x = np.zeros_like(x)
    x[7, 0] = 1.0  # one row differs: every fold trains or reads on a constant side
    assert float(heldout_cca(x, y)) == 0.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folds": 1}, "folds=1"),
        ({"folds": 2.0}, r"folds=2\.0"),
        ({"seed": -1}, "seed=-1"),
        ({"ridge": -0.1}, r"ridge=-0\.1"),
        ({"ridge": float("nan")}, "ridge=nan"),
        ({"ridge": "some"}, "ridge='some'"),
        ({"dims": 2, "variance": 0.9}, "not both"),
    ],
)
def test_bad_settings_are_named(settings, words, views):
    with pytest.raises(UserError, match=words):
        heldout_cca(*views(), **settings)


def test_three_pairs_are_too_few(views):
    with pytest.raises(UserError, match="3 pairs are too few: held-out CCA needs at least 4"):
        heldout_cca(*views(n=3))


def without(monkeypatch, *ways):
    for way in ways:
        monkeypatch.setattr(_fold_correlations._Pairing, way, lambda *_: None)


@pytest.mark.parametrize("ridge", [0.0, 0.02])
@pytest.mark.parametrize(
    ("k_a", "k_b"), [(20, 30), (40, 45), (30, 90), (60, 80), (70, 90), (50, 95), (94, 95), (60, 60)]
)
def test_three_ways_to_a_fold_agree(k_a, k_b, ridge, views, monkeypatch):
    """With 96 training pairs: far more than components, some correlations forced to 1, all of them."""
    x, y = views(n=120, d_a=k_a, d_b=k_b, noise=3)
    order = np.random.default_rng(0).permutation(120)
    values = []
    for ways in ((), ("_by_complement",), ("_by_complement", "_with_few_held_out")):
        with monkeypatch.context() as patched:
            without(patched, *ways)
            for sides in ((x, y[order]), (y[order], x)):
                values.append(float(heldout_cca(*sides, variance=1.0, ridge=ridge)))
    assert max(values) - min(values) < 1e-9


def test_each_way_is_taken(views, monkeypatch):
    taken = []
    for way in ("_by_complement", "_with_few_held_out", "_with_both_whitened"):
        real = getattr(_fold_correlations._Pairing, way)

        def spy(self, *given, way=way, real=real):
            found = real(self, *given)
            taken.append(way if found else f"not {way}")
            return found

        monkeypatch.setattr(_fold_correlations._Pairing, way, spy)
    for (k_a, k_b), expected in (
        ((50, 80), {"_by_complement"}),
        ((40, 45), {"_with_few_held_out"}),
        ((20, 23), {"_with_both_whitened"}),
        ((50, 110), {"not _with_few_held_out", "_with_both_whitened"}),
    ):
        taken.clear()
        heldout_cca(*views(n=120, d_a=k_a, d_b=k_b, noise=3), variance=1.0)
        assert set(taken) == expected


def tied_by_hand(x, y, both):
    """Held-out reading where every fitted correlation is 1, side by side, from least squares of least norm."""
    values = []
    for test in held_out(len(x), 5, 0)[0]:
        train = np.setdiff1d(np.arange(len(x)), test)
        read = []
        for target, source in ((x, y), (y, x))[: 1 + both]:
            mean_t, mean_s = target[train].mean(0), source[train].mean(0)
            predicted = (source[test] - mean_s) @ np.linalg.pinv(source[train] - mean_s) @ (target[train] - mean_t)
            known = (target[train] - mean_t).T
            actual = (target[test] - mean_t) @ known @ np.linalg.pinv(known)  # what the training rows span
            read.append(np.corrcoef((actual - actual.mean(0)).ravel(), (predicted - predicted.mean(0)).ravel())[0, 1])
        values.append(np.mean(read))
    return np.mean(values)


@pytest.mark.parametrize(("n", "d_a", "d_b", "both"), [(60, 30, 55, False), (60, 55, 30, False), (40, 60, 70, True)])
def test_tied_directions_are_read_together(n, d_a, d_b, both, views):
    """By hand: what one side predicts of the other, of the narrower one, or of each if both span the training pairs."""
    x, y = (side - side.mean(0) for side in views(n=n, d_a=d_a, d_b=d_b, noise=2))
    narrow, wide = (x, y) if d_a <= d_b else (y, x)
    score = heldout_cca(x, y, variance=1.0)
    assert score.details["fitted"] == pytest.approx(1.0, abs=1e-12)
    assert float(score) == pytest.approx(tied_by_hand(narrow, wide, both), abs=1e-9)


def test_what_is_shared_is_found_though_all_correlations_are_forced():
    values = []
    for shared in (0.0, 0.9):
        x, y = plant_rows(60, 40, 70, shared=shared, noise=0.5, decay=0.3, seed=1)
        test = permutation_test("heldout_cca", x, y, permutations=39)
        assert any(flag.startswith("saturated") for flag in test.flags)
        values.append(test.p)
    assert values[0] > 0.1
    assert values[1] == 1 / 40
