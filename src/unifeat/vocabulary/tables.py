"""Tables as users have them: pandas, polars, Arrow or a dict of columns. None of their packages is imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from unifeat.errors import UserError

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


def pairs_table(pairs: Any) -> pd.DataFrame:
    """Pairs of features, a table or (pairs, 2) integers, as a DataFrame with the columns `feature_a` and `feature_b`.

    Raises:
        UserError: neither.
    """
    import pandas as pd

    names = column_names(pairs)
    if names is not None:
        missing = [name for name in ("feature_a", "feature_b") if name not in names]
        if missing:
            raise UserError(f"pairs: give a table with the columns feature_a and feature_b ({missing[0]} is missing)")
        return as_frame(pairs)
    try:
        found = np.asarray(pairs)
    except ValueError:  # (rows of different lengths)
        found = np.zeros(1)
    if found.shape == (0,):
        found = np.zeros((0, 2), np.int64)
    if found.ndim != 2 or found.shape[1] != 2:
        raise UserError("pairs: give a table with the columns feature_a and feature_b, or a list of pairs (a, b)")
    return pd.DataFrame({"feature_a": found[:, 0], "feature_b": found[:, 1]})
