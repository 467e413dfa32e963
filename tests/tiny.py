"""Tiny language models, SAEs and text, made in milliseconds and the same every time."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unifeat.vocabulary.hook_points import HOOK_KINDS, HookPoint

ARCHITECTURES = (
    *("gpt2", "gpt_neox", "opt", "llama", "mistral", "gemma", "gemma2", "gemma3", "qwen2", "qwen3", "phi", "phi3"),
)
# Where attention and MLP stand side by side there is no stream between them; Phi's MLP has no norm of its own, and
# Mamba neither attention nor MLP.
_LACKS = {
    "gpt_neox": {"resid_mid"},
    "phi": {"resid_mid", "ln2_normalized"},
    "mamba": {"attn_z", "attn_out", "resid_mid", "ln2_normalized", "mlp_in", "mlp_out"},
}
CONTEXT = 256  # positions every tiny model can take
TokenizerName = Literal["bpe", "wordish"]

_TOPICS = {
    "sea": ("the harbour", "a sailor", "the tide", "the old ship", "a fisherman", "the lighthouse", "a storm"),
    "city": ("the mayor", "a bus", "the crowded street", "a baker", "the station", "the council", "a tall tower"),
    "garden": ("the gardener", "a red rose", "the hedge", "a bee", "the apple tree", "the wet soil", "a spade"),
    "lab": ("the chemist", "a glass tube", "the microscope", "an electron", "the formula", "a catalyst", "the laser"),
}
_VERBS = ("watched", "carried", "followed", "lost", "found", "painted", "repaired", "greeted", "measured", "passed")
_TAILS = ("in the morning", "after the rain", "without a word", "for seven days", "near the river", "once again")


def sentences(n_documents: int, seed: int = 0) -> list[str]:
    """Documents of a few sentences, each on one of four topics, about 300 characters long."""
    rng = np.random.default_rng(seed)
    documents = []
    for _ in range(n_documents):
        nouns = list(_TOPICS.values())[rng.integers(len(_TOPICS))]
        written = []
        for _ in range(int(rng.integers(4, 9))):
            who, whom = (nouns[i] for i in rng.integers(len(nouns), size=2))
            verb, tail = _VERBS[rng.integers(len(_VERBS))], _TAILS[rng.integers(len(_TAILS))]
            written.append(f"{who[0].upper()}{who[1:]} {verb} {whom} {tail}.")
        documents.append(" ".join(written))
    return documents


def write_text(folder: Path, documents: list[str], name: str = "text.jsonl") -> Path:
    """Write documents as one .jsonl file, which keeps them apart."""
    import json

    path = folder / name
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


def tiny_tokenizer(kind: TokenizerName = "bpe", vocab: int = 512) -> Any:
    """A fast transformers tokenizer trained on `sentences`.

    `bpe` cuts bytes like GPT-2's: it has `<|endoftext|>` as BOS and EOS and begins no text with it.
    `wordish` works like Gemma's: larger pieces, spaces turned into ▁, unknown characters cut into bytes, and `<bos>`
    at the beginning of every text.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer.from_str(_trained(kind, vocab))
    if kind == "bpe":
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=end, eos_token=end, unk_token=end)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


@cache
def _trained(kind: TokenizerName, vocab: int) -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    text = sentences(60, seed=99)
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.train_from_iterator(
            text,
            trainers.BpeTrainer(
                vocab_size=vocab,
                special_tokens=["<|endoftext|>"],
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
        return tokenizer.to_str()
    import json

    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=max(vocab - 256, 300), special_tokens=specials, show_progress=False)
    )
    learnt = json.loads(tokenizer.to_str())["model"]
    ids = dict(learnt["vocab"])
    for byte in range(256):
        ids[f"<0x{byte:02X}>"] = len(ids)
    tokenizer.model = models.BPE(
        vocab=ids, merges=[tuple(m) for m in learnt["merges"]], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return tokenizer.to_str()


def tiny_model(
    folder: Path,
    architecture: str,
    *,
    layers: int = 3,
    width: int = 32,
    vocab: int = 512,
    seed: int = 0,
    tokenizer: TokenizerName = "bpe",
    positions: int = CONTEXT,
) -> Path:
    """Write a transformers folder: config, random safetensors weights, fast tokenizer.

    Args:
        folder: made if it is not there.
        architecture: one of `ARCHITECTURES`, or mamba.
        vocab: entries the tokenizer is trained to; the model's vocabulary is as large as the tokenizer's.
        positions: how many it can take.
    """
    from transformers import AutoModelForCausalLM

    made = tiny_tokenizer(tokenizer, vocab)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture, layers, width, len(made), positions))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:  # norms and biases: near what a fresh model has, but not equal to it
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(noise * (0.5 if "emb" in name or "wte" in name else width**-0.5))
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def tiny_config(architecture: str, layers: int, width: int, vocab: int, positions: int = CONTEXT) -> Any:
    """A transformers configuration with 4 heads; DeepSeek's distils are Llamas and Qwen 2s."""
    import transformers as tf

    ids: dict[str, Any] = {"vocab_size": vocab, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    if architecture == "mamba":
        return tf.MambaConfig(hidden_size=width, num_hidden_layers=layers, state_size=8, **ids)
    if architecture == "gpt2":
        return tf.GPT2Config(n_layer=layers, n_embd=width, n_head=4, n_positions=positions, **ids)
    common = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
        **ids,
    }
    if architecture == "opt":
        return tf.OPTConfig(ffn_dim=2 * width, word_embed_proj_dim=width, **common)
    common["intermediate_size"] = 2 * width
    if architecture == "gpt_neox":
        return tf.GPTNeoXConfig(**common)
    common["num_key_value_heads"] = 2
    if architecture == "mistral":
        return tf.MistralConfig(sliding_window=16, **common)
    if architecture == "phi":
        return tf.PhiConfig(**common)
    if architecture == "phi3":
        return tf.Phi3Config(**common)
    if architecture == "llama":
        return tf.LlamaConfig(**common)
    if architecture == "qwen2":
        return tf.Qwen2Config(**common)
    common["head_dim"] = width // 4
    if architecture == "gemma":
        return tf.GemmaConfig(**common)
    if architecture == "qwen3":
        return tf.Qwen3Config(**common)
    common |= {"sliding_window": 16, "query_pre_attn_scalar": width // 4}
    if architecture == "gemma2":
        return tf.Gemma2Config(**common)
    if architecture == "gemma3":
        return tf.Gemma3TextConfig(**common)
    raise ValueError(f"no tiny {architecture}: choose of {ARCHITECTURES}")


def tiny_sae(
    folder: Path, d_in: int, d_sae: int = 64, k: int = 4, seed: int = 0, mean: torch.Tensor | None = None
) -> Path:
    """Write a SAELens TopK SAE with random weights; its decoder rows are not of unit norm.

    Given the activations' mean, (d_in,), its reconstructions are better than that mean: its FVU is below 1.
    """
    lens = saelens()
    generator = torch.Generator().manual_seed(seed)
    sae = lens.TopKSAE(lens.TopKSAEConfig(d_in=d_in, d_sae=d_sae, k=k, dtype="float32", device="cpu"))
    decoder = torch.randn((d_sae, d_in), generator=generator)
    scale = torch.rand((d_sae, 1), generator=generator) + 0.5
    if mean is not None:  # rows a quarter as long as the directions that the codes are lengths along
        scale *= 0.25 / d_in**0.5
    sae.load_state_dict(
        {
            "W_dec": decoder * scale,
            "W_enc": (decoder / decoder.norm(dim=-1, keepdim=True)).T.contiguous(),
            "b_enc": 0.05 * torch.randn(d_sae, generator=generator),
            "b_dec": 0.1 * torch.randn(d_in, generator=generator) if mean is None else mean,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    sae.save_model(folder)
    return folder


def points_of(architecture: str, layers: int) -> list[HookPoint]:
    """Every hook point that a tiny model of an architecture has."""
    kinds = [kind for kind in HOOK_KINDS if kind not in _LACKS.get(architecture, ())]
    return [HookPoint(layer, kind) for layer in range(layers) for kind in kinds]


def saelens() -> Any:
    """The `sae_lens` module; importing it warns, which under pytest is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sae_lens
    return sae_lens
