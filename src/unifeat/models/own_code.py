"""Models with Python code of their own: it runs only if the user says so, and is part of the model's identity.

Without an explicit setting, transformers asks on the terminal and reads the answer from standard input. So the setting
is passed in every call.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.store import sha256_of


def refused(name: str, error: Exception) -> UserError | None:
    """The message for when transformers refuses to run a model's own code; None for every other error."""
    text = str(error)
    if "trust_remote_code" not in text or "custom code" not in text:
        return None
    return UserError(
        f"model {name} cannot be loaded: it has code of its own, which unifeat runs only if the study says "
        "`trust_remote_code: true` for that model (unifeat check: --trust-remote-code); read the code first"
    )


def is_own(config: Any) -> bool:
    """Whether a configuration, or the language model that it names, comes from the model's own code."""
    return type(config).__module__.startswith("transformers_modules") or "AutoModelForCausalLM" in (
        getattr(config, "auto_map", None) or {}
    )


def code_in_folder(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's Python files, if its configuration names code of its own; else empty.

    Keys are the files' paths in the folder.
    """
    if not any("auto_map" in _held(folder / name) for name in ("config.json", "tokenizer_config.json")):
        return {}
    files = sorted(path for path in folder.rglob("*.py") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def code_elsewhere(folder: Path) -> dict[str, str]:
    """Commits of the other repositories whose code a model names as `ORG/NAME--module.Class`.

    Args:
        folder: the folder with the model's config.json and tokenizer_config.json.
    """
    from huggingface_hub import hf_hub_download

    named: dict[str, str] = {}
    for name in ("config.json", "tokenizer_config.json"):
        for reference in _references(_held(folder / name).get("auto_map")):
            repository, dashes, target = reference.partition("--")
            if dashes and repository not in named:
                module = target.rsplit(".", 1)[0]
                path = Path(hf_hub_download(repository, f"{module.replace('.', '/')}.py"))
                named[repository] = path.parent.name
    return named


def _references(auto_map: Any) -> list[str]:
    if isinstance(auto_map, dict):
        return [found for value in auto_map.values() for found in _references(value)]
    if isinstance(auto_map, list | tuple):
        return [found for value in auto_map for found in _references(value)]
    return [auto_map] if isinstance(auto_map, str) else []


def _held(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
