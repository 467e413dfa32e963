"""Rounding of float32 and of half precisions is no direction for any measure; what hides nothing changes nothing."""

import numpy as np
import pytest
import torch

from unifeat import permutation_test, subsample_interval
from unifeat.geometry import MEASURES
from unifeat.geometry._components import hiding_noise, leading_components
from unifeat.geometry._input import DOUBLE, EPS, Precision, precision_of

SETTINGS = [
    *[(name, dict(variant.settings)) for name, measure in MEASURES.items() for variant in measure.variants],
    *[("svcca", {"dims": 32}), ("svcca", {"dims": 3}), ("pwcca", {"dims": 32}), ("cka", {"debiased": True})],
    *[("heldout_cca", {"dims": 32}), ("heldout_cca", {"dims": 32, "ridge": 0.01}), ("rsa", {"outer": "pearson"})],
]
EVERY = pytest.mark.parametrize(("name", "settings"), SETTINGS)
FLOAT32 = precision_of(np.zeros(0, np.float32))


def product(name, n, d_a, d_b, rank_a, rank_b, seed=0):
    """Two float64 sides of low rank that share directions."""
    rng = np.random.default_rng(seed)
    if MEASURES[name].equal_widths:
        d_b = d_a
    common = rng.standard_normal((n, max(rank_a, rank_b)))
    x = common[:, :rank_a] @ rng.standard_normal((rank_a, d_a))
    y = (common[:, :rank_b] + 0.5 * rng.standard_normal((n, rank_b))) @ rng.standard_normal((rank_b, d_b))
    return x, y


def keeps_more_than(settings, name, rank):
    """Whether these settings would keep directions beyond the rank if there were any."""
    if name == "procrustes":
        return bool(settings.get("heldout", False))
    if name not in ("svcca", "pwcca", "heldout_cca"):
        return False
    default = 1.0 if name == "pwcca" else 0.99
    return settings["dims"] > rank if settings.get("dims") else (settings.get("variance") or default) == 1.0


@EVERY
@pytest.mark.parametrize(
    ("n", "d_a", "d_b", "rank_a", "rank_b"),
    [(300, 50, 60, 5, 4), (60, 100, 90, 5, 4), (120, 40, 40, 38, 40), (90, 20, 30, 1, 1)],
)
def test_low_rank_in_float32_scores_as_in_float64(name, settings, n, d_a, d_b, rank_a, rank_b):
    x, y = product(name, n, d_a, d_b, rank_a, rank_b)
    measure = MEASURES[name]
    exact = measure.function(x, y, **settings)
    rounded = measure.function(x.astype(np.float32), y.astype(np.float32), **settings)
    assert rounded.value == pytest.approx(exact.value, abs=1e-6)
    for key in ("dims_a", "dims_b", "rank_a", "rank_b"):
        assert rounded.details.get(key) == exact.details.get(key)
    new = set(rounded.flags) - set(exact.flags)
    of_x = {flag for flag in new if flag.startswith("rank of x: ")}
    of_y = {flag for flag in new if flag.startswith("rank of y: ")}
    assert bool(of_x) == keeps_more_than(settings, name, rank_a)
    assert of_x <= {f"rank of x: {rank_a} of {min(n - 1, d_a)} directions are above the rounding of float32"}
    assert bool(of_y) == (keeps_more_than(settings, name, rank_b) and rank_b < min(n - 1, d_b))
    assert new == of_x | of_y


def test_the_directions_counted_before_were_noise():
    """The case of issue 11: without the tolerance, the same rows have rank 50 and 60."""
    x, y = (side.astype(np.float32) for side in product("svcca", 300, 50, 60, 5, 4))
    assert [leading_components(side.astype(float)).rank for side in (x, y)] == [50, 60]
    assert [leading_components(side.astype(float), given=FLOAT32).rank for side in (x, y)] == [5, 4]
    score = MEASURES["svcca"].function(x, y, dims=32)
    assert (score.details["rank_a"], score.details["rank_b"]) == (5, 4)
    assert abs(score.value - MEASURES["svcca"].function(x.astype(float), y.astype(float), dims=32).value) > 0.1


@EVERY
@pytest.mark.parametrize("n", [40, 60, 200])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_full_rank_stays_as_it_was_bit_for_bit(name, settings, n, spread, views_for):
    """As the same values given in float64, with column lengths that differ up to a thousand times, and n below d."""
    x, y = views_for(MEASURES[name], n=n, d_a=50, d_b=45)
    rng = np.random.default_rng(1)
    x, y = ((side * 10 ** rng.uniform(-spread, 0, side.shape[1]) + 0.1).astype(np.float32) for side in (x, y))
    score = MEASURES[name].function(x, y, **settings)
    assert score == MEASURES[name].function(x.astype(float), y.astype(float), **settings)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_full_rank_and_knows_its_noise(name, settings, dtype, views_for):
    measure = MEASURES[name]
    full = [torch.from_numpy(side).to(dtype) for side in views_for(measure, n=300, d_a=50, d_b=45)]
    score = measure.function(*full, **settings)
    assert score == measure.function(*[side.double() for side in full], **settings)
    x, y = product(name, 300, 50, 60, 5, 4)
    low = measure.function(*[torch.from_numpy(side).to(dtype) for side in (x, y)], **settings)
    assert low.value == pytest.approx(measure.function(x, y, **settings).value, abs=2e-3)
    flagged = any(flag.endswith(f"above the rounding of {str(dtype)[6:]}") for flag in low.flags)
    assert flagged == keeps_more_than(settings, name, 5)


@pytest.mark.parametrize("how", ["rounded", "unit", "product", "unequal", "one column", "offset", "repeated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "d", "rank"), [(60, 50, 4), (300, 40, 20), (50, 300, 20), (400, 200, 150)])
def test_the_noise_lies_between_rounding_and_signal(how, dtype, n, d, rank):
    """The directions that are there are above it and those that rounding made below it, however rows were rounded."""
    rng = np.random.default_rng([n, d])
    left, right = rng.standard_normal((n, rank)), rng.standard_normal((rank, d))
    if how == "unequal":
        left *= np.exp(rng.standard_normal((n, 1)))
        right *= np.exp(rng.standard_normal(d))
    if how == "one column":
        right[:, 3] *= 50
    exact = left @ right + 5.0 * (how == "offset")
    if how == "repeated":
        exact = np.repeat(exact[: n // 2], 2, axis=0)
    if how == "product":
        given = torch.from_numpy(left).to(dtype) @ torch.from_numpy(right).to(dtype)
    else:
        given = torch.from_numpy(exact).to(dtype)
    if how == "unit":
        given = given / given.norm(dim=1, keepdim=True)
    rows = given.double().numpy()
    u, scale, vt = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    ratio = scale / precision_of(given).noise(rows, u, vt)
    rounding = ratio[rank : min(n // (2 if how == "repeated" else 1) - 1, d)]
    assert ratio[:rank].min() > 1.5
    assert 0.01 < rounding.max() < 0.5
    assert (scale[rank:] < precision_of(given).most_noise(rows)).all()


def test_what_has_a_precision():
    assert precision_of(np.zeros(2)) == precision_of([[1, 2]]) == precision_of(np.zeros(2, int)) == DOUBLE
    assert precision_of(np.zeros(2, np.longdouble)) == precision_of(torch.zeros(2, dtype=torch.int8)) == DOUBLE
    assert precision_of(torch.zeros(2)) == FLOAT32 == Precision("float32", 2.0**-23)
    for half in (np.zeros(2, np.float16), torch.zeros(2).half()):
        assert precision_of(half) == Precision("float16", 2.0**-10)
    assert precision_of(torch.zeros(2).bfloat16()) == Precision("bfloat16", 2.0**-7)
    assert DOUBLE.noise(np.ones((3, 2)), np.ones((3, 2)), np.ones((2, 2))).tolist() == [0.0, 0.0]
    assert DOUBLE.most_noise(np.ones((3, 2))) == 0.0
    assert DOUBLE.eps == EPS


def test_a_column_of_large_numbers_hides_nothing_but_itself():
    """If it is constant, its rounding goes with its mean; else what it says below its last bits is lost."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 12)).astype(np.float32)
    x[:, 3] = 2.0**20
    assert leading_components(x.astype(float), given=FLOAT32).rank == 11
    x[:, 3] += rng.integers(0, 2, 60) / 4
    found = leading_components(x.astype(float), given=FLOAT32)
    assert found.lost == "11 of 12 directions are above the rounding of float32"
    others = leading_components(np.delete(x, 3, axis=1).astype(float))
    assert np.linalg.svd(found.basis.T @ others.basis)[1].min() > 0.99
    # The hidden direction is the longest one of all: what is kept is not then the first few.
    x[:, 3] = 2.0**24 + 2 * rng.integers(0, 9, 60)
    found, most = (leading_components(x.astype(float), dims=k, given=FLOAT32) for k in (3, 20))
    assert (found.scale == most.scale[:3]).all()
    assert most.scale.size == most.rank == 11
    assert found.lost == most.lost == "11 of 12 directions are above the rounding of float32"


@pytest.mark.parametrize(
    ("name", "settings"), [("heldout_cca", {"variance": 1.0}), ("heldout_cca", {}), ("procrustes", {"heldout": True})]
)
def test_a_direction_that_one_fold_holds_out_is_not_fitted_to_rounding(name, settings):
    """One pair alone has a direction: without it, the training pairs have rounding there, and nothing in float64."""
    x, y = product(name, 60, 20, 24, 5, 24)
    rng = np.random.default_rng(3)
    x[7] += 3 * rng.standard_normal(20)
    exact = MEASURES[name].function(x, y, **settings).value
    assert MEASURES[name].function(x.astype(np.float32), y, **settings).value == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("name", MEASURES)
def test_rows_that_rounding_alone_tells_apart_are_one(name):
    """Multiples of one row, scaled to unit length in float32."""
    rng = np.random.default_rng(0)
    rows = (rng.uniform(1, 2, (60, 1)) * rng.standard_normal(12)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert len(np.unique(rows, axis=0)) > 10
    score = MEASURES[name].function(rows, rng.standard_normal((60, 12)))
    assert np.isnan(score.value)
    assert score.flags == ("constant x: all rows are the same",)


def test_debiased_cka_of_one_odd_row_is_undefined_in_half_precision_too():
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.standard_normal((1, 12)), 60, axis=0)
    rows[7] += 3.0
    jitter = rows * (1 + 0.001 * rng.standard_normal(rows.shape))
    given = torch.from_numpy(jitter).bfloat16()
    assert len(np.unique(given.double().numpy(), axis=0)) > 10
    score = MEASURES["cka"].function(given, rng.standard_normal((60, 12)), debiased=True)
    assert any(flag.startswith("degenerate x") for flag in score.flags)
    assert not np.isnan(MEASURES["cka"].function(given.double(), rng.standard_normal((60, 12)), debiased=True).value)


@pytest.mark.parametrize(("n", "d"), [(60, 30), (30, 60)])
def test_hiding_noise_says_how_many(n, d):
    rng = np.random.default_rng(0)
    full = rng.standard_normal((n, d)).astype(np.float32).astype(float)
    assert hiding_noise(full, FLOAT32) == hiding_noise(full, DOUBLE) == (0.0, "")
    low = (rng.standard_normal((n, 4)) @ rng.standard_normal((4, d))).astype(np.float32).astype(float)
    noise, lost = hiding_noise(low, FLOAT32)
    assert 0 < noise <= FLOAT32.most_noise(low)
    assert lost == f"4 of {min(n - 1, d)} directions are above the rounding of float32"
    assert hiding_noise(low, DOUBLE) == (0.0, "")
    exact = np.repeat(full[:, : d // 2], 2, axis=1)  # rank-deficient without any rounding
    assert hiding_noise(exact, FLOAT32) == (0.0, "")


def test_halves_and_shuffles_keep_the_precision_of_tensors():
    x, y = (torch.from_numpy(side).float() for side in product("svcca", 120, 30, 34, 5, 4))
    test = permutation_test("svcca", x, y, permutations=19, dims=32)
    assert any(flag.startswith("rank of x: 5 of 30") for flag in test.flags)
    interval = subsample_interval("svcca", x, y, subsamples=8, dims=32)
    doubles = subsample_interval("svcca", *product("svcca", 120, 30, 34, 5, 4), subsamples=8, dims=32)
    np.testing.assert_allclose(interval.halves, doubles.halves, atol=1e-6)
