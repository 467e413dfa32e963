"""Some of the pairs, scored from what was prepared for all of them, are the measure called anew on these."""

import numpy as np
import pytest

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, _halves, _pairs
from unifeat.geometry.measure import Divisible

SETTINGS = [
    ("svcca", {}),
    ("svcca", {"dims": 2}),
    ("svcca", {"dims": 9}),
    ("svcca", {"variance": 1.0}),
    ("pwcca", {}),
    ("pwcca", {"dims": 5}),
    ("heldout_cca", {}),
    ("heldout_cca", {"dims": 3, "folds": 3, "seed": 2}),
    ("heldout_cca", {"variance": 0.9, "ridge": 0.1}),
    *[("rsa", {"inner": i, "outer": o}) for i in ("cosine", "euclidean", "pearson") for o in ("spearman", "pearson")],
    ("cka", {}),
    ("cka", {"debiased": True}),
    ("mutual_knn", {}),
    ("mutual_knn", {"k": 3, "metric": "euclidean"}),
]
EVERY = pytest.mark.parametrize(("name", "settings"), SETTINGS)


def halves(n, count=4):
    rng = np.random.default_rng(n)
    return [np.sort(rng.permutation(n)[: n // 2]) for _ in range(count)]


def worst_gap(name, settings, x, y):
    """And how many parts had to be prepared anew."""
    measure = MEASURES[name]
    prepared = measure.prepare(x, y, **settings)
    assert isinstance(prepared, Divisible)
    worst, refused = 0.0, 0
    for rows in halves(len(x)):
        found, expected = prepared.subset(rows), measure.function(x[rows], y[rows], **measure.at_rows(settings, rows))
        if found is None:
            refused += 1
            continue
        assert found.n == len(rows)
        assert found.settings == expected.settings
        marks = [[f for f in score.flags if f.startswith("saturated")] for score in (found, expected)]
        assert marks[0] == marks[1]
        worst = max(worst, abs(found.value - expected.value))
    return worst, refused


@EVERY
@pytest.mark.parametrize(("n", "d_a", "d_b"), [(24, 12, 17), (60, 40, 30), (60, 70, 12), (200, 70, 90), (700, 12, 17)])
def test_equals_the_measure_anew(name, settings, n, d_a, d_b, views):
    gap, _ = worst_gap(name, settings, *views(n=n, d_a=d_a, d_b=d_b))
    assert gap < 1e-9


@EVERY
def test_rows_that_repeat_are_counted_once(name, settings, views):
    """As matching by `max` pairs a row of one side with several of the other, or a pair comes several times."""
    for again in (1, 4):
        x, y = (np.repeat(side, again, axis=0) for side in views(n=80 // again, d_a=40, d_b=45))
        x = np.repeat(x[::5], 5, axis=0)
        assert worst_gap(name, settings, x, y)[0] < 1e-9


@pytest.mark.parametrize("settings", [{"dims": 3}, {"variance": 1.0}, {"variance": 0.9, "folds": 3, "ridge": 0.1}])
def test_pairs_that_are_held_out_together(settings, views):
    x, y = views(n=60, d_a=40, d_b=45)
    label = np.random.default_rng(0).integers(0, 25, 60)
    gap, refused = worst_gap("heldout_cca", settings | {"groups": label}, np.eye(25, 40)[label] + 0.1 * x, y)
    assert gap < 1e-9
    assert refused == 0
    prepared = MEASURES["heldout_cca"].prepare(x, y, groups=label, **settings)
    with pytest.raises(UserError, match="groups: 3 are too few"):
        prepared.subset(np.flatnonzero(label < 3))


@EVERY
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_it_is_taken_where_it_is_meant_to_be(name, settings, dtype, views):
    x, y = views(n=60, d_a=40, d_b=45)
    assert worst_gap(name, settings, x.astype(dtype), y.astype(dtype))[1] == 0


@EVERY
def test_ties_repeated_rows_and_offsets(name, settings, views):
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 3, (40, 30)).astype(float), rng.integers(1, 4, (40, 30)).astype(float)
    x[20:] = x[:20]
    assert worst_gap(name, settings, x, y)[0] < 1e-9
    x, y = views(n=60, d_a=40, d_b=45)
    assert worst_gap(name, settings, x + 1e5, 1e-200 * (y - 300))[0] < (1e-6 if settings.get("inner") else 1e-9)


@EVERY
def test_float32(name, settings, views):
    x, y = (side.astype(np.float32) for side in views(n=60, d_a=40, d_b=45))
    assert worst_gap(name, settings, x, y)[0] < 1e-9
    for halved in (np.float32, np.float16):  # of rank 5, and rounding
        x, y = (side.astype(halved) for side in views(n=60, d_a=40, d_b=45, noise=0.0))
        assert worst_gap(name, settings, x, y)[0] < 1e-9


ALIKE = {
    "the same to the last digit": lambda y, step, rng: y[15] * (1 + step * rng.integers(-1, 2, y[PART].shape)),
    "nearly so": lambda y, step, rng: y[15] * (1 + 4 * step * rng.integers(-1, 2, y[PART].shape)),
    "on one line": lambda y, step, rng: np.outer(rng.standard_normal(30), y[15]),
    "on one ray": lambda y, step, rng: np.outer(rng.random(30), y[15]),
    "on a line beside": lambda y, step, rng: y[15] + np.outer(rng.standard_normal(30), y[16]),
    "of rank 3": lambda y, step, rng: rng.standard_normal((30, 3)) @ y[:3],
    **{f"{s:g} apart": lambda y, step, rng, s=s: y[15] + s * y[PART] for s in (1e-2, 1e-3, 1e-5, 1e-6, 1e-7)},
    **{f"{s:g} in size": lambda y, step, rng, s=s: s * y[PART] for s in (1e-2, 1e-5, 1e-7)},
    "not": lambda y, step, rng: y[PART],
}
PART = np.arange(15, 45)


@EVERY
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("how", ALIKE)
def test_rows_that_are_alike_as_no_others_are(name, settings, how, dtype, views):
    """Rounding, of their products or of the rows as given, may be all that tells them apart."""
    for d_a, d_b in ((40, 45), (40, 8)):
        x, y = views(n=60, d_a=d_a, d_b=d_b)
        y[PART] = ALIKE[how](y, np.finfo(dtype).eps, np.random.default_rng(0))
        x, y = x.astype(dtype), y.astype(dtype)
        found = MEASURES[name].prepare(x, y, **settings).subset(PART)
        expected = MEASURES[name].function(x[PART], y[PART], **settings)
        if how == "not":
            assert found is not None
        assert found is None or found.value == pytest.approx(expected.value, abs=1e-9)


@EVERY
@pytest.mark.parametrize(
    ("dtype", "offset"),
    [(np.float64, 100), (np.float64, 1e4), (np.float32, 100), (np.float32, 1e4), (np.float16, 10), (np.float16, 100)],
)
def test_rows_far_from_the_origin(name, settings, dtype, offset, views):
    x, y = views(n=60, d_a=40, d_b=45)
    x, y = (x + offset).astype(dtype), (y - offset).astype(dtype)
    assert worst_gap(name, settings, x, y)[0] < (1e-6 if settings.get("inner") else 1e-9)


@EVERY
def test_a_part_that_is_constant_is_prepared_anew(name, settings, views):
    x, y = views(n=40, d_a=40, d_b=45)
    y[10:30] = y[10]
    assert MEASURES[name].prepare(x, y, **settings).subset(np.arange(10, 30)) is None


@EVERY
def test_more_rows_than_a_square_may_have(name, settings, views, monkeypatch):
    for module in (_pairs, _halves):
        monkeypatch.setattr(module, "FLOAT64_UP_TO", 10)
    assert worst_gap(name, settings, *views(n=60, d_a=40, d_b=45))[1] == 4
