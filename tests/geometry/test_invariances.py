"""Property tests made from what each measure declares in the registry."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from unifeat.geometry import MEASURES

DECLARED = [
    pytest.param(measure, dict(variant.settings), id=f"{name}-{dict(variant.settings)}")
    for name, measure in MEASURES.items()
    for variant in measure.variants
]
OTHER_SETTINGS = [
    pytest.param(MEASURES[name], settings, id=f"{name}-{settings}")
    for name, settings in [
        ("svcca", {"dims": 1}),
        ("svcca", {"dims": 4}),
        ("svcca", {"variance": 0.8}),
        ("rsa", {"inner": "cosine", "outer": "pearson"}),
        ("rsa", {"inner": "euclidean", "outer": "pearson"}),
        ("cka", {"debiased": True}),
    ]
]


def orthogonal(x, rng):
    return x @ ortho_group.rvs(x.shape[1], random_state=rng)


def isotropic_scaling(x, rng):
    return x * rng.uniform(0.01, 100)


def translation(x, rng):
    return x + 10 * rng.standard_normal(x.shape[1])


def invertible_linear(x, rng):
    return x @ (rng.standard_normal((x.shape[1], x.shape[1])) + 3 * np.eye(x.shape[1]))


ONE_SIDED = [orthogonal, isotropic_scaling, translation, invertible_linear]


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
@pytest.mark.parametrize("change", ONE_SIDED, ids=lambda change: change.__name__)
@pytest.mark.parametrize("seed", range(3))
def test_each_side_ignores_what_is_declared_and_nothing_else(measure, settings, change, seed, views):
    rng = np.random.default_rng(seed)
    x, y = views(seed=seed)
    x = x * np.linspace(0.3, 3, x.shape[1])  # unequal directions, so that a change that matters shows
    before = float(measure.function(x, y, **settings))
    after_x = float(measure.function(change(x, rng), y, **settings))
    after_y = float(measure.function(x, change(y, rng), **settings))
    if change.__name__ in measure.invariances(**settings):
        assert after_x == pytest.approx(before, abs=1e-9)
        assert after_y == pytest.approx(before, abs=1e-9)
    else:
        assert abs(after_x - before) > 1e-4
        assert abs(after_y - before) > 1e-4


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_reordering_both_sides_alike_changes_nothing(measure, settings, views):
    x, y = views()
    order = np.random.default_rng(1).permutation(len(x))
    assert "row_permutation" in measure.invariances(**settings)
    before = float(measure.function(x, y, **settings))
    assert float(measure.function(x[order], y[order], **settings)) == pytest.approx(before, abs=1e-10)


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_the_two_sides_are_alike_to_every_measure(measure, settings, views):
    x, y = views()
    forth, back = measure.function(x, y, **settings), measure.function(y, x, **settings)
    assert float(forth) == pytest.approx(float(back), abs=1e-12)
    assert float(measure.function(x, x, **settings)) == pytest.approx(1.0, abs=1e-12)


def test_the_legacy_inner_measure_of_rsa_depends_on_the_basis(views):
    x, _ = views(n=80, d_a=20)
    # Rows share a component, as decoder rows do. Along (1, …, 1) this measure is blind to it; elsewhere not.
    x = x + 2 * np.random.default_rng(1).standard_normal((80, 1)) ** 2
    rotated = orthogonal(x, np.random.default_rng(0))
    assert "orthogonal" not in MEASURES["rsa"].invariances(inner="pearson")
    assert float(MEASURES["rsa"].function(x, rotated, inner="pearson")) < 0.9
    assert float(MEASURES["rsa"].function(x, rotated)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_extreme_units_neither_overflow_nor_vanish(measure, settings, views):
    x, y = views()
    before = float(measure.function(x, y, **settings))
    assert float(measure.function(x * 1e200, y * 1e-200, **settings)) == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("name", ["svcca", "cka"])
def test_a_huge_common_offset_costs_no_digits(name, views):
    x, y = views()
    measure = MEASURES[name].function
    shift = 2.0**20  # exactly representable, so only the centring is tested
    x = np.round(x * 2**20) / 2**20
    assert float(measure(x + shift, y)) == pytest.approx(float(measure(x, y)), abs=1e-10)
