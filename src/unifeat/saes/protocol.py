"""The interface of an SAE that unifeat uses. The SAELens objects from `load_sae` have it."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from unifeat.saes.provenance import Provenance


class SAE(Protocol):
    """A sparse autoencoder (or transcoder) of one hook point.

    Attributes:
        W_enc, W_dec: (d_in, d_sae) and (d_sae, d_out). d_out is d_in except for transcoders.
        cfg: SAELens' configuration: `d_in`, `d_sae`, `architecture()`, `metadata` …
        unifeat_provenance: how its checkpoint was read. Only SAEs from `load_sae` have one.
    """

    W_enc: Any
    W_dec: Any
    cfg: Any
    unifeat_provenance: Provenance

    def encode(self, x: Tensor) -> Tensor:
        """Codes (rows, d_sae) of activations (rows, d_in)."""
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Reconstruction (rows, d_out) from codes (rows, d_sae)."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move to a device or dtype, in place."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        ...
