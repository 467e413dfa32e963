"""Plain tables for the terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def framed(headings: list[Any], rows: list[list[Any]], left: int = 0) -> Table:
    """A plain table whose first `left` columns are text, wrapped if the terminal is narrow."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(str(h) for h in headings))
    for place, heading in enumerate(headings):
        words = place < left
        table.add_column(Text(str(heading)), justify="left" if words else "right", no_wrap=not words, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    return table
