"""What is in one context of a feature: the firing word, the words before it, and what they are."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

from unifeat.labels.lines import one_line
from unifeat.subspaces import wholewords
from unifeat.subspaces.wholewords import word_pattern

_MONTHS = """
january february march april may june july august september october november december
jan feb mar apr jun jul aug sep sept oct nov dec
"""
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri"
# Words that say little about a context: they are not looked for nearby. (As the firing word or the one before, they
# count like any other.)
_COMMON = """
a about after all also an and any are as at be been but by can could did do for from had has have he her his how i if in
into is it its just me more my no not of on one or our out over said she so some than that the their them then there
these they this to up us was we were what when which who will with would you your
"""
MONTHS, WEEKDAYS, COMMON = (frozenset(words.split()) for words in (_MONTHS, _WEEKDAYS, _COMMON))
_SHORTEST = 3  # letters of a word that is looked for nearby
_ASCII_WORDS = re.compile(r"[A-Za-z0-9]+(?:'[A-Za-z0-9]+)*")
_ENDS_A_SENTENCE = re.compile(r"[.!?…]['\"”’)\]]*\s*$")


# What opens a quotation, and what closes it: English, German, French, German printers', Japanese.
_QUOTES = {"“": "”", "„": "“”", "«": "»", "‹": "›", "»": "«", "›": "‹", "「": "」", "『": "』"}
_EITHER = frozenset("".join(_QUOTES.values())) & _QUOTES.keys()
_CLOSES_AFTER = ".,;:!?…’'"  # a quotation that ends does so after one of these, a letter or a digit
fold = lru_cache(65_536)(wholewords.fold)


class Context(NamedTuple):
    """Where a feature fires.

    Attributes:
        before, token, after: the text before the firing token, the token's own, and the text after it.
        document: the number of the document.
    """

    before: str
    token: str
    after: str
    document: int


class Trait(NamedTuple):
    """Something that contexts may have in common.

    Attributes:
        kind: `word` (the firing word), `piece` (the firing token, part of a longer word), `what` (what the firing word
            is), `before` (the word before), `what before`, `where`, or `near` (a word in the text before).
        value: which.
    """

    kind: str
    value: str


def traits(context: Context) -> set[Trait]:
    """All traits of a context."""
    before, token, after, _ = context
    text = before + token + after
    starts, ends = _spans(text)
    last = len(before) + len(token.rstrip()) - 1  # the token's last character that is not blank
    own = next((i for i, (s, e) in enumerate(zip(starts, ends, strict=True)) if s <= last < e), None)
    found: set[Trait] = set()
    if own is not None and token.strip():
        word = text[starts[own] : ends[own]]
        found.add(Trait("word", fold(word)))
        piece = one_line(token)
        if fold(piece) != fold(word):
            found.add(Trait("piece", piece))
        found |= {Trait("what", what) for what in _what(word)}
    elif one_line(token):
        found.add(Trait("word", one_line(token)))
    else:
        named = "a line break" if "\n" in token else "a control character" if token.strip() else "a blank"
        found.add(Trait("what", named))
    begin = starts[own] if own is not None else len(before)
    earlier = [(s, e) for s, e in zip(starts, ends, strict=True) if e <= begin]
    words = [text[s:e] for s, e in earlier]
    # The word before is one only within a line, with nothing but blanks between.
    if earlier and not text[earlier[-1][1] : begin].strip(" "):
        found.add(Trait("before", fold(words[-1])))
        found |= {Trait("what before", what) for what in _what(words[-1])}
    near = {fold(word) for word in words}
    found |= {Trait("near", word) for word in near if len(word) >= _SHORTEST and word.isalpha() and word not in COMMON}
    found |= {Trait("where", where) for where in _where(text[:begin])}
    return found


def written(word: str, context: Context) -> list[str]:
    """The forms in which a folded word stands in a context, up to the firing word and with it."""
    text = context.before + context.token + context.after
    starts, ends = _spans(text)
    limit = len(context.before) + len(context.token.rstrip())
    return [text[s:e] for s, e in zip(starts, ends, strict=True) if s < limit and fold(text[s:e]) == word]


def _spans(text: str) -> tuple[list[int], list[int]]:
    pattern = _ASCII_WORDS if text.isascii() else word_pattern()  # the same words, several times faster
    spans = [match.span() for match in pattern.finditer(text)]
    return [start for start, _ in spans], [end for _, end in spans]


@cache
def _what(word: str) -> tuple[str, ...]:
    folded = fold(word)
    found = []
    if any(c.isdigit() for c in word):
        found.append("a number")
    if folded in MONTHS and word[0].isupper():
        found.append("a month")
    if folded in WEEKDAYS and word[0].isupper():
        found.append("a weekday")
    if word[0].isupper() and not found:
        found.append("a capitalised word")
    return tuple(found)


def _quotes(line: str) -> bool:
    """Whether a line ends within quotation marks that differ at their two ends.

    Some marks open in one language and close in another, and the opening one may have been cut off.
    """
    closing = ""
    for at, sign in enumerate(line):
        if closing:
            closing = "" if sign in closing else closing
        elif sign in _QUOTES:
            before, after = line[at - 1 : at], line[at + 1 : at + 2]
            ends = before.isalnum() or (before and before in _CLOSES_AFTER)
            ends = ends or (sign in "»›" and bool(after) and not after.isalnum())  # French has a blank before it
            closing = "" if ends and sign in _EITHER else _QUOTES[sign]
    return bool(closing)


def _where(before: str) -> list[str]:
    """Where in the text the firing word stands, as far as what is before it says."""
    found = []
    line = before.rsplit("\n", 1)[-1]
    if "\n" in before and not line.strip():
        found.append("at the beginning of a line")
    elif _ENDS_A_SENTENCE.search(line):
        found.append("at the beginning of a sentence")
    if line.count('"') % 2 or _quotes(line):
        found.append("inside quotation marks")
    if sum(line.count(c) for c in "([") > sum(line.count(c) for c in ")]"):
        found.append("inside brackets")
    return found
