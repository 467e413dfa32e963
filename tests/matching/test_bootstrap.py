"""The bootstrap over documents: against rows drawn one by one, SciPy, and coverage on simulated texts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from unifeat.correlation.block_sums import BlockSums, block_edges, block_sums
from unifeat.correlation.correlate import Correlation, correlate
from unifeat.correlation.csls import csls
from unifeat.correlation.pair_sums import correlate_pairs
from unifeat.matching.bootstrap import Bootstrap, bootstrap, draw_weights, percentiles, resampled_counts, resampled_r
from unifeat.matching.methods import select

DOCUMENTS, TOKENS, FEATURES = 40, 25, 12


def codes(seed: int, documents: int = DOCUMENTS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    fires = rng.random((documents * TOKENS, FEATURES)) < rng.gamma(1, 0.15, (documents, FEATURES)).repeat(TOKENS, 0)
    x = rng.exponential(1, fires.shape) * fires
    noise = rng.exponential(1, x.shape) * (rng.random(x.shape) < 0.1) * np.linspace(0, 7, FEATURES)
    y = x * (rng.random(x.shape) < 0.7) + noise
    y[:, 0] *= -1
    x[:, -1] = 0
    return x, y


def sums_of(x: np.ndarray, y: np.ndarray, table: pd.DataFrame) -> BlockSums:
    start = np.arange(0, len(x), TOKENS)
    both = sparse.csr_array(x), sparse.csr_array(y)
    return block_sums(both, block_edges(start, len(x)), table["feature_a"], table["feature_b"])


def candidates(x: np.ndarray, y: np.ndarray, top: int = 2) -> tuple[Correlation, pd.DataFrame]:
    corr = correlate(sparse.csr_array(x), sparse.csr_array(y), top=top)
    table = corr.candidates()[["feature_a", "feature_b", "correlation", "csls"]]
    counts = corr.moments_a.count[table["feature_a"]], corr.moments_b.count[table["feature_b"]]
    return corr, table.assign(correlation_heldout=np.nan, count_a=counts[0], count_b=counts[1])


def keep(table: pd.DataFrame, method: str = "mutual") -> np.ndarray:
    rows = np.flatnonzero((table["correlation"] > 0.2) & (table["count_a"] > 30))
    kept = np.zeros(len(table), bool)
    kept[rows[select(table.iloc[rows], method)]] = True
    return kept


def test_matching_anew_on_documents_drawn_one_by_one() -> None:
    """Each draw's table and its rates are those of the rows drawn, correlated and matched from scratch."""
    (x, y), (u, v) = codes(0), codes(1)
    _, table = candidates(x, y)
    fitted, heldout = sums_of(x, y, table), sums_of(u, v, table)
    seen: list[pd.DataFrame] = []

    def watched(given: pd.DataFrame) -> np.ndarray:
        seen.append(given)
        return keep(given)

    done = bootstrap(table, fitted, heldout, watched, draws=20, level=0.9, seed=3, top=2)
    weights = [draw_weights(DOCUMENTS, 20, 3, stream).astype(int) for stream in ("fitted", "heldout")]
    assert len(seen) == 21
    assert not np.array_equal(*weights)
    ids = table["feature_a"].to_numpy(), table["feature_b"].to_numpy()
    drawn = []
    for other, counts, counts_heldout in zip(seen[1:], *weights, strict=True):
        (left, right), (left2, right2) = (
            [np.concatenate([z.reshape(DOCUMENTS, TOKENS, -1)[k] for k in np.arange(DOCUMENTS).repeat(c)]) for z in zs]
            for c, zs in ((counts, (x, y)), (counts_heldout, (u, v)))
        )
        r, _ = correlate_pairs((sparse.csr_array(left), sparse.csr_array(right)), *ids)
        r2, _ = correlate_pairs((sparse.csr_array(left2), sparse.csr_array(right2)), *ids)
        np.testing.assert_allclose(other["correlation"], r, rtol=0, atol=1e-9)
        np.testing.assert_allclose(other["correlation_heldout"], r2, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(other["count_a"], (left != 0).sum(axis=0)[ids[0]])
        np.testing.assert_array_equal(other["count_b"], (right != 0).sum(axis=0)[ids[1]])
        np.testing.assert_allclose(other["csls"], csls(*(i.astype(np.int64) for i in ids), r, 2), rtol=0, atol=1e-9)
        assert list(other) == list(table)
        chosen = other[keep(other)]
        drawn.append(
            {
                "kept": len(chosen),
                "share_a": len(set(chosen["feature_a"])) / (FEATURES - 1),  # the last one is dead
                "share_b": len(set(chosen["feature_b"])) / FEATURES,
                "mean_correlation": r[keep(other)].mean(),
                "mean_correlation_heldout": r2[keep(other)].mean(),
            }
        )
    assert set(table["feature_a"]) == set(range(FEATURES - 1))
    chosen = table[keep(table)]
    estimates = {
        "kept": len(chosen),
        "share_a": len(chosen) / (FEATURES - 1),
        "share_b": len(chosen) / FEATURES,
        "mean_correlation": chosen["correlation"].mean(),
    }
    for name, values in pd.DataFrame(drawn).items():
        facts = done.facts[str(name)]
        if name == "mean_correlation_heldout":
            assert facts == dict.fromkeys(("estimate", "low", "high", "bias"))  # the table above had none
            continue
        tail = expanded_tail(0.9, DOCUMENTS)
        limits = estimates[str(name)] + np.quantile(values, [tail, 1 - tail]) - values.mean()
        if "share" in str(name):
            limits = limits.clip(0, 1)
        assert facts["estimate"] == pytest.approx(estimates[str(name)])
        assert [facts["low"], facts["high"]] == pytest.approx(limits.tolist())
        assert facts["bias"] == pytest.approx(values.mean() - estimates[str(name)])
    everything = {"draws": 20, "level": 0.9, "blocks": DOCUMENTS, "blocks_heldout": DOCUMENTS}
    assert {k: done.facts[k] for k in everything} == everything


def expanded_tail(level: float, blocks: int) -> float:
    return float(stats.norm.cdf(stats.t.ppf((1 - level) / 2, blocks - 1) * np.sqrt(blocks / (blocks - 1))))


def test_intervals_of_pairs_are_percentiles_of_their_r() -> None:
    (x, y), (u, v) = codes(2), codes(3)
    _, table = candidates(x, y)
    table.index = table.index + 100
    fitted, heldout = sums_of(x, y, table), sums_of(u, v, table)
    done = bootstrap(table, fitted, heldout, keep, draws=50, level=0.8, seed=4)
    tail = expanded_tail(0.8, DOCUMENTS)
    for name, sums, stream in (("correlation", fitted, "fitted"), ("correlation_heldout", heldout, "heldout")):
        r = resampled_r(sums, draw_weights(DOCUMENTS, 50, 4, stream))
        low, high = np.nanquantile(r, [tail, 1 - tail], axis=0)
        np.testing.assert_allclose(done.pairs[f"{name}_low"], low, rtol=0, atol=1e-12)
        np.testing.assert_allclose(done.pairs[f"{name}_high"], high, rtol=0, atol=1e-12)
    assert done.pairs.index.equals(table.index)


def test_in_small_batches_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, y), (u, v) = codes(2), codes(3)
    _, table = candidates(x, y)
    arguments = (table, sums_of(x, y, table), sums_of(u, v, table), keep)
    settings = {"draws": 30, "level": 0.95, "seed": 0}
    whole = bootstrap(*arguments, **settings)
    monkeypatch.setattr("unifeat.matching.bootstrap._BATCH_CELLS", 70)
    same(bootstrap(*arguments, **settings), whole)
    assert bootstrap(*arguments, **(settings | {"seed": 1})).facts != whole.facts


def same(one: Bootstrap, other: Bootstrap) -> None:
    assert one.facts == other.facts
    pd.testing.assert_frame_equal(one.pairs, other.pairs)


@pytest.mark.parametrize("method", ["csls", "assignment", "max", "first-seen"])
def test_any_method(method: str) -> None:
    x, y = codes(5)
    _, table = candidates(x, y)
    top = 2 if method == "csls" else None
    done = bootstrap(
        table, sums_of(x, y, table), None, lambda t: keep(t, method), draws=40, level=0.95, seed=0, top=top
    )
    for name in ("kept", "share_a", "share_b", "mean_correlation"):
        facts = done.facts[name]
        assert facts["low"] < facts["estimate"] < facts["high"]
    assert done.pairs["correlation_heldout_low"].isna().all()
    assert done.facts["blocks_heldout"] == 0


@pytest.mark.parametrize("documents", [1, 2, 4, 5])
def test_few_documents(documents: int) -> None:
    """One document tells nothing of the spread between documents, and up to four too little for intervals of r."""
    x, y = codes(6, documents)
    _, table = candidates(x, y)
    done = bootstrap(table, sums_of(x, y, table), None, keep, draws=60, level=0.95, seed=0)
    assert done.facts["blocks"] == documents
    assert done.facts["kept"]["estimate"] == keep(table).sum()
    if documents == 1:
        assert done.facts["kept"]["low"] is None
    assert done.pairs["correlation_low"].notna().any() == (documents > 4)


def test_nothing_to_match_and_nothing_kept() -> None:
    x, y = codes(7)
    _, table = candidates(x, y)
    sums = sums_of(x, y, table)
    none = bootstrap(table, sums, sums, lambda t: np.zeros(len(t), bool), draws=10, level=0.95, seed=0)
    assert none.facts["kept"] == {"estimate": 0, "low": 0, "high": 0, "bias": 0}
    assert none.facts["mean_correlation"] == dict.fromkeys(("estimate", "low", "high", "bias"))
    _, empty = candidates(np.zeros((50, 4)), np.zeros((50, 4)))
    sums = sums_of(np.zeros((50, 4)), np.zeros((50, 4)), empty)
    done = bootstrap(empty, sums, sums, lambda t: np.zeros(len(t), bool), draws=10, level=0.95, seed=0)
    assert len(done.pairs) == 0
    assert done.facts["share_a"] == dict.fromkeys(("estimate", "low", "high", "bias"))


@pytest.mark.parametrize("draws", [0, 1])
def test_without_draws_there_are_no_intervals(draws: int) -> None:
    x, y = codes(7)
    _, table = candidates(x, y)
    done = bootstrap(table, sums_of(x, y, table), None, keep, draws=draws, level=0.95, seed=0)
    assert done.pairs.isna().all(axis=None)
    assert done.facts["kept"]["low"] is None


def test_weights_are_drawn_with_replacement() -> None:
    weights = draw_weights(20, 5000, 0)
    assert (weights.sum(axis=1) == 20).all()
    standard_error = np.sqrt(1 / 5000)
    assert np.abs(weights.mean(axis=0) - 1).max() < 4 * standard_error
    np.testing.assert_allclose(weights.var(axis=0), 19 / 20, atol=0.1)
    np.testing.assert_array_equal(draw_weights(20, 30, 0), draw_weights(20, 30, 0))
    assert not np.array_equal(draw_weights(20, 30, 0), draw_weights(20, 30, 1))
    assert not np.array_equal(draw_weights(20, 30, 0), draw_weights(20, 30, 0, "heldout"))


def test_counts_of_the_documents_drawn() -> None:
    x, y = codes(8)
    _, table = candidates(x, y)
    weights = draw_weights(DOCUMENTS, 6, 0)
    for got, codes_, ids in zip(
        resampled_counts(sums_of(x, y, table), weights), (x, y), ("feature_a", "feature_b"), strict=True
    ):
        per_document = (codes_ != 0).reshape(DOCUMENTS, TOKENS, -1).sum(axis=1)
        np.testing.assert_array_equal(got, (weights.astype(int) @ per_document)[:, table[ids]])


def test_percentiles_of_columns_with_gaps() -> None:
    values = np.random.default_rng(0).normal(size=(101, 5))
    values[::3, 1] = np.nan
    values[:60, 2] = np.nan
    values[:, 3] = np.nan
    low, high = percentiles(values, 0.95, 30)
    tail = expanded_tail(0.95, 30)
    assert tail < 0.025
    for column in (0, 1, 4):
        expected = np.nanquantile(values[:, column], [tail, 1 - tail])
        np.testing.assert_allclose([low[column], high[column]], expected)
    assert np.isnan(low[[2, 3]]).all()
    assert np.isnan(high[[2, 3]]).all()
    assert expanded_tail(0.95, 100_000) == pytest.approx(0.025, abs=1e-5)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    """scripts/bootstrap_coverage.py, of which this is the fast version."""
    path = Path(__file__).parents[2] / "scripts" / "bootstrap_coverage.py"
    spec = importlib.util.spec_from_file_location("bootstrap_coverage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def covered(simulation: ModuleType) -> dict[str, float]:
    return simulation.coverage(24, 40, 120, simulation.truth(documents=4000))


@pytest.mark.slow
def test_intervals_of_r_hold_the_truth(covered: dict[str, float]) -> None:
    """Nominally 95 %; in the long run a little less (docs/method.md). Tokens drawn one by one hold far less."""
    for name in ("planted r", "held-out r of kept pairs"):
        assert 0.88 < covered[name] < 0.98
    assert covered["planted r, tokens drawn"] < covered["planted r"] - 0.05


def test_intervals_of_match_rates_hold_what_studies_find(covered: dict[str, float], simulation: ModuleType) -> None:
    for name in simulation.RATES:
        assert covered[name] >= 0.79  # 19 of 24: less is rarer than 1 in 1000 at 95 %
        assert 0.7 < covered[f"{name}, width / (3.92 sd)"] < 1.4


def test_where_nothing_is_shared_there_is_no_interval_of_the_number_of_pairs() -> None:
    """Noise of repeated documents lifts candidates over the least r: the draws keep far more than the text."""
    rng = np.random.default_rng(0)
    x, y = (np.where(rng.random((DOCUMENTS * TOKENS, 40)) < 0.1, 1.0, 0.0) for _ in "ab")
    _, table = candidates(x, y)
    least = float(table["correlation"].quantile(0.97))

    def above(given: pd.DataFrame) -> np.ndarray:
        return (given["correlation"] > least).to_numpy()

    done = bootstrap(table, sums_of(x, y, table), None, above, draws=60, level=0.95, seed=0)
    kept = done.facts["kept"]
    assert kept["bias"] > 0.25 * kept["estimate"]
    assert (kept["low"], kept["high"]) == (None, None)
    assert done.pairs["correlation_low"].notna().all()


@pytest.mark.parametrize(("documents", "known"), [(1, False), (4, False), (5, True), (DOCUMENTS, True)])
def test_features_of_few_documents_have_no_interval(documents: int, known: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = (np.where(rng.random((DOCUMENTS * TOKENS, 3)) < 0.5, 1.0, 0.0) for _ in "ab")
    x[documents * TOKENS :, 1] = 0
    table = pd.DataFrame({"feature_a": [0, 1, 0], "feature_b": [0, 1, 2]})
    table = table.assign(correlation=0.5, correlation_heldout=np.nan, count_a=9, count_b=9)
    done = bootstrap(table, sums_of(x, y, table), None, keep, draws=30, level=0.9, seed=0)
    assert done.pairs["correlation_low"].notna().tolist() == [True, known, True]
