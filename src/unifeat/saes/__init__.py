"""Sparse autoencoders: loading published formats as SAELens objects that encode as their format specifies."""

from unifeat.saes.decoding import is_transcoder, reconstruct, writes_at
from unifeat.saes.fit import check_fits, fit_to_model
from unifeat.saes.load import is_local, load_sae, on_hub
from unifeat.saes.protocol import SAE
from unifeat.saes.provenance import Provenance, provenance_of
from unifeat.saes.registry import known_releases
from unifeat.saes.weights import decoder_rows, sae_digest

__all__ = [
    "SAE",
    "Provenance",
    "check_fits",
    "decoder_rows",
    "fit_to_model",
    "is_local",
    "is_transcoder",
    "known_releases",
    "load_sae",
    "on_hub",
    "provenance_of",
    "reconstruct",
    "sae_digest",
    "writes_at",
]
