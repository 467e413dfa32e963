"""Paired rows with something in common."""

from collections.abc import Callable

import numpy as np
import pytest

Views = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def views() -> Views:
    def make(n=60, d_a=12, d_b=17, shared=5, noise=0.7, seed=0):
        rng = np.random.default_rng(seed)
        common = rng.standard_normal((n, shared))
        x = common @ rng.standard_normal((shared, d_a)) + noise * rng.standard_normal((n, d_a))
        y = common @ rng.standard_normal((shared, d_b)) + noise * rng.standard_normal((n, d_b))
        return x, y

    return make


@pytest.fixture
def views_for(views) -> Views:
    """`views`, as wide on one side as on the other for a measure that needs it."""

    def make(measure, **settings):
        if measure.equal_widths:
            settings["d_b"] = settings.get("d_a", 12)
        return views(**settings)

    return make
