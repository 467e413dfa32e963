"""Keeping freed memory: on a CPU, a forward pass allocates and frees the same megabytes at every layer.

glibc returns freed blocks above 128 KiB to the system, so the next layer has to get fresh pages. Keeping them made
encoding 15 to 50 % faster in our measurements. The process then keeps its largest working set until it ends.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_THRESHOLD_BYTES = 1 << 30


@cache
def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks for reuse; does nothing with other C libraries."""
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)
    except (OSError, AttributeError):  # another C library
        return
