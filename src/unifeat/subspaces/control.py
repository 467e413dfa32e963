"""Control lists: random words that are as frequent in the text as those of a category."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.progress import track
from unifeat.subspaces.categories import Categories
from unifeat.subspaces.wholewords import fold, word_pattern
from unifeat.text.corpus import Corpus

NEAREST_WORDS = 10  # each word is replaced by one of this many that are nearest in frequency


def word_counts(corpus: Corpus) -> Counter[str]:
    """How often each whole word (folded) occurs in the text. Memory grows with the vocabulary, not with the text."""
    counts: Counter[str] = Counter()
    with track("counting words", corpus.groups, unit="groups") as advance:
        for group in range(corpus.groups):
            # Words are counted as written and folded afterwards, since folding the whole text would be slower.
            written: Counter[str] = Counter()
            for part in corpus.parts(group):
                written.update(word_pattern().findall(part.text))
            for word, count in written.items():
                counts[fold(word)] += count
            advance(1)
    return counts


def control_lists(
    counts: Mapping[str, int], categories: Mapping[str, Iterable[str]], lists: int, seed: int
) -> dict[str, list[tuple[str, ...]]]:
    """For each category, lists of random words that are as frequent in the text.

    Each word of the category that occurs in the text is replaced by a random one of the `NEAREST_WORDS` words that are
    nearest in frequency (by ratio), are in no category, have no digit, and are not in the list yet. So a list has as
    many words as the category has in the text, with similar frequencies. Frequent words are replaced first, since few
    words are as frequent. A list depends on the seed, the category's name, the list's number, and the words of all
    categories.

    Args:
        counts: `word_counts` of the text.
        categories: name → words.
        lists: number of lists per category.
        seed: seed of the draws.

    Returns:
        name → its lists, each in order of falling frequency of the replaced words. Lists are empty for a category
        without a word in the text.

    Raises:
        UserError: a negative number of lists, a negative seed, or a text with too few other words.
    """
    if lists < 0 or seed < 0:
        raise UserError(f"control lists: lists={lists}, seed={seed}: give whole numbers, 0 or more")
    folded: Categories = {name: tuple(dict.fromkeys(map(fold, own))) for name, own in categories.items()}
    taken = set(chain.from_iterable(folded.values()))
    by_count: dict[int, list[str]] = {}
    for word in sorted(counts):
        if counts[word] > 0 and word not in taken and not any(c.isdigit() for c in word):
            by_count.setdefault(counts[word], []).append(word)
    controls: dict[str, list[tuple[str, ...]]] = {}
    for name, own in folded.items():
        wanted = sorted((counts[word] for word in own if counts.get(word, 0) > 0), reverse=True)
        available = sum(map(len, by_count.values()))
        if available < len(wanted) and lists:
            raise UserError(
                f"control list for {name}: the text has {available} words outside the categories and {len(wanted)} are "
                "needed; give more text or set subspaces.control_lists to 0"
            )
        controls[name] = [
            _draw(by_count, wanted, np.random.default_rng([seed, number, *name.encode()])) for number in range(lists)
        ]
    return controls


def _draw(by_count: dict[int, list[str]], wanted: list[int], rng: np.random.Generator) -> tuple[str, ...]:
    """One word for each wanted count."""
    levels = sorted(by_count)
    left = {level: len(by_count[level]) for level in levels}
    order: dict[int, NDArray[np.int64]] = {}
    chosen = []
    for count in wanted:
        near: list[int] = []
        room = NEAREST_WORDS
        for level in _outward(levels, count):
            near += [level] * min(left[level], room)
            room = NEAREST_WORDS - len(near)
            if room == 0:
                break
        level = near[int(rng.integers(len(near)))]
        if level not in order:
            order[level] = rng.permutation(left[level])
        left[level] -= 1
        chosen.append(by_count[level][order[level][left[level]]])
    return tuple(chosen)


def _outward(levels: list[int], count: int) -> Iterable[int]:
    """The counts in `levels`, from the nearest to `count` (by ratio) to the furthest; ties go to the lower one."""
    up = bisect_left(levels, count)
    down = up - 1
    while down >= 0 or up < len(levels):
        if up == len(levels) or (down >= 0 and count * count <= levels[down] * levels[up]):
            yield levels[down]
            down -= 1
        else:
            yield levels[up]
            up += 1
