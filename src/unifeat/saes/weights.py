"""An SAE's weights: a digest, and unit decoder rows, also stored so that a few can be read without the SAE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unifeat.engine import Held, Unit
from unifeat.errors import UserError
from unifeat.saes.protocol import SAE
from unifeat.saes.recipe import Recipe
from unifeat.store import Form, Piece

_VERSION = 1  # raised whenever the rows of the same SAE change
_OPEN = Held(8)


def sae_digest(sae: SAE) -> str:
    """SHA-256 over an SAE's tensors and the settings that shape its codes."""
    digest = hashlib.sha256()
    settings = {k: v for k, v in sae.cfg.to_dict().items() if k not in ("metadata", "device")}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for key, tensor in sorted(sae.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def size_of(sae: SAE) -> int:
    """Bytes of an SAE's tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in sae.state_dict().values())


def decoder_rows(sae: SAE) -> Any:
    """The decoder as a float32 NumPy array (d_sae, d_out), one row of unit norm per feature.

    d_out is d_in except for transcoders. Norms are a convention of the checkpoint, not a property of the feature, so
    geometry does not use them. A row of zeros stays zero.
    """
    return unit_norm(sae.W_dec.detach().to("cpu", torch.float32))


def unit_norm(rows: Tensor) -> Any:
    """(rows, width) float32 as a NumPy array of rows of unit norm; a row of zeros stays zero."""
    return (rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)).numpy()


def _write(rows: NDArray[np.float32], folder: Path) -> None:
    np.save(folder / "rows.npy", rows)


def _read(value: Any, folder: Path) -> Any:
    return np.load(folder / "rows.npy", mmap_mode="r")


_FORM: Form[Any] = Form(_write, _read)


def decoder_piece(digest: str) -> Piece[NDArray[np.float32]]:
    """Where the unit decoder rows of an SAE are, by its `sae_digest`: (d_sae, d_out) float32, memory-mapped."""
    return Piece("decoders", {"version": _VERSION, "sae": digest}, _FORM, "the decoder rows")


class Rows(Protocol):
    """Where decoder rows can be made from again, if the cache has lost them."""

    def unit_rows(self, digest: str) -> NDArray[np.float32]:
        """(features, width) float32 rows of unit norm.

        Args:
            digest: what they had when they were first used.

        Raises:
            UserError: they have changed.
        """
        ...


@dataclass(frozen=True)
class RowsOfSae:
    """Decoder rows of an SAE.

    Attributes:
        recipe: the SAE, to make them from.
    """

    recipe: Recipe

    def unit_rows(self, digest: str) -> NDArray[np.float32]:
        """See `Rows`."""
        sae = self.recipe.load()
        if sae_digest(sae) != digest:
            raise UserError(f"SAE {self.recipe.name} changed while it was used: run the same command again")
        return decoder_rows(sae)


@dataclass(frozen=True)
class Decoder:
    """Unit decoder rows, on disk.

    Attributes:
        source: what to make them from.
        digest: `sae_digest` of an SAE, or of rows that are in a file.
    """

    source: Rows
    digest: str

    @property
    def piece(self) -> Piece[NDArray[np.float32]]:
        """Where they are."""
        return decoder_piece(self.digest)

    def store(self, rows: Callable[[], NDArray[np.float32]]) -> None:
        """Store the rows, if they are not there.

        Args:
            rows: gives them, where what they are made from is loaded.
        """
        self.piece.note_use()
        if not self.piece.exists():
            self.piece.write(rows())

    def rows(self, features: NDArray[np.integer]) -> NDArray[np.float32]:
        """The rows of some features, (features, d_out) float32."""
        return np.asarray(_OPEN.get(self.piece.path, self._mapped)[features])

    def _mapped(self) -> Any:
        return Unit(self.piece, partial(self.source.unit_rows, self.digest)).result()
