"""GGUF files, converted once into a transformers folder in the user's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.models.pretrained import LOADING_ERRORS, causal_lm
from unifeat.progress import say
from unifeat.store import cache_root, sha256_of, written_aside


def converted_folder(gguf: Path, dtype: Any) -> Path:
    """The transformers folder made from a GGUF file, its weights unpacked to `dtype` (a torch dtype).

    Converting takes up to a minute; loading the folder afterwards takes seconds.

    Raises:
        UserError: when transformers cannot read the file.
    """
    dtype_name = str(dtype).removeprefix("torch.")
    folder = cache_root() / "models" / f"gguf-{sha256_of(gguf)[:16]}-{dtype_name}"
    if folder.exists():
        return folder
    say(f"converting {gguf.name} to a transformers folder (once; kept in the cache)")
    from transformers import AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = causal_lm(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
        )
    except LOADING_ERRORS as error:
        raise UserError(f"model {gguf}: transformers cannot read this GGUF file: {_first_line(error)}") from error
    # transformers 5.23 refuses to save a model that came from a GGUF file while these are set.
    for holder, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)
    with written_aside(folder) as aside:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    return folder


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
