"""What every window of text begins with: nothing, a BOS token, or a chat template up to where its message stands.

With a chat template each window is one conversation: the template's tokens, then the window's own. The document is
tokenized by itself, so its tokens and their places are those of a study without a template. What the template writes
after the message is left out: attention is causal, so it changes nothing before it.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from unifeat.errors import UserError
from unifeat.models.rendering import RenderingError, render
from unifeat.models.tokens import special_ids
from unifeat.vocabulary.openings import Chat, Opening, opening_tokens

# Letters only, so that no template trims, splits or escapes them; every BPE joins a space to a "t" that follows.
_MESSAGE = "themessagestandshere"
# Templates that write the date shall give the same tokens every day: Llama 3's own default. It goes in as a macro,
# since transformers hands a template plain data only.
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
_FIXED_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in _DAY.items())
    + " }}{% endmacro %}\n"
)


# Texts of one ordinary token each in most vocabularies, to see what a tokenizer puts before any text.
_PROBES = ("a", "the", "1", "é", "\u4e00")


def bos_of(tokenizer: Any, bos: str | bool) -> Opening:
    """What to begin every window with, as the tokenizer has it: a token, several, or None.

    Args:
        bos: True for the BOS token or False for none, or "auto" for all that the tokenizer itself puts before a text:
            mostly its BOS or nothing; GLM's `[gMASK] <sop>` are two.

    Raises:
        UserError: when it is asked for and the tokenizer has none.
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
        if not bare or special & set(bare):  # what the vocabulary lacks may look like what is put before it
            continue
        for start in range(len(whole) - len(bare) + 1):
            if whole[start : start + len(bare)] == bare:
                return tuple(int(token) for token in whole[:start])
    # The text itself comes out otherwise behind special tokens: these are then told by being special.
    leading = takewhile(lambda token: token in special, whole)
    return tuple(int(token) for token in leading)


def opening_of(tokenizer: Any, bos: str | bool, chat: Chat = "none") -> Opening:
    """What to begin every window with.

    Args:
        bos: with a chat template, "auto" is what the template does; True puts a BOS in front where the template has
            none, so there are never two; False takes the template's away.
        chat: whose message the document is. An assistant's message answers an empty one of the user's, since many
            templates refuse to begin with the assistant.

    Raises:
        UserError: no BOS or no chat template where one is asked for; a template that refuses the message.
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
    """What an opening is, for `run.json`: whether it has a BOS, whose message the document is, and its text."""
    tokens = opening_tokens(opening)
    # Without a template the opening is the tokenizer's own first token, whatever it calls it.
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
    # A template is a program of the model's author: whatever it raises, it does not take this message.
    try:
        text = render(
            _FIXED_DAY + tokenizer.get_chat_template(),
            messages,
            {**tokenizer.special_tokens_map, "date_string": "26 Jul 2024"},
        )
    except (RenderingError, ValueError, TypeError) as error:  # (several templates, none the default; or no text)
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} takes no message of role {chat}: {reason}"
        ) from error
    start = text.find(_MESSAGE)
    if start < 0:
        raise UserError(f"the chat template of {tokenizer.name_or_path} leaves out a message of role {chat}")
    encoded = tokenizer(
        text[: start + len(_MESSAGE)], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    # A space before the message belongs to the message's first token in most tokenizers, and is then not kept.
    return tuple(int(token) for token, (_, end) in pairs if end <= start)
