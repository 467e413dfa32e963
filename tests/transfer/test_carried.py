"""How much of what matched features do is carried by their partners: against regressions by hand and planted truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import unifeat as uf
from unifeat.inference import frequency_strata

N, FEATURES, D, DOCUMENTS = 3000, 40, 24, 30


def space(seed: int = 0, *, shared: int = 30, noise: float = 0.3, permuted: bool = False, n: int = N) -> dict[str, Any]:
    """Two spaces with the same features, the first `shared` of which fire alike; x_b is built from B's codes."""
    rng = np.random.default_rng(seed)
    fires = rng.random((n, FEATURES)) < rng.uniform(0.03, 0.2, FEATURES)
    b = fires * rng.gamma(4, 0.5, (n, FEATURES))
    a = b * rng.lognormal(0, noise, (n, FEATURES)) * rng.uniform(0.5, 3, FEATURES)
    unlike = np.arange(FEATURES) >= shared
    a[:, unlike] = (rng.random((n, unlike.sum())) < 0.1) * rng.gamma(4, 0.5, (n, unlike.sum()))
    decoder = rng.normal(size=(FEATURES, D))
    bias = rng.normal(size=D) * 3
    x = b @ decoder + bias + 0.5 * rng.normal(size=(n, D))
    pairs = pd.DataFrame({"feature_a": np.arange(shared or FEATURES), "feature_b": np.arange(shared or FEATURES)})
    if permuted:
        pairs["feature_a"] = rng.permutation(pairs["feature_a"])
    return {
        "codes_a": sparse.csr_array(a),
        "codes_b": sparse.csr_array(b),
        "pairs": pairs,
        "decoder_b": decoder,
        "x_b": x,
        "documents": np.repeat(np.arange(DOCUMENTS), n // DOCUMENTS),
    }


def by_hand(data: dict[str, Any], fit: np.ndarray, partners: np.ndarray | None = None) -> dict[str, float]:
    """FVU of the variants, one regression after the other."""
    a, b = (data[name].toarray() for name in ("codes_a", "codes_b"))
    x, decoder = data["x_b"], data["decoder_b"]
    bias = (x - b @ decoder)[fit].mean(0)
    ids_a, ids_b = data["pairs"]["feature_a"].to_numpy(), data["pairs"]["feature_b"].to_numpy()
    if partners is not None:
        ids_a = ids_a[partners]
    predicted = np.zeros((len(x), len(ids_b)))
    for j, (one, other) in enumerate(zip(ids_a, ids_b, strict=True)):
        line = stats.linregress(a[fit, one], b[fit, other])
        predicted[:, j] = line.intercept + line.slope * a[:, one]
    means = np.broadcast_to(b[fit].mean(0), b.shape)
    codes = {"own": b, "own_matched": means.copy(), "from_a": means.copy(), "all_at_mean": means}
    codes |= {"own_and_from_a": b.copy(), "matched_at_mean": b.copy()}
    codes["own_matched"][:, ids_b] = b[:, ids_b]
    codes["from_a"][:, ids_b] = codes["own_and_from_a"][:, ids_b] = predicted
    codes["matched_at_mean"][:, ids_b] = means[:, ids_b]
    judge = ~fit
    total = np.sum((x[judge] - x[judge].mean(0)) ** 2)
    return {name: float(np.sum((x - own @ decoder - bias)[judge] ** 2) / total) for name, own in codes.items()}


def halves(data: dict[str, Any]) -> np.ndarray:
    return data["documents"] % 2 == 0


def test_variants_are_those_made_by_hand() -> None:
    data = space()
    fit = halves(data)
    found = uf.carried(**data, fit=fit, draws=9)
    expected = by_hand(data, fit)
    assert found.fvu.keys() == expected.keys()
    for name, value in expected.items():
        assert found.fvu[name] == pytest.approx(value, abs=1e-6), name
    zero, own, mixed = (expected[name] for name in ("matched_at_mean", "own", "own_and_from_a"))
    assert found.value == pytest.approx((zero - mixed) / (zero - own), abs=1e-5)
    assert (found.fitted_rows, found.judged_rows, found.documents) == (fit.sum(), (~fit).sum(), DOCUMENTS // 2)


def test_gains_are_regressions_and_pairs_add_up() -> None:
    data = space(1)
    fit = halves(data)
    found = uf.carried(**data, fit=fit, draws=1)
    a, b = (data[name].toarray() for name in ("codes_a", "codes_b"))
    for row in found.pairs.itertuples():
        line = stats.linregress(a[fit, row.feature_a], b[fit, row.feature_b])
        assert (row.gain, row.offset) == pytest.approx((line.slope, line.intercept), rel=1e-8)
        left = b[~fit, row.feature_b] - line.intercept - line.slope * a[~fit, row.feature_a]
        assert row.predicted == pytest.approx(1 - left.var() / b[~fit, row.feature_b].var(), abs=0.01)
    lowered = found.fvu["matched_at_mean"] - found.fvu["own_and_from_a"]
    assert found.pairs["lowered"].sum() == pytest.approx(lowered, abs=1e-9)
    lowered_own = found.fvu["matched_at_mean"] - found.fvu["own"]
    assert found.pairs["lowered_own"].sum() == pytest.approx(lowered_own, abs=1e-9)


def test_what_a_pair_lowers_is_its_shapley_value() -> None:
    """Three pairs: the mean, over all orders, of what each lowers when it is added."""
    from itertools import permutations

    data = space(2)
    fit = halves(data)
    data["pairs"] = data["pairs"].iloc[:3]
    found = uf.carried(**data, fit=fit, draws=1)

    def error(some: tuple[int, ...]) -> float:
        """FVU with these pairs from A and the others of the three at their mean."""
        own = data | {"pairs": data["pairs"].iloc[list(some)]}
        a, b = (data[name].toarray() for name in ("codes_a", "codes_b"))
        codes = b.copy()
        codes[:, :3] = b[fit, :3].mean(0)
        for j in some:
            line = stats.linregress(a[fit, j], b[fit, j])
            codes[:, j] = line.intercept + line.slope * a[:, j]
        x, bias = own["x_b"], (data["x_b"] - b @ data["decoder_b"])[fit].mean(0)
        missed = (x - codes @ data["decoder_b"] - bias)[~fit]
        return float(np.sum(missed**2) / np.sum((x[~fit] - x[~fit].mean(0)) ** 2))

    values = np.zeros(3)
    for order in permutations(range(3)):
        for place, j in enumerate(order):
            values[j] += (error(order[:place]) - error(order[: place + 1])) / 6
    np.testing.assert_allclose(found.pairs["lowered"], values, atol=1e-7)


def test_the_null_is_that_of_exchanged_partners() -> None:
    from unifeat.inference.exchange import Exchange
    from unifeat.inference.permuting import permutations_within

    data = space(3)
    fit = halves(data)
    labels = np.arange(30) % 3
    for strata in (None, labels):
        found = uf.carried(**data, fit=fit, draws=4, seed=5, strata=strata)
        base = by_hand(data, fit)
        for value, order in zip(found.null, permutations_within(Exchange.of(30, strata), 4, 5), strict=True):
            mixed = by_hand(data, fit, order)["own_and_from_a"]
            expected = (base["matched_at_mean"] - mixed) / (base["matched_at_mean"] - base["own"])
            assert value == pytest.approx(expected, abs=1e-5)
            if strata is not None:
                assert (labels[order] == labels).all()


class TestPlantedTruth:
    def test_partners_that_fire_alike_carry(self) -> None:
        clean = uf.carried(**space(noise=0.0))
        assert clean.value == pytest.approx(1.0, abs=0.01)
        noisy = uf.carried(**space(noise=0.3))
        assert 0.6 < noisy.low < noisy.value < noisy.high < 1
        assert noisy.p == pytest.approx(1 / 101)
        assert abs(noisy.null_mean) < 0.05

    def test_what_does_not_fire_alike_carries_nothing(self) -> None:
        found = uf.carried(**space(shared=0))
        assert abs(found.value) < 0.03
        assert found.p > 0.05

    def test_wrong_partners_carry_nothing(self) -> None:
        assert abs(uf.carried(**space(permuted=True)).value) < 0.1

    @pytest.mark.slow
    def test_p_is_uniform_where_partners_are_exchanged(self) -> None:
        p = [uf.carried(**space(seed, shared=0, n=900), draws=39, seed=seed).p for seed in range(150)]
        assert stats.kstest(p, stats.uniform(1 / 40, 1 - 1 / 40).cdf).pvalue > 0.01
        assert np.mean(np.array(p) <= 0.05) < 0.1

    @pytest.mark.slow
    def test_intervals_cover_what_more_text_gives(self) -> None:
        truth = uf.carried(**space(999, n=60_000), draws=1).value
        inside = []
        for seed in range(120):
            data = space(999, n=60_000)
            rows = np.sort(np.random.default_rng(seed).permutation(60_000 // 100)[:30])
            rows = (rows[:, None] * 100 + np.arange(100)).ravel()
            some = {k: data[k][rows] for k in ("codes_a", "codes_b", "x_b")}
            own = uf.carried(
                **some, pairs=data["pairs"], decoder_b=data["decoder_b"],
                documents=np.repeat(np.arange(30), 100), draws=1, seed=seed,
            )  # fmt: skip
            inside.append(own.low <= truth <= own.high)
        assert 0.84 < np.mean(inside) <= 1.0


def test_arrays_tensors_and_duplicates() -> None:
    data = space(4)
    plain = uf.carried(**data, draws=3)
    dense = data | {name: data[name].toarray() for name in ("codes_a", "codes_b")}
    assert uf.carried(**dense, draws=3).value == plain.value
    twice = data | {"pairs": pd.concat([data["pairs"], data["pairs"].assign(feature_a=39)])}
    assert uf.carried(**twice, draws=3).value == plain.value
    biased = uf.carried(**data, bias=(data["x_b"] - data["codes_b"] @ data["decoder_b"]).mean(0), draws=3)
    assert biased.value == pytest.approx(plain.value, abs=0.01)


def test_tensors_are_read_whatever_they_are() -> None:
    import torch

    data = space(4)
    codes = torch.tensor(data["codes_a"].toarray())
    same = data | {
        "codes_a": codes.to_sparse(),
        "decoder_b": torch.tensor(data["decoder_b"], requires_grad=True),
        "x_b": torch.tensor(data["x_b"]),
    }
    plain = uf.carried(**data, draws=3)
    assert uf.carried(**same, draws=3).value == plain.value
    rounded = uf.carried(**data | {"x_b": torch.tensor(data["x_b"]).bfloat16()}, draws=3)
    assert rounded.value == pytest.approx(plain.value, abs=0.01)


@pytest.mark.parametrize("seed", range(6))
def test_a_draw_that_exchanges_nothing_reaches_the_value(seed: int) -> None:
    """Values are summed over rows and draws from products of pairs: their last bits differ, and p is 1 all the same."""
    data = space(seed)
    alone = uf.carried(**data, strata=np.arange(30), draws=19, seed=seed)
    assert alone.p == 1
    assert "few pairs: none can be exchanged, so p is 1" in alone.flags
    assert uf.carried(**data | {"pairs": data["pairs"].iloc[:1]}, draws=19, seed=seed).p == 1


def test_few_pairs_are_said() -> None:
    data = space(7)
    found = uf.carried(**data | {"pairs": data["pairs"].iloc[:2]}, draws=19)
    assert found.flags == ("few pairs: there are only 2 exchanges, so p is hardly below 0.5",)
    assert uf.carried(**data, draws=19).flags == ()


def test_it_shows_itself() -> None:
    found = uf.carried(**space(5), strata=frequency_strata(np.arange(30), np.arange(30)), draws=3)
    assert repr(found).startswith("carried 0.")
    assert "own and from a" in found._repr_html_()


def test_dead_features_and_what_is_nothing_to_carry() -> None:
    data = space(6)
    a = data["codes_a"].toarray()
    a[:, 0] = 0
    found = uf.carried(**data | {"codes_a": sparse.csr_array(a)}, draws=3)
    assert found.pairs["gain"][0] == 0
    b = data["codes_b"].toarray()
    b[:, :30] = 0
    nothing = uf.carried(**data | {"codes_b": sparse.csr_array(b)}, draws=3)
    assert np.isnan(nothing.value)
    assert np.isnan(nothing.p)
    assert any("nothing to carry" in flag for flag in nothing.flags)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_b": np.zeros((3, D))}, "the same tokens"),
        ({"decoder_b": np.zeros((3, D))}, "give 40 rows of 24"),
        ({"pairs": pd.DataFrame({"feature_a": [1]})}, "feature_b is missing"),
        ({"pairs": 5}, "give a table with the columns"),
        ({"pairs": pd.DataFrame({"feature_a": [], "feature_b": []})}, "there is none"),
        ({"pairs": pd.DataFrame({"feature_a": [1], "feature_b": [40]})}, "feature_b: 40 is not one of 40"),
        ({"pairs": pd.DataFrame({"feature_a": [-1, 2], "feature_b": [1, 2]})}, "feature_a: -1 is not one"),
        ({"pairs": pd.DataFrame({"feature_a": [1.5, 2], "feature_b": [1, 2]})}, r"feature_a: 1\.5 is not one"),
        ({"pairs": pd.DataFrame({"feature_a": [1, np.nan], "feature_b": [1, 2]})}, "feature_a: nan is not one"),
        (
            {"pairs": pd.DataFrame({"feature_a": ["a"], "feature_b": [1]})},
            "feature_a: give feature ids",
        ),
        ({"strata": np.arange(5)}, "strata: give one label for each of 30 pairs, not 5"),
        ({"level": 95}, "level=95"),
        ({"level": 0}, "level=0"),
        ({"seed": -1}, "seed=-1"),
        ({"codes_a": "text"}, "codes_a must be"),
        ({"codes_a": np.full((N, FEATURES), np.nan)}, "codes_a holds NaN"),
        ({"x_b": np.full((N, D), np.nan)}, "x_b holds NaN"),
        ({"x_b": np.ones((N, D))}, "x_b is the same at all judged tokens"),
        ({"decoder_b": np.full((FEATURES, D), np.inf)}, "decoder_b holds NaN or infinity"),
        ({"bias": np.full(D, np.nan)}, "bias holds NaN"),
        ({"documents": np.zeros(N)}, "documents: give one whole number"),
        ({"documents": np.zeros(N, int)}, "fewer than two documents"),
        ({"fit": np.ones(N)}, "fit: give one true or false"),
        ({"bias": np.zeros(2)}, "bias has shape"),
        ({"draws": 0}, "draws"),
    ],
)
def test_wrong_input(change: dict[str, Any], said: str) -> None:
    with pytest.raises(uf.UserError, match=said):
        uf.carried(**space() | change)
