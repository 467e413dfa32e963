"""The data in an explorer's page, read in Python as the page reads them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np


def unpacked(text: str) -> tuple[Any, dict[str, np.ndarray]]:
    """What `packed` packed."""
    content = zlib.decompress(base64.b64decode(text), -zlib.MAX_WBITS)
    length = int.from_bytes(content[:4], "little")
    head = json.loads(content[4 : 4 + length])
    start = -(-(4 + length) // 8) * 8
    arrays = {
        name: np.frombuffer(content, np.dtype(f"<{kind}"), count, start + offset)
        for name, (kind, offset, count) in head["arrays"].items()
    }
    return head["data"], arrays


def data_of(page: Path, name: str) -> tuple[Any, dict[str, np.ndarray]]:
    """What a script element of the page holds."""
    text = page.read_text(encoding="utf-8")
    found = re.search(rf'<script type="text/plain" id="{name}-data">([^<]*)</script>', text)
    assert found is not None
    return unpacked(found[1])
