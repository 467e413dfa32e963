"""Tokens know where in their document they end, whatever the tokenizer cuts; windows cover a part exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import sentences, tiny_tokenizer
from unifeat.text.corpus import Part
from unifeat.text.windows import TokenizedPart, Window, cut_windows, tokenize_part, windows

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


def cut(part: TokenizedPart, opening: list[int], context: int, **settings: Any) -> list[Window]:
    return cut_windows(part, opening, context, **{"at_start": True, **settings})


def part_of(n: int, ends: list[int] | None = None) -> TokenizedPart:
    """Tokens 100, 101, … that end at characters 1, 2, … or at `ends`."""
    char_end = np.array(ends or range(1, n + 1), np.int32)
    order = np.array([(char_end[i + 1 :] == end).sum() for i, end in enumerate(char_end)], np.int32)
    return TokenizedPart(7, np.arange(100, 100 + n, dtype=np.int32), char_end, order)


class TestCutWindows:
    def test_as_a_rule_openings_and_pads_give_no_rows(self):
        found = cut(part_of(7), [1, 2], 5)
        assert [w.ids.tolist() for w in found] == [[1, 2, 100, 101, 102], [1, 2, 103, 104, 105], [1, 2, 106]]
        assert [w.lead for w in found] == [2, 2, 2]
        assert [w.token.tolist() for w in found] == [[100, 101, 102], [103, 104, 105], [106]]
        assert np.concatenate([w.char_end for w in found]).tolist() == list(range(1, 8))
        assert not any(w.is_opening.any() or w.is_pad.any() for w in found)

    def test_an_opening_has_a_place_at_the_beginning_of_a_document_only(self):
        first, second = cut(part_of(5), [1, 2], 5, with_opening=True)
        assert first.lead == 0
        assert first.token.tolist() == [1, 2, 100, 101, 102]
        assert first.char_end.tolist() == [0, 0, 1, 2, 3]
        assert first.order.tolist() == [1, 0, 0, 0, 0]
        assert first.is_opening.tolist() == [True, True, False, False, False]
        assert second.lead == 2
        assert cut(part_of(5), [1, 2], 5, with_opening=True, at_start=False)[0].lead == 2

    def test_pads_fill_the_last_window_and_end_where_the_text_does(self):
        first, second = cut(part_of(5), [1], 5, pad=0)
        assert not first.is_pad.any()
        assert second.ids.tolist() == [1, 104, 0, 0, 0]
        assert second.char_end.tolist() == [5, 5, 5, 5]
        assert second.order.tolist() == [3, 2, 1, 0]
        assert second.is_pad.tolist() == [False, True, True, True]

    def test_a_full_window_needs_no_pads(self):
        assert [w.is_pad.any() for w in cut(part_of(8), [1], 5, pad=0)] == [False, False]

    def test_a_character_cut_in_two_by_windows_before_padding(self):
        """Its tokens in the window before come before the padding, too."""
        found = cut(part_of(5, [1, 2, 3, 3, 3]), [], 4, pad=0)
        assert np.concatenate([w.order for w in found]).tolist() == [0, 0, 5, 4, 3, 2, 1, 0]

    def test_a_token_trimmed_to_nothing_at_the_beginning(self):
        (window,) = cut(part_of(3, [0, 1, 2]), [1, 2], 9, with_opening=True)
        assert window.char_end.tolist() == [0, 0, 0, 1, 2]
        assert window.order.tolist() == [2, 1, 0, 0, 0]

    def test_a_limit_keeps_the_beginning_of_a_document(self):
        assert len(cut(part_of(50), [1], 5, limit=3)) == 3
        assert cut(part_of(50), [1], 5, limit=3, at_start=False) == []

    def test_no_tokens(self):
        assert cut(part_of(0), [1], 5, pad=0, with_opening=True) == []

    @given(
        words=st.lists(st.sampled_from(["the tide ", "😀", "日", "x", " ", "Zoë "]), min_size=1, max_size=12),
        kind=st.sampled_from(["bpe", "wordish"]),
        opening=st.integers(0, 3),
        body=st.integers(1, 9),
        limit=st.none() | st.integers(1, 4),
        with_opening=st.booleans(),
        pad=st.none() | st.just(0),
    )
    @settings(max_examples=150, deadline=None)
    def test_places_are_unique_and_in_order(
        self,
        words: list[str],
        kind: Any,
        opening: int,
        body: int,
        limit: int | None,
        with_opening: bool,
        pad: int | None,
    ):
        part = tokenize_part(tiny_tokenizer(kind), Part(0, 0, "".join(words)))
        context = opening + body
        found = cut(part, [1] * opening, context, limit=limit, with_opening=with_opening, pad=pad)
        keys = [
            (int(end), -int(order))
            for window in found
            for end, order in zip(window.char_end, window.order, strict=True)
        ]
        assert keys == sorted(set(keys))
        text = np.concatenate([w.token[~(w.is_opening | w.is_pad)] for w in found])
        assert text.tolist() == part.token[: body * (limit or len(part.token))].tolist()
        assert sum(w.is_opening.sum() for w in found) == (opening if with_opening else 0)
        for window in found:
            rows = len(window.ids) - window.lead
            fields = (window.token, window.char_end, window.order, window.is_opening, window.is_pad)
            assert window.rows == rows
            assert [len(field) for field in fields] == [rows] * 5
            assert len(window.ids) == context if pad is not None else len(window.ids) <= context
