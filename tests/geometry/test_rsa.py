"""RSA against scipy and rsatoolbox; ties; memory-saving parts."""

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, rankdata, spearmanr

from unifeat.errors import UserError
from unifeat.geometry import rsa
from unifeat.geometry._pairs import PairSum, ranks_in_place, square

METRIC = {"cosine": "cosine", "euclidean": "euclidean", "pearson": "correlation"}
OUTER = {"spearman": spearmanr, "pearson": pearsonr}


@pytest.mark.parametrize("inner", METRIC)
@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("n", [3, 7, 60, 600])
def test_equals_scipy(inner, outer, n, views):
    x, y = views(n=n)
    expected = OUTER[outer](pdist(x, METRIC[inner]), pdist(y, METRIC[inner]))[0]
    assert float(rsa(x, y, inner=inner, outer=outer)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("outer", "method"), [("spearman", "spearman"), ("pearson", "corr")])
def test_equals_rsatoolbox(outer, method, views):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn
        from rsatoolbox.data import Dataset
        from rsatoolbox.rdm import calc_rdm, compare
    x, y = views(n=40)
    # rsatoolbox's Euclidean dissimilarity is the squared distance over the number of channels
    for inner, theirs in [("pearson", "correlation"), ("euclidean", "euclidean")]:
        if inner == "euclidean" and outer == "pearson":
            continue
        a, b = (calc_rdm(Dataset(m), method=theirs) for m in (x, y))
        expected = compare(a, b, method=method).item()
        assert float(rsa(x, y, inner=inner, outer=outer)) == pytest.approx(expected, abs=1e-10)


def test_defaults_are_cosine_and_spearman(views):
    score = rsa(*views())
    assert score.settings == {"inner": "cosine", "outer": "spearman"}
    assert score.details == {"pairs": 60 * 59 // 2}
    assert score.flags == ()


@pytest.mark.parametrize("inner", ["cosine", "euclidean"])
def test_many_ties_get_average_ranks_whatever_the_order_of_rows(inner):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 2, (80, 6)) + 0.0, rng.integers(0, 3, (80, 5)) + 0.0
    x[:, 0], y[:, 0] = 1, 1  # no zero rows
    # scipy's distances differ in their last bits where they are equal: round them before ranking
    da, db = (np.round(pdist(m, METRIC[inner]), 9) for m in (x, y))
    expected = spearmanr(da, db)[0]
    order = rng.permutation(80)
    assert float(rsa(x, y, inner=inner)) == pytest.approx(expected, abs=1e-12)
    assert float(rsa(x[order], y[order], inner=inner)) == pytest.approx(expected, abs=1e-12)


def test_repeated_rows_are_at_distance_zero():
    rng = np.random.default_rng(0)
    x = 1e3 + np.repeat(rng.standard_normal((10, 8)), 3, axis=0) / 3
    y = rng.standard_normal((30, 8))
    expected = pearsonr(pdist(x), pdist(y))[0]
    assert float(rsa(x, y, inner="euclidean", outer="pearson")) == pytest.approx(expected, abs=1e-10)


def test_a_rotated_copy_is_recognised_and_unrelated_rows_are_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 16))
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    assert float(rsa(x, x @ rotation)) == pytest.approx(1.0, abs=1e-9)
    assert abs(float(rsa(x, rng.standard_normal((200, 16))))) < 0.05


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 1000, 40_000])
def test_ranks_equal_scipys(size, tied):
    rng = np.random.default_rng(size)
    values = rng.lognormal(0, 3, size)  # long tails crowd the bins
    if tied:
        values = np.ceil(values)
    ranks = values.copy()
    ranks_in_place(ranks, scale=1e-9)
    np.testing.assert_array_equal(ranks, rankdata(values))


def test_values_equal_up_to_rounding_are_tied():
    values = np.array([0.3, 0.1 + 0.2, 0.5, 0.2, 0.2 * (1 + 1e-15)])
    ranks_in_place(values, scale=1.0)
    np.testing.assert_array_equal(values, [3.5, 3.5, 5, 1.5, 1.5])


@pytest.mark.parametrize("n", [3, 100, 1030, 2100])
def test_square_and_pair_sum_agree_with_scipy(n):
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((2, n * (n - 1) // 2))
    full = squareform(b)
    np.testing.assert_array_equal(square(b, n, np.float64), full)
    order = rng.permutation(n)
    expected = a @ squareform(full[np.ix_(order, order)], checks=False)
    assert PairSum(n, a, b)(order) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inner": "cosin"}, "did you mean 'cosine'"),
        ({"outer": "pearsons"}, "did you mean 'pearson'"),
        ({"outer": 3}, "unknown outer measure of rsa 3"),
    ],
)
def test_unknown_settings_name_the_known_ones(settings, words, views):
    with pytest.raises(UserError, match=words):
        rsa(*views(), **settings)


def test_rows_without_direction_leave_it_undefined(views):
    x, y = views()
    x[[3, 5]] = 0.0
    score = rsa(x, y)
    assert np.isnan(float(score))
    assert score.flags[0].startswith("zero rows of x: 2 rows")
    assert np.isfinite(float(rsa(x, y, inner="euclidean")))
    x[[3, 5]] = 1.7
    assert np.isnan(float(rsa(x, y, inner="pearson")))
    assert np.isfinite(float(rsa(x, y)))


@pytest.mark.parametrize("inner", METRIC)
@pytest.mark.parametrize("outer", OUTER)
def test_equidistant_rows_have_no_geometry(inner, outer, views):
    _, y = views(n=30)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    rows = np.eye(30) if inner == "pearson" else rotation
    score = rsa(rows, y, inner=inner, outer=outer)
    assert np.isnan(float(score))
    assert score.flags == ("equidistant x: all pairs of rows are equally dissimilar",)
