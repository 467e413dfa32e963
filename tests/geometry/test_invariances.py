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
        ("pwcca", {"variance": 1.0}),
        ("pwcca", {"dims": 5}),
        ("heldout_cca", {"dims": 4}),
        ("heldout_cca", {"ridge": 0.1}),
        ("heldout_cca", {"variance": 1.0, "ridge": 0.1, "folds": 3}),
        ("ridge_map", {"alpha": 1e-4, "seed": 1}),
        ("mutual_knn", {"k": 6}),
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
def test_each_side_ignores_what_is_declared_and_nothing_else(measure, settings, change, seed, views_for):
    rng = np.random.default_rng(seed)
    x, y = views_for(measure, seed=seed)
    x = x * np.linspace(0.3, 3, x.shape[1])  # unequal directions, so that a change that matters shows
    before = float(measure.function(x, y, **settings))
    after_x = float(measure.function(change(x, rng), y, **settings))
    after_y = float(measure.function(x, change(y, rng), **settings))
    declared = measure.invariances(**settings), measure.invariances_of_y(**settings)
    for after, ignored in zip((after_x, after_y), declared, strict=True):
        if change.__name__ in ignored:
            assert after == pytest.approx(before, abs=1e-9)
        else:
            assert abs(after - before) > 1e-4


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_reordering_both_sides_alike_changes_nothing_unless_pairs_are_held_out(measure, settings, views_for):
    x, y = views_for(measure)
    order = np.random.default_rng(1).permutation(len(x))
    before = float(measure.function(x, y, **settings))
    after = float(measure.function(x[order], y[order], **settings))
    if "row_permutation" in measure.invariances(**settings):
        assert after == pytest.approx(before, abs=1e-10)
    else:
        assert "folds" in measure.defaults()
        assert after != before
        assert after == pytest.approx(before, abs=0.2)  # another cut of the same pairs


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_the_two_sides_are_alike_to_every_symmetric_measure(measure, settings, views_for):
    x, y = views_for(measure)
    forth, back = measure.function(x, y, **settings), measure.function(y, x, **settings)
    if measure.symmetric:
        assert float(forth) == pytest.approx(float(back), abs=1e-12)
    else:
        assert abs(float(forth) - float(back)) > 1e-4


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_nothing_is_more_alike_than_a_side_and_itself(measure, settings, views):
    x, _ = views()
    if "alpha" in measure.defaults():
        settings = settings | {"alpha": 1e-6}  # a penalty shrinks even the identity
    assert float(measure.function(x, x, **settings)) == pytest.approx(1.0, abs=1e-10)


def test_the_legacy_inner_measure_of_rsa_depends_on_the_basis(views):
    x, _ = views(n=80, d_a=20)
    # Rows share a component, as decoder rows do. Along (1, …, 1) this measure is blind to it; elsewhere not.
    x = x + 2 * np.random.default_rng(1).standard_normal((80, 1)) ** 2
    rotated = orthogonal(x, np.random.default_rng(0))
    assert "orthogonal" not in MEASURES["rsa"].invariances(inner="pearson")
    assert float(MEASURES["rsa"].function(x, rotated, inner="pearson")) < 0.9
    assert float(MEASURES["rsa"].function(x, rotated)) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("measure", "settings"), DECLARED + OTHER_SETTINGS)
def test_extreme_units_neither_overflow_nor_vanish(measure, settings, views_for):
    x, y = views_for(measure)
    before = float(measure.function(x, y, **settings))
    assert float(measure.function(x * 1e200, y * 1e-200, **settings)) == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("name", ["svcca", "pwcca", "heldout_cca", "cka", "procrustes", "ridge_map"])
def test_a_huge_common_offset_costs_no_digits(name, views):
    x, y = views()
    measure = MEASURES[name].function
    shift = 2.0**20  # exactly representable, so only the centring is tested
    x = np.round(x * 2**20) / 2**20
    assert float(measure(x + shift, y)) == pytest.approx(float(measure(x, y)), abs=1e-10)
