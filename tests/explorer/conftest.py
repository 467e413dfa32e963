"""Made-up runs, and maps without UMAP where it is not what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from worlds import World, make_world, spiral


@pytest.fixture
def quick_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unifeat.explorer.maps._umap", spiral)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    return make_world(tmp_path / "world")
