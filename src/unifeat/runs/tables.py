"""Tables as Parquet, with the same types whatever is in them: of an empty column, pandas does not know what it has."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_LISTS = (
    *("top_tokens_a", "top_tokens_b", "top_tokens", "spaces", "flags"),
    *("promotes_a", "suppresses_a", "promotes_b", "suppresses_b"),
)


def typed(table: pd.DataFrame) -> pa.Table:
    """The table with text as large_string, and lists of it where a column holds lists."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    text = pa.large_string()
    for place, field in enumerate(arrow.schema):
        words = pa.types.is_string(field.type) or pa.types.is_null(field.type)
        kind = pa.list_(text) if field.name in _LISTS else text if words else field.type
        if field.type != kind:
            own = arrow.column(place)
            # (A column of NaN is one of numbers to pandas, whatever it would have held.)
            missing = pa.types.is_floating(field.type) and table[field.name].isna().all()
            arrow = arrow.set_column(place, field.name, pa.nulls(len(own), kind) if missing else own.cast(kind))
    return arrow


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table."""
    pq.write_table(typed(table), path)
