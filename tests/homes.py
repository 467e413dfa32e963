"""A folder with all that a small study names: two models with different tokenizers, their SAEs, text, `study.yaml`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tiny import sentences, tiny_sae, write_text
from unifeat.storage import remove

STUDY: dict[str, Any] = {
    "name": "tiny",
    "text": {"source": "text.jsonl", "context": 32},
    "models": {"one": {"name": "model-one", "dtype": "float32"}, "two": {"name": "model-two", "dtype": "float32"}},
    "spaces": [
        {"model": "one", "layers": [0, 2], "sae": "saes/one_{layer}"},
        {"model": "two", "layers": 1, "sae": "saes/two_{layer}"},
    ],
    "matching": {"min_count": 3, "min_correlation": 0.05, "exclude_tokens": ["."]},
    "geometry": [{"svcca": {"dims": 3}}, "rsa", "cka"],
    "inference": {"permutations": 20},
    "seed": 3,
}


def make_home(folder: Path, model_folder: Callable[..., Path], documents: int = 40) -> Path:
    """Write it and return the study's path."""
    folder.mkdir(exist_ok=True)
    (folder / "model-one").symlink_to(model_folder("gpt2", tokenizer="bpe"))
    (folder / "model-two").symlink_to(model_folder("llama", tokenizer="wordish"))
    for name in ("one_0", "one_2", "two_1"):
        tiny_sae(folder / "saes" / name, 32, seed=len(name) + int(name[-1]))
    write_text(folder, sentences(documents))
    return write_study(folder)


def write_study(home: Path, name: str = "study.yaml", **changes: Any) -> Path:
    """Write the study with some keys changed; a key set to `...` is left out."""
    study = {key: value for key, value in (STUDY | changes).items() if value is not ...}
    path = home / name
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def hashes(folder: Path, *, but: tuple[str, ...] = ()) -> dict[str, str]:
    """SHA-256 of every file below a folder by its path; what a kill left aside is not looked at."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        aside = any(part.startswith(".partial-") for part in relative.parts)
        if path.is_file() and not aside and not relative.match("digests/*") and path.name not in but:
            found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def forget(cache: Path, *parts: str) -> None:
    """Remove parts of a cache."""
    for part in parts:
        remove(cache / part)
