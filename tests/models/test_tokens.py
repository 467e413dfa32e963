"""Special tokens wherever a tokenizer's files name them: masked, kept out of rows, and told in the keys of codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import AddedToken

from tiny import tiny_sae, tiny_tokenizer
from unifeat.codes.encode import store_settings
from unifeat.models.activations import run_group
from unifeat.models.language import load_language_model, load_tokenizer, model_identity, tokenizer_digest
from unifeat.models.tokens import extra_specials, special_ids
from unifeat.saes.load import load_sae
from unifeat.text.corpus import Part
from unifeat.vocabulary.hook_points import HookPoint
from unifeat.vocabulary.masks import Mask
from unifeat.vocabulary.windowing import Windowing

LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
POINT = HookPoint(1)


@pytest.fixture
def like_llama_3(model_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """A model whose tokenizer says only in `added_tokens_decoder` that some tokens are special."""
    folder = Path(shutil.copytree(model_folder("llama", vocab=512), tmp_path / "llama-3"))
    tokenizer = tiny_tokenizer("bpe", 400)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in LLAMA_3])
    tokenizer.add_tokens([AddedToken("<ordinary>", special=False)])
    tokenizer.save_pretrained(folder)
    return folder


def test_added_as_special_without_a_role(like_llama_3: Path):
    tokenizer = load_tokenizer(str(like_llama_3))
    ids = set(tokenizer.convert_tokens_to_ids(list(LLAMA_3)))
    assert len(ids) == 3
    assert not ids & set(tokenizer.all_special_ids)  # what transformers leaves out
    assert special_ids(tokenizer) == ids | set(tokenizer.all_special_ids)
    assert tokenizer.convert_tokens_to_ids("<ordinary>") not in special_ids(tokenizer)


def test_they_give_no_rows(like_llama_3: Path):
    model = load_language_model(str(like_llama_3), [POINT], dtype="float32")
    text = f"{LLAMA_3[0]}user{LLAMA_3[1]}\n\nthe tide carried <ordinary>{LLAMA_3[2]} the old ship"
    found = run_group(model, [Part(0, 0, text)], [POINT], Windowing(64, None))
    assert (found.masked.special, found.masked.first) == (3, 0)  # the first position is counted once, as special
    assert found.masked.read == found.masked.special + found.masked.first + len(found.places)
    rows = set(found.places.token.tolist())
    assert not rows & special_ids(model.tokenizer)
    assert model.tokenizer.convert_tokens_to_ids("<ordinary>") in rows


@pytest.mark.parametrize("kind", ["bpe", "wordish"])
def test_an_ordinary_tokenizer_has_no_others(kind: Any):
    tokenizer = tiny_tokenizer(kind)
    assert special_ids(tokenizer) == frozenset(tokenizer.all_special_ids)
    assert extra_specials(tokenizer) is None


def test_codes_made_with_the_old_mask_are_not_taken_for_new_ones(
    like_llama_3: Path, model_folder: Callable[..., Path], tmp_path: Path
):
    sae = load_sae(str(tiny_sae(tmp_path / "sae", 32)))
    corpus: Any = SimpleNamespace(digest="d", cut=(1, 1))

    def settings(folder: Path, mask: Mask) -> dict[str, Any]:
        tokenizer = load_tokenizer(str(folder))
        return store_settings(
            corpus,
            model_identity(str(folder), "float32"),
            tokenizer_digest(tokenizer),
            POINT,
            sae,
            Windowing(32, None, mask),
            specials=extra_specials(tokenizer),
        )

    assert settings(like_llama_3, Mask())["specials"] == extra_specials(load_tokenizer(str(like_llama_3)))
    assert "specials" not in settings(like_llama_3, Mask(special=False))  # nothing is masked as special there
    assert "specials" not in settings(model_folder("llama"), Mask())  # ordinary codes keep their keys
    assert json.loads(json.dumps(settings(like_llama_3, Mask()))) == settings(like_llama_3, Mask())
