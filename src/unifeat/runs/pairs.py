"""`pairs.parquet`: one row group for each pair of spaces, written and read one at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from unifeat.runs.tables import typed
from unifeat.store.writing import written_aside

MOST_SHOWN = 24  # pairs of spaces that the report shows in detail


def write_pairs(path: Path, tables: Iterable[pd.DataFrame]) -> None:
    """Write the candidates of each pair of spaces, in the run's order."""
    writer: pq.ParquetWriter | None = None
    with written_aside(path) as aside:
        try:
            for table in tables:
                arrow = typed(table)
                if writer is None:
                    writer = pq.ParquetWriter(aside, arrow.schema)
                writer.write_table(arrow, row_group_size=max(len(table), 1))
        finally:
            if writer is not None:
                writer.close()


def read_pairs(path: Path, number: int) -> pd.DataFrame | None:
    """The candidates of one pair of spaces.

    Args:
        number: its place in the run's order.

    Returns:
        The rows; None if the file is an older run's, which has other row groups.
    """
    file = pq.ParquetFile(path)
    return file.read_row_group(number).to_pandas() if number < file.num_row_groups else None


def shown_cells(kept: list[int]) -> list[int]:
    """The pairs of spaces that the report shows in detail, by their numbers: those with the most pairs, most first.

    Args:
        kept: the pairs kept of each pair of spaces.
    """
    order = sorted(range(len(kept)), key=lambda number: -kept[number])
    return [number for number in order if kept[number]][:MOST_SHOWN]
