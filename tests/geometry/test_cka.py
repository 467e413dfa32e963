"""CKA against Gram matrices written out by hand, rsatoolbox, and the definition of the debiased HSIC."""

import warnings
from itertools import permutations

import numpy as np
import pytest

from unifeat.errors import UserError
from unifeat.geometry import cka


def gram_cka(x, y):
    """Kornblith et al. 2019, eq. 3–4, with centring matrices."""
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n
    k, l = h @ x @ x.T @ h, h @ y @ y.T @ h
    return np.trace(k @ l) / np.sqrt(np.trace(k @ k) * np.trace(l @ l))


def song_hsic(k, l):
    """Song et al. 2012, eq. 5, term by term."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))
    one = np.ones(n)
    middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ l) + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def debiased_cka(x, y):
    k, l = x @ x.T, y @ y.T
    return song_hsic(k, l) / np.sqrt(song_hsic(k, k) * song_hsic(l, l))


@pytest.mark.parametrize("n", [2, 3, 9, 15, 60, 300])
def test_biased_equals_the_textbook(n, views):
    x, y = views(n=n)
    score = cka(x, y)
    assert float(score) == pytest.approx(gram_cka(x, y), abs=1e-12)
    assert [flag.split(":")[0] for flag in score.flags] == ["n <= d"] * (n <= 17) + ["saturated"] * (n == 2)


@pytest.mark.parametrize("n", [4, 5, 15, 60, 300])
def test_debiased_equals_the_textbook(n, views):
    x, y = views(n=n)
    assert float(cka(x, y, debiased=True)) == pytest.approx(debiased_cka(x, y), abs=1e-9)


@pytest.mark.parametrize("n", [5, 40])
def test_biased_is_the_whitened_cosine_of_rsatoolbox(n, views):
    """Diedrichsen et al. 2020 (arXiv 2007.02789): linear CKA is the cosine of squared Euclidean dissimilarities,
    whitened by their covariance under independence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import calc_rdm, compare
    x, y = views(n=n)
    a, b = (calc_rdm(Dataset(m), method="euclidean") for m in (x, y))
    assert float(cka(x, y)) == pytest.approx(compare(a, b, method="cosine_cov").item(), abs=1e-6)


def test_debiased_hsic_is_the_mean_over_four_different_rows(views):
    """Song et al. 2012, eq. 4: Σ k_ij (l_ij + l_qr − 2 l_iq) over all ordered quadruples without repetition."""
    x, y = views(n=7, d_a=3, d_b=2)
    k, l = x @ x.T, y @ y.T
    i, j, q, r = np.array(list(permutations(range(7), 4))).T

    def hsic(k, l):
        return np.mean(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]))

    expected = hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))
    assert float(cka(x, y, debiased=True)) == pytest.approx(expected, abs=1e-12)


def test_bias_of_unrelated_data_is_gone():
    rng = np.random.default_rng(0)
    scores = [[float(cka(*rng.standard_normal((2, 50, 40)), debiased=d)) for _ in range(40)] for d in (0 > 1, 0 < 1)]
    biased, debiased = np.mean(scores, axis=1)
    assert biased > 0.4
    assert abs(debiased) < 0.01


def test_a_rotated_copy_scores_one():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 8))
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert float(cka(x, x @ rotation)) == pytest.approx(1.0, abs=1e-12)
    assert float(cka(x, x @ rotation, debiased=True)) == pytest.approx(1.0, abs=1e-12)


def test_settings(views):
    x, y = views()
    assert cka(x, y).settings == {"debiased": False}
    with pytest.raises(UserError, match="debiased='yes'"):
        cka(x, y, debiased="yes")
    with pytest.raises(UserError, match="needs at least 4"):
        cka(x[:3], y[:3], debiased=True)
