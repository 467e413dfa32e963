"""Shared strings: the texts of tokens, the two maps, and sums of probabilities, against what running text shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tiny import sentences, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.transfer.strings import SharedStrings, shared_strings, sum_to_strings, token_texts


@pytest.fixture(scope="module")
def shared() -> SharedStrings:
    return shared_strings(tiny_tokenizer("bpe"), tiny_tokenizer("wordish"))


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
def test_texts_of_tokens_add_up_to_running_text(kind: Any) -> None:
    tokenizer = tiny_tokenizer(kind)
    texts = token_texts(tokenizer)
    for document in sentences(5, seed=3):
        ids = tokenizer.backend_tokenizer.encode(f"{document} {document}", add_special_tokens=False).ids
        written = [texts[i] for i in ids]
        assert None not in written
        assert "".join(written) == f"{document} {document}"  # type: ignore[arg-type]


def test_a_space_in_front_is_part_of_the_text() -> None:
    for kind, token in (("bpe", "Ġthe"), ("wordish", "▁the")):
        tokenizer = tiny_tokenizer(kind)  # type: ignore[arg-type]
        assert token_texts(tokenizer)[tokenizer.convert_tokens_to_ids(token)] == " the"


def test_specials_bytes_and_broken_characters_are_left_out() -> None:
    wordish, bpe = tiny_tokenizer("wordish"), tiny_tokenizer("bpe")
    texts = token_texts(wordish)
    for token in ("<bos>", "<unk>", "<0x41>", "<0xE2>", "<0x0A>"):
        assert texts[wordish.convert_tokens_to_ids(token)] is None
    texts = token_texts(bpe)
    assert texts[bpe.convert_tokens_to_ids("<|endoftext|>")] is None
    assert texts[bpe.convert_tokens_to_ids("â")] is None  # the first byte of ’ and others
    assert texts[bpe.convert_tokens_to_ids("A")] == "A"


def test_vocabularies_larger_and_smaller_than_the_tokenizers() -> None:
    tokenizer = tiny_tokenizer("bpe")
    texts = token_texts(tokenizer)
    assert token_texts(tokenizer, len(texts) + 3) == [*texts, None, None, None]
    assert token_texts(tokenizer, 100) == texts[:100]
    found = shared_strings(tokenizer, tiny_tokenizer("wordish"), vocabulary_a=600, vocabulary_b=700)
    assert [len(m) for m in (found.exact_a, found.first_a, found.exact_b, found.first_b)] == [600, 600, 700, 700]


def test_the_exact_map_is_one_token_of_that_text(shared: SharedStrings) -> None:
    assert len(shared) > 100
    for kind, to_string in (("bpe", shared.exact_a), ("wordish", shared.exact_b)):
        texts = token_texts(tiny_tokenizer(kind))  # type: ignore[arg-type]
        assert sorted(to_string[to_string >= 0]) == list(range(len(shared)))
        for token in np.flatnonzero(to_string >= 0):
            assert texts[token] == shared.strings[to_string[token]]
            assert texts.index(texts[token]) == token  # of equal texts, the smallest id


def test_the_first_map_is_the_longest_shared_beginning(shared: SharedStrings) -> None:
    """By brute force: of all shared strings that a token's text begins with, the longest."""
    longer = 0
    for kind, to_string in (("bpe", shared.first_a), ("wordish", shared.first_b)):
        for text, string in zip(token_texts(tiny_tokenizer(kind)), to_string, strict=True):  # type: ignore[arg-type]
            begun = [s for s in shared.strings if text is not None and text.startswith(s)]
            assert (shared.strings[string] if string >= 0 else None) == max(begun, key=len, default=None)
            longer += string >= 0 and text != shared.strings[string]
    assert longer > 10


def test_it_does_not_matter_which_model_is_a(shared: SharedStrings) -> None:
    other = shared_strings(tiny_tokenizer("wordish"), tiny_tokenizer("bpe"))
    assert other.strings == shared.strings
    assert np.array_equal(other.exact_a, shared.exact_b)
    assert np.array_equal(other.first_b, shared.first_a)


def test_a_tokenizer_with_itself_shares_all_its_texts() -> None:
    tokenizer = tiny_tokenizer("bpe")
    found, texts = shared_strings(tokenizer, tokenizer), token_texts(tokenizer)
    assert found.strings == tuple(sorted({text for text in texts if text is not None}))
    assert np.array_equal(found.exact_a, found.first_a)  # a byte of its own for each text of this tokenizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_sums_of_probabilities(shared: SharedStrings, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.randn((5, len(shared.first_b)), generator=generator).softmax(-1).to(dtype)
    found = sum_to_strings(p, shared.first_b, len(shared))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = np.zeros((5, len(shared)))
    for token, string in enumerate(shared.first_b):
        if string >= 0:
            expected[:, string] += p[:, token].double().numpy()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(-1), p.double()[:, shared.first_b >= 0].sum(-1), rtol=1e-5)


def test_models_that_say_the_same_by_other_tokens_give_strings_the_same_probability() -> None:
    """One model writes ' harbour' as one token, the other begins it with a shorter one: both say the shared string."""
    shared = shared_strings(tiny_tokenizer("bpe"), tiny_tokenizer("wordish"))
    texts_a, texts_b = (token_texts(tiny_tokenizer(kind)) for kind in ("bpe", "wordish"))  # type: ignore[arg-type]
    checked = 0
    for token, text in enumerate(texts_b):
        if text is None or shared.exact_b[token] >= 0 or shared.first_b[token] < 0:
            continue
        begins = shared.strings[shared.first_b[token]]
        other = texts_a.index(begins)
        p_a, p_b = torch.zeros(1, len(texts_a)), torch.zeros(1, len(texts_b))
        p_a[0, other], p_b[0, token] = 1, 1
        said = [
            sum_to_strings(p, m, len(shared))[0].argmax().item()
            for p, m in ((p_a, shared.first_a), (p_b, shared.first_b))
        ]
        assert said == [shared.strings.index(begins)] * 2
        checked += 1
    assert checked > 5


def test_a_map_of_another_vocabulary(shared: SharedStrings) -> None:
    with pytest.raises(ValueError, match="7 values to a row, but a map of"):
        sum_to_strings(torch.zeros(2, 7), shared.first_a, len(shared))


def test_no_shared_string() -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    made = []
    for words in (["a", "b", "c"], ["e", "f", "g"]):
        inner = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
        inner.decoder = decoders.Fuse()
        made.append(PreTrainedTokenizerFast(tokenizer_object=inner))
    with pytest.raises(UserError, match="share no string"):
        shared_strings(*made)
    assert shared_strings(made[0], made[0]).strings == ("a", "b", "c")


def test_nothing_to_decode_behind() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(vocab={"x": 0, "y": 1}, merges=[]))
    with pytest.raises(UserError, match="none of the tokens"):
        token_texts(PreTrainedTokenizerFast(tokenizer_object=inner))
