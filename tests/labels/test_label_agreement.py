"""Labels of partners: shared stems, beside partners at random."""

from __future__ import annotations

import numpy as np
import pytest

from unifeat.labels.agreement import agreement, stems

WORDS = [f"word{i}" for i in range(40)]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("References to rivers, and cities", {"reference", "river", "city"}),
        ("auto: “White”, near “Houses”", {"white", "house"}),
        ("near the station", {"near", "station"}),
        ("the bus and the glass", {"bus", "glass"}),
        ("auto: “,”", set()),
        ("auto: “word”", {"word"}),
        ("auto: “line” in a word, near “beginning”", {"line", "beginning"}),
        ("auto: a number, at the beginning of a line", {"number"}),
        ("the of and", set()),
        ("", set()),
        ("Zürich’s cafés", {"zürich", "café"}),
    ],
)
def test_stems(label: str, expected: set[str]) -> None:
    assert stems(label) == expected


def test_partners_with_the_same_labels_agree_and_those_at_random_do_not() -> None:
    labels = {i: f"{WORDS[i]} {WORDS[(i + 1) % 40]}" for i in range(40)}
    found = agreement([(i, i) for i in range(40)], labels, labels, seed=1)
    assert (found.pairs, found.mean, found.p) == (40, 1.0, 1 / 200)
    assert found.chance < 0.1


def test_the_mean_is_that_of_each_pairs_shared_stems() -> None:
    a = {0: "red cat", 1: "blue dog", 2: "the", 3: "green"}
    b = {0: "red cats", 1: "blue bird", 2: "green", 5: "x"}
    found = agreement([(0, 0), (1, 1), (2, 2), (3, 4)], a, b, draws=9)
    assert found.pairs == 2, "two have no words"
    assert found.mean == pytest.approx((1 + 1 / 3) / 2)


def test_p_is_uniform_where_labels_have_nothing_to_do_with_the_pairs() -> None:
    rng = np.random.default_rng(0)
    pairs = [(i, i) for i in range(30)]
    p = []
    for seed in range(150):
        a, b = ({i: " ".join(rng.choice(WORDS, 4)) for i in range(30)} for _ in range(2))
        p.append(agreement(pairs, a, b, draws=19, seed=seed).p)
    assert abs(np.mean(np.array(p) <= 0.1) - 0.1) < 0.08
    assert abs(np.mean(p) - 0.525) < 0.08


def test_without_labels_there_is_nothing_to_agree() -> None:
    found = agreement([(0, 0)], {}, {0: "x"})
    assert found.pairs == 0
    assert np.isnan([found.mean, found.chance, found.p]).all()
