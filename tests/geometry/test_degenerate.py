"""Degenerate input to every measure of the registry: a clear error, a flag, or the number it ought to be."""

import numpy as np
import pytest

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, Score

CASES = [
    pytest.param(measure, dict(variant.settings), id=f"{name}-{dict(variant.settings)}")
    for name, measure in MEASURES.items()
    for variant in measure.variants
]
EVERY = pytest.mark.parametrize(("measure", "settings"), [*CASES, pytest.param(MEASURES["cka"], {"debiased": True})])


def unrelated(measure, n: int, d_a: int, d_b: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, d_a, d_b, seed])
    return rng.standard_normal((n, d_a)), rng.standard_normal((n, d_a if measure.equal_widths else d_b))


def scored(measure, settings, x: np.ndarray, y: np.ndarray) -> Score | None:
    """The score, or None where the input is refused."""
    try:
        return measure.function(x, y, **settings)
    except UserError:
        return None


@EVERY
@pytest.mark.parametrize(("d_a", "d_b"), [(1, 1), (2, 3), (12, 17), (40, 5)])
def test_unrelated_sides_never_score_one_without_a_flag(measure, settings, d_a, d_b):
    refused = 0
    for n in (*range(2, 10), 12, 13, 17, 18, 28, 29, 41):
        for seed in range(4):
            score = scored(measure, settings, *unrelated(measure, n, d_a, d_b, seed))
            if score is None:
                refused += 1
                continue
            assert -np.inf < float(score) <= 1 + 1e-12 or score.flags
            assert float(score) < 0.999 or score.flags, (n, score)
    assert refused <= 4 * 2  # two or three pairs at most are refused


@EVERY
def test_a_constant_column_is_as_good_as_none(measure, settings, views_for):
    x, y = views_for(measure)
    rows = np.ones((60, 1))
    with_zeros = [np.hstack([side, 0 * rows]) for side in (x, y)]
    with_constants = [np.hstack([side, 3 * rows]) for side in (x, y)]
    score = measure.function(*with_constants, **settings)
    assert np.isfinite(float(score))
    assert score.flags == measure.function(x, y, **settings).flags
    if "translation" in measure.invariances(**settings):
        assert float(score) == pytest.approx(float(measure.function(*with_zeros, **settings)), abs=1e-9)
        # A constant so large that the rest of the row is lost in plain sums.
        for side, huge in zip(with_constants, (2.0**20, -(2.0**30)), strict=True):
            side[:, -1] = huge
        assert float(measure.function(*with_constants, **settings)) == pytest.approx(float(score), abs=1e-9)


@EVERY
def test_repeated_columns_and_repeated_rows_give_numbers(measure, settings, views_for):
    x, y = views_for(measure)
    wide = [np.hstack([side, side]) for side in (x, y)]
    score = measure.function(*wide, **settings)
    assert np.isfinite(float(score))
    if "invertible_linear" in measure.invariances(**settings):  # the same subspace
        assert float(score) == pytest.approx(float(measure.function(x, y, **settings)), abs=1e-9)
    tall = [np.vstack([side, side]) for side in (x, y)]
    assert np.isfinite(float(measure.function(*tall, **settings)))


@EVERY
def test_one_row_unlike_the_rest_is_no_crash(measure, settings, views_for):
    x, y = views_for(measure)
    for odd in (x, y):
        odd[1:] = odd[0]
        odd[7] += 1.0
    score = measure.function(x, y, **settings)
    assert np.isnan(float(score)) == any(flag.startswith(("equidistant", "degenerate")) for flag in score.flags)
    prepared = measure.prepare(x, y, **settings)
    shuffled = prepared.shuffled(np.random.default_rng(0).permutation(60))
    assert np.isnan(shuffled) == np.isnan(float(score))


@EVERY
@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_found_wherever_it_is(measure, settings, spoilt, side, views_for):
    sides = views_for(measure)
    sides[side][-1, -1] = spoilt
    with pytest.raises(UserError, match=rf"{'xy'[side]} holds NaN or infinity \(first at row 59, column"):
        measure.function(*sides, **settings)


@EVERY
@pytest.mark.parametrize(("rows_a", "rows_b"), [(60, 59), (59, 60), (1, 1), (0, 0), (60, 0)])
def test_unequal_single_and_empty_sides_are_refused(measure, settings, rows_a, rows_b, views_for):
    x, y = views_for(measure)
    for call in (measure.function, measure.prepare):
        with pytest.raises(UserError, match=r"x has \d+ rows and y has \d+|pairs are too few"):
            call(x[:rows_a], y[:rows_b], **settings)
