"""An SAE that a user brings: any object with `encode` and `W_dec`, read as the SAEs of unifeat are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unifeat.errors import UserError


class OwnSAE:
    """An object with `encode` and `W_dec` (and `decode`, for its quality) in the form of `saes.protocol.SAE`.

    Attributes:
        name: what messages and reports call it.
        W_dec: (features, width) float32.
        decodes: whether it has a `decode`.
    """

    def __init__(self, sae: Any, name: str | None = None) -> None:
        """Hold an SAE.

        Args:
            sae: `encode` takes (rows, width) float32 and gives (rows, features), dense or sparse; `W_dec` is
                (features, width).

        Raises:
            UserError: no `encode` or `W_dec`.
        """
        self.name = name or type(sae).__name__
        lacking = [part for part in ("encode", "W_dec") if not hasattr(sae, part)]
        if lacking:
            raise UserError(f"SAE {self.name} has no {lacking[0]}: it needs encode and W_dec (and decode, for a check)")
        self._sae = sae
        rows = sae.W_dec
        self.W_dec = (rows.detach() if isinstance(rows, Tensor) else torch.from_numpy(np.asarray(rows))).to(
            "cpu", torch.float32
        )
        self.W_enc = None
        self.decodes = callable(getattr(sae, "decode", None))
        features, width = self.W_dec.shape if self.W_dec.ndim == 2 else (0, 0)
        if not features:
            raise UserError(f"SAE {self.name}: W_dec has shape {tuple(self.W_dec.shape)}, not (features, width)")
        self.cfg = SimpleNamespace(d_sae=features, d_in=width, architecture=lambda: self.name, metadata={})

    def encode(self, x: Tensor) -> Tensor:
        """(rows, features) dense codes."""
        codes = self._sae.encode(x)
        if not isinstance(codes, Tensor):  # NumPy or scipy
            codes = torch.from_numpy(np.asarray(codes.toarray() if hasattr(codes, "toarray") else codes))
        if codes.layout != torch.strided:
            codes = codes.to_dense()
        codes = codes.detach().to(x.device)
        if codes.shape != (len(x), self.W_dec.shape[0]):
            turned = " (W_dec must have one row for each feature)" if codes.shape[-1] == self.W_dec.shape[-1] else ""
            raise UserError(
                f"SAE {self.name}: codes of shape {tuple(codes.shape)} for {len(x)} rows and a W_dec of shape "
                f"{tuple(self.W_dec.shape)}{turned}"
            )
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """(rows, width), by its own `decode`."""
        found = self._sae.decode(codes)
        return found.detach() if isinstance(found, Tensor) else torch.from_numpy(np.asarray(found))

    def to(self, *args: Any, **kwargs: Any) -> OwnSAE:
        """It stays where its user put it."""
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Its decoder; what else it has is not known."""
        return {"W_dec": self.W_dec}
