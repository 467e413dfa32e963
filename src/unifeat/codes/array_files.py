"""Arrays in files of other programs, memory-mapped: NumPy, safetensors, torch, zarr; and folders of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unifeat.errors import UserError
from unifeat.store.machine import machine_error

_COLOURS = re.compile("\x1b\\[[0-9;]*m")  # of a terminal, in torch's messages
KINDS = (".npy", ".safetensors", ".pt", ".pth", ".zarr")


class ArrayFile:
    """One array in a file, of which slices can be read.

    Attributes:
        path: the file; a zarr array is a folder.
        shape: of the array.
    """

    def __init__(self, path: Path, prefer: str = "") -> None:
        """Open a file.

        Args:
            prefer: the name of the array, where a file has several.

        Raises:
            UserError: another kind of file; one that cannot be read, or holds several arrays of other names.
        """
        self.path = path
        try:
            self._slices, self.shape = _opened(path, prefer)
        except UserError:
            raise
        except Exception as error:  # (of three libraries, with errors of their own)
            told = machine_error(error, f"reading {path}")
            said = _COLOURS.sub("", str(error)).splitlines()[0]
            raise told or UserError(f"{path} cannot be read as an array: {said}") from error

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        """Some rows, float32 if they are numbers of another width."""
        found = self._slices[rows]
        if hasattr(found, "detach"):
            found = found.detach().float().numpy()
        return np.asarray(found, np.float32)


def _opened(path: Path, prefer: str) -> tuple[Any, tuple[int, ...]]:
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array, array.shape
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        file = safe_open(path, framework="pt")
        found = file.get_slice(_only(list(file.keys()), prefer, path))
        return found, tuple(found.get_shape())
    if path.suffix in (".pt", ".pth"):
        import torch

        held = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        tensor = held[_only(list(held), prefer, path)] if isinstance(held, dict) else held
        return tensor, tuple(tensor.shape)
    if path.suffix == ".zarr":
        try:
            import zarr
        except ImportError:
            raise UserError(f"{path}: reading zarr needs the package zarr: pip install zarr") from None
        array = zarr.open(str(path), mode="r")
        if not hasattr(array, "shape"):
            array = array[_only(list(array), prefer, path)]
        return array, tuple(array.shape)
    raise UserError(f"{path}: an array is in a file that ends in {', '.join(KINDS)}")


def _only(names: list[str], prefer: str, path: Path) -> str:
    """The array of the preferred name, or the only one."""
    if prefer in names:
        return prefer
    if len(names) == 1:
        return names[0]
    called = f", or call it {prefer}" if prefer else ""
    raise UserError(f"{path} holds {len(names)} arrays ({', '.join(sorted(names)[:5])}): keep one{called}")


def _numbered(path: Path) -> tuple[list[str | int], str]:
    """What files of a folder are sorted by; `x_02` and `x_2` by their names."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)], path.name


def array_files(path: Path, prefer: str = "") -> list[ArrayFile]:
    """The arrays of a file, or of the files in a folder, in the order of their names, numbers as numbers: 2 before 10.

    Raises:
        UserError: there are none, or they differ in their last dimension.
    """
    if path.is_dir() and path.suffix != ".zarr":
        files = [ArrayFile(own, prefer) for own in sorted(path.iterdir(), key=_numbered) if own.suffix in KINDS]
    elif path.exists():
        files = [ArrayFile(path, prefer)]
    else:
        raise UserError(f"{path}: no such file")
    if not files:
        raise UserError(f"{path} holds no array: its files must end in {', '.join(KINDS)}")
    if len({(len(file.shape), file.shape[-1]) for file in files}) > 1:
        raise UserError(f"{path}: its arrays have different shapes: {', '.join(str(f.shape) for f in files[:4])}")
    return files


def row_blocks(files: list[ArrayFile], rows: int) -> Iterator[NDArray[np.float32]]:
    """The rows of arrays of two or three dimensions, some at a time, (rows, width): memory does not grow with them."""
    for file in files:
        *before, width = file.shape
        inner = before[1] if len(before) == 2 else 1
        step = max(rows // inner, 1)
        for start in range(0, before[0], step):
            yield file[start : start + step].reshape(-1, width)
