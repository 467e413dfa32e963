"""Openings from a tokenizer: nothing, a BOS token, or a chat template up to its message.

With a chat template, each window is one conversation: the template's tokens, then the window's own. The document is
tokenized by itself, so its tokens and their places are the same as without a template. What the template writes after
the message is left out: attention is causal, so it would not change anything before it.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from unifeat.errors import UserError
from unifeat.models.rendering import RenderingError, render
from unifeat.models.tokens import special_ids
from unifeat.vocabulary.openings import Chat, Opening, opening_tokens

# Only letters, so that templates do not trim, split or escape them; BPE tokenizers join a space to a following "t".
_MESSAGE = "themessagestandshere"
# Templates that write the date must give the same tokens every day. The date is Llama 3's own default. It is defined as
# a macro, since transformers passes only plain data to a template.
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_FIXED_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in _DAY.items())
    + " }}{% endmacro %}\n"
)


# Texts that are one ordinary token in most vocabularies, to see which tokens a tokenizer puts before a text.
_PROBES = ("a", "the", "1", "é", "\u4e00")


def bos_of(tokenizer: Any, bos: str | bool) -> Opening:
    """The opening without a chat template: one token, several, or None.

    Args:
        bos: True for the BOS token, False for none, or "auto" for whatever the tokenizer itself puts before a text:
            usually its BOS or nothing, but GLM puts two tokens, `[gMASK] <sop>`.

    Raises:
        UserError: BOS is asked for and the tokenizer has none.
    """
    if bos == "auto":
        tokens = _put_before_a_text(tokenizer)
        return tokens[0] if len(tokens) == 1 else tokens or None
    if not bos:
        return None
    if tokenizer.bos_token_id is None:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no BOS token: set bos to false or auto")
    return int(tokenizer.bos_token_id)


def _put_before_a_text(tokenizer: Any) -> tuple[int, ...]:
    special = special_ids(tokenizer)
    whole: list[int] = []
    for text in _PROBES:
        bare = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        whole = tokenizer(text, verbose=False)["input_ids"]
        if not bare or special & set(bare):  # a probe that the vocabulary lacks, which may look like a special token
            continue
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return tuple(int(token) for token in whole[:start])
    # The probe's own tokens change behind special tokens, so take the leading special tokens instead.
    leading = takewhile(lambda token: token in special, whole)
    return tuple(int(token) for token in leading)


def opening_of(tokenizer: Any, bos: str | bool, chat: Chat = "none") -> Opening:
    """The opening of every window.

    Args:
        bos: with a chat template, "auto" does as the template does; True adds a BOS if the template has none; False
            removes the template's BOS.
        chat: whose message the document is. An assistant's message answers an empty message of the user, since many
            templates refuse to begin with the assistant.

    Raises:
        UserError: no BOS or no chat template where one is asked for, or a template that refuses the message.
    """
    if chat == "none":
        return bos_of(tokenizer, bos)
    tokens = _template_tokens(tokenizer, chat)
    begins = tokenizer.bos_token_id is not None and tokens[:1] == (tokenizer.bos_token_id,)
    if bos is True and not begins:
        tokens = (*opening_tokens(bos_of(tokenizer, True)), *tokens)
    elif bos is False and begins:
        tokens = tokens[1:]
    return tokens or None


def describe_opening(tokenizer: Any, opening: Opening, chat: Chat = "none") -> dict[str, Any]:
    """A description of an opening for `run.json`: whether it has a BOS, whose message the document is, and its text."""
    tokens = opening_tokens(opening)
    # Without a template, the opening is what the tokenizer puts first, whether or not it calls it BOS.
    with_bos = bool(tokens) if chat == "none" else tokens[:1] == [tokenizer.bos_token_id]
    return {"bos": with_bos, "chat": chat, "opening": tokenizer.decode(tokens) if tokens else ""}


def _template_tokens(tokenizer: Any, chat: Chat) -> tuple[int, ...]:
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template: set chat to none, "
            "or name the instruction-tuned model"
        )
    messages = [{"role": chat, "content": _MESSAGE}]
    if chat == "assistant":
        messages.insert(0, {"role": "user", "content": ""})
    # A template is a program by the model's author. Any error from it means that it refuses this message.
    try:
        text = render(
            _FIXED_DAY + tokenizer.get_chat_template(),
            messages,
            {**tokenizer.special_tokens_map, "date_string": "26 Jul 2024"},
        )
    except (RenderingError, ValueError, TypeError) as error:  # or several templates without a default, or not a text
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} accepts no message of role {chat}: {reason}"
        ) from error
    start = text.find(_MESSAGE)
    if start < 0:
        raise UserError(f"the chat template of {tokenizer.name_or_path} leaves out a message of role {chat}")
    encoded = tokenizer(
        text[: start + len(_MESSAGE)], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    # In most tokenizers a space before the message belongs to the message's first token; it is then left out.
    return tuple(int(token) for token, (_, end) in pairs if end <= start)
