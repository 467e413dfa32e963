"""Features of one space that fire alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stores import places, random_dense, shard_of, written
from unifeat.codes.near_copies import NearCopies, near_copies
from unifeat.codes.store import CodeStore

ROWS, FEATURES = 400, 32


@pytest.fixture
def dense() -> np.ndarray:
    """Codes in which 3, 8 and 20 fire alike, and 5 and 6; 7 is 5 turned over."""
    rng = np.random.default_rng(0)
    codes = random_dense(rng, ROWS, FEATURES)
    for one, other, noise in ((3, 8, 0.05), (3, 20, 0.6), (5, 6, 0.4)):
        codes[:, other] = codes[:, one] * rng.normal(1, noise, ROWS)
    codes[:, 7] = -codes[:, 5]
    return codes


@pytest.fixture
def store(tmp_path: Path, dense: np.ndarray) -> CodeStore:
    half = ROWS // 2
    where = [places([number] * half, 2 * np.arange(1, half + 1)) for number in (0, 1)]
    return written(tmp_path, [shard_of(dense[:half], where[0]), shard_of(dense[half:], where[1])])


@pytest.mark.parametrize("threshold", [0.1, 0.7, 0.95])
def test_they_are_numpys(store: CodeStore, dense: np.ndarray, threshold: float) -> None:
    with np.errstate(invalid="ignore"):
        r = np.corrcoef(dense.T.astype(np.float64))
    expected = {(i, j): r[i, j] for i in range(FEATURES) for j in range(i + 1, FEATURES) if r[i, j] >= threshold}
    assert expected
    found = near_copies(store, threshold)
    assert set(zip(found["feature"], found["copy"], strict=True)) == set(expected)
    for feature, copy, value in found.itertuples(index=False):
        assert value == pytest.approx(expected[feature, copy], abs=1e-9)


def test_links_are_of_the_features_given(store: CodeStore) -> None:
    near = NearCopies(store, 0.7)
    features = np.array([20, 1, 6, 8, 30, 5, 3, 8])
    links = near.links(features)
    assert links.shape == (8, 8)
    pairs = {tuple(sorted(pair)) for pair in zip(links.row.tolist(), links.col.tolist(), strict=True)}
    assert {(2, 5), (3, 6), (0, 6)} <= pairs  # 5 and 6; 3 and 8; 3 and 20
    assert not {(1, 4), (7, 6)} & pairs  # a feature that is there twice is linked at its first place
    assert near.links(np.array([1, 7, 30])).nnz == 0
    assert near.links(np.array([], int)).shape == (0, 0)


def test_their_key_follows_from_the_codes_and_the_threshold(store: CodeStore, tmp_path: Path) -> None:
    other = written(tmp_path / "other", list(store.shards())[:1])
    keys = {near.unit.piece.key for near in (NearCopies(store, 0.7), NearCopies(store, 0.8), NearCopies(other, 0.7))}
    assert len(keys) == 3
    assert NearCopies(store, 0.7, "cuda").unit.piece.key in keys
