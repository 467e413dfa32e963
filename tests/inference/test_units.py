"""Rows that repeat: shuffled as one, held out as one, counted once."""

import numpy as np
import pytest
from scipy.stats import binom

import unifeat as uf
from unifeat.errors import UserError
from unifeat.geometry import MEASURES
from unifeat.geometry._labels import Distinct, codes_of
from unifeat.inference import permutation_test, subsample_interval

CASES = [
    *(("cka", {}), ("rsa", {}), ("svcca", {"dims": 6}), ("pwcca", {"dims": 6}), ("procrustes", {"heldout": True})),
    *(("ridge_map", {}), ("mutual_knn", {"k": 5}), ("heldout_cca", {"dims": 4})),
]  # fmt: skip
GROUPED = ("procrustes", "ridge_map", "heldout_cca")


def split(concepts, seed, *, shared=False, most=4, noise=0.3):
    """Features of A paired with several near copies each in B, as `max` does where B splits features of A.

    A's rows are noise, unless the concepts are `shared`. Returns x, y and the feature of A of each pair.
    """
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(concepts), rng.integers(1, most + 1, concepts))
    x, y = rng.standard_normal((concepts, 16)), rng.standard_normal((concepts, 24))
    if shared:
        y[:, :16] += x
    return x[label], y[label] + noise * rng.standard_normal((len(label), 24)), label


def by_units(name, settings, x, y, label, seed):
    groups = {"groups": label} if name in GROUPED else {}
    return permutation_test(name, x, y, permutations=19, seed=seed, units=label, **settings, **groups)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_split_features_alone_are_found_by_shuffles_of_rows_and_not_by_those_of_units(name, settings):
    rows = units = found = 0
    for seed in range(12):
        x, y, label = split(40, seed)
        rows += permutation_test(name, x, y, permutations=19, seed=seed, **settings).p <= 0.05
        units += by_units(name, settings, x, y, label, seed).p <= 0.05
        found += by_units(name, settings, *split(40, seed, shared=True), seed).p <= 0.05
    assert rows >= 10
    assert units <= 4  # of 12 at .05: more than 4 once in 5,000
    assert found >= 11


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), CASES)
@pytest.mark.parametrize("concepts", [12, 40])
def test_the_nominal_rate(name, settings, concepts):
    trials = 200
    found = sum(by_units(name, settings, *split(concepts, seed), seed).p <= 0.05 for seed in range(trials))
    assert found <= binom.ppf(0.9999, trials, 0.05)  # 24


@pytest.mark.slow
def test_matching_by_max_where_b_splits_what_a_has():
    """The whole way: codes that are shared and split in B, decoders of A that have nothing to do with those of B."""
    rows = units = 0
    trials = 60
    for seed in range(trials):
        world = uf.synthetic.plant(
            n_tokens=4000, features_a=60, features_b=160, d_a=16, d_b=24, shared=0.8, split=1.0, parts=3, noise=0.3,
            direction_noise=0.3, frequency=0.03, seed=seed,
        )  # fmt: skip
        pairs = uf.match(
            uf.correlate(world.codes_a, world.codes_b, top=4), "max", direction="b_to_a", min_correlation=0.2
        )
        a, b = (pairs[f"feature_{side}"].to_numpy() for side in "ab")
        assert len(np.unique(a)) < 0.7 * len(a)
        x = np.random.default_rng(seed).standard_normal(world.decoder_a.shape)[a]
        test = {"permutations": 19, "seed": seed}
        rows += permutation_test("cka", x, world.decoder_b[b], **test).p <= 0.05
        units += permutation_test("cka", x, world.decoder_b[b], **test, units=a).p <= 0.05
    assert rows == trials
    assert units <= binom.ppf(0.9999, trials, 0.05)


class TestFolds:
    @pytest.mark.parametrize("name", GROUPED)
    def test_rows_of_a_group_are_held_out_together(self, name):
        x, y, label = split(20, 0, most=3)
        settings = {"heldout": True} if name == "procrustes" else {"dims": 4} if name == "heldout_cca" else {}
        measure = MEASURES[name]
        prepared = measure.prepare(x, y, groups=label, **settings)
        tests = prepared._b.tests if name == "heldout_cca" else getattr(prepared, "_tests", None) or prepared._b._tests
        assert len(tests) == 5
        for test in tests:
            assert not set(label[test]) & set(np.delete(label, test))
        np.testing.assert_array_equal(np.sort(np.concatenate(tests)), np.arange(len(x)))
        score = prepared.score()
        assert score.settings["groups"] == 20
        named = np.array([f"feature {number}" for number in label])
        assert measure.function(x, y, groups=named, **settings).value == score.value
        order = np.random.default_rng(0).permutation(len(x))
        anew = measure.function(x, y[order], groups=label, **settings)
        assert prepared.shuffled(order) == pytest.approx(float(anew), abs=1e-9)

    @pytest.mark.parametrize("name", GROUPED)
    def test_groups_of_one_are_no_groups(self, name):
        x, y, _ = split(20, 0, most=3)
        settings = {"heldout": True} if name == "procrustes" else {}
        measure = MEASURES[name]
        alone = measure.function(x, y, groups=np.random.default_rng(0).permutation(len(x)), **settings)
        assert alone.value == measure.function(x, y, **settings).value

    def test_what_repeats_is_no_evidence_of_a_map(self):
        """A map that has seen a row predicts it: R² of noise is far above 0 unless equal rows are held out together."""
        x, y, label = split(60, 0, most=6, noise=0.0)
        assert float(uf.ridge_map(x, y)) > 0.2
        assert float(uf.ridge_map(x, y, groups=label)) < 0

    def test_mistakes(self):
        x, y, label = split(20, 0)
        with pytest.raises(UserError, match="ridge_map groups: 3 are too few: give at least 4"):
            uf.ridge_map(x, y, groups=label % 3)
        with pytest.raises(UserError, match=r"heldout_cca groups: give one label for each of \d+ pairs, not 2"):
            uf.heldout_cca(x, y, groups=[1, 2])
        few = uf.ridge_map(x, y, groups=label % 6)
        assert few.flags[0] == "folds: 6 groups are too few for 5 folds of two or more, 3 used"

    def test_halves_take_their_groups(self):
        x, y, label = split(60, 0, shared=True)
        interval = subsample_interval("ridge_map", x, y, groups=label, subsamples=10)
        assert interval.score == float(uf.ridge_map(x, y, groups=label))
        assert interval.low < interval.score < interval.high


class TestFlags:
    def test_a_score_of_one_by_repeated_pairs_is_flagged(self):
        rng = np.random.default_rng(0)
        again = np.repeat(np.arange(12), 7)[:80]
        x, y = rng.standard_normal((12, 16))[again], rng.standard_normal((12, 24))[again]
        for name, settings in (("pwcca", {}), ("svcca", {"variance": 1.0})):
            score = MEASURES[name].function(x, y, **settings)
            assert float(score) == pytest.approx(1.0)
            assert "n <= d: 12 different of 80 pairs in 16 and 24 dimensions" in score.flags[0]
            assert "saturated: 12 different of 80 pairs force" in score.flags[1]
        for name, settings in (("cka", {}), ("procrustes", {}), ("procrustes", {"heldout": True}), ("ridge_map", {})):
            flags = MEASURES[name].function(x, y, **settings).flags
            assert any(flag.startswith("n <= d: 12 different of 80 pairs") for flag in flags), name
        held = uf.heldout_cca(x, y, groups=again)
        assert any(flag.startswith("saturated: 9 training pairs") for flag in held.flags)

    def test_two_or_four_different_pairs(self):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((2, 40, 3))
        assert (
            "saturated: 2 different of 40 pairs have one"
            in uf.cka(x[np.arange(40) % 2], y[np.arange(40) % 2]).flags[-1]
        )
        few = uf.rsa(x[np.arange(40) % 4], y[np.arange(40) % 4])
        assert few.flags[0].startswith("few pairs: 4 different of 40 pairs have 6 dissimilarities")

    def test_pairs_that_differ_on_one_side_are_different(self):
        x, y, _ = split(20, 0)
        assert Distinct.of(x, y) == (len(x), 20, len(x), len(x))
        plus, minus = np.zeros((3, 2)), np.array([[-0.0, 0.0], [0.0, -0.0], [1.0, 0.0]])
        assert Distinct.of(plus, minus) == (3, 1, 2, 2)

    def test_units_that_cannot_move(self):
        x, y, _ = split(12, 0, most=1)
        units = [0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7]
        test = permutation_test("rsa", x, y, permutations=300, units=units)
        assert (test.units, test.fixed, test.strata) == (8, 3, None)
        assert "units: 3 of 12 pairs are in units that no other equals in size and stay where they are" in test.flags
        assert "few shuffles: 12 pairs in 8 units have only 240 pairings" in test.flags
        assert test.least_p == pytest.approx(1 / 240)
        assert "300 permutations of 8 units" in repr(test)


def test_labels_are_numbered_as_they_appear():
    for labels in (np.array([7, 3, 7, 9]), ["b", "a", "b", "c"], np.array([[2, 1], [0, 5], [2, 1], [2, 2]])):
        assert codes_of(labels, 4, "groups").tolist() == [0, 1, 0, 2]
