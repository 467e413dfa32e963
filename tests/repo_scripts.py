"""The scripts of the repository, which write its pages, as modules: tests run small versions of them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load_script(name: str) -> ModuleType:
    """One of them; skips the test where they are not part of the distribution."""
    if not SCRIPTS.exists():
        pytest.skip("the scripts are not part of this distribution")
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))
