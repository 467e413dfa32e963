"""Study files: from YAML to a `Study`, and back with every default written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unifeat.errors import UserError
from unifeat.store.paths import user_path
from unifeat.study.mistakes import explain
from unifeat.study.paths import absolute, resolved
from unifeat.study.spec import Study
from unifeat.study.yaml_file import dump_yaml, parse_yaml, read_yaml


def load_study(path: str | Path) -> Study:
    """Read and check a study file. Relative paths in it are relative to the file's folder.

    Raises:
        UserError: no such file, or it cannot be read; not YAML; an unknown key (the message suggests the nearest known
            one), a key given twice, or a wrong value.
    """
    file = user_path(path, "study")
    return _checked(read_yaml(file, f"study {file}"), resolved(file, "study").parent, f"study {file}")


def load_study_text(text: str, base: Path, what: str = "study") -> Study:
    """A study from its YAML text.

    Args:
        base: the folder that relative paths are relative to.
        what: what messages call the study.

    Raises:
        UserError: as `load_study` does.
    """
    return _checked(parse_yaml(text, what), base, what)


def study_from(data: Any, base: Path, what: str = "study") -> Study:
    """A study from plain data, as YAML gives it; relative paths in it are relative to `base`.

    Raises:
        UserError: as `load_study` does.
    """
    return _checked(data, base, what)


def dump_study(study: Study) -> str:
    """The study as YAML with every default written out, so that it reproduces the run."""
    return dump_yaml(study.model_dump(mode="json"))


def _checked(data: Any, base: Path, what: str) -> Study:
    if not isinstance(data, dict):
        raise UserError(f"{what}: expected keys such as text, models and spaces")
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{what}: {explain(error, Study)}") from error
    try:
        return absolute(study, base)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
