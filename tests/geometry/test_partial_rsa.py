"""Partial RSA against residuals of least squares; its shuffles; and sides that share nothing but what is given."""

import json
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import binom, pearsonr, rankdata
from sklearn.linear_model import Ridge

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, rsa
from unifeat.geometry._partial_rsa import predicted_part
from unifeat.inference import null_scores, permutation_test, subsample_interval, with_settings

METRIC = {"cosine": "cosine", "euclidean": "euclidean", "pearson": "correlation"}


def oracle(x, y, given, inner="cosine", outer="spearman"):
    """Residuals of least squares on the (ranked) distances of what is given, correlated."""
    to = rankdata if outer == "spearman" else np.asarray
    a, b, *others = (to(pdist(m, METRIC[inner])) for m in (x, y, *given))
    design = np.column_stack([np.ones(len(a)), *others])
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (a, b)]
    return pearsonr(*left)[0]


def confounded(n, seed, *, d_z=8, strength=1.0, shared=0.0):
    """Two sides that are linear in z, each in its own way, plus noise and a shared part; and z."""
    rng = np.random.default_rng(seed)
    z, common = rng.standard_normal((n, d_z)), rng.standard_normal((n, 6))
    sides = []
    for width in (24, 30):
        parts = [(strength, z @ rng.standard_normal((d_z, width))), (1.0, rng.standard_normal((n, width)))]
        parts.append((shared, common @ np.linalg.qr(rng.standard_normal((width, 6)))[0].T))
        sides.append(sum(size * part / np.sqrt((part**2).sum(axis=1).mean()) for size, part in parts))
    return *sides, z


@pytest.mark.parametrize("inner", METRIC)
@pytest.mark.parametrize("outer", ["spearman", "pearson"])
@pytest.mark.parametrize("n", [5, 30, 200])
@pytest.mark.parametrize("count", [1, 3])
def test_equals_the_correlation_of_residuals(inner, outer, n, count):
    x, y, z = confounded(n, n)
    rng = np.random.default_rng(1)
    given = [z, rng.standard_normal((n, 5)), rng.standard_normal((n, 4)) + x[:, :4]][:count]
    score = rsa(x, y, inner=inner, outer=outer, given=given)
    assert float(score) == pytest.approx(oracle(x, y, given, inner, outer), abs=1e-9)
    assert score.details["plain"] == float(rsa(x, y, inner=inner, outer=outer))
    if outer == "spearman":
        assert score.settings == {"inner": inner, "outer": outer, "given": count}


def test_the_share_that_is_explained():
    x, y, z = confounded(60, 0)
    details = rsa(x, y, given=z).details
    for name, side in (("explained_x", x), ("explained_y", y)):
        assert details[name] == pytest.approx(float(rsa(side, z)) ** 2, abs=1e-10)


def test_one_array_or_a_list_of_arrays_or_tensors_or_nothing():
    x, y, z = confounded(40, 0)
    expected = rsa(x, y, given=[z])
    for given in (z, (z,), torch.from_numpy(z), [torch.from_numpy(z)]):
        assert rsa(x, y, given=given) == expected
    assert rsa(x, y, given=[]) == rsa(x, y, given=None) == rsa(x, y)
    assert "given" not in rsa(x, y).settings


@pytest.mark.parametrize("measure", [{}, {"inner": "euclidean", "outer": "pearson"}])
def test_a_shuffle_moves_what_the_given_rows_do_not_predict(measure):
    x, y, z = confounded(50, 0)
    other = np.random.default_rng(2).standard_normal((50, 3))
    prepared = MEASURES["rsa"].prepare(x, y, given=[z, other], **measure)
    spread = [part - part.mean(axis=0) for part in (z, other)]
    predicted, rest = predicted_part(np.hstack([part / np.linalg.norm(part) for part in spread]), y)
    rng = np.random.default_rng(0)
    for order in (np.arange(50), rng.permutation(50), rng.permutation(50)):
        anew = rsa(x, predicted + rest[order], given=[z, other], **measure)
        assert prepared.shuffled(order) == pytest.approx(float(anew), abs=1e-9)
    assert prepared.shuffled(np.arange(50)) == pytest.approx(prepared.score().value, abs=prepared.tolerance)
    again = pickle.loads(pickle.dumps(prepared))
    np.testing.assert_array_equal(null_scores(again, 4, 1), null_scores(prepared, 4, 1))
    with pytest.raises(UserError, match="not a permutation"):
        prepared.shuffled(np.zeros(50, int))


@pytest.mark.parametrize(("n", "d_z"), [(60, 5), (40, 90)])
def test_the_predicted_part_is_a_ridge_regression(n, d_z):
    """scikit-learn's ridge with some penalty of the grid; none of the others has a smaller criterion."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, d_z))
    z -= z.mean(axis=0)
    y = z @ rng.standard_normal((d_z, 7)) + 3 * rng.standard_normal((n, 7)) + 1
    predicted, rest = predicted_part(z, y)
    np.testing.assert_allclose(predicted + rest, y, atol=1e-12)
    top = np.linalg.svd(z, compute_uv=False)[0] ** 2
    found = {}
    for share in np.logspace(-8, 1, 37):
        fit = Ridge(alpha=share * top, solver="svd").fit(z, y).predict(z)
        hat = np.trace(z @ np.linalg.solve(z.T @ z + share * top * np.eye(d_z), z.T)) + 1
        if n - hat >= 1:
            found[((y - fit) ** 2).sum() / (n - hat) ** 2] = fit
    np.testing.assert_allclose(predicted, found[min(found)], atol=1e-6)


def test_arrays_that_say_nothing_are_left_out_and_flagged():
    x, y, z = confounded(30, 0)
    eye = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))[0]
    score = rsa(x, y, given=[np.ones((30, 2)), z, 3 * z, eye])
    assert float(score) == pytest.approx(float(rsa(x, y, given=z)), abs=1e-10)
    assert [flag.split(":")[0] for flag in score.flags] == ["constant given 1", "collinear given 3",
                                                          "equidistant given 4"]  # fmt: skip
    assert score.settings["given"] == 4
    nothing = rsa(x, y, given=[np.ones((30, 2))])
    assert float(nothing) == pytest.approx(float(rsa(x, y)), abs=1e-12)
    shuffled = MEASURES["rsa"].prepare(x, y, given=[np.ones((30, 2))]).shuffled(np.arange(30)[::-1])
    assert shuffled == pytest.approx(float(rsa(x, y[::-1])), abs=1e-9)


def test_where_nothing_is_left_the_score_is_undefined():
    x, y, z = confounded(30, 0)
    score = rsa(x, y, given=[z, 2 * x])
    assert np.isnan(float(score))
    assert score.flags == ("explained x: nothing is left of its dissimilarities when those given are taken out",)
    z[3] = 0
    assert rsa(x, y, given=[z]).flags[0].startswith("zero rows of given 1: 1 rows")
    test = permutation_test("rsa", x, y, permutations=9, given=[z])
    assert np.isnan(test.p)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.ones((29, 3)), "given 1 has 29 rows and x has 30: row i must belong to pair i"),
        ([np.eye(30), np.ones(30)], r"given 2 has shape \(30,\)"),
        ([np.full((30, 2), np.nan)], "given 1 holds NaN"),
        ("words", "given 1 has dtype"),
    ],
)
def test_mistakes_are_one_clear_line(given, words):
    x, y, _ = confounded(30, 0)
    with pytest.raises(UserError, match=words):
        rsa(x, y, given=given)


def test_settings_stay_json_and_keys_hold_the_arrays():
    x, y, z = confounded(30, 0)
    measure = MEASURES["rsa"]
    json.dumps(rsa(x, y, given=[z]).settings)
    keys = {json.dumps(measure.identity({"given": given})) for given in (z, [z], [z, z], [z + 1], [z.T], None)}
    assert len(keys) == 6
    assert measure.identity({"given": [z.astype(np.float32)]}) != measure.identity({"given": [z]})
    assert measure.identity({"given": [torch.from_numpy(z)]}) == measure.identity({"given": [z]})
    assert measure.identity({"inner": "cosine"}) == ["rsa", measure.version, {"inner": "cosine"}]


def test_halves_of_the_pairs_take_their_rows_of_what_is_given():
    x, y, z = confounded(60, 0, shared=1.0)
    interval = subsample_interval(rsa, x, y, given=[z], subsamples=20)
    assert interval.low < float(rsa(x, y, given=[z])) < interval.high
    assert 0.5 < interval.mean_half / interval.score < 1.5


def test_a_test_with_settings_of_its_own_and_on_a_device_that_it_does_not_use(monkeypatch):
    from unifeat.geometry import _device

    x, y, z = confounded(40, 0)
    monkeypatch.setattr(_device, "cuda_device", lambda *_: torch.device("cpu"))
    test = permutation_test(with_settings("rsa", {"given": [z]}), x, y, permutations=9)
    assert test.settings["given"] == 1
    again = permutation_test("rsa", x, y, permutations=9, given=[z], device="cuda")
    np.testing.assert_array_equal(test.null, again.null)


def test_sides_that_share_nothing_but_what_is_given_are_told_from_those_that_do():
    plain = given = found = 0
    for seed in range(20):
        x, y, z = confounded(60, seed)
        test = partial(permutation_test, "rsa", permutations=19, seed=seed)
        plain += test(x, y).p <= 0.05
        given += test(x, y, given=[z]).p <= 0.05
        x, y, z = confounded(60, seed, shared=1.0)
        found += test(x, y, given=[z]).p <= 0.05
    assert plain == 20
    assert given <= 4  # of 20 at .05: more than 4 three times in 1,000
    assert found == 20


@pytest.mark.slow
@pytest.mark.parametrize("d_z", [3, 20, 100])
@pytest.mark.parametrize("strength", [0.7, 1.5])
def test_the_nominal_rate(d_z, strength):
    plain = given = 0
    for seed in range(200):
        x, y, z = confounded(60, seed, d_z=d_z, strength=strength)
        plain += permutation_test("rsa", x, y, permutations=19, seed=seed).p <= 0.05
        given += permutation_test("rsa", x, y, permutations=19, seed=seed, given=[z]).p <= 0.05
    assert plain > 40
    assert given <= binom.ppf(0.9999, 200, 0.05)  # 24
