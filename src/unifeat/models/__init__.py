"""Language models and their hook points: loading, self-test, activations."""

from unifeat.models.language import LanguageModel, load_language_model

__all__ = ["LanguageModel", "load_language_model"]
