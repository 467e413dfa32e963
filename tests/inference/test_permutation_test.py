"""The permutation test: planted truth, chance, seeds, batches, and what it refuses."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.stats import kstest

import unifeat as uf
from unifeat import threads
from unifeat.errors import UserError
from unifeat.geometry import MEASURES
from unifeat.inference import SharedRows, null_scores, permutation_test, permutations, with_settings

MEASURE = pytest.mark.parametrize("measure", [uf.svcca, uf.rsa, uf.cka])


def related(n=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6))
    return x, x @ rng.standard_normal((6, 8)) + 0.5 * rng.standard_normal((n, 8))


@MEASURE
def test_a_planted_pairing_is_found(measure):
    x, y = related()
    test = permutation_test(measure, x, y, permutations=199)
    assert test.p == 1 / 200
    assert test.score == float(measure(x, y))
    assert test.score > test.null.max()
    assert 0.3 < test.corrected < test.score
    assert test.null.shape == (199,)
    assert test.null.dtype == np.float64
    assert test.null_mean == pytest.approx(test.null.mean())
    assert test.null_sd == pytest.approx(test.null.std(ddof=1))


@MEASURE
def test_without_a_relation_p_is_uniform(measure):
    rng = np.random.default_rng(1)
    ps = []
    for seed in range(150):
        x, y = rng.standard_normal((12, 3)), rng.standard_normal((12, 4))
        ps.append(permutation_test(measure, x, y, permutations=39, seed=seed).p)
    assert kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) < 0.1


@MEASURE
def test_the_null_is_the_measure_of_shuffled_rows(measure):
    x, y = related(30)
    test = permutation_test(measure, x, y, permutations=5, seed=3)
    anew = [float(measure(x, y[order])) for order in permutations(30, 5, 3)]
    np.testing.assert_allclose(test.null, anew, atol=1e-10)


def test_names_functions_and_entries_are_the_same():
    x, y = related()
    tests = [permutation_test(m, x, y, permutations=9) for m in ("rsa", uf.rsa, MEASURES["rsa"])]
    for test in tests:
        assert test.measure == "rsa"
        np.testing.assert_array_equal(test.null, tests[0].null)


def test_settings_reach_the_measure():
    x, y = related()
    test = permutation_test("svcca", x, y, permutations=9, dims=2)
    assert test.settings == {"dims": 2}
    assert test.observed.details["dims_a"] == 2
    assert test.score == float(uf.svcca(x, y, dims=2))


def test_seed_repeats_and_changes():
    x, y = related()
    nulls = [permutation_test("cka", x, y, permutations=20, seed=s).null for s in (1, 1, 2)]
    np.testing.assert_array_equal(nulls[0], nulls[1])
    assert not np.array_equal(nulls[0], nulls[2])


def test_batches_in_any_order_make_the_same_null():
    x, y = related()
    prepared = MEASURES["rsa"].prepare(x, y)
    batches = {start: null_scores(prepared, 7, seed=5, start=start) for start in (14, 0, 7)}
    whole = permutation_test("rsa", x, y, permutations=21, seed=5).null
    np.testing.assert_array_equal(np.concatenate([batches[s] for s in sorted(batches)]), whole)


def test_permutations_are_permutations_that_depend_on_seed_n_and_number_alone():
    first = list(permutations(50, 6, 9))
    for order in first:
        np.testing.assert_array_equal(np.sort(order), np.arange(50))
    for b, order in enumerate(first):
        np.testing.assert_array_equal(next(permutations(50, 1, 9, start=b)), order)
    assert len({tuple(order) for order in first}) == 6
    assert not np.array_equal(next(permutations(50, 1, 10)), first[0])
    # Written down once: these are the same on every machine and numpy version, or published nulls would move.
    assert next(permutations(8, 1, 0)).tolist() == [2, 4, 6, 1, 5, 3, 7, 0]


def test_permutations_are_uniform():
    orders = np.array(list(permutations(4, 4800, 0)))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert counts.size == 24
    assert ((counts - 200) ** 2 / 200).sum() < 49.7  # chi², 23 degrees of freedom, p = .001


@MEASURE
def test_undefined_scores_have_no_p(measure):
    x, _ = related()
    test = permutation_test(measure, x, np.ones((60, 3)), permutations=9)
    assert all(math.isnan(v) for v in (test.score, test.p, test.corrected, test.threshold, test.null_mean))
    assert test.flags[0].startswith("constant y")


def test_a_saturated_score_is_worth_nothing():
    rng = np.random.default_rng(0)
    test = permutation_test("svcca", rng.standard_normal((10, 30)), rng.standard_normal((10, 40)), permutations=50)
    assert test.score == pytest.approx(1.0)
    assert (test.p, test.corrected) == (1.0, 0.0)
    assert any(flag.startswith("saturated") for flag in test.flags)


def test_identity_among_few_shuffles_counts_as_a_tie():
    x, y = related(4)
    test = permutation_test("rsa", x, y, permutations=400)
    assert any(flag.startswith("few shuffles: 4 pairs have only 24") for flag in test.flags)
    assert test.least_p == pytest.approx(1 / 24)
    assert test.p > 1 / 24 - 0.03


def test_too_few_permutations_are_flagged():
    test = permutation_test("cka", *related(), permutations=10)
    assert any(flag.startswith("few permutations") for flag in test.flags)
    assert test.corrected == 0.0


def test_it_shows_itself():
    test = permutation_test("svcca", *related(), permutations=30, dims=2)
    assert "dims=2" in repr(test)
    assert "components 2 and 2" in repr(test)
    assert "p 0.03226" in repr(test)
    assert "<table>" in test._repr_html_()
    with pytest.raises(ValueError, match="read-only"):
        test.null[0] = 1.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"measure": "rsaa"}, "unknown measure 'rsaa' .did you mean 'rsa'"),
        ({"measure": np.mean}, "unknown measure 'mean'"),
        ({"permutations": 0}, "permutations=0"),
        ({"permutations": 10.5}, r"permutations=10\.5"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**64}, r"too large: give a whole number, 2\*\*64 − 1 at most"),
        ({"permutations": 10**12}, "permutations=1000000000000 is too large: give a whole number, 1,000,000 at most"),
        ({"alpha": 0}, "alpha=0"),
        ({"dims": 3}, "rsa has no setting 'dims'"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, words):
    x, y = related()
    with pytest.raises(UserError, match=words):
        permutation_test(**{"measure": "rsa", "x": x, "y": y, "permutations": 5} | arguments)


def test_settings_of_the_measure_that_are_called_as_the_tests_own():
    """`alpha` of a ridge map is no level, and `seed` of its folds not that of the shuffles."""
    x, y = related()
    for alpha, seed in ((0.5, 3), (2.0, 7)):
        test = permutation_test(with_settings("ridge_map", {"alpha": alpha, "seed": seed}), x, y, permutations=5)
        assert test.score == uf.ridge_map(x, y, alpha=alpha, seed=seed).value
        assert (test.settings["alpha"], test.settings["seed"]) == (alpha, seed)
        assert (test.alpha, test.seed) == (0.05, 0)
        with pytest.raises(UserError, match=r"ridge_map has no setting 'alhpa' .did you mean 'alpha'"):
            with_settings("ridge_map", {"alhpa": alpha})


def test_sizes_that_no_machine_holds():
    for ask in (lambda: permutations(10**12, 1), lambda: SharedRows(np.arange(3), 10**12)):
        with pytest.raises(UserError, match="=1000000000000 is too large: give a whole number, 2,147,483,648 at most"):
            ask()


def test_the_published_null_of_one_component_follows_its_law():
    """The mean of abs(correlation) over shuffles is √(2/πn): the paper's nulls do the same (method.md, 3.1)."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 20)), rng.standard_normal((400, 30))
    test = permutation_test("svcca", x, y, dims=1, permutations=1000)
    assert test.null_mean == pytest.approx(math.sqrt(2 / (math.pi * 400)), rel=0.08)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("heldout_cca", {}), ("procrustes", {"heldout": True}), ("pwcca", {}), ("heldout_cca", {"dims": 200})],
)
def test_long_shuffles_run_in_threads_and_give_the_same_bits(name, settings, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 210)), rng.standard_normal((300, 240))
    measure = MEASURES[name]
    prepared = measure.prepare(x, y, **settings)
    assert prepared.heavy
    seen = []
    real = type(prepared).shuffled
    monkeypatch.setattr(
        type(prepared), "shuffled", lambda self, order: seen.append(threading.get_ident()) or real(self, order)
    )
    monkeypatch.setattr(threads, "_cores_of_process", lambda: 3)
    nulls = []
    for number in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        seen.clear()
        nulls.append(null_scores(prepared, 9, seed=1))
        assert (threading.get_ident() in seen) == (number == "1")
    np.testing.assert_array_equal(*nulls)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with ThreadPoolExecutor(1) as pool:  # as in an engine, which keeps all cores busy
        seen.clear()
        np.testing.assert_array_equal(pool.submit(null_scores, prepared, 9, 1).result(), nulls[0])
        assert len(set(seen)) == 1
    assert not MEASURES[name].prepare(x[:40], y[:40], **settings).heavy
