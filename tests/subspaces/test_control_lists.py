"""Word counts and control lists: as many words, as frequent, of no category, drawn at random."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from texts import corpus_of

from tiny import sentences
from unifeat.errors import UserError
from unifeat.subspaces.control import NEAREST_WORDS, control_lists, word_counts
from unifeat.text.corpus import Cut


def zipf(words: int = 5000, top: int = 20_000) -> dict[str, int]:
    """A vocabulary as skewed as that of a text: w<a letter word> → count."""
    letters = "abcdefghij"
    names = ["w" + "".join(letters[int(d)] for d in str(rank)) for rank in range(1, words + 1)]
    return {name: max(top // rank, 1) for rank, name in enumerate(names, start=1)}


def test_counts_are_of_whole_folded_words(tmp_path: Path) -> None:
    documents = [*sentences(20, seed=4), "The ship's SHIP, ship; shipment don’t DON'T 3rd"]
    expected = Counter(
        word.strip(".,;").lower().replace("’", "'") for text in documents for word in text.split() if word.strip(".,;")
    )
    corpus = corpus_of(tmp_path, documents, Cut(group=900))
    assert corpus.groups > 3
    got = word_counts(corpus)
    assert got == expected
    assert got["don't"] == 2


def test_lists_are_as_long_and_as_frequent() -> None:
    counts = zipf()
    names = list(counts)
    rng = np.random.default_rng(0)
    categories = {"one": tuple(rng.choice(names[20:], 60, replace=False)), "two": tuple(names[100:280:6])}
    categories["one"] += ("absent", "gone")
    lists = control_lists(counts, categories, 20, seed=1)
    inside = {word for own in categories.values() for word in own}
    for name, own in categories.items():
        real = sorted((counts[word] for word in own if word in counts), reverse=True)
        assert len(lists[name]) == 20
        assert len(set(lists[name])) == 20
        for words in lists[name]:
            assert len(set(words)) == len(words) == len(real)
            assert not set(words) & inside
            ratio = np.log([counts[w] for w in words]) - np.log(real)
            assert np.abs(ratio).max() < 0.7
            assert abs(ratio.mean()) < 0.05


def test_of_equally_frequent_words_each_is_as_likely() -> None:
    counts = {f"x{c}": 7 for c in "abcdefghijklmnopqrstuvwxyz"} | {"day": 7, "rare": 1, "often": 900}
    drawn = Counter(word for own in control_lists(counts, {"Time": ("day",)}, 2600, seed=3)["Time"] for word in own)
    assert set(drawn) == {word for word in counts if word.startswith("x")}
    # 26 cells of 100 expected; χ² with 25 degrees of freedom is above 60 in one of 10,000 draws.
    assert sum((n - 100) ** 2 / 100 for n in drawn.values()) < 60


def test_one_of_the_nearest_is_drawn() -> None:
    counts = {f"x{c}": 100 + 10 * i for i, c in enumerate("abcdefghijklmnopqrst")} | {"day": 201}
    by_ratio = sorted((w for w in counts if w != "day"), key=lambda w: abs(np.log(counts[w] / 201)))
    drawn = {own[0] for own in control_lists(counts, {"Time": ("day",)}, 400, seed=0)["Time"]}
    assert drawn == set(by_ratio[:NEAREST_WORDS])


def test_the_seed_decides() -> None:
    counts = zipf(800)
    names = list(counts)
    categories = {"one": tuple(names[50:90:2]), "two": tuple(names[51:91:2])}
    first = control_lists(counts, categories, 3, seed=0)
    assert control_lists(dict(reversed(counts.items())), categories, 3, seed=0) == first
    assert control_lists(counts, categories, 2, seed=0)["one"] == first["one"][:2]
    assert control_lists(counts, categories, 3, seed=1) != first
    assert first["one"] != first["two"]


def test_what_no_list_can_hold() -> None:
    counts = {"day": 5, "1984": 5, "b2b": 5, "night": 5, "ship": 2, "zero": 0}
    got = control_lists(counts, {"Time": ("Day",), "Other": ("NIGHT", "absent"), "None": ("absent",)}, 4, seed=0)
    assert got == {"Time": [("ship",)] * 4, "Other": [("ship",)] * 4, "None": [()] * 4}


def test_too_few_other_words() -> None:
    counts = {"day": 5, "night": 5, "ship": 2}
    categories = {"Time": ("day", "night")}
    with pytest.raises(UserError, match="for Time: the text has 1 words outside the categories and 2 are needed"):
        control_lists(counts, categories, 1, seed=0)
    assert control_lists(counts, categories, 0, seed=0) == {"Time": []}
    with pytest.raises(UserError, match="lists=-1"):
        control_lists(counts, categories, -1, seed=0)
