"""Study files: YAML to a `Study`, and back with every default written out."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from unifeat.errors import UserError
from unifeat.study.paths import absolute
from unifeat.study.spec import Study, explain


def load_study(path: str | Path) -> Study:
    """Read and check a study file. Relative paths in it are taken from the file's folder.

    Raises:
        UserError: no such file, not YAML, an unknown key (with the nearest known one), or a wrong value.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"study {path}: no such file")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"study {path}{where}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"study {path} is not UTF-8 (byte {error.start}): convert it first") from error
    if not isinstance(data, dict):
        raise UserError(f"study {path}: expected keys such as text, models and spaces")
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        raise UserError(f"study {path}: {explain(error)}") from error
    return absolute(study, path.resolve().parent)


def dump_study(study: Study) -> str:
    """The study as YAML with every default written out: it repeats the run."""
    data = study.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)
