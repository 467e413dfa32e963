"""Tokens end where their characters do in the text as given, whatever normalisers and post-processors do."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import GPTNeoXTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from tiny import sentences, tiny_tokenizer
from unifeat.text.corpus import Part
from unifeat.text.windows import tokenize_part

ACCENTS = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
LLAMA = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
NORMALIZERS: dict[str, Any] = {
    "NFC": normalizers.NFC(),
    "NFD": normalizers.NFD(),
    "NFKC": normalizers.NFKC(),
    "NFKD": normalizers.NFKD(),
    "lower case": normalizers.Lowercase(),
    "accents": normalizers.StripAccents(),
    "letters": ACCENTS,
    "uncased": normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]),
    "NFC twice": normalizers.Sequence([normalizers.NFC(), normalizers.NFD(), normalizers.NFC()]),
    "Llama": normalizers.Sequence(LLAMA),
    "Llama, NFC": normalizers.Sequence([normalizers.NFC(), *LLAMA]),
    "longer": normalizers.Replace("a", "bbb"),
    "shorter": normalizers.Replace("ab", "X"),
    "composed": normalizers.Sequence([normalizers.NFC(), normalizers.Replace("é", "EE")]),
    "strip": normalizers.Strip(),
    "bytes": normalizers.ByteLevel(),
}
# Letters, marks that compose and that do not, Hangul whole, in parts and in compatibility letters, kana with a
# voicing mark of either width, marks that need each other's order changed, ligatures, letters of two in lower case.
CHARACTERS = [
    *"ab eoßΣİﬁ①中😀\n\t",
    *"éếệ가한\u00a0\u200d",
    *"\u0301\u0323\u0302\u1112\u1161\u11ab\u314e\u314f\u3134",
    *"か\u3099ｶ\uff9eক\u09be\u09c7\u0f71\u0f72",
]
TEXTS = st.lists(st.sampled_from(CHARACTERS), min_size=1, max_size=10).map("".join)
VIETNAMESE = unicodedata.normalize("NFD", "Tiếng Việt được viết bằng chữ Quốc ngữ, với nhiều dấu thanh.")
KOREAN = unicodedata.normalize("NFD", "한국어는 한글로 쓰며, 고양이는 집에서 잔다.")


@cache
def characters(normalizer: str | None) -> Any:
    """A tokenizer with a token for each character of the normalised text."""
    inner = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    if normalizer is not None:
        inner.normalizer = NORMALIZERS[normalizer]
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def byte_level(normalizer: str | None, post: Any = None) -> Any:
    """GPT-2's kind, after a normaliser."""
    made = tiny_tokenizer("bpe")
    if normalizer is not None:
        made.backend_tokenizer.normalizer = NORMALIZERS[normalizer]
    if post is not None:
        made.backend_tokenizer.post_processor = post
    return made


def ends(tokenizer: Any, text: str) -> list[int]:
    return tokenize_part(tokenizer, Part(0, 0, text)).char_end.tolist()


def reported(tokenizer: Any, text: str) -> list[int]:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [end for _, end in encoded["offset_mapping"]]


def clusters(text: str) -> list[int]:
    """Where the visible characters of a text end (Unicode's extended grapheme clusters)."""
    return [match.end() for match in regex.finditer(r"\X", text)]


@pytest.mark.parametrize("name", [n for n in NORMALIZERS if n != "strip"])
@given(text=TEXTS)
@example(text="cafe\u0301 \u1112\u1161\u11ab\u1100\u116e\u11a8")
@example(text="\u0301a\n\u0301b\u0301\u0301")
@settings(max_examples=150, deadline=None)
def test_a_normalised_text_is_cut_where_the_text_itself_is(name: str, text: str):
    """Up to each visible boundary there are as many characters as in that much text, normalised by itself."""
    normalise: Callable[[str], str] = NORMALIZERS[name].normalize_str
    got = ends(characters(name), text)
    assert got == sorted(got)
    whole, before = normalise(text), 0
    for end in clusters(text):
        if normalise(text[:end]) + normalise(text[end:]) == whole:
            there = len(normalise(text[:end]))
            assert sum(e <= end for e in got) == there
            if there > before:
                assert got[there - 1] == end
            before = there


@pytest.mark.parametrize("name", NORMALIZERS)
@given(text=TEXTS)
@settings(max_examples=100, deadline=None)
def test_where_nothing_is_normalised_nothing_changes(name: str, text: str):
    tokenizer = characters(name)
    if NORMALIZERS[name].normalize_str(text) == text:
        assert ends(tokenizer, text) == reported(tokenizer, text)
    plain = characters(None)
    assert ends(plain, text) == reported(plain, text) == list(range(1, len(text) + 1))


@pytest.mark.parametrize(
    ("name", "text"),
    [(name, text) for name in ("NFC", "NFKC", "NFC twice") for text in (VIETNAMESE, KOREAN)]
    + [(name, VIETNAMESE) for name in ("letters", "uncased")],
)
def test_words_of_a_decomposed_text_end_at_one_place_in_both(name: str, text: str):
    words = [match.end() for match in regex.finditer(r"[\p{L}\p{M}]+|\S", text)]
    normalising, plain = byte_level(name), byte_level(None)
    assert set(words) <= set(ends(normalising, text)) & set(ends(plain, text))
    assert not set(words) <= set(reported(normalising, text))
    # What is one character after normalising ends nowhere inside.
    assert set(ends(normalising, text)) <= set(clusters(text))


@pytest.mark.parametrize("kind", [Qwen2Tokenizer, GPTNeoXTokenizer])
def test_real_classes_that_normalise(kind: Any):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = kind(vocab={c: i for i, c in enumerate(["<|endoftext|>", *alphabet])}, merges=[])
    text = "cafe\u0301 \u1112\u1161\u11ab\u1100\u116e\u11a8"
    tokenized = tokenize_part(tokenizer, Part(3, 100, text))
    assert tokenized.char_end.tolist() == [101, 102, 103, 105, 105, 106, 109, 109, 109, 112, 112, 112]
    assert tokenized.order.tolist() == [0, 0, 0, 1, 0, 0, 2, 1, 0, 2, 1, 0]
    assert tokenized.token.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_marks_in_tokens_of_their_own_stay_there():
    """NFC keeps marks for which there is no composed letter: they are tokens, and the letter ends before them."""
    assert ends(characters("NFC"), "x\u0301e\u0301") == [1, 2, 4]


TRIMMING: dict[str, Any] = {
    "ByteLevel": processors.ByteLevel(trim_offsets=True),
    "Roberta": processors.RobertaProcessing(("<|endoftext|>", 0), ("<|endoftext|>", 0), trim_offsets=True),
    "Llama 3": processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]),
        ]
    ),
}
PYTHON = "def f(x):\n    if x:\n        return  1\n\n\n    return x  \n\t y\r\n"


def of_lines(post: Any) -> Any:
    """A tokenizer with tokens of a newline and the blanks after it."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+|\S+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    from tokenizers.trainers import BpeTrainer

    inner.train_from_iterator(
        [PYTHON] * 3, BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    inner.add_special_tokens(["<|endoftext|>"])
    if post is not None:
        inner.post_processor = post
    return PreTrainedTokenizerFast(tokenizer_object=inner)


@pytest.mark.parametrize("name", TRIMMING)
class TestTrimming:
    def test_a_token_of_a_newline_and_blanks_ends_at_the_last_of_them(self, name: str):
        plain, trimming = of_lines(None), of_lines(TRIMMING[name])
        assert any(token.startswith("ĊĠĠ") for token in trimming.tokenize(PYTHON))
        assert reported(trimming, PYTHON) != reported(plain, PYTHON)
        one, other = (tokenize_part(tokenizer, Part(0, 5, PYTHON)) for tokenizer in (plain, trimming))
        for field in ("token", "char_end", "order"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))

    @given(text=st.lists(st.sampled_from([*" \n\té😀a", "  ", "return", "e\u0301"]), max_size=12).map("".join))
    @settings(max_examples=60, deadline=None)
    def test_any_text(self, name: str, text: str):
        plain, trimming = byte_level("NFC"), byte_level("NFC", TRIMMING[name])
        assert ends(trimming, text) == ends(plain, text)

    def test_the_tokenizer_itself_stays_as_it_is(self, name: str):
        tokenizer = of_lines(TRIMMING[name])
        before = tokenizer.backend_tokenizer.to_str(), tokenizer(PYTHON, return_offsets_mapping=True)
        ends(tokenizer, PYTHON)
        assert (tokenizer.backend_tokenizer.to_str(), tokenizer(PYTHON, return_offsets_mapping=True)) == before


def test_ordinary_text_takes_no_longer_than_its_tokens():
    tokenizer = byte_level("NFC")
    part = Part(0, 0, " ".join(sentences(220, seed=5)) + "é")
    tokenize_part(tokenizer, part)

    def seconds(work: Callable[[], Any]) -> float:
        found = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
        return min(found)

    alone = seconds(lambda: tokenizer(part.text, add_special_tokens=False, return_offsets_mapping=True))
    assert seconds(lambda: tokenize_part(tokenizer, part)) < 2.5 * alone
