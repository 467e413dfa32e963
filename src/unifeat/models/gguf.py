"""GGUF files, converted once into a transformers folder in the user's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from unifeat.engine import Unit
from unifeat.errors import UserError
from unifeat.models.gguf_header import BrokenHeaderError, check_header
from unifeat.models.pretrained import causal_lm
from unifeat.progress import say
from unifeat.store import Form, Piece, sha256_of
from unifeat.store.digests import file_stamp
from unifeat.store.machine import machine_error
from unifeat.store.pieces import note_use

VERSION = 1  # raised whenever the folder made from a file changes
# Folders whose checksums this process has verified, with the stamps of their files at that time. A model is looked up
# several times, and verifying it each time takes longer than loading it.
_verified: dict[Path, list[list[Any]]] = {}


def converted_folder(gguf: Path, dtype: Any) -> Path:
    """The transformers folder made from a GGUF file, with its weights unpacked to `dtype` (a torch dtype).

    Converting takes up to a minute; loading the folder afterwards takes seconds. A damaged folder is made again.

    Raises:
        UserError: transformers cannot read the file, or the machine cannot write the folder.
    """
    try:
        made_from = {"version": VERSION, "gguf": sha256_of(gguf), "dtype": str(dtype).removeprefix("torch.")}
    except OSError as error:
        raise machine_error(error, gguf) or UserError(f"model {gguf} cannot be read: {error}") from error
    piece: Piece[Path] = Piece("models", made_from, Form(_fill, lambda _, folder: folder), "the model in")
    if _verified.get(piece.path) == _stamps(piece.path) != []:
        note_use(piece.kind, piece.path.name)
        return piece.path
    folder = Unit(piece, partial(_convert, gguf, dtype)).result()
    _verified[folder] = _stamps(folder)
    return folder


def _stamps(folder: Path) -> list[list[Any]]:
    try:
        return [file_stamp(path) for path in sorted(folder.iterdir())]
    except OSError:
        return []


def _fill(model_and_tokenizer: Any, folder: Path) -> None:
    for one in model_and_tokenizer:
        one.save_pretrained(folder)


def _convert(gguf: Path, dtype: Any) -> Any:
    say(f"converting {gguf.name} to a transformers folder (once; kept in the cache)")
    try:
        check_header(gguf)
        from transformers import AutoTokenizer, GgufConfig

        with _header_read_once():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
            model = causal_lm(
                gguf.parent,
                gguf_file=gguf.name,
                dtype=dtype,
                quantization_config=GgufConfig(dequantize=True),
            )
    except UserError:
        raise
    except BrokenHeaderError as error:
        raise UserError(f"model {gguf}: this GGUF file cannot be read: {error}; download it again") from error
    except Exception as error:  # transformers raises many types of error for damaged files
        raise machine_error(error, gguf) or UserError(
            f"model {gguf}: transformers cannot read this GGUF file: {_first_line(error)}"
        ) from error
    # transformers 5.23 refuses to save a model that came from a GGUF file while these are set.
    for holder, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if hasattr(holder, name):
            delattr(holder, name)
    return model, tokenizer


@contextmanager
def _header_read_once() -> Iterator[None]:
    """Inside this context, transformers reads a file's header once.

    It does so three times, for the tokenizer, the configuration and the weights. With 262,144 tokens, whose texts and
    scores are in the header, that is most of the conversion; slices of a memory map, which are slower than those of an
    array, are half of the rest.
    """
    import gguf

    class Reader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self._plain

        @data.setter
        def data(self, mapped: Any) -> None:
            self._plain = mapped.view(np.ndarray)

    original, read = gguf.GGUFReader, cache(Reader)
    gguf.GGUFReader = read
    try:
        yield
    finally:
        gguf.GGUFReader = original


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
