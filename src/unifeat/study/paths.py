"""Relative paths in a study file, taken from the file's folder."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from unifeat.study.spec import Study, TextSpec
from unifeat.vocabulary.text_files import LOCAL_SUFFIXES


def absolute(study: Study, base: Path) -> Study:
    """Make paths relative to the study's file absolute, where they are paths."""

    def path(name: str) -> str:
        if name.startswith(("./", "../")):
            return str((base / name).resolve())
        expanded = Path(name).expanduser()
        if name.startswith("~"):
            return str(expanded)
        if expanded.is_absolute():
            return name
        stem = name.split("{", 1)[0].split("*", 1)[0]
        there = (base / name).exists() if stem == name else any(base.glob(glob.escape(stem) + "*"))
        return str((base / name).resolve()) if there else name

    def text(spec: TextSpec) -> TextSpec:
        local = spec.source.endswith(LOCAL_SUFFIXES) and not Path(spec.source).expanduser().is_absolute()
        source = str((base / spec.source).resolve()) if local else path(spec.source)
        return spec.model_copy(update={"source": source})

    def categories(source: str) -> str:
        kind, colon, folder = source.partition(":")
        if kind == "wordnet":
            return kind + colon + (str((base / Path(folder).expanduser()).resolve()) if folder else "")
        return source if source == "paper" else str((base / Path(source).expanduser()).resolve())

    update: dict[str, Any] = {
        "text": text(study.text),
        "models": {n: m.model_copy(update={"name": path(m.name)}) for n, m in study.models.items()},
        "spaces": [s.model_copy(update={"sae": path(s.sae)}) for s in study.spaces],
    }
    if study.subspaces:
        update["subspaces"] = study.subspaces.model_copy(update={"categories": categories(study.subspaces.categories)})
    if study.train:
        update["train"] = study.train.model_copy(update={"text": text(study.train.text)})
    return study.model_copy(update=update)
