"""CKA against Gram matrices written out by hand."""

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
    assert bool(score.flags) == (n <= 17)


@pytest.mark.parametrize("n", [4, 5, 15, 60, 300])
def test_debiased_equals_the_textbook(n, views):
    x, y = views(n=n)
    assert float(cka(x, y, debiased=True)) == pytest.approx(debiased_cka(x, y), abs=1e-9)


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
