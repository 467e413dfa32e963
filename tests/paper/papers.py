"""The study files of `studies/paper/`, and which models they name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

STUDIES = Path(__file__).parents[2] / "studies" / "paper"
DOCUMENTS = 24
# The real models' architectures and numbers of blocks.
MODELS = {
    "EleutherAI/pythia-70m": ("gpt_neox", 6, "bpe"),
    "EleutherAI/pythia-160m": ("gpt_neox", 12, "bpe"),
    "google/gemma-2b": ("gemma", 18, "wordish"),
    "google/gemma-2-2b": ("gemma2", 26, "wordish"),
}
WIDTHS = {"EleutherAI/pythia-70m": 24, "EleutherAI/pythia-160m": 32, "google/gemma-2b": 32, "google/gemma-2-2b": 24}
RunStudy = Callable[..., Any]


def study_data(name: str) -> dict[str, Any]:
    """A study file as it is."""
    return yaml.safe_load((STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))


def saes_of(data: dict[str, Any]) -> dict[str, str]:
    """Every SAE that a study names, with its model's hub name."""
    return {
        group["sae"].format(layer=layer): data["models"][group["model"]]["name"]
        for group in data["spaces"]
        for layer in group["layers"]
    }
