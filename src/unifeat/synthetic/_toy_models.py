"""Toy language models with planted features: what their weights are, and their files.

A model is made in coordinates where concept c is the c-th axis of the residual stream, and then turned by a random
rotation. RMSNorm without weights of its own commutes with rotations, and attention and MLP see the stream through
matrices only, so a turned model computes the same function.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
STOP = "."
UNKNOWN = "<unk>"
_HEADS = 4
_LEAST, _MOST = 0.6, 1.4  # how strongly a word carries a concept
_BACKGROUND = 0.5  # length of what else a word puts into the stream
_SHARE_WITH_TWO = 0.3  # of the words
# The stream's coordinates are about 6 once a norm has scaled them to mean square 1, so logits differ by about 2.
_EFFECT = 0.3
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


@dataclass(frozen=True)
class Reading:
    """How a model reads: its embeddings and the blocks up to the planted layer, in the concepts' coordinates.

    Attributes:
        carries: (words, concepts) how strongly a word carries a concept; 0 for most.
        embedding: (words, d) what a word puts into the stream.
        blocks: weights of the blocks, by their names in a block.
    """

    carries: Matrix
    embedding: Matrix
    blocks: list[dict[str, Matrix]]


@dataclass(frozen=True)
class Writing:
    """How a model writes: the blocks after the planted layer and its unembedding, in the concepts' coordinates.

    Attributes:
        effects: (concepts, words) what a concept of strength 1 adds to each word's logit, if the stream is scaled by 1.
        unembedding: (words, d).
        blocks: weights of the blocks, by their names in a block.
    """

    effects: Matrix
    unembedding: Matrix
    blocks: list[dict[str, Matrix]]


def draw_reading(words: int, concepts: int, d: int, blocks: int, mixing: float, rng: np.random.Generator) -> Reading:
    """Every word but the last, the full stop, carries one concept or two."""
    carries = np.zeros((words, concepts))
    some = np.arange(words - 1)
    carries[some, rng.permutation(some % concepts)] = rng.uniform(_LEAST, _MOST, words - 1)
    second = some[rng.random(words - 1) < _SHARE_WITH_TWO]
    carries[second, rng.integers(concepts, size=len(second))] = rng.uniform(_LEAST, _MOST, len(second))
    others = rng.standard_normal((words, d - concepts)) * _BACKGROUND / np.sqrt(max(d - concepts, 1))
    return Reading(carries, np.hstack([carries, others]), [_block(d, mixing, rng) for _ in range(blocks)])


def draw_writing(words: int, concepts: int, d: int, blocks: int, mixing: float, rng: np.random.Generator) -> Writing:
    """Effects on all words are independent and normal; what is not a concept has a tenth of such an effect."""
    unembedding = rng.standard_normal((words, d)) * _EFFECT
    unembedding[:, concepts:] *= 0.1
    return Writing(unembedding[:, :concepts].T.copy(), unembedding, [_block(d, mixing, rng) for _ in range(blocks)])


def _block(d: int, mixing: float, rng: np.random.Generator) -> dict[str, Matrix]:
    """Random weights; what attention and MLP add is at most about `mixing` times as long as the stream's concepts."""
    shapes = {f"self_attn.{name}_proj": (d, d) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (2 * d, d), "mlp.up_proj": (2 * d, d), "mlp.down_proj": (d, 2 * d)}
    return {
        name: rng.standard_normal(shape) * (mixing / d if name in _OUT else d**-0.5) for name, shape in shapes.items()
    }


_OUT = ("self_attn.o_proj", "mlp.down_proj")  # write to the stream; the others read from it


def some_words(n: int, rng: np.random.Generator) -> list[str]:
    """n different made-up words, and a full stop as the last."""
    syllables = [c + v for c in _CONSONANTS for v in _VOWELS]
    chosen = rng.choice(len(syllables) ** 2, n - 1, replace=False)
    return [syllables[i // len(syllables)] + syllables[i % len(syllables)] for i in chosen.tolist()] + [STOP]


def write_model(
    folder: Path,
    words: list[str],
    ids: NDArray[np.int64],
    context: int,
    reading: Reading,
    writing: Writing,
    turn: Matrix,
) -> Any:
    """Write a Llama with a word-level tokenizer, and return it.

    Args:
        ids: (words,) the token id of each word; ids below the least are special tokens'.
        turn: (d, d) orthogonal; the stream is that of the concepts' coordinates times it.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    d, blocks = len(turn), [*reading.blocks, *writing.blocks]
    config = LlamaConfig(
        vocab_size=int(ids.max()) + 1,
        hidden_size=d,
        intermediate_size=2 * d,
        num_hidden_layers=len(blocks),
        num_attention_heads=_HEADS,
        num_key_value_heads=_HEADS,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(config).eval()  # norm weights are 1
    held = model.state_dict()
    for name, tensor in _weights(blocks, turn):
        held[name].copy_(torch.from_numpy(tensor))
    for name, rows in (("model.embed_tokens", reading.embedding), ("lm_head", writing.unembedding)):
        held[f"{name}.weight"].zero_()
        held[f"{name}.weight"][torch.from_numpy(ids)] = torch.from_numpy(rows @ turn).float()
    held["model.embed_tokens.weight"][: int(ids.min())] = torch.from_numpy(turn[-1]).float()
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
    _tokenizer(words, ids).save_pretrained(folder)
    return model


def _weights(blocks: list[dict[str, Matrix]], turn: Matrix) -> Iterator[tuple[str, Matrix]]:
    for layer, block in enumerate(blocks):
        for name, weight in block.items():
            yield f"model.layers.{layer}.{name}.weight", turn.T @ weight if name in _OUT else weight @ turn


def _tokenizer(words: list[str], ids: NDArray[np.int64]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    specials = [UNKNOWN, *(f"<extra_{i}>" for i in range(1, int(ids.min())))]
    vocabulary = {token: i for i, token in enumerate(specials)} | dict(zip(words, ids.tolist(), strict=True))
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=UNKNOWN, additional_special_tokens=specials[1:] or None
    )


def sample_text(
    model: Any, words: list[str], ids: NDArray[np.int64], documents: int, length: int, seed: int
) -> list[str]:
    """Documents of `length` words that a model writes by itself; the first word of each is drawn at random."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    chosen = torch.from_numpy(ids)
    written = torch.randint(len(words), (documents, 1), generator=generator)
    cache = None
    with torch.inference_mode():
        for _ in range(length - 1):
            out = model(input_ids=chosen[written[:, -1:]], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            following = out.logits[:, -1, chosen].softmax(-1)
            written = torch.cat([written, torch.multinomial(following, 1, generator=generator)], dim=1)
    return [" ".join(words[i] for i in row) for row in written.tolist()]


def write_sae(folder: Path, directions: Matrix, threshold: float, layer: int) -> None:
    """Write a JumpReLU SAE in SAELens' format that reads and writes these directions, (features, d)."""
    import json

    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    features, d = directions.shape
    rows = torch.from_numpy(directions).float()
    save_file(
        {
            "W_enc": rows.T.contiguous(),
            "W_dec": rows,
            "b_enc": torch.zeros(features),
            "b_dec": torch.zeros(d),
            "threshold": torch.full((features,), threshold),
        },
        folder / "sae_weights.safetensors",
    )
    config = {
        "architecture": "jumprelu",
        "d_in": d,
        "d_sae": features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "prepend_bos": False},
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
