"""The run that Python users hold documents its tables."""

from __future__ import annotations

from functools import cached_property

import unifeat as uf
from unifeat.runs.folder import Run as Folder


def test_every_table_is_in_its_docstring() -> None:
    tables = [name for name, value in vars(Folder).items() if isinstance(value, cached_property) and name != "info"]
    assert len(tables) >= 12
    assert not [name for name in tables if f"`{name}`" not in (uf.Run.__doc__ or "")]
