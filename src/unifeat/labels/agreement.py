"""Do the labels of partners agree? The word stems that two labels have in common, beside random pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unifeat.labels.contexts import COMMON
from unifeat.labels.lines import MARK
from unifeat.subspaces.wholewords import fold

_WORDS = re.compile(r"[^\W_]+")
_QUOTED = re.compile("“(.*?)”")
_FRAME = frozenset({"near", "inside", "beginning", "line", "sentence", "word"})  # of automatic labels


class Agreement(NamedTuple):
    """How alike the labels of partners are.

    Attributes:
        pairs: pairs of which both features have a label with a word in it.
        mean: the mean over them of the shared stems over all stems of both labels (Jaccard).
        chance: the same with partners exchanged at random, mean over the draws.
        p: (b + 1)/(m + 1), where b of m draws reach the mean. NaN without pairs.
        draws: m.
    """

    pairs: int
    mean: float
    chance: float
    p: float
    draws: int


def stems(label: str) -> frozenset[str]:
    """The stems of a label's words, without those that say little.

    Plurals lose their ending: the "S" stemmer of Harman 1991, "How effective is suffixing?", J. Am. Soc. Inf. Sci. 42.
    """
    if label.startswith(MARK):  # what is quoted comes from the contexts, and the rest is ours
        quoted, frame = " ".join(_QUOTED.findall(label)), _QUOTED.sub(" ", label.removeprefix(MARK))
        words = _words(quoted) + [word for word in _words(frame) if word not in _FRAME]
    else:
        words = _words(label)
    return frozenset(_singular(word) for word in words if word not in COMMON)


def _words(text: str) -> list[str]:
    return [fold(word) for word in _WORDS.findall(text) if len(word) > 1 or word.isdigit()]


def _singular(word: str) -> str:
    """The first of three rules that fits: ies → y, es → e, s → nothing."""
    if len(word) > 3 and word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if len(word) > 2 and word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word


def agreement(
    pairs: Sequence[tuple[int, int]],
    labels_a: Mapping[int, str],
    labels_b: Mapping[int, str],
    *,
    draws: int = 199,
    seed: int = 0,
) -> Agreement:
    """How alike the labels of partners are, beside partners exchanged at random among the same pairs.

    Args:
        pairs: features of A and of B.
        labels_a, labels_b: labels by feature.
    """
    known_a, known_b = ({f: s for f, label in own.items() if (s := stems(label))} for own in (labels_a, labels_b))
    judged = [(a, b) for a, b in pairs if a in known_a and b in known_b]
    if not judged:
        return Agreement(0, float("nan"), float("nan"), float("nan"), draws)
    sides = [known_a[a] for a, _ in judged], [known_b[b] for _, b in judged]
    observed = _mean(*sides)
    rng = np.random.default_rng(seed)
    null = [_mean(sides[0], [sides[1][i] for i in rng.permutation(len(judged))]) for _ in range(draws)]
    reached = sum(value >= observed - 1e-12 for value in null)
    return Agreement(
        len(judged), observed, float(np.mean(null)) if null else float("nan"), (reached + 1) / (draws + 1), draws
    )


def _mean(a: Sequence[frozenset[str]], b: Sequence[frozenset[str]]) -> float:
    return float(np.mean([len(x & y) / len(x | y) for x, y in zip(a, b, strict=True)]))
