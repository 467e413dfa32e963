"""Language models from transformers: loaded as they are, cut after the deepest block wanted, read through hooks."""

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
from unifeat.models.gguf import converted_folder
from unifeat.models.hooks import HookPoint, capturing, cut_after, find_blocks
from unifeat.models.pretrained import LOADING_ERRORS, causal_lm
from unifeat.storage import key_of, sha256_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class LanguageModel:
    """A decoder up to the deepest block wanted, without its head unless it was loaded whole.

    Attributes:
        name: as the user gave it.
        tokenizer: its fast tokenizer.
        n_layers: blocks of the whole model, before the cut.
        d_model: width of the residual stream.
        causal: the whole model with its head, which `decoder` is a part of; None for one that was cut.
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
            For each point a (batch, position, d_model) tensor in the model's dtype.
        """
        with capturing(self.blocks, points) as seen:
            self.decoder(input_ids=input_ids.to(self.device), use_cache=False)
        # OPT's second MLP layer sees all positions of the batch as one list.
        return {point: value.reshape(*input_ids.shape, -1) for point, value in seen.items()}

    def cut(self, deepest: int) -> None:
        """Drop the blocks deeper than `deepest`."""
        self.blocks = cut_after(self.decoder, self.decoder.config, len(self.blocks), deepest)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens, which are masked."""
        return frozenset(int(i) for i in self.tokenizer.all_special_ids)


def tokenizer_digest(tokenizer: Any) -> str:
    """Identity of a fast tokenizer: equal for equal vocabularies, merges and normalisation."""
    inner = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call asked for, or what the file says until the first call: no part of the identity.
    return key_of({key: value for key, value in inner.items() if key not in ("padding", "truncation")})


def bos_of(tokenizer: Any, bos: str | bool) -> int | None:
    """The token to begin every window with, or None.

    Args:
        bos: True or False, or "auto" for what the tokenizer itself does.

    Raises:
        UserError: when it is asked for and the tokenizer has none.
    """
    if bos == "auto":
        ids = tokenizer("a", verbose=False)["input_ids"]
        return int(ids[0]) if ids and ids[0] in tokenizer.all_special_ids else None
    if not bos:
        return None
    if tokenizer.bos_token_id is None:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no BOS token: set bos to false or auto")
    return int(tokenizer.bos_token_id)


def resolve_dtype(dtype: str) -> torch.dtype:
    """A torch dtype from its name; "auto" is bfloat16 on CUDA, else float32."""
    if dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    if dtype not in DTYPES:
        raise UserError(f"unknown dtype {dtype!r}{did_you_mean(dtype, DTYPES)}: use auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def resolve_device(device: str) -> torch.device:
    """A torch device from its name; "auto" is CUDA when there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: this machine has no CUDA device; use auto or cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:1 …") from error


def model_folder(name: str, dtype: torch.dtype) -> str:
    """Where transformers shall load a model from: a local folder, a converted GGUF file, or the hub name itself."""
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"model {name}: a file must be GGUF; give the folder or the hub name otherwise")
        return str(converted_folder(path, dtype))
    if path.is_dir():
        if not (path / "config.json").exists():
            raise UserError(f"model {name}: the folder has no config.json")
        return str(path)
    if path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model {name}: no such file or folder")
    return name


def load_tokenizer(name: str, dtype: str = "auto") -> Any:
    """The fast tokenizer of a model.

    Raises:
        UserError: unknown model, or one that has only a slow tokenizer (no character offsets).
    """
    from transformers import AutoTokenizer

    folder = model_folder(name, resolve_dtype(dtype))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except LOADING_ERRORS as error:
        raise _unknown(name, error) from error
    if not tokenizer.is_fast:
        raise UserError(f"model {name} has no fast tokenizer: unifeat needs the character offsets only these report")
    return tokenizer


def load_language_model(
    name: str,
    points: list[HookPoint],
    *,
    dtype: str = "auto",
    device: str = "auto",
    randomise: int | None = None,
    whole: bool = False,
) -> LanguageModel:
    """Load a model and cut it after the deepest block that `points` name.

    Args:
        name: hub name, local folder, or GGUF file.
        points: where activations will be read.
        dtype: auto, float32, bfloat16 or float16.
        device: auto, cpu, cuda, cuda:1 …
        randomise: seed of a re-initialised copy, see `redraw_weights`.
        whole: keep all blocks and the head, for `causal`.

    Raises:
        UserError: unknown model, or a layer it does not have.
    """
    torch_dtype, torch_device = resolve_dtype(dtype), resolve_device(device)
    folder = model_folder(name, torch_dtype)
    n_layers = read_config(name, dtype).num_hidden_layers
    check_layers(name, points, n_layers)
    deepest = max(point.layer for point in points)
    tokenizer = load_tokenizer(name, dtype)
    try:
        model = causal_lm(folder, whole=whole, dtype=torch_dtype)
    except LOADING_ERRORS as error:
        raise _unknown(name, error) from error
    if randomise is not None:
        redraw_weights(model, randomise)
    decoder = model.get_decoder()
    config = decoder.config
    blocks = find_blocks(decoder, n_layers)[2] if whole else cut_after(decoder, config, n_layers, deepest)
    kept = model if whole else decoder
    kept.eval().requires_grad_(False)
    kept.to(torch_device)
    if torch_device.type == "cpu":
        keep_freed_memory()
    return LanguageModel(
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


@torch.no_grad()
def redraw_weights(model: nn.Module, seed: int) -> None:
    """Replace every parameter by normal noise of the same mean and standard deviation, tensor by tensor.

    What is left of the model is its architecture, its tokenizer and the sizes of its weights: a control for what
    these alone make alike (Heap et al. 2025, "Sparse autoencoders can interpret randomly initialized transformers").
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():  # tied weights come once
        wide = parameter.detach().to("cpu", torch.float32)
        spread = float(wide.std(correction=0))
        noise = torch.randn(wide.shape, generator=generator)
        parameter.copy_((noise * spread + wide.mean()).to(parameter.dtype))


def read_config(name: str, dtype: str = "auto") -> Any:
    """A model's text configuration, without its weights.

    Raises:
        UserError: unknown model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_folder(name, resolve_dtype(dtype)))
    except LOADING_ERRORS as error:
        raise _unknown(name, error) from error
    text_config = config.get_text_config()
    text_config._commit_hash = getattr(config, "_commit_hash", None)
    return text_config


def check_layers(name: str, points: list[HookPoint], n_layers: int) -> None:
    """Raise a UserError if a point's layer is not one of the model's."""
    for point in points:
        if not 0 <= point.layer < n_layers:
            raise UserError(
                f"model {name} has layers 0 to {n_layers - 1}, not {point.layer} (layer L is the output of block L)"
            )


def model_identity(name: str, dtype: str, randomise: int | None = None) -> dict[str, Any]:
    """What determines a model's activations, found without loading it: its files' hashes, or its commit on the hub."""
    torch_dtype = resolve_dtype(dtype)
    folder = model_folder(name, torch_dtype)
    identity: dict[str, Any] = {"dtype": str(torch_dtype).removeprefix("torch.")}
    if randomise is not None:
        identity["randomise"] = randomise
    path = Path(folder)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".bin") or p.name == "config.json")
        return identity | {"files": {p.name: sha256_of(p) for p in files}}
    return identity | {"hub": folder, "commit": getattr(read_config(name, dtype), "_commit_hash", None)}


def _unknown(name: str, error: Exception) -> UserError:
    text = str(error).strip()
    reason = text.splitlines()[0] if text else type(error).__name__
    if Path(name).expanduser().exists():
        return UserError(f"model {name} cannot be loaded: {reason}")
    return UserError(
        f"model {name!r} is neither a local folder or GGUF file nor a hub model that can be loaded now: {reason}"
    )
