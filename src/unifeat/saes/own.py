"""An SAE that a user brings: any object with `encode` and `W_dec`, read as the SAEs of unifeat are."""

from __future__ import annotations

from collections.abc import Callable
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
            sae: `encode` takes a tensor (rows, width) and gives (rows, features), dense or sparse; `W_dec` is
                (features, width). If `W_dec` is a tensor of floats, `encode` gets activations of its dtype, on its
                device; else float32. `decode` gets codes in the form that `encode` gave them; if it raises
                NotImplementedError, there is none.

        Raises:
            UserError: no `encode` or `W_dec`, or a `W_dec` that is no (features, width) array.
        """
        self.name = name or type(sae).__name__
        lacking = [part for part in ("encode", "W_dec") if not hasattr(sae, part)]
        if lacking:
            raise UserError(f"SAE {self.name} has no {lacking[0]}: it needs encode and W_dec (and decode, for a check)")
        self._sae = sae
        rows = self._tensor(sae.W_dec, "W_dec")
        self._device = rows.device
        own = isinstance(sae.W_dec, Tensor) and rows.is_floating_point()
        self._dtype = rows.dtype if own else torch.float32
        self.W_dec = rows.to("cpu", torch.float32)
        self.W_enc = None
        self.decodes = callable(getattr(sae, "decode", None))
        self._as_encoded: Callable[[Tensor], Any] = lambda codes: codes
        features, width = self.W_dec.shape if self.W_dec.ndim == 2 else (0, 0)
        if not features:
            raise UserError(f"SAE {self.name}: W_dec has shape {tuple(self.W_dec.shape)}, not (features, width)")
        self.cfg = SimpleNamespace(d_sae=features, d_in=width, architecture=lambda: self.name, metadata={})

    def encode(self, x: Tensor) -> Tensor:
        """(rows, features) dense codes."""
        given = self._sae.encode(x.to(self._device, self._dtype))
        self._as_encoded = _like(given)
        codes = self._tensor(given, "encode").to(x.device)
        if codes.shape != (len(x), self.W_dec.shape[0]):
            turned = " (W_dec must have one row for each feature)" if codes.shape[-1:] == self.W_dec.shape[1:] else ""
            raise UserError(
                f"SAE {self.name}: codes of shape {tuple(codes.shape)} for {len(x)} rows and a W_dec of shape "
                f"{tuple(self.W_dec.shape)}{turned}"
            )
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """(rows, width), by its own `decode`, which gets codes in the form that `encode` gave last.

        Raises:
            NotImplementedError: it has none after all; `decodes` is False from then on.
            UserError: it gives another shape.
        """
        try:
            given = self._sae.decode(self._as_encoded(codes))
        except NotImplementedError:
            self.decodes = False
            raise
        found = self._tensor(given, "decode").to(codes.device)
        expected = (len(codes), self.W_dec.shape[1])
        if found.shape != expected:
            raise UserError(f"SAE {self.name}: decode gives shape {tuple(found.shape)}, not (rows, width) {expected}")
        return found

    def _tensor(self, given: Any, what: str) -> Tensor:
        """What the object has or gives, NumPy, scipy or torch, as a dense tensor."""
        if not isinstance(given, Tensor):
            try:
                given = torch.from_numpy(np.asarray(given.toarray() if hasattr(given, "toarray") else given))
            except (TypeError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"SAE {self.name}: {what} gives {type(given).__name__}, not an array of numbers"
                ) from error
        return (given if given.layout == torch.strided else given.to_dense()).detach()

    def to(self, *args: Any, **kwargs: Any) -> OwnSAE:
        """It stays where its user put it."""
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Its decoder; what else it has is not known."""
        return {"W_dec": self.W_dec}


def _like(given: Any) -> Callable[[Tensor], Any]:
    """Turns dense codes into the form of those that `encode` gave: scipy, NumPy, or a tensor of its layout."""
    if isinstance(given, Tensor):
        device, dtype, layout = given.device, given.dtype, given.layout

        def tensor(codes: Tensor) -> Tensor:
            moved = codes.to(device, dtype)
            return moved if layout == torch.strided else moved.to_sparse(layout=layout)

        return tensor
    if hasattr(given, "toarray"):
        return lambda codes: type(given)(codes.cpu().numpy())
    return lambda codes: codes.cpu().numpy()
