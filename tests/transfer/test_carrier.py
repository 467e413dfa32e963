"""Directions carried from one model into another: by pairs whose directions are known, and by a known map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import ortho_group

from unifeat.transfer.maps import LinearMap
from unifeat.transfer.steering import Carrier, as_long

FEATURES, WIDTH = 12, 20


@pytest.fixture
def turned() -> tuple[Carrier, Any]:
    """B is A turned, and its codes are three times as large."""
    rng = np.random.default_rng(0)
    turn = ortho_group.rvs(WIDTH, random_state=1)
    weights = rng.normal(size=(FEATURES, WIDTH))
    same = LinearMap(turn, np.zeros(WIDTH), np.zeros(WIDTH))
    return Carrier(weights, weights @ turn / 3, np.full(FEATURES, 3.0), same, (2.0, 5.0)), turn


def cosine(x: Any, y: Any) -> float:
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_a_sum_of_features_arrives_as_that_of_their_partners(turned: tuple[Carrier, Any]) -> None:
    carrier, turn = turned
    codes = np.zeros(FEATURES)
    codes[[2, 7]] = 1.5, -0.5
    direction = codes @ carrier.weights_a
    np.testing.assert_allclose(carrier.through_pairs(codes), direction @ turn, atol=1e-12)
    np.testing.assert_allclose(carrier.through_map(direction), direction @ turn, atol=1e-12)
    found = carrier.coefficients(direction)
    assert cosine(carrier.through_pairs(found), direction @ turn) > 0.9
    assert carrier.explained(direction, found) > 0.8


def test_what_the_matched_features_do_not_span_is_lost(turned: tuple[Carrier, Any]) -> None:
    carrier, _ = turned
    outside = np.linalg.svd(carrier.weights_a)[2][-1]
    assert carrier.explained(outside, carrier.coefficients(outside)) == pytest.approx(0, abs=1e-12)


def test_the_decomposition_is_ridge_regression_made_as_long_as_fits(turned: tuple[Carrier, Any]) -> None:
    from sklearn.linear_model import LinearRegression, Ridge

    carrier, _ = turned
    direction = np.random.default_rng(3).normal(size=WIDTH)
    penalty = (carrier.weights_a**2).sum(1).mean()
    ridge = Ridge(alpha=penalty, fit_intercept=False).fit(carrier.weights_a.T, direction).coef_
    made = ridge @ carrier.weights_a
    by = LinearRegression(fit_intercept=False).fit(made[:, None], direction).coef_[0]
    found = carrier.coefficients(direction)
    np.testing.assert_allclose(found, by * ridge, rtol=1e-9)
    assert carrier.explained(direction, found) == pytest.approx(cosine(made, direction) ** 2)


def test_exchanged_partners_point_elsewhere(turned: tuple[Carrier, Any]) -> None:
    carrier, turn = turned
    codes = np.random.default_rng(5).normal(size=FEATURES)
    order = np.roll(np.arange(FEATURES), 1)
    moved = carrier.through_pairs(codes, order)
    np.testing.assert_allclose(moved, (codes * 3) @ (carrier.weights_b[order]))
    assert cosine(moved, (codes @ carrier.weights_a) @ turn) < 0.7


def test_length_is_kept_beside_the_activations(turned: tuple[Carrier, Any]) -> None:
    carrier, _ = turned
    direction = np.ones(WIDTH)
    scaled = as_long(carrier.through_map(direction) * 7, direction, carrier.norms)
    assert np.linalg.norm(scaled) / 5.0 == pytest.approx(np.linalg.norm(direction) / 2.0)
    assert not as_long(np.zeros(WIDTH), direction, carrier.norms).any()


def test_equal_rows_share_and_no_direction_is_nothing() -> None:
    row = np.eye(3)[:1]
    weights = np.repeat(row, 4, axis=0)
    carrier = Carrier(weights, weights, np.ones(4), LinearMap(np.eye(3), np.zeros(3), np.zeros(3)), (1.0, 1.0))
    np.testing.assert_allclose(carrier.coefficients(row[0]), 0.25)
    assert not carrier.coefficients(np.eye(3)[1]).any()
