"""Typed arrays for a page: compressed with deflate, written as base64, read with the browser's DecompressionStream."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NARROW = (np.uint8, np.uint16, np.uint32)
_ALIGN = 8
# What a fixed-point number means, and which one means that there is none: see `fixed`.
FIXED_SCALE = 32000
FIXED_NONE = -32768


def narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers, none negative, in the smallest unsigned type that holds them all.

    Raises:
        ValueError: a number below 0 or above 2³² − 1.
    """
    if len(values) and (values.min() < 0 or values.max() > np.iinfo(np.uint32).max):
        raise ValueError(f"{values.min()} to {values.max()} do not fit into 32 bits without a sign")
    largest = int(values.max(initial=0))
    return values.astype(next(kind for kind in _NARROW if largest <= np.iinfo(kind).max))


def fixed(values: NDArray[Any]) -> NDArray[np.int16]:
    """Numbers between −1 and 1 in two bytes, to 1/32,000; NaN becomes `FIXED_NONE`."""
    known = np.nan_to_num(np.clip(values, -1, 1))
    return np.where(np.isnan(values), FIXED_NONE, np.rint(known * FIXED_SCALE)).astype(np.int16)


def packed(data: Any, arrays: Mapping[str, NDArray[Any]]) -> str:
    """JSON data and arrays as base64 text.

    Once inflated: the length of a JSON text in bytes (uint32), the JSON text, the arrays at multiples of 8 bytes, all
    little-endian. The JSON text is `{"data": …, "arrays": {name: [type, offset, length]}}`, with offsets from the first
    multiple of 8 after it.
    """
    index: dict[str, list[Any]] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        little = flat.astype(flat.dtype.newbyteorder("<"), copy=False)
        index[name] = [f"{flat.dtype.kind}{flat.dtype.itemsize}", offset, len(flat)]
        content = little.tobytes()
        content += b"\0" * (-len(content) % _ALIGN)
        parts.append(content)
        offset += len(content)
    head = json.dumps({"data": data, "arrays": index}, separators=(",", ":"), allow_nan=False).encode()
    start = len(head).to_bytes(4, "little") + head
    start += b"\0" * (-len(start) % _ALIGN)
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    content = b"".join([squeezed.compress(start), *(squeezed.compress(part) for part in parts), squeezed.flush()])
    return base64.b64encode(content).decode("ascii")
