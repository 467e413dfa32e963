"""Where tokens end in the text as it was given, whatever a tokenizer does to it before and after it cuts.

A fast tokenizer reports, for each token, a stretch of the original text. Two things make its end wrong:

* A normaliser puts several characters into one (NFC: e and an accent) and takes the first of them for all, or drops
  what stands on a letter (StripAccents). Nobody owns the others then: they belong to the character before.
* A post-processor trims spaces off the stretches (`ByteLevel(trim_offsets=True)`): a token of a newline and spaces
  ends at the newline. It is left out; it changes no tokens where no special ones are added.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
from functools import cache
from typing import Any
from unicodedata import category, normalize
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

_untrimmed: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_making = threading.Lock()


def untrimmed(tokenizer: Any) -> Any:
    """The tokenizer itself, or, if its post-processor trims offsets, a copy of it without one; made once."""
    if not _trims(getattr(tokenizer, "backend_tokenizer", None)):
        return tokenizer
    with _making:
        if tokenizer not in _untrimmed:
            made = copy.deepcopy(tokenizer)
            made.backend_tokenizer.post_processor = None
            _untrimmed[tokenizer] = made
        return _untrimmed[tokenizer]


def ends_in(text: str, spans: NDArray[np.int64], tokenizer: Any) -> NDArray[np.int64]:
    """The characters of a text at which tokens end, never going back.

    Args:
        text: as it was given to the tokenizer.
        spans: (tokens, 2), the stretch of the text that each token has by the tokenizer's own account.

    Returns:
        (tokens,) int64. A token ends after the marks that stand on its last character if no token has them to itself.
        Where the tokenizer does not normalise, or finds nothing to, these are the ends of the stretches.
    """
    ends = spans[:, 1]
    if len(ends) and not text.isascii():
        backend = getattr(tokenizer, "backend_tokenizer", None)
        normalizer = getattr(backend, "normalizer", None)
        if normalizer is not None:
            left = _left_over(text, spans)
            if left.any() and normalizer.normalize_str(text) != text:
                ends = _run_ends(left)[ends]
    # A token that its model found nothing for can be reported to end before the one before it.
    return np.maximum.accumulate(ends)


def _left_over(text: str, spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which characters, (characters + 1,), stand on the one before and are in no token's stretch."""
    size = len(text) + 1
    kinds = _kinds()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    left = np.zeros(size, np.bool_)
    # A mark has nothing to stand on at the beginning or after a control character, such as a newline.
    left[1:-1] = (kinds[1:] == _MARK) & (kinds[:-1] != _CONTROL)
    if left.any():
        open_spans = np.bincount(spans[:, 0], minlength=size) - np.bincount(spans[:, 1], minlength=size)
        left &= np.cumsum(open_spans) == 0
    return left


def _run_ends(left: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each place the first one from there on that is not left over: where a token ends that was to end there."""
    places = np.arange(len(left))
    return np.minimum.accumulate(np.where(left, len(left), places)[::-1])[::-1]


_MARK, _CONTROL = 1, 2


@cache
def _kinds() -> NDArray[np.uint8]:
    """What each code point is: `_MARK` for what can be put into the character before it, `_CONTROL`, or 0."""
    kinds = np.zeros(sys.maxunicode + 1, np.uint8)
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        own = category(character)
        if own in ("Cc", "Zl", "Zp"):
            kinds[code] = _CONTROL
        elif own not in ("Cn", "Co"):
            # NFKC composes what compatibility forms stand for: halfwidth voicing marks, the vowels of Hangul's letters.
            first = normalize("NFKD", character)[0]
            if category(first).startswith("M") or "\u1160" <= first <= "\u11ff" or "\ud7b0" <= first <= "\ud7ff":
                kinds[code] = _MARK
    # Joiners and tags are of the cluster they stand in.
    kinds[[0x200C, 0x200D]] = _MARK
    kinds[0xE0020:0xE0080] = _MARK
    return kinds


def _trims(backend: Any) -> bool:
    processor = getattr(backend, "post_processor", None)
    return processor is not None and _says_trim(json.loads(processor.__getstate__()))


def _says_trim(settings: Any) -> bool:
    if isinstance(settings, dict):
        return settings.get("trim_offsets") is True or any(map(_says_trim, settings.values()))
    return isinstance(settings, list) and any(map(_says_trim, settings))
