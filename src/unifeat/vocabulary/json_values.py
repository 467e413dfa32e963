"""Numbers as JSON has them: Python's own, and null for what is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def number_or_none(value: Any) -> Any:
    """NaN and infinities as None, NumPy's numbers as Python's; other values as they are."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON data."""
    return [{str(k): number_or_none(v) for k, v in row.items()} for row in table.to_dict("records")]
