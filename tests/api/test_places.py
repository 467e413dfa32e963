"""Places of rows, as users' tables have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from unifeat.api.brought import as_places
from unifeat.errors import UserError

_COLUMNS = {"document": [0, 0, 2], "char_end": [3, 9, 4], "token": ["The", " White", "Cat"]}


@pytest.mark.parametrize("table", [dict, pd.DataFrame, pa.table], ids=["dict", "pandas", "arrow"])
def test_any_table_is_read(table: Any) -> None:
    places = as_places(table(_COLUMNS), 3)
    np.testing.assert_array_equal(places.documents, [0, 0, 2])
    assert places.ends is not None
    np.testing.assert_array_equal(places.ends, [3, 9, 4])
    assert places.tokens == ["The", " White", "Cat"]
    assert places.digest == as_places(dict(_COLUMNS), 3).digest
    assert places.digest != as_places(dict(_COLUMNS) | {"char_end": [3, 9, 5]}, 3).digest


def test_documents_alone_are_read() -> None:
    assert as_places([0, 0, 1], 3).ends is None


@pytest.mark.parametrize("wrong", [{}, {"char_end": [1, 2, 3]}], ids=["nothing", "no document"])
def test_a_table_needs_documents(wrong: Any) -> None:
    with pytest.raises(UserError, match="there is no document"):
        as_places(wrong, 3)


@pytest.mark.parametrize("wrong", [None, 3, [[0, 1]]], ids=repr)
def test_what_are_no_places(wrong: Any) -> None:
    with pytest.raises(UserError, match="places: give the document of each row, or a table"):
        as_places(wrong, 1)


@pytest.mark.parametrize("column", ["document", "char_end"])
def test_fractions_are_refused_and_not_cut_off(column: str) -> None:
    places = as_places(dict(_COLUMNS) | {column: [0.5, 1.5, 2.5]}, 3)
    with pytest.raises(UserError, match="whole numbers"):
        places.codes(np.ones((3, 2)), slice(0, 3))
