"""Reading tensors from files and checking them against the shapes of a format."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError
from unifeat.saes.files import Files


def read_tensors(files: Files, name: str) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` or `.npz` file, on the CPU in the file's own dtypes.

    Raises:
        UserError: a damaged file.
    """
    path = files.path(name)
    try:
        if path.suffix == ".npz":
            # Opened here, since np.load leaves a damaged archive open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
                return {key: torch.from_numpy(held[key]) for key in held.files}
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    except (ValueError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"SAE {files.name} cannot be read ({name}: {reason}): is the file whole?") from error


def read_pickle(files: Files, name: str) -> Any:
    """The content of a `.pt` file of tensors and plain values. No code in it is ever run.

    Raises:
        UserError: it holds anything else, or is damaged.
    """
    path = files.path(name)
    if name in files.opened:
        return files.opened[name]
    try:
        files.opened[name] = torch.load(path, map_location="cpu", weights_only=True)
        return files.opened[name]
    except Exception as error:  # unpickling random bytes raises many types of error
        raise UserError(
            f"SAE {_naming(files, path)} holds more than tensors, or is damaged: it is refused, since opening it "
            "could run code; save its tensors as safetensors"
        ) from error


def checked(
    files: Files,
    file: str,
    held: Mapping[str, Any],
    shapes: Mapping[str, str],
    *,
    optional: Mapping[str, str] | None = None,
    ignored: tuple[str, ...] = (),
    whole: tuple[str, ...] = (),
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The tensors of a format as float32, after checking that none are missing or unknown and that all shapes agree.

    Args:
        held: the content of the file.
        shapes: a letter for each dimension of each tensor: {"encoder.weight": "md", "encoder.bias": "m",
            "threshold": ""}.
        optional: the same for tensors that may be missing.
        ignored: names, or beginnings of names, of tensors that do not affect the codes.
        whole: tensors that hold whole numbers (k, sizes of groups).

    Returns:
        The tensors, and the size of each letter.

    Raises:
        UserError: missing or unknown tensors, contradictory shapes, or numbers that are not floats.
    """
    missing = [key for key in shapes if key not in held]
    if missing:
        raise UserError(f"SAE {files.name}: {file} lacks {', '.join(missing)}; it holds {_some(held)}")
    known = dict(shapes) | {key: letters for key, letters in (optional or {}).items() if key in held}
    extra = [key for key in held if key not in known and not str(key).startswith(ignored or ("\0",))]
    if extra:
        raise UserError(f"SAE {files.name}: {file} holds tensors that its format does not have: {_some(extra)}")
    taken: dict[str, Tensor] = {}
    sizes: dict[str, int] = {}
    for key in sorted(known, key=lambda key: len(known[key])):  # biases first, since they cannot be transposed
        letters, tensor = known[key], held[key]
        if not isinstance(tensor, Tensor):
            raise UserError(f"SAE {files.name}: {key} in {file} is a {type(tensor).__name__}, not a tensor")
        if not tensor.is_floating_point() and key not in whole:
            raise UserError(
                f"SAE {files.name}: {key} in {file} holds {str(tensor.dtype).removeprefix('torch.')}, not weights"
            )
        _check_shape(files, key, tuple(tensor.shape), letters, sizes)
        taken[key] = tensor if key in whole else tensor.to(torch.float32)
    return taken, sizes


def agree(files: Files, config: str, says: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    """Raise a UserError if a config's numbers contradict the weights; None means that it does not state the number.

    Args:
        says: the config's numbers, {"d_in": 768}, with the keys of `sizes`.
    """
    for key, value in says.items():
        if value is not None and value != sizes[key]:
            raise UserError(f"SAE {files.name}: {config} says {key} = {value}, but the weights have {sizes[key]}")


def _check_shape(files: Files, key: str, shape: tuple[int, ...], letters: str, sizes: dict[str, int]) -> None:
    if len(shape) != len(letters):
        raise UserError(
            f"SAE {files.name} cannot be read: {key} has shape {shape}, but its format has {len(letters)} dimensions"
        )
    expected = tuple(sizes.get(letter, size) for letter, size in zip(letters, shape, strict=True))
    if shape != expected:
        turned = "; it is transposed" if shape == expected[::-1] or _turned(shape, letters, sizes) else ""
        raise UserError(
            f"SAE {files.name} cannot be read: {key} has shape {shape}, but the other tensors require "
            f"{expected}{turned}"
        )
    sizes.update(zip(letters, shape, strict=True))


def _turned(shape: tuple[int, ...], letters: str, sizes: Mapping[str, int]) -> bool:
    return len(shape) == 2 and all(sizes.get(letter, n) == n for letter, n in zip(letters, shape[::-1], strict=True))


def _some(names: Any) -> str:
    listed = sorted(map(str, names))
    return ", ".join(listed[:6]) + (f" and {len(listed) - 6} more" if len(listed) > 6 else "")


def _naming(files: Files, path: Path) -> str:
    return files.name if files.name.endswith(path.name) else str(path)
