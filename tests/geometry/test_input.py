"""What the measures take, what they refuse, and what a result shows."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from unifeat.errors import UserError
from unifeat.geometry import MEASURES, Score, rsa

MEASURE = pytest.mark.parametrize("measure", [entry.function for entry in MEASURES.values()])


@pytest.fixture
def fitting(views_for):
    return lambda measure, **settings: views_for(MEASURES[measure.__name__], **settings)


@MEASURE
def test_any_real_dtype_and_container(measure, fitting):
    x, y = fitting(measure)
    x32, y32 = x.astype(np.float32), y.astype(np.float32)
    expected = float(measure(x32.astype(np.float64), y32.astype(np.float64)))
    trained = torch.nn.Parameter(torch.from_numpy(x32))
    assert float(measure(x32, y32)) == expected
    assert float(measure(trained, torch.from_numpy(y32))) == expected
    assert float(measure(pd.DataFrame(x32), y32.tolist())) == expected
    assert float(measure(np.asfortranarray(x32)[:, ::-1], y32[:, ::-1])) == pytest.approx(expected, abs=1e-10)
    half = torch.from_numpy(x32).bfloat16()
    assert float(measure(half, y32)) == float(measure(half.float(), y32))
    counts = np.random.default_rng(0).integers(1, 100, x.shape)
    assert float(measure(counts, y32)) == float(measure(counts.astype(float), y32))


@MEASURE
def test_input_is_left_alone(measure, fitting):
    x, y = fitting(measure)
    before = x.copy(), y.copy()
    x.flags.writeable = y.flags.writeable = False
    measure(x, y)
    np.testing.assert_array_equal((x, y)[0], before[0])
    np.testing.assert_array_equal((x, y)[1], before[1])


@MEASURE
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda x, y: (x[:-1], y), "x has 59 rows and y has 60"),
        (lambda x, y: (x[0], y), r"x has shape \(12,\): give a 2-D array"),
        (lambda x, y: (x, y[None]), r"y has shape \(1, 60, 17\)"),
        (lambda x, y: (x[:, :0], y), "x has no columns"),
        (lambda x, y: (x[:1], y[:1]), "1 pairs are too few"),
        (lambda x, y: (x[:0], y[:0]), "0 pairs are too few"),
        (lambda x, y: (np.where(x == x[4, 2], np.nan, x), y), "first at row 4, column 2"),
        (lambda x, y: (x, np.where(y == y[7, 1], -np.inf, y)), "y holds NaN or infinity"),
        (lambda x, y: (x + 1j, y), "x has dtype complex128"),
        (lambda x, y: (x.astype(str), y), "x has dtype <U"),
    ],
)
def test_mistakes_are_one_clear_line(measure, spoil, words, views):
    with pytest.raises(UserError, match=words) as caught:
        measure(*spoil(*views()))
    assert "\n" not in str(caught.value)


@MEASURE
@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_a_constant_side_is_undefined_and_said_to_be(measure, value, views):
    x, _ = views()
    constant = np.full((60, 12), value) * np.arange(1, 13)
    score = measure(x, constant)
    assert np.isnan(float(score))
    assert score.flags == ("constant y: all rows are the same",)
    prepared = MEASURES[measure.__name__].prepare(constant, x)
    assert np.isnan(prepared.score().value)
    assert np.isnan(prepared.shuffled(np.arange(60)))


def test_two_pairs_have_one_distance_and_no_rsa(views):
    with pytest.raises(UserError, match="RSA needs at least 3"):
        rsa(*views(n=2))


@MEASURE
def test_settings_of_a_score_repeat_it(measure, fitting):
    x, y = fitting(measure)
    score = measure(x, y)
    again = measure(x, y, **score.settings)
    assert again == score
    assert (score.measure, score.n, score.d_a, score.d_b) == (measure.__name__, *x.shape, y.shape[1])


def test_a_score_shows_itself():
    score = Score("svcca", 0.5, {"dims": 3}, 9, 4, 5, {"dims_a": 3, "dims_b": 2}, ("n <= d: <few>",))
    assert repr(score) == "svcca 0.5000  (dims=3; n=9, 4 x 5 dims, components 3 and 2)\n  ! n <= d: <few>"
    html = score._repr_html_()
    assert "svcca = 0.5000" in html
    assert "&lt;few&gt;" in html


def test_unknown_settings_have_a_hint(views):
    with pytest.raises(UserError, match=r"rsa has no setting 'iner' \(did you mean 'inner'\?\)"):
        MEASURES["rsa"].prepare(*views(), iner="cosine")


def test_importing_geometry_and_inference_leaves_torch_alone():
    code = "import unifeat.geometry, unifeat.inference, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
