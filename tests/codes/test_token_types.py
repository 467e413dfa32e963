"""Rows grouped by the tokens of both models, and in stretches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stores import places, random_dense, shard_of, written
from unifeat.codes.align import AlignedCodes, align
from unifeat.codes.stretches import stretches
from unifeat.codes.token_types import ByTokenType
from unifeat.vocabulary.grouped_codes import GroupedCodes

FEATURES = 32


def store(folder: Path, rng: np.random.Generator, sae: str, tokens: list[np.ndarray], where: list) -> object:
    shards = []
    for part, (document, end) in zip(tokens, where, strict=True):
        own = places(document, end)
        own.token[:] = part
        shards.append(shard_of(random_dense(rng, len(part), FEATURES), own))
    return written(folder, shards, sae=sae)


@pytest.fixture
def rows() -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray], list[np.ndarray]]:
    """Three shards; document 2 goes on in the second one."""
    rng = np.random.default_rng(0)
    documents = [np.repeat([0, 1, 2], [10, 1, 20]), np.repeat([2, 3], [9, 15]), np.repeat([4, 5, 6], [5, 6, 7])]
    where, done = [], 0
    for document in documents:
        where.append((document, np.arange(1, len(document) + 1) + done))
        done += len(document)
    tokens = [[rng.integers(0, 4, len(document)) for document in documents] for _ in "ab"]
    return where, tokens[0], tokens[1]


@pytest.fixture
def codes(tmp_path: Path, rows) -> AlignedCodes:
    where, tokens_a, tokens_b = rows
    rng = np.random.default_rng(1)
    return align(store(tmp_path, rng, "a", tokens_a, where), store(tmp_path, rng, "b", tokens_b, where))


def expected(rows, tokens: int) -> list[tuple]:
    where, tokens_a, tokens_b = rows
    document = np.concatenate([part[0] for part in where])
    sides = [np.concatenate(part) for part in (tokens_a, tokens_b)]
    kinds = []
    for i in range(len(document)):
        own = tuple(int(side[i]) for side in sides)
        starts = i == 0 or document[i] != document[i - 1]
        before = (-1, -1) if starts else tuple(int(side[i - 1]) for side in sides)
        kinds.append(own if tokens == 1 else own + before)
    return kinds


def alike(labels: list, kinds: np.ndarray) -> bool:
    """Whether two labellings divide the rows in the same way."""
    return len(set(zip(labels, kinds.tolist(), strict=True))) == len(set(labels)) == len(set(kinds.tolist()))


@pytest.mark.parametrize("tokens", [1, 2])
def test_types_are_those_of_the_tokens(codes: AlignedCodes, rows, tokens: int) -> None:
    by = ByTokenType(codes, tokens)
    assert isinstance(by, GroupedCodes)
    chunks = list(by.grouped_chunks())
    groups = np.concatenate([group for _, group in chunks])
    assert alike(expected(rows, tokens), groups)
    np.testing.assert_array_equal(by.sizes, np.bincount(groups))
    assert (by.n_rows, by.features_a, by.features_b) == (codes.n_rows, FEATURES, FEATURES)
    for ((a, b), _), (plain_a, plain_b) in zip(chunks, codes.chunks(), strict=True):
        for one, other in ((a, plain_a), (b, plain_b)):
            for left, right in zip(one, other, strict=True):
                np.testing.assert_array_equal(left, right)


def test_of_some_documents_only(codes: AlignedCodes, rows) -> None:
    chosen = np.array([True, False, True, False, True, True, False])
    by = ByTokenType(codes.only(chosen))
    document = np.concatenate([part[0] for part in rows[0]])
    kinds = [kind for kind, own in zip(expected(rows, 1), chosen[document], strict=True) if own]
    assert alike(kinds, np.concatenate([group for _, group in by.grouped_chunks()]))


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("most", [1, 10**9])
def test_stretches_hold_every_row_once(codes: AlignedCodes, rows, tokens: int, most: int) -> None:
    found = list(stretches(codes, tokens, most))
    assert len(found) == (3 if most == 1 else 1)
    assert alike(expected(rows, tokens), np.concatenate([part.kind for part in found]))
    assert alike(expected(rows, 1), np.concatenate([part.group for part in found]))
    document = np.concatenate([part.document for part in found])
    np.testing.assert_array_equal(document, np.concatenate([part[0] for part in rows[0]]))
    assert len(set(np.concatenate([part.place for part in found]).tolist())) == len(document)
    for part in found:
        assert part.a.rows == part.b.rows == len(part.document) == len(part.kind)
    chunks = list(codes.chunks())
    for side in (0, 1):
        values = np.concatenate([part[side].value for part in found])
        np.testing.assert_array_equal(values, np.concatenate([np.asarray(chunk[side].value) for chunk in chunks]))
