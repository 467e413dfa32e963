"""The names of `unifeat.models.saes` that other modules import."""

from unifeat.models.saes import check_width, decoder_rows, is_local, load_sae, registry, sae_digest

__all__ = ["check_width", "decoder_rows", "is_local", "load_sae", "registry", "sae_digest"]
