"""The test of clusters: the permutation test where pairs are alone, and level and power where they are not."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

import unifeat as uf
from unifeat.errors import UserError
from unifeat.geometry import MEASURES
from unifeat.inference import cluster_test, find_clusters, permutations
from unifeat.inference._cluster_test import representatives
from unifeat.inference.clusters import as_labels
from unifeat.synthetic import plant_rows

SCRIPTS = Path(__file__).parents[2] / "scripts"
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(24), np.arange(24) % 5 + 1))


def repeated(seed, shared, d=(24, 32)):
    """Pairs that repeat the directions of 24 clusters, with a little noise."""
    rng = np.random.default_rng(seed)
    sides = plant_rows(24, *d, shared=shared, noise=0.1, seed=seed)
    return tuple(side[LABELS] + 0.02 * rng.standard_normal((LABELS.size, side.shape[1])) for side in sides)


@pytest.mark.parametrize("name", MEASURES)
def test_alone_it_is_the_permutation_test(name):
    x, y = plant_rows(40, 6, 6, shared=0.5, noise=0.5)
    plain = uf.permutation_test(name, x, y, permutations=29, seed=3)
    test = cluster_test(name, x, y, np.arange(40) + 7, permutations=29, seed=3)
    np.testing.assert_array_equal(test.null, plain.null)
    assert (test.score, test.p, test.corrected) == (plain.score, plain.p, plain.corrected)
    assert (test.flags, test.settings) == (plain.flags, plain.settings)
    assert (test.n, test.clusters, test.effective, test.choices) == (40, 40, 40, 1)


def test_by_hand():
    """The mean over choices of the score of one pair a cluster, and the same permutations of clusters for each."""
    x, y = repeated(0, shared=0.5)
    test = cluster_test("rsa", x, y, LABELS, permutations=9, choices=4, seed=5)
    chosen = representatives(as_labels(LABELS), 4, seed=5)
    assert test.score == pytest.approx(np.mean([float(uf.rsa(x[rows], y[rows])) for rows in chosen]))
    orders = list(permutations(24, 9, 5))
    null = [np.mean([float(uf.rsa(x[rows], y[rows[order]])) for rows in chosen]) for order in orders]
    np.testing.assert_allclose(test.null, null, atol=1e-10)
    assert test.p == (1 + sum(value >= test.score for value in null)) / 10
    assert (test.n, test.clusters, test.choices) == (LABELS.size, 24, 4)
    assert test.effective == pytest.approx(LABELS.size**2 / (np.bincount(LABELS) ** 2).sum())
    assert "one pair of each of 24 clusters of 70 pairs, 4 choices, 9 permutations, seed 5" in repr(test)
    assert test.null_mean == pytest.approx(np.mean(null))
    with pytest.raises(ValueError, match="read-only"):
        test.null[0] = 0


def test_a_choice_has_one_pair_of_each_cluster_each_as_often():
    chosen = representatives(LABELS, 2000, seed=1)
    for rows in chosen[:20]:
        np.testing.assert_array_equal(LABELS[rows], np.arange(24))
    counts = np.bincount(np.concatenate(chosen), minlength=LABELS.size)
    expected = 2000 / np.bincount(LABELS)[LABELS]
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected)).all()
    assert not np.array_equal(chosen[0], representatives(LABELS, 1, seed=2)[0])


@pytest.mark.parametrize("name", ["rsa", "cka", "svcca", "procrustes"])
def test_shared_directions_are_found_and_shared_clusters_are_not(name):
    """Where both spaces have the same clusters and nothing else, shuffling pairs rejects every time."""
    rejected = {"plain": 0, "clusters": 0, "shared": 0}
    for seed in range(20):
        x, y = repeated(seed, shared=0.0)
        rejected["plain"] += uf.permutation_test(name, x, y, permutations=19).p <= 0.05
        rejected["clusters"] += cluster_test(name, x, y, LABELS, permutations=19, choices=3, seed=seed).p <= 0.05
        x, y = repeated(seed, shared=1.0)
        rejected["shared"] += cluster_test(name, x, y, LABELS, permutations=19, choices=3, seed=seed).p <= 0.05
    assert rejected["plain"] >= 18
    assert rejected["clusters"] <= binom.ppf(0.999, 20, 0.05)
    assert rejected["shared"] >= 15


def test_undefined_and_flagged():
    x, y = repeated(0, shared=1.0)
    test = cluster_test("rsa", x, np.ones_like(y), LABELS, permutations=5)
    assert np.isnan([test.score, test.p, test.corrected]).all()
    assert np.isnan(test.null).all()
    assert test.flags == ("constant y: all rows are the same",)
    few = cluster_test("rsa", x, y, LABELS % 5, permutations=500)
    assert any(flag.startswith("few shuffles: 5 clusters have only 120 pairings") for flag in few.flags)
    assert few.least_p == 1 / 120


def test_tensors_and_settings():
    x, y = repeated(1, shared=1.0)
    plain = cluster_test("svcca", x, y, LABELS, permutations=9, choices=2, dims=3)
    tensors = cluster_test(
        uf.svcca, torch.from_numpy(x), torch.from_numpy(y), LABELS, permutations=9, choices=2, dims=3
    )
    np.testing.assert_array_equal(plain.null, tensors.null)
    assert plain.settings == {"dims": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"clusters": LABELS[:-1]}, r"clusters: give whole numbers, one for each of 70 pairs"),
        ({"clusters": np.zeros(70, int)}, "1 pairs are too few: RSA needs at least 3"),
        ({"y": np.ones((69, 3))}, "y has 69"),
        ({"choices": 0}, "choices=0"),
        ({"permutations": 0}, "permutations=0"),
        ({"seed": -1}, "seed=-1"),
        ({"dims": 3}, "rsa has no setting 'dims'"),
        ({"measure": "rs"}, "unknown measure 'rs'"),
    ],
)
def test_mistakes_are_one_clear_line(change, words):
    x, y = repeated(0, shared=1.0)
    with pytest.raises(UserError, match=words):
        cluster_test(**{"measure": "rsa", "x": x, "y": y, "clusters": LABELS} | change)


# The script that writes the section of docs/calibration.md


@pytest.fixture(scope="module")
def script():
    if not SCRIPTS.exists():
        pytest.skip("the scripts are not part of this distribution")
    sys.path.insert(0, str(SCRIPTS))
    try:
        import calibration_clusters
    finally:
        sys.path.remove(str(SCRIPTS))
    return calibration_clusters


def test_the_script_writes_its_section_and_goes_on_where_it_stopped(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "KINDS", {"alone": (1,), "of 4": (4,)})
    monkeypatch.setattr(script, "CASES", {name: script.CASES[name] for name in ("RSA", "CKA, debiased")})
    page = tmp_path / "page.md"
    page.write_text("<!-- written by scripts/calibration.py -->\nothers\n<!-- end of scripts/calibration.py -->\n")
    arguments = ["calibration_clusters.py", "--page", str(page), "--cache", str(tmp_path / "cache"), "--studies", "3"]
    monkeypatch.setattr(sys, "argv", arguments)
    script.main()
    first = page.read_text()
    assert first.startswith("<!-- written by scripts/calibration.py -->\nothers\n<!-- end of")
    assert "| CKA, debiased |" in first
    assert "nan" not in first
    assert "3 of 3" in capsys.readouterr().out
    script.main()
    assert capsys.readouterr().out == ""
    assert page.read_text() == first


@pytest.mark.slow
@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("kind", ["alone", "of 4", "of 1 to 16"])
def test_levels_hold_where_pairs_come_in_clusters(script, kind):
    """The small form of docs/calibration.md, with other seeds."""
    studies = [script.test_study(kind, 0.0, 10_000 + seed) for seed in range(60)]
    for case in script.CASES:
        plain, one, several, *_ = np.array([study[case] for study in studies]).T
        for p in (one, several):
            assert (p <= 0.05).sum() <= binom.ppf(1 - 1e-4, 60, 0.05), case
            if case != "mutual kNN, k 5":  # whose scores tie
                assert kstest(p - 0.5 / 40, "uniform").pvalue > 1e-4, case
        if kind != "alone":
            assert (plain <= 0.05).mean() > 0.6, case
    x, y = script.drawn(kind, 0.0, 10_000)
    assert abs(find_clusters(x, y).max() + 1 - {"alone": 120, "of 4": 30, "of 1 to 16": 36}[kind]) <= 3


@pytest.mark.slow
@pytest.mark.usefixtures("shapes_unchecked")
def test_intervals_cover_where_pairs_come_in_clusters(script):
    studies = [script.cover_study("of 8", 10_000 + seed) for seed in range(60)]
    for case in ("RSA", "CKA, debiased"):
        low, high, low_c, high_c, anew = np.array([study[case] for study in studies]).T
        truth = anew.mean()
        plain, grouped = (np.mean((a <= truth) & (truth <= b)) for a, b in ((low, high), (low_c, high_c)))
        assert grouped >= binom.ppf(1e-3, 60, 0.95) / 60
        assert plain < grouped - 0.15


def test_one_choice_where_a_shuffle_takes_long() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 300, 220))
    labels = np.arange(300) // 2
    assert cluster_test("rsa", x, y, labels, permutations=3).choices == 5
    assert cluster_test("procrustes", x[:, :60], y[:, :60], labels, permutations=3, heldout=True).choices == 5
    long = np.arange(600) // 2
    wide = rng.standard_normal((2, 600, 220))
    once = cluster_test("procrustes", *wide, long, permutations=3, heldout=True)
    assert once.choices == 1
    assert once.score == cluster_test("procrustes", *wide, long, permutations=3, heldout=True, choices=1).score
    assert cluster_test("procrustes", *wide, long, permutations=3, heldout=True, choices=2).choices == 2
