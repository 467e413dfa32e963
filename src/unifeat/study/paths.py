"""Paths in a study file: relative ones are relative to the file's folder."""

from __future__ import annotations

import glob
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from unifeat.errors import UserError
from unifeat.store.machine import machine_error
from unifeat.store.paths import exists, user_path
from unifeat.study.brought import NO_FILE, BroughtSpec
from unifeat.study.spec import SpacesSpec, Study
from unifeat.study.text import ROWS, DocumentsSpec
from unifeat.vocabulary.text_files import LOCAL_SUFFIXES

_Documents = TypeVar("_Documents", bound=DocumentsSpec)


def resolved(path: Path, what: str) -> Path:
    """An absolute path without `..` or links.

    Raises:
        UserError: its links form a loop, or it is too long.
    """
    try:
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()  # since Python 3.13, `resolve` is silent about a loop
        return user_path(path.resolve(), what)
    except (OSError, RuntimeError) as error:  # up to Python 3.12, a loop is a RuntimeError
        raise machine_error(error, f"{what} {path}") or UserError(f"{what} {path}: its links form a loop") from error


def absolute(study: Study, base: Path) -> Study:
    """Make the study's relative paths absolute, where they are paths and not names on the hub.

    Raises:
        UserError: not a possible path (see `user_path`), or its links form a loop.
    """

    def path(name: str, what: str) -> str:
        expanded = user_path(name, what)
        if name.startswith(("./", "../")):
            return str(resolved(base / name, what))
        if name.startswith("~"):
            return str(expanded)
        if expanded.is_absolute():
            return name
        stem = name.split("{", 1)[0].split("*", 1)[0]
        is_path = exists(base / name) if stem == name else _any_begins(base, stem)
        return str(resolved(base / name, what)) if is_path else name

    def text(spec: _Documents, what: str) -> _Documents:
        if spec.source == ROWS:
            return spec
        local = spec.source.lower().endswith(LOCAL_SUFFIXES) and not user_path(spec.source, what).is_absolute()
        source = str(resolved(base / spec.source, what)) if local else path(spec.source, what)
        return spec.model_copy(update={"source": source})

    def categories(source: str) -> str:
        what = "subspaces.categories"
        kind, colon, folder = source.partition(":")
        if kind == "wordnet":
            return kind + colon + (str(resolved(base / user_path(folder, what), what)) if folder else "")
        return source if source == "paper" else str(resolved(base / user_path(source, what), what))

    def labels(name: str, number: int) -> str:
        what = f"spaces.{number}.labels"
        return name if name in NO_FILE else str(resolved(base / user_path(name, what), what))

    def paths_of(spaces: SpacesSpec | BroughtSpec) -> list[str]:
        keys = ("sae",) if isinstance(spaces, SpacesSpec) else ("codes", "activations", "places", "sae", "decoder")
        return [key for key in keys if getattr(spaces, key) is not None]

    own_text = text(study.text, "text.source")
    if own_text.elsewhere:
        own_text = own_text.model_copy(update={"elsewhere": text(own_text.elsewhere, "text.elsewhere.source")})
    update: dict[str, Any] = {
        "text": own_text,
        "models": {n: m.model_copy(update={"name": path(m.name, f"models.{n}.name")}) for n, m in study.models.items()},
        "spaces": [
            s.model_copy(update={key: path(getattr(s, key), f"spaces.{i}.{key}") for key in paths_of(s)}).model_copy(
                update={"labels": labels(s.labels, i)}
            )
            for i, s in enumerate(study.spaces)
        ],
    }
    if study.subspaces:
        update["subspaces"] = study.subspaces.model_copy(update={"categories": categories(study.subspaces.categories)})
    if study.train:
        update["train"] = study.train.model_copy(update={"text": text(study.train.text, "train.text.source")})
    return study.model_copy(update=update)


def _any_begins(base: Path, stem: str) -> bool:
    """Whether any path under `base` begins with `stem`."""
    try:
        return any(base.glob(glob.escape(stem) + "*"))
    except (OSError, ValueError, RuntimeError):
        return False
