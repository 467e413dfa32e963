"""Automatic labels: what is planted in contexts is named, and nothing is where there is nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

from unifeat.labels.automatic import LEVEL, MARK, _tail, automatic_labels
from unifeat.labels.contexts import Context, Trait, traits

WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "bright",
    "winter",
    "copper",
    "signal",
    "harbour",
    "meadow",
    "lantern",
    "orchard",
    "thunder",
    "velvet",
    "walnut",
]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]


def filler(rng: random.Random, n: int = 7) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n)) + " "


def plain(rng: random.Random, features: int = 60, each: int = 10) -> dict[int, list[Context]]:
    """Contexts that have nothing in common but the words of the language."""
    return {
        feature: [
            Context(filler(rng), " " + rng.choice(WORDS), " " + rng.choice(WORDS), rng.randrange(500))
            for _ in range(each)
        ]
        for feature in range(features)
    }


def labels_with(planted: list[Context], seed: int = 0) -> str:
    contexts = plain(random.Random(seed)) | {999: planted}
    return automatic_labels(contexts).labels.get(999, "")


def ten(rng: random.Random, before: str, tokens: list[str], after: str = " and so on") -> list[Context]:
    return [Context(filler(rng) + before, tokens[i % len(tokens)], after, i) for i in range(10)]


@pytest.fixture
def rng() -> random.Random:
    return random.Random(1)


def test_the_firing_word(rng: random.Random) -> None:
    assert labels_with(ten(rng, "", [" White"])) == f"{MARK}“White”"
    assert labels_with(ten(rng, "", [" white", " White", " White"])) == f"{MARK}“White”", "as it is mostly written"


def test_the_word_before(rng: random.Random) -> None:
    tokens = [" cat", " dog", " cow", " hen", " fox", " owl", " bee", " ant", " elk", " eel"]
    assert labels_with(ten(rng, "the White", tokens)) == f"{MARK}after “White”"
    assert labels_with(ten(rng, "the White", [" House"])) == f"{MARK}“House”, after “White”"


def test_after_a_months_name(rng: random.Random) -> None:
    contexts = [
        Context(filler(rng) + f"in {month}", f" {3 * i + 1}", ", they said", i) for i, month in enumerate(MONTHS)
    ]
    assert labels_with(contexts) == f"{MARK}a number, after a month"


def test_inside_quotations(rng: random.Random) -> None:
    tokens = [f" {word}" for word in WORDS[:10]]
    assert labels_with(ten(rng, 'she said: "we', tokens))[len(MARK) :] in ("inside quotation marks", "after “we”")
    contexts = [Context(filler(rng) + f'said: "{filler(rng, 2)}', token, '"', i) for i, token in enumerate(tokens)]
    assert labels_with(contexts) == f"{MARK}inside quotation marks"


@pytest.mark.parametrize(
    ("before", "inside"),
    [
        ("she said “", True),
        ("she said “we", True),
        ("she said “we” and", False),
        ("er sagte: „Wir kommen", True),
        ("er sagte: „Wir“ und", False),
        ("kommen.“ Er sagte", False),  # (it began before the context)
        ("er sagte: »Wir", True),
        ("er sagte: »Wir« und", False),
        ("elle a dit « nous", True),
        ("elle a dit « nous » et", False),
        ("nous sommes », dit-elle en", False),
        ("彼は「私", True),
        ("彼は「私」と", False),
        ('said: "we" and "', True),
        ("the bird’s", False),
    ],
)
def test_quotation_marks_of_several_languages(before: str, inside: bool) -> None:
    found = traits(Context(before, " x", "", 0))
    assert (Trait("where", "inside quotation marks") in found) == inside


def test_control_characters_are_named_and_not_written(rng: random.Random) -> None:
    assert labels_with(ten(rng, "", ["\x07"])) == f"{MARK}a control character"
    assert labels_with(ten(rng, "", [" \x1b$"])) == f"{MARK}“$”"


def test_a_piece_of_words(rng: random.Random) -> None:
    contexts = [Context(filler(rng) + stem, "ing", " more", i) for i, stem in enumerate(f"{w}{w}" for w in WORDS[:10])]
    assert labels_with(contexts) == f"{MARK}“ing” in a word"


def test_a_word_nearby_counts_once_a_document(rng: random.Random) -> None:
    tokens = [f" {word}" for word in WORDS[:10]]
    spread = [Context(f"the parliament {filler(rng, 3)}", token, "", i) for i, token in enumerate(tokens)]
    assert labels_with(spread) == f"{MARK}near “parliament”"
    one = [context._replace(document=7) for context in spread]
    assert "parliament" not in labels_with(one)


def test_where_there_is_nothing_in_common_there_is_no_label() -> None:
    found = [automatic_labels(plain(random.Random(seed), features=150)) for seed in range(6)]
    assert np.mean([len(own.labels) / 150 for own in found]) <= 2 * LEVEL
    assert np.mean([own.by_chance for own in found]) <= 2 * LEVEL


def test_contexts_dealt_at_random_have_hardly_any_label(rng: random.Random) -> None:
    contexts = {f: ten(rng, "", [f" {word}x{f}"]) for f, word in enumerate(WORDS)}
    found = automatic_labels(contexts)
    assert len(found.labels) == len(WORDS)
    assert found.by_chance <= 1 / len(WORDS)


def test_few_contexts_have_none_and_the_order_of_features_does_not_matter(rng: random.Random) -> None:
    assert labels_with(ten(rng, "", [" White"])[:2]) == ""
    contexts = plain(rng, 20) | {50: ten(rng, "", [" White"]), 40: ten(rng, "", [" House"])}
    backwards = dict(reversed(contexts.items()))
    assert automatic_labels(contexts).labels == automatic_labels(backwards).labels
    assert list(automatic_labels(backwards).labels) == [40, 50]
    assert automatic_labels({}) == ({}, 0.0)


def test_the_tail_is_the_binomials() -> None:
    from scipy.stats import binom

    for least, n, share in ((0, 5, 0.3), (3, 10, 0.01), (10, 10, 0.5), (4, 7, 1.0)):
        assert _tail(least, n, share) == pytest.approx(binom.sf(least - 1, n, share), rel=1e-9)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (Context("in May", " 5", ", 2020", 0), {Trait("word", "5"), Trait("what", "a number"), Trait("before", "may")}),
        (Context("in May", " 5", "", 0), {Trait("what before", "a month")}),
        (Context("they may", " 5", "", 0), {Trait("before", "may")}),
        (Context("one\n", "Two", "", 0), {Trait("where", "at the beginning of a line")}),
        (Context("It ended. ", "Two", "", 0), {Trait("where", "at the beginning of a sentence")}),
        (Context("a (b c", " d", ")", 0), {Trait("where", "inside brackets"), Trait("before", "c")}),
        (Context("day", "light", "s", 0), {Trait("word", "daylights"), Trait("piece", "light")}),
        (Context("end", ".", " Next", 0), {Trait("word", "."), Trait("before", "end")}),
        (Context("end", "\n", "Next", 0), {Trait("what", "a line break")}),
        (Context("", "", "", 0), {Trait("what", "a blank")}),
    ],
)
def test_traits(context: Context, expected: set[Trait]) -> None:
    assert expected <= traits(context)


def test_what_is_not_a_trait() -> None:
    assert not {t for t in traits(Context("they may", " 5", "", 0)) if t.value == "a month"}, "a verb"
    assert not {t for t in traits(Context("one\n", "Two", "", 0)) if t.kind == "before"}, "another line"
    assert not {t for t in traits(Context('"a" b', " c", "", 0)) if t.kind == "where"}, "the quotation is closed"
    assert Trait("near", "the") not in traits(Context("the end of", " it", "", 0))
