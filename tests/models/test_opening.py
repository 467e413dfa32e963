"""What begins a window: a BOS at most once, and a chat template whose tokens are no rows and shift no place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken

from tiny import sentences, tiny_tokenizer
from unifeat.errors import UserError
from unifeat.models.activations import run_group
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.models.opening import describe_opening, opening_of
from unifeat.text.corpus import Part
from unifeat.text.windows import tokenize_part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Masked
from unifeat.vocabulary.openings import CHATS, opening_tokens
from unifeat.vocabulary.windowing import Windowing

# The ways published templates are written: ChatML (Qwen, SmolLM), with a BOS (Gemma, Llama 3), strict and trimming
# (Gemma), a space before the message (Mistral), the day of the year (Llama 3.2).
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
WITH_BOS = "{{ bos_token }}" + CHATML
STRICT = (
    "{{ bos_token }}{% if messages[0].role != 'user' %}{{ raise_exception('Conversation roles must alternate') }}"
    "{% endif %}{% for m in messages %}<turn>{{ m.role }}\n{{ m.content | trim }}<end>\n{% endfor %}"
)
SPACED = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
DATED = (
    "{{ bos_token }}Today: {% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}, {{ date_string }}"
    "\n{{ messages[0].content }}"
)
TEMPLATES = {"chatml": CHATML, "with_bos": WITH_BOS, "strict": STRICT, "spaced": SPACED}
POINT = HookPoint(1)
PARTS = [Part(n, 0, text) for n, text in enumerate(sentences(5, seed=1))]


def with_template(template: str | None, kind: Any = "wordish") -> Any:
    tokenizer = tiny_tokenizer(kind)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("bos", ["auto", True, False])
def test_never_two_bos(kind: str, template: str, role: Any, bos: Any):
    tokenizer = with_template(TEMPLATES[template], kind)
    tokens = opening_tokens(opening_of(tokenizer, bos, role))
    expected = {"auto": template != "chatml", True: True, False: False}[bos]
    assert (tokens[:1] == [tokenizer.bos_token_id]) == expected
    assert tokens.count(tokenizer.bos_token_id) == int(expected)
    assert describe_opening(tokenizer, tuple(tokens), role)["bos"] == expected


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
@pytest.mark.parametrize("template", ["chatml", "with_bos", "strict"])
def test_opening_and_text_are_the_templates_own_tokens(kind: str, template: str):
    """What the tokenizer itself makes of the whole conversation begins with the opening, then the document."""
    tokenizer = with_template(TEMPLATES[template], kind)
    text = sentences(1)[0]
    for role in ("user", "assistant"):
        opening = opening_tokens(opening_of(tokenizer, "auto", role))
        body = tokenize_part(tokenizer, Part(0, 0, text)).token.tolist()
        before = [{"role": "user", "content": ""}] if role == "assistant" else []
        messages = [*before, {"role": role, "content": text}]
        whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        if kind == "bpe":
            assert whole[: len(opening) + len(body)] == opening + body
        else:  # its pieces are cut at spaces, so that the template's end and the document's first word are one piece
            assert whole[: len(opening) - 2] == opening[:-2]
            assert tokenizer.decode(opening + body) in tokenizer.decode(whole)


def test_a_space_before_the_message_is_left_to_it():
    tokenizer = with_template(SPACED, "bpe")
    assert tokenizer.decode(opening_tokens(opening_of(tokenizer, False, "user"))) == "[INST]"


def test_the_macro_that_fixes_the_day_adds_nothing():
    for template in TEMPLATES.values():
        for lead in ("", "\n", " \n"):
            tokenizer = with_template(lead + template)
            written = tokenizer.apply_chat_template([{"role": "user", "content": "themessage"}], tokenize=False)
            head = tokenizer(written.split("themessage")[0].rstrip(" "), add_special_tokens=False)["input_ids"]
            assert opening_tokens(opening_of(tokenizer, "auto", "user")) == head


def test_the_day_does_not_change_the_opening():
    tokenizer = with_template(DATED)
    opening = opening_of(tokenizer, "auto", "user")
    assert "Today: 26 Jul 2024, 26 Jul 2024" in describe_opening(tokenizer, opening, "user")["opening"]


def with_post_processor(single: str, *tokens: str, kind: Any = "bpe") -> Any:
    """A tokenizer that writes special tokens around each text, as its template says."""
    from tokenizers import processors

    tokenizer = tiny_tokenizer(kind)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    named = [(token, tokenizer.convert_tokens_to_ids(token)) for token in tokens]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=named)
    return tokenizer


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
@pytest.mark.parametrize(
    ("single", "expected"),
    [
        ("[gMASK] <sop> $A", ["[gMASK]", "<sop>"]),  # GLM
        ("[gMASK] <sop> $A <eop>", ["[gMASK]", "<sop>"]),
        ("<sop> $A <eop>", ["<sop>"]),
        ("$A <eop>", []),  # T5
        ("$A", []),
        ("<sop> <sop> <sop> $A", ["<sop>"] * 3),
    ],
)
def test_all_that_the_tokenizer_puts_before_a_text(kind: str, single: str, expected: list[str]):
    tokenizer = with_post_processor(single, "[gMASK]", "<sop>", "<eop>", kind=kind)
    ids = tokenizer.convert_tokens_to_ids(expected)
    opening = opening_of(tokenizer, "auto")
    assert opening == (None if not ids else ids[0] if len(ids) == 1 else tuple(ids))
    assert opening_tokens(opening) == ids
    # The tokenizer's own answer: the opening, then what the text alone gives.
    text = sentences(1)[0]
    body = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer(text)["input_ids"][: len(ids) + len(body)] == ids + body
    assert describe_opening(tokenizer, opening) == {
        "bos": bool(ids),
        "chat": "none",
        "opening": tokenizer.decode(ids) if ids else "",
    }


def test_an_opening_of_several_tokens_begins_every_window(model_folder: Callable[..., Path]):
    model = load_language_model(str(model_folder("llama")), [POINT], dtype="float32")
    opening = (5, 6)
    found = run_group(model, PARTS[:1], [POINT], Windowing(12, opening))
    body = tokenize_part(model.tokenizer, PARTS[0]).token.tolist()
    windows = -(-len(body) // 10)
    assert found.masked == Masked(read=len(body) + 2 * windows, special=windows, first=windows)
    ids = torch.tensor([[5, 6, *body[:10]]])
    torch.testing.assert_close(
        found.values[POINT][:10], model.activations(ids, [POINT])[POINT][0, 2:], rtol=1e-5, atol=1e-5
    )


def test_without_a_template_nothing_is_new():
    assert opening_of(tiny_tokenizer("bpe"), "auto") is None
    assert opening_of(tiny_tokenizer("wordish"), "auto") == 2
    assert opening_of(tiny_tokenizer("bpe"), True) == 0
    assert describe_opening(tiny_tokenizer("wordish"), 2) == {"bos": True, "chat": "none", "opening": "<bos>"}
    assert describe_opening(tiny_tokenizer("bpe"), None) == {"bos": False, "chat": "none", "opening": ""}
    assert opening_of(with_template("{{ messages[0].content }}"), "auto", "user") is None


class TestWrongInput:
    def test_no_template(self):
        for role in CHATS[1:]:
            with pytest.raises(
                UserError, match="has no chat template: set chat to none, or name the instruction-tuned"
            ):
                opening_of(tiny_tokenizer(), "auto", role)

    def test_a_template_that_refuses_the_role(self):
        with pytest.raises(UserError, match="accepts no message of role system: Conversation roles must alternate"):
            opening_of(with_template(STRICT), "auto", "system")

    def test_a_template_that_is_broken(self):
        with pytest.raises(UserError, match="accepts no message of role user: "):
            opening_of(with_template("{% for m in %}"), "auto", "user")

    def test_a_template_that_leaves_the_message_out(self):
        with pytest.raises(UserError, match="leaves out a message of role system"):
            opening_of(with_template("{{ bos_token }}Hello"), "auto", "system")

    def test_bos_that_is_not_there(self):
        tokenizer = with_template(CHATML)
        tokenizer.bos_token = None
        with pytest.raises(UserError, match="has no BOS token"):
            opening_of(tokenizer, True, "user")


class TestWindows:
    @pytest.fixture(params=["bpe", "wordish"])
    def model(self, request: pytest.FixtureRequest, model_folder: Callable[..., Path]) -> LanguageModel:
        loaded = load_language_model(str(model_folder("llama", tokenizer=request.param)), [POINT], dtype="float32")
        loaded.tokenizer.chat_template = WITH_BOS
        return loaded

    def test_each_is_one_conversation(self, model: LanguageModel):
        """Every row is what the model makes of template + window, run alone; the template itself gives no rows."""
        opening = opening_of(model.tokenizer, "auto", "user")
        prefix = opening_tokens(opening)
        assert len(prefix) > 5
        context = len(prefix) + 9
        found = run_group(model, PARTS, [POINT], Windowing(context, opening))
        expected, tokens, windows = [], [], 0
        for part in PARTS:
            body = tokenize_part(model.tokenizer, part).token.tolist()
            for start in range(0, len(body), 9):
                ids = torch.tensor([prefix + body[start : start + 9]])
                expected.append(model.activations(ids, [POINT])[POINT][0, len(prefix) :])
                tokens += body[start : start + 9]
                windows += 1
        assert found.places.token.tolist() == tokens
        torch.testing.assert_close(found.values[POINT], torch.cat(expected), rtol=1e-5, atol=1e-5)
        assert found.masked == Masked(
            read=len(tokens) + windows * len(prefix), special=windows * (len(prefix) - 1), first=windows
        )

    def test_places_are_those_without_a_template(self, model: LanguageModel):
        plain = run_group(model, PARTS, [POINT], Windowing(60, model.tokenizer.bos_token_id))
        opening = opening_of(model.tokenizer, "auto", "assistant")
        chat = run_group(model, PARTS, [POINT], Windowing(90, opening))
        for name in ("document", "char_end", "order", "token"):
            np.testing.assert_array_equal(getattr(plain.places, name), getattr(chat.places, name))
        for part in PARTS:
            ends = chat.places.char_end[chat.places.document == part.document]
            assert int(ends[-1]) == len(part.text)
        assert not torch.allclose(plain.values[POINT], chat.values[POINT], atol=0.1)

    def test_the_role_matters(self, model: LanguageModel):
        values = [
            run_group(model, PARTS, [POINT], Windowing(90, opening_of(model.tokenizer, "auto", role))).values[POINT]
            for role in ("user", "assistant", "system")
        ]
        assert not torch.allclose(values[0], values[1], atol=0.1)
        assert not torch.allclose(values[0], values[2], atol=0.1)

    def test_a_template_that_fills_the_window(self, model: LanguageModel):
        opening = opening_of(model.tokenizer, "auto", "user")
        n = len(opening_tokens(opening))
        with pytest.raises(UserError, match=rf"the opening takes {n} of a window's {n} tokens; raise text\.context"):
            run_group(replace(model), PARTS, [POINT], Windowing(n, opening))
        run_group(model, PARTS, [POINT], Windowing(n + 1, opening))
