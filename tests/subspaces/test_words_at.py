"""The whole words under tokens, against finding them by hand in the text."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from texts import corpus_of, firing, tokens_of, words_by_rank
from tokenizers.normalizers import NFC

from tiny import sentences, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.subspaces.words import COLUMNS, words_at
from unifeat.text.corpus import Corpus, Cut
from unifeat.text.windows import tokenize_part


def brute_force(corpus: Any, tokenizer: Any, document: int, nth: int, window: int) -> set[str]:
    """Words touched by the tokens around token `nth` of a document, character by character."""
    (part,) = [p for g in range(corpus.groups) for p in corpus.parts(g) if p.document == document]
    cut = tokenize_part(tokenizer, part)
    last = int(cut.char_end[min(nth + window, len(cut.token) - 1)])
    first = int(cut.char_end[nth]) - 1
    if window:
        first = min(first, int(cut.char_end[nth - window - 1]) if nth - window - 1 >= 0 else 0)
    touched = set(range(first, last))
    return {
        match.group().lower()
        for match in re.finditer(r"[a-zA-Z0-9]+(?:'[a-zA-Z0-9]+)*", part.text)
        if touched & set(range(*match.span()))
    }


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
@pytest.mark.parametrize("window", [0, 1, 2, 50])
def test_every_token_against_brute_force(tmp_path: Path, kind: Any, window: int) -> None:
    tokenizer = tiny_tokenizer(kind)
    documents = ["Unseen daylight, I didn't say! 3rd-rate\n\n  zebra's", *sentences(2, seed=5), "x"]
    corpus = corpus_of(tmp_path, documents)
    tokens = tokens_of(corpus, tokenizer)
    tops = firing(tokens, {7: list(range(len(tokens)))})
    got = words_by_rank(words_at(tops, corpus, tokenizer, top_tokens=len(tokens), window=window))
    nth = tokens.groupby("document").cumcount()
    for row, (document, position) in enumerate(zip(tokens["document"], nth, strict=True)):
        expected = brute_force(corpus, tokenizer, int(document), int(position), window)
        assert got.get((7, row), set()) == expected, tokens.iloc[row]


def test_a_fragment_yields_the_whole_word(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bpe")
    corpus = corpus_of(tmp_path, ["The mornings and Daylight."])
    tokens = tokens_of(corpus, tokenizer)
    inside = [i for i, end in enumerate(tokens["char_end"]) if 17 < end < 25]  # within Daylight, not at its end
    assert len(inside) >= 2
    words = words_at(firing(tokens, {1: inside}), corpus, tokenizer, top_tokens=9)
    assert set(words["word"]) == {"daylight"}
    assert len(words) == len(inside)


def test_blanks_signs_and_special_tokens_have_no_word(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bpe")
    corpus = corpus_of(tmp_path, ["the old ship. ?! \n"])
    tokens = tokens_of(corpus, tokenizer)
    silent = [i for i, text in enumerate(tokens["text"]) if not text[-1].isalnum()]
    assert len(silent) >= 4
    assert words_at(firing(tokens, {1: silent}), corpus, tokenizer, top_tokens=99).empty
    # A BOS stands where the token after it begins, and a pad where the text ends: on no word of their own.
    bos = firing(tokens, {1: [0, 1]}).assign(token=tokenizer.bos_token_id, char_end=[0, 7])
    for window in (0, 2):
        got = words_at(bos, corpus, tokenizer, top_tokens=2, window=window)
        assert list(got.columns) == COLUMNS
        assert got.empty


def test_special_tokens_without_a_role_have_no_word(tmp_path: Path) -> None:
    """Llama 3's layout: `<|start_header_id|>` and its like are only marked as special among the added tokens."""
    tokenizer = tiny_tokenizer("bpe")
    tokenizer.backend_tokenizer.add_special_tokens(["<|eot_id|>"])
    tokenizer.backend_tokenizer.add_tokens(["ship"])
    (special,) = tokenizer("<|eot_id|>")["input_ids"]
    assert special not in tokenizer.all_special_ids
    corpus = corpus_of(tmp_path, ["the old ship<|eot_id|> again"])
    tokens = tokens_of(corpus, tokenizer)
    rows = list(range(len(tokens)))
    assert special in set(tokens["token"])
    words = words_at(firing(tokens, {1: rows}), corpus, tokenizer, top_tokens=len(rows))
    assert set(words["word"]) == {"the", "old", "ship", "again"}
    # The token ends on a sign; wherever it stands it has no word.
    moved = firing(tokens, {1: [0]}).assign(token=special)
    assert words_at(moved, corpus, tokenizer, top_tokens=1).empty


def test_words_of_a_decomposed_text(tmp_path: Path) -> None:
    """Under a normaliser that composes it, as under none."""
    text = unicodedata.normalize("NFD", "Việt Tiếng café 한국어")
    expected = {"việt", "tiếng", "café", "한국어"}
    for normalizer in (None, NFC()):
        tokenizer = tiny_tokenizer("bpe")
        if normalizer is not None:
            tokenizer.backend_tokenizer.normalizer = normalizer
        corpus = corpus_of(tmp_path, [text])
        tokens = tokens_of(corpus, tokenizer)
        ends = {match.end() for match in re.finditer(r"\S+", text)}
        assert ends <= set(tokens["char_end"])
        rows = [i for i, end in enumerate(tokens["char_end"]) if end in ends]
        for window in (0, 1):
            words = words_at(firing(tokens, {1: rows}), corpus, tokenizer, top_tokens=99, window=window)
            assert set(words["word"]) == expected


def test_characters_of_several_tokens(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bpe")
    corpus = corpus_of(tmp_path, ["the 鯨魚 ship 😀 tide"])
    tokens = tokens_of(corpus, tokenizer)
    several = [i for i, end in enumerate(tokens["char_end"]) if end == 5]
    assert len(several) >= 3  # the bytes of the first character, the blank perhaps with them
    for window, expected in ((0, {"鯨魚"}), (20, {"the", "鯨魚", "ship", "tide"})):
        got = words_by_rank(words_at(firing(tokens, {1: several}), corpus, tokenizer, top_tokens=9, window=window))
        assert set(map(frozenset, got.values())) == {frozenset(expected)}
        assert len(got) == len(several)


def test_only_the_strongest_are_looked_at(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("wordish")
    corpus = corpus_of(tmp_path, sentences(3, seed=1))
    tokens = tokens_of(corpus, tokenizer)
    tops = firing(tokens, {3: [5, 9, 2, 30], 0: [9, 5], 8: [40]})
    two = words_at(tops, corpus, tokenizer, top_tokens=2)
    assert set(two["rank"]) <= {0, 1}
    assert two.dtypes.astype(str).to_dict() == {"feature": "int32", "rank": "int32", "word": "category"}
    assert two["feature"].is_monotonic_increasing
    mine = words_by_rank(two)
    assert mine[3, 0] == mine[0, 1]
    assert mine[3, 1] == mine[0, 0]
    shuffled = words_at(tops.sample(frac=1, random_state=0), corpus, tokenizer, top_tokens=2)
    assert words_by_rank(shuffled) == mine


def test_one_group_at_a_time_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny_tokenizer("bpe")
    documents = sentences(30, seed=2)
    whole = corpus_of(tmp_path, documents)
    tokens = tokens_of(whole, tokenizer)
    rng = np.random.default_rng(0)
    tops = firing(tokens, {f: list(rng.choice(len(tokens), 5, replace=False)) for f in range(200)})
    expected = words_by_rank(words_at(tops, whole, tokenizer, top_tokens=5, window=2))
    (tmp_path / "other").mkdir()
    many = corpus_of(tmp_path / "other", documents, Cut(group=700))
    assert many.groups > 5
    read: list[int] = []
    parts = Corpus.parts
    monkeypatch.setattr(Corpus, "parts", lambda self, group: read.append(group) or parts(self, group))
    assert words_by_rank(words_at(tops, many, tokenizer, top_tokens=5, window=2)) == expected
    assert read == list(range(many.groups))


def test_a_long_document_is_cut_where_its_parts_are(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bpe")
    corpus = corpus_of(tmp_path, ["the lighthouse and the old ship"], Cut(group=11, part=11))
    tokens = tokens_of(corpus, tokenizer)
    rows = list(range(len(tokens)))
    words = words_at(firing(tokens, {0: rows}), corpus, tokenizer, top_tokens=len(rows))
    assert {"the", "lightho", "use", "and", "old", "ship"} >= set(words["word"]) >= {"lightho", "use", "ship"}
    # A token that ends with its part belongs to it.
    at_cut = int(np.flatnonzero(tokens["char_end"] == 11)[0])
    assert words_by_rank(words)[0, at_cut] == {"lightho"}


def test_a_feature_that_never_fires_is_not_there(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bpe")
    corpus = corpus_of(tmp_path, ["the ship"])
    nothing = firing(tokens_of(corpus, tokenizer), {0: [0]}).iloc[:0]
    for window in (0, 1):
        got = words_at(nothing, corpus, tokenizer, top_tokens=5, window=window)
        assert list(got.columns) == COLUMNS
        assert got.empty


def test_wrong_numbers(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer("bpe")
    corpus = corpus_of(tmp_path, ["the ship"])
    tops = firing(tokens_of(corpus, tokenizer), {0: [0]})
    with pytest.raises(UserError, match="top_tokens=0"):
        words_at(tops, corpus, tokenizer, top_tokens=0)
    with pytest.raises(UserError, match="window=-1"):
        words_at(tops, corpus, tokenizer, top_tokens=1, window=-1)
    with pytest.raises(ValueError, match="another tokenizer"):
        words_at(tops.assign(token=3), corpus, tokenizer, top_tokens=1, window=1)
