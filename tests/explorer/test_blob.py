"""Packed arrays, read again as the page reads them."""

import numpy as np
import pytest
from explorer_data import unpacked

from unifeat.explorer.blob import FIXED_NONE, FIXED_SCALE, fixed, narrow, packed


def test_there_and_back():
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.integers(0, 255, 13).astype(np.uint8),
        "b": rng.random(5).astype(np.float32),
        "none": np.zeros(0, np.uint16),
        "c": rng.integers(-9, 9, (3, 4)).astype(np.int16),
    }
    data, found = unpacked(packed({"x": "</script>\u2028", "y": [1, None]}, arrays))
    assert data == {"x": "</script>\u2028", "y": [1, None]}
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.reshape(-1).tolist() for name, array in arrays.items()
    }
    assert all(found[name].dtype == arrays[name].dtype for name in arrays)


def test_nothing_of_the_text_is_in_it():
    text = packed({"x": "<script>"}, {"t": np.frombuffer(b"</script>", np.uint8)})
    assert text.isascii()
    assert not {"<", ">", "&", '"', "'"} & set(text)


def test_nan_is_not_written_as_json():
    with pytest.raises(ValueError, match="JSON"):
        packed({"x": float("nan")}, {})


def test_narrow():
    kinds = [(np.array(x), kind) for x, kind in (([0, 255], "u1"), ([256], "u2"), ([65536], "u4"))]
    for array, kind in [*kinds, (np.zeros(0, np.int64), "u1")]:
        found = narrow(array)
        assert f"{found.dtype.kind}{found.dtype.itemsize}" == kind
        assert found.tolist() == array.tolist()
    for wrong in ([-1], [2**32]):
        with pytest.raises(ValueError, match="32 bits"):
            narrow(np.array(wrong))


def test_fixed():
    values = np.array([0.0, 1.0, -1.0, 0.12345, np.nan, 1.0000001])
    found = fixed(values)
    assert found[4] == FIXED_NONE
    assert np.abs(found[[0, 1, 2, 3, 5]] / FIXED_SCALE - np.clip(values[[0, 1, 2, 3, 5]], -1, 1)).max() <= 0.5 / 32000
