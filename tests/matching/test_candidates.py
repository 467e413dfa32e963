"""Candidates: found on half the documents, read again on the other half; against dense arithmetic and planted truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stores import dense_of, places, shard_of, written
from unifeat import UserError
from unifeat.codes.store import CodeStore
from unifeat.correlation.block_sums import BlockSums
from unifeat.matching import candidates
from unifeat.matching.bootstrap import bootstrap, resampled_r
from unifeat.matching.by_chance import ByChance
from unifeat.matching.candidates import Candidates, Comparison
from unifeat.matching.methods import select
from unifeat.matching.stability import agreement
from unifeat.text.halves import fitting_documents

DOCUMENTS, TOKENS, FEATURES, PLANTED = 30, 40, 32, 8
PARTNER = np.random.default_rng(7).permutation(FEATURES)  # feature i of A is planted as PARTNER[i] of B
SEED = 5


@pytest.fixture
def stores(tmp_path: Path) -> tuple[CodeStore, CodeStore]:
    """Two spaces over the same tokens; eight features are shared, up to scale and noise, the others are chance."""
    rng = np.random.default_rng(0)
    made: tuple[list, list] = ([], [])
    for first in range(0, DOCUMENTS, 6):
        rows = 6 * TOKENS
        where = places(np.repeat(np.arange(first, first + 6), TOKENS), np.tile(np.arange(1, TOKENS + 1), 6))
        a = np.maximum(rng.normal(size=(rows, FEATURES)) - 1.2, 0)
        b = np.maximum(rng.normal(size=(rows, FEATURES)) - 1.2, 0)
        shared = a[:, :PLANTED] * rng.uniform(0.9, 1.1, (rows, PLANTED)) * 3
        b[:, PARTNER[:PLANTED]] = shared
        for side, dense in zip(made, (a, b), strict=True):
            side.append(shard_of(dense.astype(np.float32), where))
    return written(tmp_path, made[0], sae="a"), written(tmp_path, made[1], sae="b")


def comparison(stores: tuple[CodeStore, CodeStore], **changes: object) -> Comparison:
    settings = {"top": 2, "heldout": True, "documents": DOCUMENTS, "seed": SEED} | changes
    return Comparison(*stores, **settings)  # type: ignore[arg-type]


def find(stores: tuple[CodeStore, CodeStore], **changes: object) -> Candidates:
    return comparison(stores, **changes).candidates().result()


def dense(store: CodeStore) -> np.ndarray:
    return np.concatenate([dense_of(shard) for shard in store.shards()]).astype(np.float64)


def rows_of(store: CodeStore, documents: np.ndarray) -> np.ndarray:
    return documents[np.concatenate([shard.places.document for shard in store.shards()])]


def all_r(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.corrcoef(a, b, rowvar=False)[: a.shape[1], a.shape[1] :]


def test_both_halves_against_dense_arithmetic(stores: tuple[CodeStore, CodeStore]) -> None:
    found = find(stores)
    fit = fitting_documents(DOCUMENTS, SEED)
    a, b = (dense(store) for store in stores)
    on_fit = rows_of(stores[0], fit)
    fitted, heldout = all_r(a[on_fit], b[on_fit]), all_r(a[~on_fit], b[~on_fit])
    table = found.table
    assert not table.duplicated(["feature_a", "feature_b"]).any()
    f, g = table["feature_a"].to_numpy(), table["feature_b"].to_numpy()
    np.testing.assert_allclose(table["correlation"], fitted[f, g], atol=1e-6)
    np.testing.assert_allclose(table["correlation_heldout"], heldout[f, g], atol=1e-6)
    np.testing.assert_array_equal(table["count_a"], (a[on_fit] != 0).sum(0)[f])
    np.testing.assert_array_equal(table["count_b"], (b[on_fit] != 0).sum(0)[g])
    np.testing.assert_array_equal(table["cofiring"], ((a[on_fit] != 0).T.astype(int) @ (b[on_fit] != 0))[f, g])
    best = {(i, j) for i in range(FEATURES) for j in np.argsort(-fitted[i])[:2]}
    best |= {(i, j) for j in range(FEATURES) for i in np.argsort(-fitted[:, j])[:2]}
    assert set(zip(f.tolist(), g.tolist(), strict=True)) == best
    near_a, near_b = np.sort(fitted, axis=1)[:, -2:].mean(axis=1), np.sort(fitted, axis=0)[-2:].mean(axis=0)
    np.testing.assert_allclose(table["csls"], (2 * fitted - near_a[:, None] - near_b)[f, g], atol=1e-6)
    n = DOCUMENTS * TOKENS
    facts = found.facts
    assert (facts["tokens_aligned"], facts["tokens_fitted"], facts["tokens_heldout"]) == (n, n // 2, n // 2)
    assert (facts["share_a"], facts["share_b"]) == (1.0, 1.0)


def test_the_other_half_is_the_same_the_other_way_round(stores: tuple[CodeStore, CodeStore]) -> None:
    fit = fitting_documents(DOCUMENTS, SEED)
    on_fit = rows_of(stores[0], fit)
    a, b = (dense(store) for store in stores)
    fitted, heldout = all_r(a[on_fit], b[on_fit]), all_r(a[~on_fit], b[~on_fit])
    found = find(stores)
    table = found.other
    assert list(table) == list(found.table)
    f, g = table["feature_a"].to_numpy(), table["feature_b"].to_numpy()
    np.testing.assert_allclose(table["correlation"], heldout[f, g], atol=1e-6)
    np.testing.assert_allclose(table["correlation_heldout"], fitted[f, g], atol=1e-6)
    np.testing.assert_array_equal(table["count_a"], (a[~on_fit] != 0).sum(0)[f])
    np.testing.assert_array_equal(table["count_b"], (b[~on_fit] != 0).sum(0)[g])
    best = {(i, j) for i in range(FEATURES) for j in np.argsort(-heldout[i])[:2]}
    best |= {(i, j) for j in range(FEATURES) for i in np.argsort(-heldout[:, j])[:2]}
    assert set(zip(f.tolist(), g.tolist(), strict=True)) == best
    halves = [t[select(t, "mutual") & (t["correlation"] > 0.5)] for t in (found.table, table)]
    assert agreement(*halves)["share"] == 1
    assert agreement(*halves)["pairs_1"] == PLANTED


def test_planted_features_hold_on_the_other_half_and_not_in_shifted_text(stores: tuple[CodeStore, CodeStore]) -> None:
    found = find(stores)
    table = found.table.set_index(["feature_a", "feature_b"])
    planted = [(i, PARTNER[i]) for i in range(PLANTED)]
    assert (table.loc[planted, "correlation"] > 0.95).all()
    assert (table.loc[planted, "correlation_heldout"] > 0.95).all()
    chance = table.drop(index=planted)
    assert chance["correlation"].max() < 0.4
    assert abs(chance["correlation_heldout"].mean()) < 0.05
    assert found.facts["best_r"]["a_to_b"][-1] > 0.95
    for deciles in found.facts["best_r_shifted"].values():
        assert 0 < deciles[-1] < 0.4
    assert 0 < found.facts["mutual_shifted_over_0.1"] <= FEATURES


def shifted(stores: tuple[CodeStore, CodeStore], number: int, **changes: object) -> pd.DataFrame:
    return ByChance(comparison(stores, **changes), "rotation").candidates(number)


def test_shifted_against_rolled_arithmetic(stores: tuple[CodeStore, CodeStore]) -> None:
    on_fit = rows_of(stores[0], fitting_documents(DOCUMENTS, SEED))
    a, b = (dense(store)[on_fit] for store in stores)
    rolled = {by: all_r(a, np.roll(b, -by * TOKENS, axis=0)) for by in range(1, DOCUMENTS // 2)}
    found = set()
    assert find(stores).facts["shifts"] == len(rolled)
    for number in range(len(rolled)):
        table = shifted(stores, number)
        f, g = table["feature_a"].to_numpy(), table["feature_b"].to_numpy()
        (by,) = (by for by, r in rolled.items() if np.allclose(r[f, g], table["correlation"], rtol=0, atol=1e-6))
        found.add(by)
        best = {(i, j) for i in range(FEATURES) for j in np.argsort(-rolled[by][i])[:2]}
        best |= {(i, j) for j in range(FEATURES) for i in np.argsort(-rolled[by][:, j])[:2]}
        assert set(zip(f.tolist(), g.tolist(), strict=True)) == best
        np.testing.assert_array_equal(table["count_a"], (a != 0).sum(0)[f])
        np.testing.assert_array_equal(table["count_b"], (b != 0).sum(0)[g])
        assert table["correlation"].max() < 0.4
    assert found == set(rolled)  # each shift once


def test_shifted_on_all_documents(stores: tuple[CodeStore, CodeStore]) -> None:
    assert find(stores, heldout=False).facts["shifts"] == DOCUMENTS - 1
    table = shifted(stores, DOCUMENTS - 2, heldout=False)
    np.testing.assert_array_equal(table["count_a"], (dense(stores[0]) != 0).sum(0)[table["feature_a"]])


def test_no_such_shift(stores: tuple[CodeStore, CodeStore]) -> None:
    for number in (DOCUMENTS // 2 - 1, -1):
        with pytest.raises(UserError, match=f"shift {number} of the text: only {DOCUMENTS // 2 - 1} shifts"):
            shifted(stores, number)


def blocks(stores: tuple[CodeStore, CodeStore], **changes: object) -> tuple[BlockSums, BlockSums | None]:
    return comparison(stores, **changes).block_sums(find(stores, **changes).table)


def test_blocks_are_the_documents_of_either_half(stores: tuple[CodeStore, CodeStore]) -> None:
    found, fit = find(stores), fitting_documents(DOCUMENTS, SEED)
    f, g = found.table["feature_a"].to_numpy(), found.table["feature_b"].to_numpy()
    a, b = (dense(store).reshape(DOCUMENTS, TOKENS, FEATURES) for store in stores)
    halves = blocks(stores)
    for sums, half, column in zip(halves, (fit, ~fit), ("correlation", "correlation_heldout"), strict=True):
        assert sums is not None
        assert sums.n.tolist() == [TOKENS] * (DOCUMENTS // 2)
        np.testing.assert_array_equal(sums.a.count[:, sums.pair_a], (a[half] != 0).sum(axis=1)[:, f])
        np.testing.assert_array_equal(sums.b.count[:, sums.pair_b], (b[half] != 0).sum(axis=1)[:, g])
        np.testing.assert_allclose(sums.product, (a[half][..., f] * b[half][..., g]).sum(axis=1), rtol=1e-6)
        whole = resampled_r(sums, np.ones((1, sums.blocks)))[0]
        np.testing.assert_allclose(whole, found.table[column], rtol=0, atol=2e-12)
    done = bootstrap(found.table, *halves, lambda t: select(t, "mutual"), draws=100, level=0.95, seed=0)
    planted = found.table["correlation"] > 0.9
    for name in ("correlation", "correlation_heldout"):
        low, high = (done.pairs.loc[planted, f"{name}_{end}"] for end in ("low", "high"))
        assert (low < found.table.loc[planted, name]).all()
        assert (found.table.loc[planted, name] < high).all()
    assert blocks(stores, heldout=False)[1] is None
    assert blocks(stores, heldout=False)[0].blocks == DOCUMENTS


def test_blocks_take_no_place_on_the_disk(stores: tuple[CodeStore, CodeStore], own_cache: Path) -> None:
    """Stored, they were the largest part of a grid's cache; made again, they are the same."""
    find(stores)
    before = sorted(own_cache.rglob("*"))
    one, other = blocks(stores), blocks(stores)
    assert sorted(own_cache.rglob("*")) == before
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.product, right.product)  # type: ignore[union-attr]


def test_nothing_found_depends_on_the_held_out_half(stores: tuple[CodeStore, CodeStore], tmp_path: Path) -> None:
    """Scrambling the held-out documents changes the held-out column only."""
    fit = fitting_documents(DOCUMENTS, SEED)
    rng = np.random.default_rng(1)
    shards = []
    for shard in stores[1].shards():
        codes = dense_of(shard)
        away = np.flatnonzero(~fit[shard.places.document])
        codes[away] = codes[rng.permutation(away)]
        shards.append(shard_of(codes, shard.places))
    scrambled = written(tmp_path / "other", shards, sae="c")
    one, other = find(stores).table, find((stores[0], scrambled)).table
    columns = ["feature_a", "feature_b", "correlation", "cofiring", "count_a", "count_b"]
    pd.testing.assert_frame_equal(one[columns], other[columns])
    assert one["correlation_heldout"].max() > 0.95
    assert other["correlation_heldout"].max() < 0.4


def test_without_a_held_out_half(stores: tuple[CodeStore, CodeStore]) -> None:
    found = find(stores, heldout=False)
    assert found.table["correlation_heldout"].isna().all()
    assert found.other is None
    assert found.facts["tokens_fitted"] == found.facts["tokens_aligned"] == DOCUMENTS * TOKENS
    assert found.facts["tokens_heldout"] == 0
    r = all_r(*(dense(store) for store in stores))
    f, g = found.table["feature_a"], found.table["feature_b"]
    np.testing.assert_allclose(found.table["correlation"], r[f, g], atol=1e-6)


def test_the_second_time_it_is_read(stores: tuple[CodeStore, CodeStore], monkeypatch: pytest.MonkeyPatch) -> None:
    first = find(stores)

    def correlate(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(candidates, "correlate", correlate)
    again = find(stores)
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.other, again.other)
    assert first.facts == again.facts
    for changes in ({"seed": 6}, {"top": 3}, {"heldout": False}):
        with pytest.raises(AssertionError, match="computed again"):
            find(stores, **changes)
    assert find(stores).facts == first.facts


def test_other_codes_are_not_taken_for_these(stores: tuple[CodeStore, CodeStore], tmp_path: Path) -> None:
    """The same folder name with other content, as after a change that the settings do not see."""
    first = find(stores)
    shards = [shard_of(np.roll(dense_of(shard), 1, axis=1), shard.places) for shard in stores[1].shards()]
    other = written(tmp_path / "other", shards, sae="b")
    assert other.folder.name == stores[1].folder.name
    assert not find((stores[0], other)).table["correlation"].equals(first.table["correlation"])


def test_the_same_seed_gives_the_same_file(
    stores: tuple[CodeStore, CodeStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_files = []
    for name in ("one", "two"):
        monkeypatch.setenv("UNIFEAT_CACHE", str(tmp_path / name))
        find(stores)
        (path,) = (tmp_path / name).rglob("candidates.parquet")
        written_files.append(path.read_bytes())
    assert written_files[0] == written_files[1]


def test_one_document_has_no_halves(stores: tuple[CodeStore, CodeStore]) -> None:
    with pytest.raises(UserError, match=r"matching\.heldout"):
        find(stores, documents=1)


@pytest.mark.parametrize("empty_half", ["fitted", "held out"])
def test_a_half_without_tokens(tmp_path: Path, empty_half: str) -> None:
    """Two documents, all tokens of one of them masked: no correlation there, and no crash."""
    fit = fitting_documents(2, SEED)
    document = int(np.flatnonzero(fit if empty_half == "held out" else ~fit)[0])
    rng = np.random.default_rng(0)
    where = places([document] * 20, range(1, 21))
    pair = [written(tmp_path, [shard_of(rng.normal(size=(20, 32)).round(), where)], sae=s) for s in "ab"]
    found = find((pair[0], pair[1]), documents=2)
    if empty_half == "held out":
        assert found.table["correlation_heldout"].isna().all()
        assert len(found.table)
        assert found.other.empty
    else:
        assert found.table.empty
        assert len(found.other)
        assert found.other["correlation_heldout"].isna().all()
    assert found.facts["shifts"] == 0
    assert found.facts["best_r_shifted"] == {"a_to_b": [], "b_to_a": []}
    assert found.facts["mutual_shifted_over_0.1"] is None
    fitted, heldout = comparison((pair[0], pair[1]), documents=2).block_sums(found.table)
    assert heldout is not None
    assert (fitted.blocks, heldout.blocks) == ((1, 0) if empty_half == "held out" else (0, 1))
    done = bootstrap(found.table, fitted, heldout, lambda t: select(t, "mutual"), draws=9, level=0.95, seed=0)
    assert len(done.pairs) == len(found.table)
    assert done.pairs.isna().all(axis=None)
    if empty_half == "fitted":
        assert found.facts["best_r"] == {"a_to_b": [], "b_to_a": []}


def test_another_device_is_part_of_the_key(stores: tuple[CodeStore, CodeStore]) -> None:
    """The CPU is not named, so that what it found before there were others keeps its key."""
    on_cpu, on_gpu = comparison(stores), comparison(stores, device="cuda")
    assert "device" not in on_cpu.made_from()
    assert on_gpu.made_from() == on_cpu.made_from() | {"device": "cuda"}
    assert [one.candidates().gpu for one in (on_cpu, on_gpu)] == [False, True]
