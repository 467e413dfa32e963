"""A cheap shuffle is the measure called anew, for every measure and setting."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, _cka, _pairs, _svcca

SETTINGS = [
    ("svcca", {}),
    ("svcca", {"dims": 1}),
    ("svcca", {"dims": 5}),
    ("svcca", {"variance": 1.0}),
    ("svcca", {"variance": 0.7}),
    *[("rsa", {"inner": i, "outer": o}) for i in ("cosine", "euclidean", "pearson") for o in ("spearman", "pearson")],
    ("cka", {}),
    ("cka", {"debiased": True}),
    ("pwcca", {}),
    ("pwcca", {"dims": 5}),
    ("heldout_cca", {}),
    ("heldout_cca", {"dims": 4, "folds": 2, "seed": 1}),
    ("heldout_cca", {"variance": 1.0, "ridge": 0.01}),
    ("procrustes", {}),
    ("procrustes", {"heldout": True}),
    ("ridge_map", {}),
    ("ridge_map", {"alpha": 1e-3, "folds": 3}),
    ("mutual_knn", {}),
    ("mutual_knn", {"k": 3, "metric": "euclidean"}),
    ("mean_max_cosine", {}),
]
EVERY = pytest.mark.parametrize(("name", "settings"), SETTINGS)


def worst_gap(name, settings, x, y, shuffles=4):
    measure = MEASURES[name]
    prepared = measure.prepare(x, y, **settings)
    rng = np.random.default_rng(5)
    orders = [np.arange(len(x))] + [rng.permutation(len(x)) for _ in range(shuffles)]
    gaps = [abs(prepared.shuffled(p) - float(measure.function(x, y[p], **settings))) for p in orders]
    assert max(gaps) <= prepared.tolerance
    return max(gaps)


@EVERY
@pytest.mark.parametrize("n", [5, 13, 24, 60, 700])
def test_equals_the_measure_anew(name, settings, n, views_for):
    assert worst_gap(name, settings, *views_for(MEASURES[name], n=n)) < 1e-10


@EVERY
def test_wide_sides(name, settings, views_for):
    assert worst_gap(name, settings, *views_for(MEASURES[name], n=120, d_a=70, d_b=50)) < 1e-10
    assert worst_gap(name, settings, *views_for(MEASURES[name], n=40, d_a=70, d_b=90)) < 1e-10


@EVERY
def test_ties_and_repeated_rows(name, settings):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 3, (40, 6)).astype(float), rng.integers(1, 4, (40, 6)).astype(float)
    x[:, :2] = y[:, :2] = 1, 3  # no row is constant, which would leave a measure undefined
    assert worst_gap(name, settings, x, y) < 1e-10


@EVERY
def test_float32_of_large_n_stays_within_a_millionth(name, settings, views_for, monkeypatch):
    monkeypatch.setattr(_pairs, "FLOAT64_UP_TO", 10)
    monkeypatch.setattr(_cka, "FLOAT64_UP_TO", 10)
    monkeypatch.setattr(_svcca, "_FLOAT32_ABOVE", 10)
    for n in (30, 400):
        assert worst_gap(name, settings, *views_for(MEASURES[name], n=n, d_a=40, d_b=45)) < 1e-6


@pytest.mark.parametrize("debiased", [False, True])
def test_both_ways_to_a_cka_shuffle_agree(debiased, views, monkeypatch):
    x, y = views(n=50)
    for limit in (0, 10**6):
        monkeypatch.setattr(_cka, "_GRAM_UP_TO_PAIRS", limit)
        monkeypatch.setattr(_cka, "_ADDS_PER_GATHER", 1e-9)
        assert worst_gap("cka", {"debiased": debiased}, x, y) < 1e-10


def test_correlations_near_zero_keep_their_digits():
    # Disjoint supports: most canonical correlations vanish, where square roots of eigenvalues lose digits.
    n, d = 400, 80
    x, y = np.zeros((n, d)), np.zeros((n, d))
    x[np.arange(d), np.arange(d)] = 1.0
    y[n - 1 - np.arange(d), np.arange(d)] = 1.0
    assert worst_gap("svcca", {"variance": 1.0}, x, y) < 1e-10


@EVERY
def test_direction_of_the_permutation(name, settings, views_for):
    """Row i of x goes with row permutation[i] of y: undoing a shuffle of y restores the score."""
    measure = MEASURES[name]
    x, y = views_for(measure)
    order = np.random.default_rng(0).permutation(60)
    restored = measure.prepare(x, y[order], **settings).shuffled(np.argsort(order))
    assert restored == pytest.approx(float(measure.function(x, y, **settings)), abs=1e-10)


@pytest.mark.parametrize("name", MEASURES)
def test_pure_function_of_the_prepared_and_the_permutation(name, views_for):
    prepared = MEASURES[name].prepare(*views_for(MEASURES[name]))
    orders = [np.random.default_rng(b).permutation(60) for b in range(12)]
    expected = [prepared.shuffled(order) for order in orders]
    travelled = pickle.loads(pickle.dumps(prepared))
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(travelled.shuffled, reversed(orders))) == expected[::-1]


@pytest.mark.parametrize("name", MEASURES)
def test_threads_do_not_change_a_bit(name, views_for, monkeypatch):
    x, y = views_for(MEASURES[name], n=2100, d_a=60, d_b=70)
    order = np.random.default_rng(0).permutation(2100)
    results = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        results.append(MEASURES[name].prepare(x, y).shuffled(order))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(
    "order",
    [np.arange(59), np.arange(60.0), np.zeros(60, int), np.arange(60) + 1, np.arange(60)[None], -np.arange(60)],
)
def test_what_is_no_permutation_is_refused(name, order, views_for):
    with pytest.raises(UserError, match="permutation"):
        MEASURES[name].prepare(*views_for(MEASURES[name])).shuffled(order)


@EVERY
def test_only_a_measure_that_sees_the_pairing_moves_with_a_shuffle(name, settings, views_for):
    measure = MEASURES[name]
    prepared = measure.prepare(*views_for(measure), **settings)
    moved = abs(prepared.shuffled(np.random.default_rng(0).permutation(60)) - prepared.score().value) > 1e-6
    assert moved == measure.sees_pairing
    assert measure.sees_pairing != any(flag.startswith("pairing-blind:") for flag in prepared.score().flags)
