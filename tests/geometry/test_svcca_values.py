"""SVCCA at several numbers of components is SVCCA at each."""

import numpy as np
import pytest

import unifeat as uf
from unifeat.errors import UserError
from unifeat.geometry import _svcca_values
from unifeat.geometry._svcca_values import svcca_values

DIMS = [1, 5, 12]


def both(x, y, dims=DIMS):
    return svcca_values(x, y, dims), [uf.svcca(x, y, dims=k).value for k in dims]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [14, 40, 60, 300])
def test_as_one_by_one(views, n, dtype, monkeypatch):
    x, y = (side.astype(dtype) for side in views(n=n, d_a=40, d_b=45))
    if n > 14:  # with 14 rows, the 13 components are not all large

        def slow(*_, **__):
            raise AssertionError("the slow way")

        monkeypatch.setattr(_svcca_values, "svcca", slow)
    found, wanted = both(x, y)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_components_near_rounding_are_left_to_svcca(dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 30))).astype(dtype)
    y = rng.standard_normal((200, 20)).astype(dtype)
    np.testing.assert_array_equal(*both(x, y))
    steep = (rng.standard_normal((200, 30)) * 10.0 ** -np.arange(30)).astype(dtype)
    np.testing.assert_array_equal(*both(steep, y))


def test_degenerate_sides():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 6))
    np.testing.assert_array_equal(*both(np.ones((20, 6)), x))
    np.testing.assert_allclose(*both(x[:3], x[:3], [1, 2, 5]), rtol=0, atol=1e-9)
    with pytest.raises(UserError, match=r"rows"):
        svcca_values(x, x[:5], [1])
