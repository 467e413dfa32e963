"""Amounts written by a user: 20GB, 30d."""

from __future__ import annotations

import re

from unifeat.errors import UserError

_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) *([a-zA-Z]*)", re.ASCII)


def bytes_of(text: str, what: str) -> int:
    """Bytes from text such as `20GB`, `1.5 GiB` or `100`.

    Raises:
        UserError: not such an amount.
    """
    found = _AMOUNT.fullmatch(text.strip())
    if found is None or found[2].lower() not in _BYTES:
        raise UserError(f"{what} {text[:40]!r}: give bytes, such as 500MB or 20GB")
    return int(float(found[1]) * _BYTES[found[2].lower()])


def seconds_of(text: str, what: str) -> float:
    """Seconds from text such as `12h`, `30d` or `8w`.

    Raises:
        UserError: not such an age.
    """
    found = _AMOUNT.fullmatch(text.strip())
    if found is None or found[2].lower() not in _SECONDS:
        raise UserError(f"{what} {text[:40]!r}: give an age, such as 12h, 30d or 8w")
    return float(found[1]) * _SECONDS[found[2].lower()]
