"""Language models from transformers: loaded unchanged, cut after the deepest block needed, and read through hooks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unifeat.errors import UserError, did_you_mean
from unifeat.models.allocator import keep_freed_memory
from unifeat.models.blocks import cut_after, find_blocks
from unifeat.models.folder import model_folder
from unifeat.models.hooks import capturing
from unifeat.models.own_code import code_elsewhere, code_in_folder
from unifeat.models.placement import MAP, MaxMemory, first_device, map_settings, removed_with, resolve_device
from unifeat.models.pretrained import causal_lm
from unifeat.models.redrawing import redraw_weights
from unifeat.models.refusals import check_kind, check_room, check_sizes, loading_errors
from unifeat.models.selftest import self_test
from unifeat.models.tokens import special_ids
from unifeat.store import key_of, sha256_of
from unifeat.vocabulary.hook_points import HookPoint, width_at

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class LanguageModel:
    """A decoder up to the deepest block needed, without its head unless it was loaded whole.

    Attributes:
        name: the name that the user gave.
        tokenizer: its fast tokenizer.
        n_layers: blocks of the whole model, before the cut.
        d_model: width of the residual stream.
        device: where it runs or, for a model spread over several devices, where its first block runs.
        causal: the whole model with its head, of which `decoder` is a part; None for a model that was cut.
    """

    name: str
    architecture: str
    tokenizer: Any
    decoder: nn.Module
    blocks: nn.ModuleList
    n_layers: int
    d_model: int
    device: torch.device
    dtype: torch.dtype
    causal: Any = None

    @torch.inference_mode()
    def activations(self, input_ids: Tensor, points: list[HookPoint]) -> dict[HookPoint, Tensor]:
        """One forward pass; activations at each point.

        Args:
            input_ids: (batch, position) int64, padded on the right. Attention is causal, so padding changes no
                earlier position and no attention mask is needed.
            points: where to read.

        Returns:
            For each point, a (batch, position, width) tensor in the model's dtype.
        """
        with capturing(self.blocks, points) as seen:
            self.decoder(input_ids=input_ids.to(self.device), use_cache=False)
        # OPT's second MLP layer gets all positions of the batch as one list; blocks may be on several devices.
        return {point: value.reshape(*input_ids.shape, -1).to(self.device) for point, value in seen.items()}

    def width(self, point: HookPoint) -> int:
        """Number of values per token at a hook point."""
        return width_at(self.decoder.config, point.kind)

    @property
    def longest_window(self) -> int | None:
        """The most tokens that it accepts at once; None if its configuration does not say."""
        return getattr(self.decoder.config, "max_position_embeddings", None)

    @property
    def vocabulary(self) -> int:
        """How many token ids it has embeddings for."""
        return int(self.decoder.get_input_embeddings().num_embeddings)  # type: ignore[operator]

    def cut(self, deepest: int) -> None:
        """Drop the blocks deeper than `deepest`."""
        self.blocks = cut_after(self.decoder, self.decoder.config, len(self.blocks), deepest)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens, which are masked."""
        return special_ids(self.tokenizer)


def tokenizer_digest(tokenizer: Any) -> str:
    """Identity of a fast tokenizer: equal for equal vocabularies, merges and normalisation."""
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    # Padding and truncation depend on the last call, so they are not part of the identity.
    return key_of({key: value for key, value in inner.items() if key not in ("padding", "truncation")})


def resolve_dtype(dtype: str) -> torch.dtype:
    """A torch dtype from its name; "auto" is bfloat16 on CUDA, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}{did_you_mean(dtype, DTYPES)}: use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def load_tokenizer(
    name: str, dtype: str = "auto", revision: str | None = None, *, trust_remote_code: bool = False
) -> Any:
    """The fast tokenizer of a model.

    Args:
        trust_remote_code: run the model's own code.

    Raises:
        UserError: unknown model, or a model with only a slow tokenizer (no character offsets).
    """
    from transformers import AutoTokenizer

    folder = model_folder(name, resolve_dtype(dtype), revision)
    with loading_errors(name, revision):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, revision=revision or "main", trust_remote_code=trust_remote_code
        )
    if not tokenizer.is_fast:
        raise UserError(
            f"model {name} has no fast tokenizer: unifeat needs the character offsets that only these report"
        )
    if len(tokenizer) <= len(special_ids(tokenizer)):  # transformers invents such a tokenizer if there are no files
        raise UserError(f"model {name} cannot be loaded: it has no tokenizer files, such as tokenizer.json")
    return tokenizer


def load_language_model(
    name: str,
    points: list[HookPoint],
    *,
    dtype: str = "auto",
    device: str = "auto",
    randomise: int | None = None,
    whole: bool = False,
    revision: str | None = None,
    max_memory: MaxMemory | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a model and cut it after the deepest block that `points` name.

    Args:
        name: hub name, local folder, or GGUF file.
        points: where activations will be read.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda, cuda:1 …, or map: accelerate spreads the model over all devices, then the CPU's
            memory, then the disk.
        randomise: seed for randomised weights, see `redraw_weights`.
        whole: keep all blocks and the head, for `causal`.
        revision: branch, tag or commit of a hub model.
        max_memory: for `map`, see `placement.map_settings`.
        trust_remote_code: run the model's own code, from its folder or repository.

    Raises:
        UserError: unknown model, a layer it does not have, or an architecture whose hook points cannot be read.
    """
    torch_dtype, torch_device = resolve_dtype(dtype), resolve_device(device)
    folder = model_folder(name, torch_dtype, revision)
    stated = read_config(name, dtype, revision, trust_remote_code=trust_remote_code)
    n_layers = stated.num_hidden_layers
    check_layers(name, points, n_layers)
    deepest = max(point.layer for point in points)
    tokenizer = load_tokenizer(name, dtype, revision, trust_remote_code=trust_remote_code)
    if randomise is not None and device == MAP:
        raise UserError(f"model {name}: randomise needs the weights on one device; set device to auto, cpu or cuda")
    check_room(name, stated, folder)
    spread = map_settings(max_memory) if device == MAP else {}
    with loading_errors(name, revision):
        model = causal_lm(
            folder,
            whole=whole,
            trust_remote_code=trust_remote_code,
            dtype=torch_dtype,
            revision=revision or "main",
            **spread,
        )
    if spread:
        removed_with(model.get_decoder(), spread)
    if randomise is not None:
        redraw_weights(model, randomise)
    decoder = model.get_decoder()
    config = decoder.config
    blocks = find_blocks(decoder, n_layers)[2] if whole else cut_after(decoder, config, n_layers, deepest)
    kept = model if whole else decoder
    kept.eval().requires_grad_(False)
    if spread:
        torch_device = first_device(decoder.get_input_embeddings(), torch_device)
    else:
        with loading_errors(name, revision):
            kept.to(torch_device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    loaded = LanguageModel(
        name=name,
        architecture=config.model_type,
        tokenizer=tokenizer,
        decoder=decoder,
        blocks=blocks,
        n_layers=n_layers,
        d_model=config.hidden_size,
        device=torch_device,
        dtype=torch_dtype,
        causal=model if whole else None,
    )
    self_test(loaded, points)
    return loaded


def read_config(name: str, dtype: str = "auto", revision: str | None = None, *, trust_remote_code: bool = False) -> Any:
    """A model's text configuration, without its weights.

    Args:
        trust_remote_code: run the model's own code.

    Raises:
        UserError: unknown model, a model that is not a decoder, or impossible sizes.
    """
    from transformers import AutoConfig

    folder = model_folder(name, resolve_dtype(dtype), revision)
    with loading_errors(name, revision):
        config = AutoConfig.from_pretrained(folder, revision=revision or "main", trust_remote_code=trust_remote_code)
        check_kind(name, config, trust_remote_code=trust_remote_code)
        text = config.get_text_config()
    check_sizes(name, text)
    return text


def check_layers(name: str, points: list[HookPoint], n_layers: int) -> None:
    """Raise a UserError if a point's layer is not one of the model's."""
    for point in points:
        if not 0 <= point.layer < n_layers:
            raise UserError(
                f"model {name} has layers 0 to {n_layers - 1}, not {point.layer} (layer L is the output of block L)"
            )


def model_identity(
    name: str,
    dtype: str,
    randomise: int | None = None,
    revision: str | None = None,
    *,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """What determines a model's activations, without loading it: the hashes of its files, or its commit on the hub.

    Args:
        trust_remote_code: whether the model's own code runs; it is then part of the identity.
    """
    torch_dtype = resolve_dtype(dtype)
    folder = model_folder(name, torch_dtype, revision)
    identity: dict[str, Any] = {"dtype": str(torch_dtype).removeprefix("torch.")}
    if randomise is not None:
        identity["randomise"] = randomise
    path = Path(folder)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".bin") or p.name == "config.json")
        identity["files"] = {p.name: sha256_of(p) for p in files}
        if trust_remote_code:
            identity["files"] |= code_in_folder(path)
    else:
        path = _snapshot(name, dtype, revision, trust_remote_code)
        identity |= {"hub": folder, "commit": path.name}
        if trust_remote_code and code_in_folder(path):
            identity["own_code"] = True  # rather than transformers' code for models of this kind
    if trust_remote_code:
        with loading_errors(name, revision):
            elsewhere = code_elsewhere(path)
        identity |= {"code": elsewhere} if elsewhere else {}
    return identity


def _snapshot(name: str, dtype: str, revision: str | None, trust_remote_code: bool) -> Path:
    """The folder in which the hub's client keeps a model's files; its name is the commit."""
    from huggingface_hub import try_to_load_from_cache

    # This downloads the configuration if it is not there yet.
    read_config(name, dtype, revision, trust_remote_code=trust_remote_code)
    path = try_to_load_from_cache(name, "config.json", revision=revision or "main")
    if not isinstance(path, str):
        raise UserError(f"model {name}: the hub's cache does not say which commit it holds; download the model again")
    return Path(path).parent
