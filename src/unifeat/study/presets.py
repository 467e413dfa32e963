"""Presets: the choices of a published study as settings of a study file."""

from __future__ import annotations

from typing import Any

# What arXiv 2410.06981 did, where it differs from unifeat's defaults. `spaces` applies to each group of spaces, and
# `subspaces` only if the study has that section. The list of non-concept tokens is the default one.
PRESETS: dict[str, dict[str, Any]] = {
    "arxiv-2410.06981": {
        "text": {"windows": 1},  # each document's beginning
        "mask": {"special": False, "first": False, "sinks": False, "pads": False},
        "spaces": {
            "hook": "resid_pre",  # hidden_states[L] is the input of block L; the SAEs were trained on its output
            "codes": "before_topk",
        },
        "matching": {
            "method": "first-seen",
            "direction": "b_to_a",
            "min_correlation": 0.1,
            "min_count": 0,
            "top_tokens": 5,
            "shared_top_token": True,
            "heldout": False,
        },
        "geometry": [
            {"metric": "svcca", "settings": {"dims": 1}},
            {"metric": "rsa", "settings": {"inner": "pearson", "outer": "spearman"}},
        ],
        "inference": {"bootstraps": 0, "subsamples": 0},
        "subspaces": {"categories": "paper", "top_tokens": 5, "at_least": 1, "window": 2},
        "published": "arxiv-2410.06981",
    }
}
_OPTIONAL_SECTIONS = ("subspaces",)  # filled in only where the study has them


def expand(study: Any) -> Any:
    """A study as read from YAML, with its preset's settings written out. The study's own settings take precedence.

    Anything malformed is left unchanged, for validation to report.
    """
    preset = study.get("preset") if isinstance(study, dict) else None
    if not isinstance(preset, str) or preset not in PRESETS:
        return study
    filled = dict(study)
    for key, settings in PRESETS[preset].items():
        if key == "spaces" and isinstance(study.get(key), list):
            filled[key] = [settings | group if isinstance(group, dict) else group for group in study[key]]
        elif key not in study:
            if key not in (*_OPTIONAL_SECTIONS, "spaces"):
                filled[key] = settings
        elif isinstance(settings, dict) and isinstance(study[key], dict):
            filled[key] = settings | study[key]
    return filled
