"""Language models with their hook points, and sparse autoencoders: loading, checking, training."""

from unifeat.models.hooks import HookPoint
from unifeat.models.language import LanguageModel, load_language_model
from unifeat.models.saes import load_sae

__all__ = ["HookPoint", "LanguageModel", "load_language_model", "load_sae"]
