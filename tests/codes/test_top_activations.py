"""The strongest activations of each feature, against sorting everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stores import dense_of, places, random_dense, shard_of, written
from unifeat.codes import top_activations as module
from unifeat.codes.store import CodeStore
from unifeat.codes.top_activations import COLUMNS, top_activations, top_token_texts, top_unit

FEATURES = 12


def store_with_ties(root: Path, seed: int, shards: int = 4) -> CodeStore:
    """Few distinct values of both signs, so that most features tie; a shard without codes; silent features."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(shards):
        rows = 0 if number == 1 else int(rng.integers(5, 40))
        dense = np.ceil(2 * random_dense(rng, rows, FEATURES, share=0.3))
        dense[:, 4] = 0
        made.append(shard_of(dense, places([number] * rows, 3 * np.arange(rows))))
    return written(root, made, d_sae=FEATURES)


def brute_force(store: CodeStore, n: int) -> pd.DataFrame:
    rows = []
    for feature in range(FEATURES):
        found = []
        for shard in store.shards():
            column = dense_of(shard, FEATURES)[:, feature]
            where = shard.places
            found += [
                (column[row], where.document[row], where.char_end[row], where.token[row])
                for row in np.flatnonzero(column)
            ]
        strongest = sorted(found, key=lambda f: -f[0])[:n]  # a stable sort: ties to the earlier token
        rows += [(feature, rank, *f) for rank, f in enumerate(strongest)]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_against_sorting_everything(tmp_path: Path, seed: int, n: int) -> None:
    store = store_with_ties(tmp_path, seed)
    got = top_activations(store, n)
    assert list(got.columns) == COLUMNS
    pd.testing.assert_frame_equal(got, brute_force(store, n), check_dtype=False)


def test_types(tmp_path: Path) -> None:
    got = top_activations(store_with_ties(tmp_path, 0), 2)
    assert got.dtypes.astype(str).to_dict() == dict.fromkeys(COLUMNS, "int32") | {"activation": "float32"}


def test_as_a_unit_it_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with_ties(tmp_path, 2)
    first = top_unit(store, 3).result()
    pd.testing.assert_frame_equal(first, top_activations(store, 3))
    other = store_with_ties(tmp_path / "other", 3)
    assert other.folder.name == store.folder.name  # as after a change that the settings do not see
    monkeypatch.setattr(CodeStore, "shards", None)  # whoever reads codes now, fails
    pd.testing.assert_frame_equal(top_unit(store, 3).result(), first)
    keys = [top_unit(store, 3).piece.key, top_unit(store, 4).piece.key, top_unit(other, 3).piece.key]
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert len({*keys, top_unit(store, 3).piece.key}) == 4
    with pytest.raises(TypeError):
        top_unit(store, 3).result()


@pytest.mark.parametrize("shards", [1, 2])
def test_nothing_ever_fires(tmp_path: Path, shards: int) -> None:
    silent = shard_of(np.zeros((5, FEATURES), np.float32), places([0] * 5, range(5)))
    got = top_activations(written(tmp_path, [silent] * shards, d_sae=FEATURES), 3)
    assert list(got.columns) == COLUMNS
    assert got.empty
    assert got.dtypes.astype(str)["activation"] == "float32"


class Tokenizer:
    """Decodes a token to its number."""

    def decode(self, tokens: list[int]) -> str:
        (token,) = tokens
        return f"<{token}>"


def test_texts_of_the_strongest_tokens(tmp_path: Path) -> None:
    store = store_with_ties(tmp_path, 1)
    tops = top_activations(store, 5)
    texts = top_token_texts(tops, Tokenizer(), 3)
    assert set(texts) == set(tops["feature"])
    for feature, tokens in texts.items():
        mine = tops[tops["feature"] == feature].nsmallest(3, "rank")
        assert tokens == [f"<{token}>" for token in mine["token"]]
