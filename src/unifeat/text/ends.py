"""Where tokens end in the original text, whatever the tokenizer's normaliser and post-processor do.

A fast tokenizer reports a span of the original text for each token. Two things make the end of a span wrong:

* A normaliser may compose several characters into one (NFC: e and an accent) and report only the first of them, or drop
  combining marks (StripAccents). Then no token's span covers the other characters. They are counted with the character
  before them.
* A post-processor may trim spaces off the spans (`ByteLevel(trim_offsets=True)`): a token of a newline and spaces then
  ends at the newline. The post-processor is removed; without special tokens, it does not change any token.
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
    """The tokenizer itself or, if its post-processor trims offsets, a copy without it; the copy is made once."""
    if not _trims(getattr(tokenizer, "backend_tokenizer", None)):
        return tokenizer
    with _making:
        if tokenizer not in _untrimmed:
            made = copy.deepcopy(tokenizer)
            made.backend_tokenizer.post_processor = None
            _untrimmed[tokenizer] = made
        return _untrimmed[tokenizer]


def ends_in(text: str, spans: NDArray[np.int64], tokenizer: Any) -> NDArray[np.int64]:
    """The characters of a text at which tokens end, in ascending order.

    Args:
        text: the text given to the tokenizer.
        spans: (tokens, 2), the span of each token as the tokenizer reports it.

    Returns:
        (tokens,) int64. A token ends after the combining marks on its last character, if no token's span covers them.
        If the tokenizer does not normalise the text, these are the ends of the spans.
    """
    ends = spans[:, 1]
    if len(ends) and not text.isascii():
        backend = getattr(tokenizer, "backend_tokenizer", None)
        normalizer = getattr(backend, "normalizer", None)
        if normalizer is not None:
            left = _left_over(text, spans)
            if left.any() and normalizer.normalize_str(text) != text:
                ends = _run_ends(left)[ends]
    # A token can be reported to end before the previous one, if the tokenizer's model did not find it in the text.
    return np.maximum.accumulate(ends)


def _left_over(text: str, spans: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(characters + 1,) which characters are marks on the character before and in no token's span."""
    size = len(text) + 1
    kinds = _kinds()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)]
    left = np.zeros(size, np.bool_)
    # A mark at the beginning, or after a control character such as a newline, has no character to combine with.
    left[1:-1] = (kinds[1:] == _MARK) & (kinds[:-1] != _CONTROL)
    if left.any():
        open_spans = np.bincount(spans[:, 0], minlength=size) - np.bincount(spans[:, 1], minlength=size)
        left &= np.cumsum(open_spans) == 0
    return left


def _run_ends(left: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each position, the first one at or after it that is not left over: the true end of a token ending there."""
    places = np.arange(len(left))
    return np.minimum.accumulate(np.where(left, len(left), places)[::-1])[::-1]


_MARK, _CONTROL = 1, 2


@cache
def _kinds() -> NDArray[np.uint8]:
    """The kind of each code point: `_MARK` if it can combine with the character before it, `_CONTROL`, or 0."""
    kinds = np.zeros(sys.maxunicode + 1, np.uint8)
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        own = category(character)
        if own in ("Cc", "Zl", "Zp"):
            kinds[code] = _CONTROL
        elif own not in ("Cn", "Co"):
            # NFKC also composes compatibility forms: halfwidth voicing marks, and vowels of Hangul letters.
            first = normalize("NFKD", character)[0]
            if category(first).startswith("M") or "\u1160" <= first <= "\u11ff" or "\ud7b0" <= first <= "\ud7ff":
                kinds[code] = _MARK
    # Joiners and tags belong to the cluster they are in.
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
