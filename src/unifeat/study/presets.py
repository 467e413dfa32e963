"""Presets: the choices of a published study as settings of a study file."""

from __future__ import annotations

from typing import Any

# What arXiv 2410.06981 did, where it is not what unifeat does by itself. `spaces` holds for each group of spaces,
# `subspaces` where the study has some. The list of non-concept tokens and the least r are the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "arxiv-2410.06981": {
        "text": {"windows": 1},  # each document's beginning
        "mask": {"special": False, "first": False, "sinks": False, "pads": False},
        "spaces": {
            "hook": "resid_pre",  # hidden_states[L] is what goes into block L; the SAEs were trained on what comes out
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
_IF_THERE = ("subspaces",)


def expand(study: Any) -> Any:
    """A study as read from YAML with its preset's settings written out; what the study itself says stands.

    Whatever is not as a study should be is left as it is, for the check of the study to find.
    """
    preset = study.get("preset") if isinstance(study, dict) else None
    if not isinstance(preset, str) or preset not in PRESETS:
        return study
    filled = dict(study)
    for key, settings in PRESETS[preset].items():
        if key == "spaces" and isinstance(study.get(key), list):
            filled[key] = [settings | group if isinstance(group, dict) else group for group in study[key]]
        elif key not in study:
            if key not in (*_IF_THERE, "spaces"):
                filled[key] = settings
        elif isinstance(settings, dict) and isinstance(study[key], dict):
            filled[key] = settings | study[key]
    return filled
