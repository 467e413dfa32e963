"""Tokens know where in their document they end, whatever the tokenizer cuts; windows cover a part exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import sentences, tiny_tokenizer
from unifeat.text.corpus import Part
from unifeat.text.windows import TokenizedPart, tokenize_part, windows

TEXTS = {
    "plain": sentences(1, seed=1)[0],
    "emoji": "A sailor 😀😀 lost 👩‍👩‍👧 it.",
    "cjk": "日本語の文章 and the tide",
    "mixed": "Zoë's naïve café – “ok”\n\n\tİstanbul\r\n",
    "one": "😀",
}


@pytest.fixture(params=["bpe", "wordish"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return tiny_tokenizer(request.param)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
class TestPlaces:
    def test_ends_tell_which_text_each_token_completes(self, tokenizer: Any, text: str):
        tokenized = tokenize_part(tokenizer, Part(4, 0, text))
        assert tokenized.document == 4
        assert tokenized.token.dtype == tokenized.char_end.dtype == tokenized.order.dtype == np.int32
        assert tokenized.char_end[-1] == len(text)
        assert (np.diff(tokenized.char_end) >= 0).all()
        # Between two ends lies the text of the tokens in between: decoded, it is that text.
        start = first = 0
        for n, (end, order) in enumerate(zip(tokenized.char_end, tokenized.order, strict=True)):
            if order == 0:
                assert tokenizer.decode(tokenized.token[first : n + 1]) == text[start:end]
                start, first = int(end), n + 1
        assert start == len(text)

    def test_place_and_order_are_unique_and_count_down(self, tokenizer: Any, text: str):
        tokenized = tokenize_part(tokenizer, Part(0, 0, text))
        ends, orders = tokenized.char_end.tolist(), tokenized.order.tolist()
        assert len(set(zip(ends, orders, strict=True))) == len(ends)
        for n in range(len(ends) - 1):
            assert orders[n] == (orders[n + 1] + 1 if ends[n] == ends[n + 1] else 0)
        assert orders[-1] == 0

    def test_a_part_further_on_shifts_the_ends_only(self, tokenizer: Any, text: str):
        here, there = (tokenize_part(tokenizer, Part(0, start, text)) for start in (0, 1000))
        np.testing.assert_array_equal(there.char_end, here.char_end + 1000)
        np.testing.assert_array_equal(there.order, here.order)
        np.testing.assert_array_equal(there.token, here.token)


def test_a_character_cut_into_bytes_is_completed_by_its_last_token():
    tokenized = tokenize_part(tiny_tokenizer("bpe"), Part(0, 0, "😀x日"))
    assert tokenized.char_end.tolist() == [1, 1, 1, 1, 2, 3, 3, 3]
    assert tokenized.order.tolist() == [3, 2, 1, 0, 0, 2, 1, 0]


def test_no_special_tokens_are_added():
    tokenizer = tiny_tokenizer("wordish")
    assert tokenizer("The tide")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in tokenize_part(tokenizer, Part(0, 0, "The tide")).token


def test_special_tokens_inside_the_text_are_tokens(tokenizer: Any):
    text = f"the tide{tokenizer.eos_token}the tide"
    tokenized = tokenize_part(tokenizer, Part(0, 0, text))
    (at,) = np.flatnonzero(tokenized.token == tokenizer.eos_token_id)
    assert tokenized.char_end[at] == len("the tide") + len(tokenizer.eos_token)


def test_ends_never_go_back():
    class Trimming:
        """Reports ends as a tokenizer does that trims the space off a token of spaces."""

        def __call__(self, text: str, **_: Any) -> dict[str, Any]:
            return {"input_ids": [5, 6, 7], "offset_mapping": [(0, 3), (0, 0), (4, 6)]}

    assert tokenize_part(Trimming(), Part(0, 10, "abc de")).char_end.tolist() == [13, 13, 16]


def test_a_part_without_tokens():
    class Empty:
        def __call__(self, text: str, **_: Any) -> dict[str, Any]:
            return {"input_ids": [], "offset_mapping": []}

    tokenized = tokenize_part(Empty(), Part(0, 0, "\u200b"))
    assert len(tokenized.token) == len(tokenized.char_end) == len(tokenized.order) == 0
    assert windows(tokenized, 5) == []


@given(n=st.integers(0, 300), body=st.integers(1, 80))
@settings(max_examples=60, deadline=None)
def test_windows_cover_the_part_once_and_in_order(n: int, body: int):
    row = np.arange(n, dtype=np.int32)
    found = windows(TokenizedPart(0, row, row, row), body)
    assert np.concatenate([row[w] for w in found] or [row]).tolist() == row.tolist()
    assert [w.stop for w in found[-1:]] == [n][: len(found)]
    sizes = [w.stop - w.start for w in found]
    assert all(size == body for size in sizes[:-1])
    assert all(0 < size <= body for size in sizes[-1:])
