"""Where the small study of two models has been run, and a session's working folder and cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from homes import Place, shared_place


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Place:
    """Where the study has been run. Read only."""
    return shared_place(tmp_path_factory, model_folder)


@pytest.fixture
def here(finished: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy of it, in which this process works."""
    place = finished.copy(tmp_path / "place")
    monkeypatch.setenv("UNIFEAT_CACHE", str(place.cache))
    monkeypatch.chdir(place.work)
    return place
