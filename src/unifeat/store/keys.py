"""Keys: short names computed from everything that determines a piece of work."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(data: Any) -> str:
    """JSON data as text; equal data give equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(data: Any) -> str:
    """SHA-256 of JSON data, 64 hex digits."""
    return hashlib.sha256(canonical(data).encode("utf-8", "surrogatepass")).hexdigest()


def key_of(data: Any) -> str:
    """A short name for JSON data: the first 16 hex digits of its SHA-256."""
    return digest_of(data)[:16]
