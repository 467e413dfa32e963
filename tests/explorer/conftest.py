"""Made-up runs, and maps without UMAP where it is not what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from worlds import World, make_world


def spiral(index: np.ndarray, distance: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Places that are far from each other."""
    n = np.arange(len(index))
    turn = 0.5 * n + (0 if rows is None else 1)
    return np.stack([(n + 3) * np.cos(turn), (n + 3) * np.sin(turn)], axis=1).astype(np.float32)


@pytest.fixture
def quick_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unifeat.explorer.maps._umap", spiral)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    return make_world(tmp_path / "world")
