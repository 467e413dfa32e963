"""Planted spaces are as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

import unifeat as uf
from unifeat.errors import UserError
from unifeat.matching.methods import METHODS

plant, plant_rows = uf.synthetic.plant, uf.synthetic.plant_rows


def firing(codes):
    return np.bincount(codes.indices, minlength=codes.shape[1])


def test_shapes_and_counts():
    world = plant(n_tokens=3000, documents=40, features_a=50, features_b=70, d_a=8, d_b=12, shared=0.4, hubs_a=5)
    assert (world.codes_a.shape, world.codes_b.shape) == ((3000, 50), (3000, 70))
    assert world.codes_a.dtype == world.codes_b.dtype == np.float32
    assert (world.codes_a.data > 0).all()
    assert world.codes_a.has_canonical_format
    assert (world.decoder_a.shape, world.decoder_b.shape) == ((50, 8), (70, 12))
    assert world.starts.shape == (40,)
    assert world.starts[0] == 0
    assert (np.diff(world.starts) > 0).all()
    assert world.pairs.shape == (18, 2)  # .4 of the 45 that are no hubs
    assert np.unique(world.pairs[:, 0]).size == np.unique(world.pairs[:, 1]).size == 18
    assert not np.isin(world.hubs_a, world.pairs[:, 0]).any()
    assert world.hubs_a.size == 5
    assert np.isnan(world.frequency_a[world.hubs_a]).all()


@pytest.mark.parametrize("topicality", [0.0, 0.5, 1.0])
def test_frequencies_are_the_ones_asked_for(topicality):
    n = 200_000
    world = plant(n_tokens=n, dropout=0.2, split=0.5, skew=1.0, topicality=topicality, features_b=320)
    asked = []
    for codes, expected in ((world.codes_a, world.frequency_a), (world.codes_b, world.frequency_b)):
        # Counts are sums of two binomials with the same total mean: their variance is at most n f (1 − f).
        z = (firing(codes) - n * expected) / np.sqrt(n * expected * (1 - expected))
        assert (z**2).sum() < chi2.ppf(1 - 1e-4, z.size)
        asked.append(expected)
    assert asked[0].mean() / 0.8 == pytest.approx(0.01, rel=0.25)
    assert asked[0].max() > 20 * np.median(asked[0])  # skewed


def test_mean_frequency_and_skew_hold_over_the_concepts():
    for skew in (0.0, 1.0, 3.0):
        world = plant(shared=1.0, features_a=200, features_b=200, frequency=0.02, skew=skew, n_tokens=500, documents=5)
        frequency = np.sort(world.frequency_a)[::-1]
        assert frequency.mean() == pytest.approx(0.02, abs=1e-9)
        assert frequency[0] <= 0.5
        below = frequency[frequency < 0.5]
        ranks = np.arange(1, 201)[frequency < 0.5]
        assert np.polyfit(np.log(ranks), np.log(below), 1)[0] == pytest.approx(-skew, abs=1e-6)


def test_without_noise_shared_codes_are_equal_and_all_methods_find_the_truth():
    world = plant(seed=3)
    a, b = world.codes_a.toarray(), world.codes_b.toarray()
    np.testing.assert_array_equal(a[:, world.pairs[:, 0]], b[:, world.pairs[:, 1]])
    corr = uf.correlate(world.codes_a, world.codes_b)
    for method in set(METHODS) - {"first-seen"}:  # which loses true pairs by design
        found = uf.match(corr, method, min_correlation=0.5)
        assert world.recovery(found) == (1.0, 1.0)


def test_without_noise_shared_directions_are_one_isometry_apart():
    for d_a, d_b in ((24, 40), (40, 24), (32, 32)):
        world = plant(d_a=d_a, d_b=d_b, decay=0.3, seed=d_a)
        x, y = world.decoder_a[world.pairs[:, 0]], world.decoder_b[world.pairs[:, 1]]
        np.testing.assert_allclose(x @ x.T, y @ y.T, atol=1e-12)
        assert uf.procrustes(x, y).value == pytest.approx(1.0, abs=1e-9)
        np.testing.assert_allclose(np.linalg.norm(world.decoder_b, axis=1), 1.0)


def test_geometry_is_not_shared_when_told_so():
    world = plant(shared_geometry=False, features_a=600, features_b=600, shared=0.8, n_tokens=500, documents=5)
    x, y = world.decoder_a[world.pairs[:, 0]], world.decoder_b[world.pairs[:, 1]]
    assert uf.permutation_test("rsa", x, y, permutations=99).p > 0.05
    np.testing.assert_array_equal(world.codes_a.toarray(), plant(**world.settings).codes_a.toarray())
    assert uf.rsa(*decoders_of(plant(**world.settings | {"shared_geometry": True}))).value > 0.99


def decoders_of(world):
    return world.decoder_a[world.pairs[:, 0]], world.decoder_b[world.pairs[:, 1]]


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_direction_noise_sets_the_cosine(noise):
    x, y = plant_rows(3000, 60, 60, noise=noise, seed=1)
    turned = x @ np.linalg.svd(x.T @ y, full_matrices=False)[0] @ np.linalg.svd(x.T @ y, full_matrices=False)[2]
    cosine = (turned * y).sum(axis=1).mean()
    assert cosine == pytest.approx(1 / (1 + noise**2), abs=0.04)


def test_parts_of_a_split_feature_divide_its_tokens():
    world = plant(split=1.0, parts=3, shared=0.3, seed=2)
    assert world.split.all()
    a, b = world.codes_a.toarray(), world.codes_b.toarray()
    for one in np.unique(world.pairs[:, 0]):
        parts = world.pairs[world.pairs[:, 0] == one, 1]
        assert parts.size == 3
        assert ((b[:, parts] > 0).sum(axis=1) <= 1).all()
        np.testing.assert_array_equal(b[:, parts].sum(axis=1), a[:, one])
    rows = world.decoder_b[world.pairs[:, 1]].reshape(-1, 3, world.decoder_b.shape[1])
    np.testing.assert_allclose(rows[:, 0], rows[:, 1], atol=1e-12)


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_hub_fires_with_many(side):
    world = plant(**{f"hubs_{side}": 4, "reach": 15, "topicality": 0.0, "skew": 0.0, "seed": 4})
    codes = {"a": world.codes_a.toarray() > 0, "b": world.codes_b.toarray() > 0}
    hubs = {"a": world.hubs_a, "b": world.hubs_b}[side]
    other = codes["b" if side == "a" else "a"]
    for hub in hubs:
        on = codes[side][:, hub]
        always = (other & ~on[:, None]).sum(axis=0) == 0
        assert always.sum() == 15
        np.testing.assert_array_equal(other[:, always].any(axis=1), on)


def test_noise_and_dropout_do_what_they_say():
    quiet, noisy = plant(seed=5), plant(seed=5, noise=0.7, dropout=0.4)
    np.testing.assert_array_equal(quiet.pairs, noisy.pairs)
    np.testing.assert_array_equal(quiet.decoder_a, noisy.decoder_a)
    both = noisy.codes_a.toarray()[quiet.codes_a.nonzero()]
    assert (both > 0).mean() == pytest.approx(0.6, abs=0.01)
    factor = np.log(both[both > 0] / quiet.codes_a.data[both > 0])
    assert factor.std() == pytest.approx(0.7, abs=0.02)
    assert noisy.codes_a.nnz != noisy.codes_b.nnz


def test_documents_are_about_topics():
    """Firing counts by document are overdispersed with topics, and binomial without."""

    def dispersion(topicality):
        world = plant(topicality=topicality, skew=0.0, frequency=0.02, seed=6)
        document = np.repeat(np.arange(200), np.diff(np.append(world.starts, 20_000)))
        lengths = np.bincount(document)
        counts = np.zeros((200, 200))
        np.add.at(counts, (document[world.codes_a.nonzero()[0]], world.codes_a.indices), 1)
        expected = lengths[:, None] * world.frequency_a
        return ((counts - expected) ** 2).sum() / expected.sum()

    assert dispersion(0.0) == pytest.approx(1.0, abs=0.1)
    assert dispersion(0.8) > 3


def test_same_seed_same_space_other_seed_other_space():
    one, again, other = plant(seed=1), plant(seed=1), plant(seed=2)
    assert (one.codes_b != again.codes_b).nnz == 0
    np.testing.assert_array_equal(one.decoder_b, again.decoder_b)
    assert (one.codes_b != other.codes_b).nnz > 0
    assert not np.array_equal(one.pairs, other.pairs)


@pytest.mark.parametrize(
    "edge",
    [
        {"shared": 0.0},
        {"shared": 1.0, "features_a": 5, "features_b": 5},
        {"topics": 1},
        {"documents": 1},
        {"topics": 50, "documents": 3},
        {"frequency": 0.0},
        {"dropout": 1.0},
        {"hubs_b": 3, "frequency": 0.0},
        {"frequency": 0.5},
        {"n_tokens": 2, "documents": 2},
        {"d_a": 1, "d_b": 1},
    ],
)
def test_edges(edge):
    world = plant(**{"n_tokens": 300, "documents": 10} | edge)
    assert np.isfinite(world.decoder_a).all()
    assert np.isfinite(world.codes_b.data).all()
    assert len(world.pairs) == round(world.settings["shared"] * world.settings["features_a"])


def test_recovery_by_hand():
    world = plant(features_a=4, features_b=4, shared=0.5, n_tokens=50, documents=2)
    (a, b), (c, d) = world.pairs
    assert world.recovery({"feature_a": [a, a, c], "feature_b": [b, d, d]}) == (2 / 3, 1.0)
    assert world.recovery({"feature_a": [a], "feature_b": [b]}) == (1.0, 0.5)
    nothing = world.recovery({"feature_a": [], "feature_b": []})
    assert np.isnan(nothing.precision)
    assert nothing.recall == 0.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shared": 1.2}, "shared=1.2: give a number from 0 to 1"),
        ({"n_tokens": 0}, "n_tokens=0"),
        ({"parts": 1}, "parts=1: give a whole number, 2 or more"),
        ({"noise": float("nan")}, "noise=nan"),
        ({"seed": -1}, "seed=-1"),
        ({"documents": 30_000}, "documents=30000 is more than n_tokens=20000"),
        ({"shared": 1.0, "split": 1.0}, "600 shared features and 0 hubs do not fit into features_b=240"),
        ({"hubs_a": 200}, "hubs_a=200 leave no other"),
    ],
)
def test_mistakes_are_one_clear_line(settings, words):
    with pytest.raises(UserError, match=words):
        plant(**settings)


def test_plant_rows_shares_what_was_asked_for():
    x, y = plant_rows(400, 20, 30, shared=0.25, seed=7)
    assert x.shape == (400, 20)
    assert y.shape == (400, 30)
    # The shared rows are the largest set with equal Gram matrices: each has 99 such partners, the others almost none.
    same = np.abs(x @ x.T - y @ y.T) < 1e-9
    assert (same.sum(axis=1) == 100).sum() == 100
    for settings, words in (({"shared": 2}, "shared=2"), ({"noise": -1}, "noise=-1"), ({"seed": 0.5}, "seed=0.5")):
        with pytest.raises(UserError, match=words):
            plant_rows(10, 3, 3, **settings)
