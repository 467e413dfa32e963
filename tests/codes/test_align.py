"""Alignment: which tokens of two stores are the same place, against a brute-force oracle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stores import dense_of, dense_rows, is_mapped, places, random_dense, shard_of, written
from tiny import tiny_tokenizer
from unifeat import UserError
from unifeat.codes.align import AlignedCodes, align, shared_places
from unifeat.codes.shard import Shard
from unifeat.codes.store import CodeStore
from unifeat.text.corpus import Part
from unifeat.text.windows import tokenize_part
from unifeat.vocabulary.places import Places

LETTERS = [*"abcdefgh tone. ", "é", "語", "漢", "字", "の", "🦊", "👩‍🚀", "🇫🇷", "ﷺ", "\u200d", "\n", "e\u0301", "𝔘"]


def texts(rng: np.random.Generator, n: int) -> list[str]:
    return ["".join(rng.choice(LETTERS, rng.integers(1, 60))) for _ in range(n)]


def keys_of(where: Places) -> list[tuple[int, int, int]]:
    return list(zip(where.document.tolist(), where.char_end.tolist(), where.order.tolist(), strict=True))


def store_over(
    root: Path, documents: list[str], cutter: Any, rng: np.random.Generator, *, per_shard: int = 4, **settings: Any
) -> CodeStore:
    """Random codes at the tokens of these documents, some tokens left out as masking does."""
    shards = []
    for first in range(0, len(documents), per_shard):
        parts = [Part(first + i, 0, text) for i, text in enumerate(documents[first : first + per_shard])]
        tokenized = [tokenize_part(cutter, part) for part in parts]
        where = Places(
            np.repeat(np.array([t.document for t in tokenized], np.int32), [len(t.token) for t in tokenized]),
            *(np.concatenate([getattr(t, name) for t in tokenized]) for name in ("char_end", "order", "token")),
        )
        where = where[rng.random(len(where)) < 0.8]
        shards.append(shard_of(random_dense(rng, len(where)), where))
    return written(root, shards, **settings)


def rows_of(store: CodeStore) -> tuple[list[tuple[int, int, int]], np.ndarray]:
    keys = [key for shard in store.shards() for key in keys_of(shard.places)]
    return keys, np.concatenate([dense_of(shard) for shard in store.shards()])


def brute_force(a: CodeStore, b: CodeStore, *, only_completed: bool) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Dense rows of A and B at the places both have, in A's order, and the documents of these."""
    (keys_a, dense_a), (keys_b, dense_b) = rows_of(a), rows_of(b)
    at = {key: row for row, key in enumerate(keys_b)}
    shared = [(i, at[key], key[0]) for i, key in enumerate(keys_a) if key in at and not (only_completed and key[2])]
    rows_a, rows_b, documents = zip(*shared, strict=True)
    return dense_a[list(rows_a)], dense_b[list(rows_b)], list(documents)


def dense_chunks(codes: AlignedCodes) -> tuple[np.ndarray, np.ndarray]:
    chunks = list(codes.chunks())
    for a, b in chunks:
        assert a.rows == b.rows
    return tuple(np.concatenate([dense_rows(*chunk[side], 32) for chunk in chunks]) for side in (0, 1))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    return {kind: tiny_tokenizer(kind) for kind in ("bpe", "wordish")}


@pytest.fixture(params=range(3))
def pair(request: pytest.FixtureRequest, tmp_path: Path, tokenizers: dict[str, Any]) -> tuple[CodeStore, CodeStore]:
    """Stores of two models with different tokenizers over the same odd texts."""
    rng = np.random.default_rng(request.param)
    documents = texts(rng, 15)
    a = store_over(tmp_path, documents, tokenizers["bpe"], rng, tokenizer="bpe")
    return a, store_over(tmp_path, documents, tokenizers["wordish"], rng, tokenizer="wordish")


def test_different_tokenizers(pair: tuple[CodeStore, CodeStore]) -> None:
    a, b = pair
    codes = align(a, b)
    expected_a, expected_b, _ = brute_force(a, b, only_completed=True)
    got_a, got_b = dense_chunks(codes)
    assert 0 < codes.n_rows == len(expected_a) < min(a.rows, b.rows)
    np.testing.assert_array_equal(got_a, expected_a)
    np.testing.assert_array_equal(got_b, expected_b)
    assert (codes.features_a, codes.features_b) == (32, 32)


def test_pairs_end_at_the_same_character_and_complete_it(pair: tuple[CodeStore, CodeStore]) -> None:
    for shard_a, shard_b in zip(pair[0].shards(), pair[1].shards(), strict=True):
        at_a, at_b = shared_places(shard_a.places, shard_b.places, same_tokenizer=False)
        one, other = shard_a.places, shard_b.places
        np.testing.assert_array_equal(one.document[at_a], other.document[at_b])
        np.testing.assert_array_equal(one.char_end[at_a], other.char_end[at_b])
        assert not one.order[at_a].any()
        assert not other.order[at_b].any()
        assert (np.diff(at_a) > 0).all()
        assert (np.diff(at_b) > 0).all()


def test_the_same_tokenizer_pairs_every_token(tmp_path: Path, tokenizers: dict[str, Any]) -> None:
    """Also tokens that end inside a character; what either model masks is the only thing missing."""
    rng = np.random.default_rng(5)
    documents = texts(rng, 15)
    # One model may begin windows with BOS and the other not, or have other windows: other tokens are masked then.
    a = store_over(tmp_path, documents, tokenizers["bpe"], rng, model="a", bos=0, context=32)
    b = store_over(tmp_path, documents, tokenizers["bpe"], rng, model="b", bos=None, context=64)
    codes = align(a, b)
    shared = set(rows_of(a)[0]) & set(rows_of(b)[0])
    assert codes.n_rows == len(shared)
    assert any(order for _, _, order in shared)
    expected_a, expected_b, _ = brute_force(a, b, only_completed=False)
    got_a, got_b = dense_chunks(codes)
    np.testing.assert_array_equal(got_a, expected_a)
    np.testing.assert_array_equal(got_b, expected_b)


def test_a_store_with_itself(tmp_path: Path, tokenizers: dict[str, Any]) -> None:
    rng = np.random.default_rng(6)
    store = store_over(tmp_path, texts(rng, 9), tokenizers["bpe"], rng)
    codes = align(store, store)
    assert codes.n_rows == store.rows
    for side in dense_chunks(codes):
        np.testing.assert_array_equal(side, rows_of(store)[1])


def test_some_documents_only(pair: tuple[CodeStore, CodeStore]) -> None:
    a, b = pair
    codes = align(a, b)
    expected_a, expected_b, documents = brute_force(a, b, only_completed=True)
    for seed in range(3):
        mask = np.random.default_rng(seed).random(15) < 0.5
        some, rest = codes.only(mask), codes.only(~mask)
        rows = mask[documents]
        assert some.n_rows == rows.sum()
        assert some.n_rows + rest.n_rows == codes.n_rows
        got_a, got_b = dense_chunks(some)
        np.testing.assert_array_equal(got_a, expected_a[rows])
        np.testing.assert_array_equal(got_b, expected_b[rows])
    assert codes.only(np.zeros(15, bool)).n_rows == 0
    assert codes.only(np.ones(15, bool)).n_rows == codes.n_rows


def test_where_documents_begin(pair: tuple[CodeStore, CodeStore]) -> None:
    codes = align(*pair)
    every = np.array(brute_force(*pair, only_completed=True)[2])
    for mask in (np.ones(15, bool), np.random.default_rng(1).random(15) < 0.5, np.arange(15) == 3, np.zeros(15, bool)):
        of_row = every[mask[every]]
        document, start = codes.only(mask).document_starts()
        assert (document.dtype, start.dtype) == (np.int32, np.int64)
        assert document.tolist() == sorted(set(of_row.tolist()))
        assert start.tolist() == [int(np.flatnonzero(of_row == d)[0]) for d in document]


def test_a_document_over_two_shards_begins_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    cuts = [([0, 0, 1, 1], [1, 2, 1, 2]), ([1, 1], [3, 4]), ([1, 2], [5, 1])]
    shards = [shard_of(random_dense(rng, len(d)), places(d, c)) for d, c in cuts]
    document, start = align(store := written(tmp_path, shards), store).document_starts()
    assert document.tolist() == [0, 1, 2]
    assert start.tolist() == [0, 2, 7]


def test_one_chunk_a_shard(pair: tuple[CodeStore, CodeStore]) -> None:
    codes = align(*pair)
    sizes = [a.rows for a, b in codes.chunks() if a.rows == b.rows]
    assert sum(sizes) == codes.n_rows
    assert len(sizes) <= pair[0].n_shards


def test_chunks_are_the_same_each_time(pair: tuple[CodeStore, CodeStore]) -> None:
    codes = align(*pair)
    for (a1, b1), (a2, b2) in zip(codes.chunks(), codes.chunks(), strict=True):
        for one, other in zip((*a1, *b1), (*a2, *b2), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("documents", [[True, True, True], [True, False, True], [False, True, False]])
def test_nothing_is_copied_where_rows_follow_each_other(tmp_path: Path, documents: list[bool]) -> None:
    where = places([0, 0, 0, 1, 1, 2], [1, 2, 3, 1, 5, 1])
    rng = np.random.default_rng(0)
    a, b = (written(tmp_path, [shard_of(rng.normal(size=(6, 32)), where)] * 2, model=name) for name in "ab")
    keep = np.array(documents)[where.document]
    codes = align(a, b).only(np.array(documents))
    for chunk in codes.chunks():
        for side in chunk:
            assert is_mapped(side.value) == (documents != [True, False, True])
    for got, store in zip(dense_chunks(codes), (a, b), strict=True):
        np.testing.assert_array_equal(got, np.concatenate([dense_of(shard)[keep] for shard in store.shards()]))


def same_places(where: Places, n: int = 1, **settings: Any) -> list[Shard]:
    return [shard_of(np.ones((len(where), 32), np.float32), where) for _ in range(n)]


def test_many_tokens_that_end_at_one_character(tmp_path: Path) -> None:
    """A character that a tokenizer cuts into a hundred pieces: nothing is lost with the same tokenizer."""
    where = places([0] * 103, [1] + [2] * 100 + [3] * 2)
    a = written(tmp_path, same_places(where), model="a")
    b = written(tmp_path, same_places(where), model="b")
    assert align(a, b).n_rows == 103
    where.token[:] += 1
    other = written(tmp_path, same_places(where), tokenizer="other")
    assert align(a, other).n_rows == 3


def test_two_tokenizers_that_cut_alike_are_one(tmp_path: Path) -> None:
    """As those of Gemma 1 and 2: padding and the pieces of a character pair, shard by shard."""
    where = places([0] * 6, [1, 2, 2, 3, 3, 3])
    other = places([0] * 6, [1, 2, 2, 3, 3, 3])
    other.token[5] += 1
    a = written(tmp_path, same_places(where) + same_places(where))
    b = written(tmp_path, same_places(where) + same_places(other), tokenizer="other")
    assert align(a, b).n_rows == 6 + 3


def test_no_row_is_used_twice() -> None:
    """More tokens at one character than places can tell apart: the rest stays unpaired."""
    where = places([0] * 5000, [1] * 5000)
    for rows in shared_places(where, where, same_tokenizer=True):
        assert len(rows) == len(np.unique(rows)) == 4096


def test_places_far_into_a_large_text(tmp_path: Path) -> None:
    """Document and character numbers near the end of their range do not run into each other."""
    last = np.iinfo(np.int32).max
    where = places([last - 2, last - 2, last - 1, last], [5, last, 5, last])
    a, b = (written(tmp_path, same_places(where), model=name) for name in "ab")
    assert align(a, b).n_rows == 4
    other = places([last - 2, last - 1, last - 1, last], [5, 5, last, last])
    at_a, at_b = shared_places(where, other, same_tokenizer=False)
    assert (at_a.tolist(), at_b.tolist()) == ([0, 2, 3], [0, 1, 3])
    for middle in (1 << 20, 1 << 21, 1 << 26):
        where = places([middle - 1, middle], [7, 7])
        at_a, at_b = shared_places(where, where, same_tokenizer=False)
        assert (at_a.tolist(), at_b.tolist()) == ([0, 1], [0, 1])


def test_a_shard_without_tokens(tmp_path: Path) -> None:
    full, empty = places([0, 0], [1, 2]), places([], [])
    a = written(tmp_path, [*same_places(full), *same_places(empty), *same_places(full)], model="a")
    b = written(tmp_path, [*same_places(full), *same_places(full), *same_places(empty)], model="b")
    codes = align(a, b)
    assert codes.n_rows == 2
    assert [len(side) for side in dense_chunks(codes)] == [2, 2]


@pytest.mark.parametrize("fires", [[1, 4], []])
def test_rows_without_codes_stay_rows(tmp_path: Path, fires: list[int]) -> None:
    where = places([0] * 6, range(1, 7))
    dense = np.zeros((6, 32), np.float32)
    dense[fires, 3] = 1
    a, b = (written(tmp_path, [shard_of(dense, where)], model=name) for name in "ab")
    for side in dense_chunks(align(a, b)):
        np.testing.assert_array_equal(side, dense)


@pytest.mark.parametrize("what", [{"text": "other"}, {"cut": [3, 4]}])
def test_different_texts(tmp_path: Path, what: dict[str, Any]) -> None:
    where = places([0, 0], [1, 2])
    a, b = written(tmp_path, same_places(where)), written(tmp_path, same_places(where), **what)
    with pytest.raises(UserError, match="different texts") as caught:
        align(a, b)
    assert str(a.folder) in str(caught.value)
    assert str(b.folder) in str(caught.value)


def test_no_place_in_common(tmp_path: Path) -> None:
    a = written(tmp_path, same_places(places([0, 0], [1, 3])))
    b = written(tmp_path, same_places(places([0, 0], [2, 4])), tokenizer="other")
    with pytest.raises(UserError, match="share no token"):
        align(a, b)
    with pytest.raises(UserError, match=r"^one@0 and two@1 share no token"):
        align(a, b, ("one@0", "two@1"))


def test_aligned_codes_of_another_document_stay_apart(tmp_path: Path) -> None:
    a = written(tmp_path, same_places(places([0, 1], [4, 4])))
    b = written(tmp_path, same_places(places([1, 2], [4, 4])), tokenizer="other")
    assert align(a, b).n_rows == 1
    assert replace(align(a, b), documents=np.array([True, False, True])).only(np.array([True, True, False])).n_rows == 1
