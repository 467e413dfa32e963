"""Keys: short names computed from everything that determines a piece of work."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # keys are made where NumPy is not loaded
    from numpy.typing import NDArray


class DamagedError(Exception):
    """Something stored is not as it was written; the message says how."""


def canonical(data: Any) -> str:
    """JSON data as text; equal data give equal text."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_of(data: Any) -> str:
    """SHA-256 of JSON data, 64 hex digits."""
    return hashlib.sha256(canonical(data).encode("utf-8", "surrogatepass")).hexdigest()


def digest_of_arrays(*arrays: NDArray[Any]) -> str:
    """SHA-256 of the numbers of arrays, as they lie in memory, and of their types and shapes: 64 hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update((array if array.flags.c_contiguous else array.copy(order="C")).data)
    return digest.hexdigest()


def sealed(content: Any) -> str:
    """JSON data as the text of a file that holds its own checksum; read by `unsealed`."""
    return json.dumps({"sha256": digest_of(content), "content": content}, ensure_ascii=False) + "\n"


def unsealed(text: str) -> Any:
    """The data in such a text, after its checksum has been verified.

    Raises:
        DamagedError: the text is not as it was written; the message says how.
    """
    try:
        held = json.loads(text)
        content = held["content"]
        if held["sha256"] != digest_of(content):
            raise DamagedError("its checksum does not match")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DamagedError(f"it cannot be read: {error}") from error
    return content


def key_of(data: Any) -> str:
    """A short name for JSON data: the first 16 hex digits of its SHA-256."""
    return digest_of(data)[:16]
