"""MPPC, weighted MPPC, Comparative Sharedness and cycle matches: by hand, against loops, and on planted spaces."""

from __future__ import annotations

import numpy as np
import pytest

import unifeat as uf
from unifeat.errors import UserError
from unifeat.multiway.sharedness import comparative_sharedness, cycle_matches, mppc, wmppc, wmppc_over_layers

NAN = float("nan")


def test_by_hand():
    best, total = np.array([0.9, 0.5, NAN, 0.1]), np.array([10.0, 30.0, 5.0, 0.0])
    assert mppc(best) == pytest.approx(0.5)
    assert wmppc(best, total) == pytest.approx((0.9 * 10 + 0.5 * 30) / 40)
    # Two layers, of four features and of two: 0.6 and 0.3 count 4 to 2.
    assert wmppc_over_layers([best, np.array([0.3, 0.3])], [total, np.ones(2)]) == pytest.approx(
        (0.6 * 4 + 0.3 * 2) / 6
    )


def test_from_codes_against_plain_correlation():
    rng = np.random.default_rng(0)
    a = rng.gamma(1, size=(300, 6)) * (rng.random((300, 6)) < 0.3)
    b = np.column_stack([a[:, :3] * rng.lognormal(0, 0.3, (300, 3)), rng.random((300, 2))])
    a[:, 5] = 0  # silent
    corr = uf.correlate(*map(_csr, (a, b)))
    with np.errstate(invalid="ignore"):
        r = np.corrcoef(a.T, b.T)[:6, 6:]
    best = corr.a_to_b.value[:, 0]
    assert mppc(best) == pytest.approx(np.nanmean(r[:5].max(axis=1)))
    total = corr.moments_a.mean * corr.n
    assert total == pytest.approx(a.sum(axis=0))
    weights = a.sum(axis=0)[:5]
    assert wmppc(best, total) == pytest.approx((r[:5].max(axis=1) * weights).sum() / weights.sum())


def test_sharedness_of_two_groups_of_models():
    """Feature 0 is shared by both of G and by none of H, feature 1 by all, feature 2 by one of each, 3 by H alone."""
    group = np.array([[0.9, 0.8, 0.9, 0.1], [0.8, 0.9, 0.1, 0.0]])
    other = np.array([[0.1, 0.8, 0.8, 0.9], [0.0, 0.7, 0.1, 0.8]])
    total = np.array([2.0, 1.0, 1.0, 1.0])
    found = comparative_sharedness(total, group, other)
    assert found == pytest.approx([2 * (0.64 - 0.01), 0.64 - 0.64, 0.01 - 0.64, 0.0 - 0.81])
    loop = [t * (min(r**2 for r in g) - max(r**2 for r in h)) for t, g, h in zip(total, group.T, other.T, strict=True)]
    assert found == pytest.approx(loop)


def test_the_minimum_does_not_start_at_0():
    """The published code starts it there, so that no feature is ever shared by a group: S (0 − max ρ²) ≤ 0."""
    group, other, total = np.full((3, 1), 0.9), np.full((2, 1), 0.2), np.ones(1)
    assert comparative_sharedness(total, group, other) == pytest.approx([0.81 - 0.04])


def test_models_that_alone_share_features_are_told_from_others():
    rng = np.random.default_rng(1)
    common, of_g = rng.random((2000, 10)), rng.random((2000, 10))
    noise = lambda: rng.random((2000, 10)) * 0.2  # noqa: E731
    own = np.hstack([common, of_g])
    in_g = [np.hstack([common, of_g]) + np.hstack([noise(), noise()]) for _ in range(2)]
    in_h = [np.hstack([common + noise(), rng.random((2000, 10))]) for _ in range(3)]
    best = [
        np.array([[uf.correlate(*map(_csr, (own, model))).a_to_b.value[:, 0] for model in models]])[0]
        for models in (in_g, in_h)
    ]
    found = comparative_sharedness(own.sum(axis=0), *best)
    assert (found[10:] > 500).all()
    assert (np.abs(found[:10]) < 50).all()


def test_undefined_values():
    assert np.isnan(mppc(np.array([NAN])))
    assert np.isnan(wmppc(np.array([0.4]), np.zeros(1)))
    assert wmppc_over_layers([np.array([0.4]), np.array([NAN, NAN])], [np.ones(1), np.ones(2)]) == pytest.approx(0.4)
    assert np.isnan(wmppc_over_layers([], []))
    found = comparative_sharedness(np.ones(2), np.array([[NAN, 0.5]]), np.array([[0.1, 0.2]]))
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(0.25 - 0.04)


def test_cycles_against_following_by_hand():
    rng = np.random.default_rng(2)
    for spaces in (2, 3, 5):
        widths = rng.integers(1, 30, spaces)
        partners = [rng.integers(-1, widths[(i + 1) % spaces], widths[i]) for i in range(spaces)]
        for i in range(spaces):  # some that do lead home
            partners[i][: min(widths) // 2] = np.arange(min(widths) // 2)
        expected = []
        for first in range(widths[0]):
            way = [first]
            for own in partners:
                way.append(int(own[way[-1]]) if way[-1] >= 0 else -1)
            if way[-1] == first:
                expected.append(way[:-1])
        found = cycle_matches(partners)
        assert found.tolist() == expected
        assert found.shape[1] == spaces
        assert len(found) >= min(widths) // 2


def test_two_spaces_in_a_circle_are_mutual_best_partners():
    world = uf.synthetic.plant(features_a=40, features_b=50, n_tokens=3000, noise=0.4, seed=3)
    corr = uf.correlate(world.codes_a, world.codes_b)
    mutual = uf.match(corr, "mutual").sort_values("feature_a")
    found = cycle_matches([corr.a_to_b.index[:, 0], corr.b_to_a.index[:, 0]])
    assert found.tolist() == mutual[["feature_a", "feature_b"]].to_numpy().tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wmppc(np.ones(2), np.ones(3)), "one number for each of 2 features"),
        (lambda: wmppc(np.ones(2), np.array([1.0, -1.0])), "not negative"),
        (lambda: wmppc(np.ones(2), np.array([1.0, NAN])), "finite"),
        (lambda: wmppc_over_layers([np.ones(2)], []), "give both"),
        (lambda: comparative_sharedness(np.ones(2), np.ones((0, 2)), np.ones((1, 2))), "group has shape"),
        (lambda: comparative_sharedness(np.ones(2), np.ones((1, 2)), np.ones((1, 3))), "other has shape"),
        (lambda: cycle_matches([np.zeros(2, int)]), "two or more"),
        (lambda: cycle_matches([np.array([5]), np.array([0, 0])]), "of 2, lacks"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(UserError, match=message):
        call()


def _csr(codes):
    from scipy import sparse

    return sparse.csr_array(codes)
