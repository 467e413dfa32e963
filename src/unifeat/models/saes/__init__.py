"""Sparse autoencoders: every published format, as SAELens objects that encode as the format says."""

from unifeat.models.saes.load import is_local, load_sae, on_hub
from unifeat.models.saes.output import check_fits, fit_to_model, is_transcoder, reconstruct, writes_at
from unifeat.models.saes.reading import Reading, reading_of
from unifeat.models.saes.registry import registry
from unifeat.models.saes.weights import decoder_rows, sae_digest

__all__ = [
    "Reading",
    "check_fits",
    "decoder_rows",
    "fit_to_model",
    "is_local",
    "is_transcoder",
    "load_sae",
    "on_hub",
    "reading_of",
    "reconstruct",
    "registry",
    "sae_digest",
    "writes_at",
]
