"""Candidates of rearranged text, against dense arithmetic; and matching by what is shared within token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stores import places, shard_of, written
from unifeat.codes.store import CodeStore
from unifeat.matching import by_chance
from unifeat.matching.by_chance import ByChance
from unifeat.matching.candidates import Comparison
from unifeat.matching.methods import select

DOCUMENTS, TOKENS, FEATURES, KINDS = 24, 40, 32, 12


@pytest.fixture
def stores(tmp_path: Path) -> tuple[CodeStore, CodeStore]:
    """Features 0 to 7 detect a token; 8 to 15 a context within one; 16 to 23 any context; the others nothing."""
    rng = np.random.default_rng(0)
    n = DOCUMENTS * TOKENS
    token = rng.integers(0, KINDS, n)
    context = rng.random((n, FEATURES)) < 0.4
    sides = []
    for _ in "ab":
        codes = np.where(rng.random((n, FEATURES)) < 0.1, rng.uniform(0.5, 1.5, (n, FEATURES)), 0)
        strength = rng.uniform(0.8, 1.2, (n, FEATURES))
        for f in range(24):
            fires = token == f % KINDS if f < 8 else context[:, f] & (token == f % KINDS) if f < 16 else context[:, f]
            codes[:, f] = np.where(fires, strength[:, f], 0)
        codes[:, -1] = 0
        sides.append(codes.astype(np.float32))
    where = places(np.repeat(np.arange(DOCUMENTS), TOKENS), np.tile(np.arange(1, TOKENS + 1), DOCUMENTS))
    where.token[:] = token
    found = [written(tmp_path, [shard_of(codes, where)], sae=name) for name, codes in zip("ab", sides, strict=True)]
    return found[0], found[1]


def comparison(stores: tuple[CodeStore, CodeStore], by: str = "correlation") -> Comparison:
    return Comparison(*stores, 4, False, DOCUMENTS, 0, "cpu", by)  # type: ignore[arg-type]


def dense(store: CodeStore) -> tuple[np.ndarray, np.ndarray]:
    shard = store.shard(0)
    out = np.zeros((len(shard.places), FEATURES))
    for row in range(len(out)):
        part = slice(shard.indptr[row], shard.indptr[row + 1])
        out[row, shard.feature[part]] = shard.value[part]
    return out, np.asarray(shard.places.token)


def shares(table: pd.DataFrame, features: range) -> float:
    """The share of these features that a mutual matching pairs with their own counterpart, above r = 0.3."""
    kept = table[select(table, "mutual") & (table["correlation"] > 0.3)]
    return kept["feature_a"].eq(kept["feature_b"])[kept["feature_a"].isin(features)].sum() / len(features)


@pytest.mark.parametrize("how", ["documents", "same_token", "same_two_tokens"])
@pytest.mark.parametrize("by", ["correlation", "within_token"])
@pytest.mark.parametrize("memory", ["one stretch", "read each time"])
def test_candidates_are_those_of_the_rearranged_rows(
    stores: tuple[CodeStore, CodeStore], monkeypatch: pytest.MonkeyPatch, how: str, by: str, memory: str
) -> None:
    if memory == "read each time":
        monkeypatch.setattr(ByChance, "_stretches", lambda self: [])
    chance = ByChance(comparison(stores, by), how)
    (a, token), (b, _) = (dense(store) for store in stores)
    table = chance.candidates(3)
    (stretch,) = chance._read()
    rows = by_chance.Draw("documents" if how == "documents" else "types", 0, 3).rows(stretch)
    x, y = a[rows[0]], b[rows[1]]
    if by == "within_token":
        groups = token[rows[0]]
        x, y = (side - pd.DataFrame(side).groupby(groups).transform("mean").to_numpy() for side in (x, y))
    with np.errstate(invalid="ignore"):
        r = np.corrcoef(x, y, rowvar=False)[:FEATURES, FEATURES:]
    f, g = table["feature_a"], table["feature_b"]
    np.testing.assert_allclose(table["correlation"], r[f, g], rtol=0, atol=1e-9)
    if how != "documents":
        np.testing.assert_array_equal(token[rows[1]], token)
        np.testing.assert_array_equal(table["count_b"], (b != 0).sum(0)[g])


def test_same_token_keeps_what_the_token_gives_and_nothing_else(stores: tuple[CodeStore, CodeStore]) -> None:
    found = {how: ByChance(comparison(stores), how).candidates(0) for how in ("documents", "same_token")}  # type: ignore[arg-type]
    assert shares(found["same_token"], range(8)) == 1
    assert shares(found["same_token"], range(16, 24)) == 0
    assert shares(found["documents"], range(24)) == 0


def test_matching_within_token_finds_contexts_and_no_detectors(stores: tuple[CodeStore, CodeStore]) -> None:
    table = comparison(stores, "within_token").candidates().result().table
    assert shares(table, range(8, 24)) == 1
    assert shares(table, range(8)) == 0
    plain = comparison(stores).candidates().result().table
    assert shares(plain, range(24)) == 1
    again = ByChance(comparison(stores, "within_token"), "same_token").candidates(0)
    assert shares(again, range(24)) == 0


def test_numbers_are_other_draws_and_the_same_ones_again(stores: tuple[CodeStore, CodeStore]) -> None:
    chance = ByChance(comparison(stores), "same_token")
    first = chance.candidates(0)
    pd.testing.assert_frame_equal(first, ByChance(comparison(stores), "same_token").candidates(0, threads=1))
    assert not first.equals(chance.candidates(1))


@pytest.mark.parametrize("memory", ["one stretch", "read each time"])
def test_rows_that_no_draw_moves_are_counted(
    stores: tuple[CodeStore, CodeStore], monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    if memory == "read each time":
        monkeypatch.setattr(ByChance, "_stretches", lambda self: [])
    token = dense(stores[0])[1].reshape(DOCUMENTS, TOKENS)
    before = np.pad(token, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    kinds = pd.Series(list(zip(before.ravel(), token.ravel(), strict=True)))
    alone = int((kinds.value_counts() == 1).sum())
    assert alone > 0
    found = ByChance(comparison(stores), "same_two_tokens").rows_alone()
    assert found == {"rows": DOCUMENTS * TOKENS, "rows_alone": alone}
    assert ByChance(comparison(stores), "same_token").rows_alone() == {"rows": DOCUMENTS * TOKENS, "rows_alone": 0}
    assert ByChance(comparison(stores), "documents").rows_alone() == {}
