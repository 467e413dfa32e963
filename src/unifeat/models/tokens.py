"""Which tokens of a tokenizer are special, from all the places where its files may say so."""

from __future__ import annotations

from typing import Any

from unifeat.store import key_of


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of a tokenizer's special tokens.

    These are the tokens with a role (BOS, EOS, padding …), and those only added as special, such as Llama 3's
    `<|start_header_id|>` and `<|eot_id|>`. transformers' `all_special_ids` has only the first kind.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return _with_a_role(tokenizer) | {int(i) for i, token in added.items() if getattr(token, "special", False)}


def extra_specials(tokenizer: Any) -> str | None:
    """A digest of the special tokens, for keys; None if each has a role, as in most tokenizers.

    (None keeps the keys of codes made before tokens without a role were masked.)
    """
    ids = special_ids(tokenizer)
    return key_of(sorted(ids)) if ids != _with_a_role(tokenizer) else None


def _with_a_role(tokenizer: Any) -> frozenset[int]:
    return frozenset(int(i) for i in tokenizer.all_special_ids)
