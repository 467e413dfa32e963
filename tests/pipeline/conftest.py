"""Fixtures of the tests that run the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from homes import Place, shared_place, shared_warm
from warm import Warm


@pytest.fixture
def warm() -> Warm:
    return shared_warm()


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, model_folder: Callable[..., Path]) -> Place:
    """Where the study has been run. Read only."""
    return shared_place(tmp_path_factory, model_folder)


@pytest.fixture
def place(finished: Place, tmp_path: Path) -> Place:
    """A copy of it, for a test to change."""
    return finished.copy(tmp_path / "place")
