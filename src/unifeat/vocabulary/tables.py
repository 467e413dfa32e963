"""Tables as users have them: pandas, polars, Arrow or a dict of columns. None of their packages is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def column_names(table: Any) -> list[str] | None:
    """The names of the columns of an Arrow, pandas or polars table, or of a dict; None of anything else."""
    for names in ("column_names", "columns"):  # (of Arrow, and of the others)
        if hasattr(table, names):
            return [str(name) for name in getattr(table, names)]
    return [str(name) for name in table] if isinstance(table, Mapping) else None


def as_frame(table: Any) -> pd.DataFrame:
    """A table for which `column_names` has names, as a DataFrame; one of pandas is returned as it is."""
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table
    return pd.DataFrame({name: np.asarray(table[name]) for name in column_names(table) or ()})
