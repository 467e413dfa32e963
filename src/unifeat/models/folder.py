"""Where transformers loads a model from: a local folder, a GGUF file, or a name on the hub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from unifeat.errors import UserError
from unifeat.models.gguf import converted_folder
from unifeat.store.machine import machine_error
from unifeat.store.paths import exists, user_path

_LARGEST_CONFIG = 1 << 24  # bytes; real ones have a few thousand
CONFIG = "config.json"


def model_folder(name: str, dtype: Any, revision: str | None = None) -> str:
    """Where transformers loads a model from: a local folder, a converted GGUF file, or the hub name itself.

    Args:
        dtype: the torch dtype that a GGUF file's weights are unpacked to.

    Raises:
        UserError: not a possible path, a file that is not GGUF, or a folder without a model.
    """
    path = user_path(name, "model")
    is_there = exists(path)
    if revision and is_there:
        raise UserError(f"model {name}: only hub models have revisions, and this one is local; leave revision out")
    if is_there and path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"model {name}: a file must be GGUF; give the folder or the hub name otherwise")
        return str(converted_folder(path, dtype))
    if is_there and path.is_dir():
        if not exists(path / CONFIG):
            raise UserError(f"model {name}: the folder has no {CONFIG}")
        _check_config_file(name, path / CONFIG)
        return str(path)
    local = path.suffix == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1
    if local or os.path.lexists(path):  # the latter is true for a broken link or a loop of links
        raise UserError(f"model {name}: no such file or folder")
    return name


def _check_config_file(name: str, path: Path) -> None:
    try:
        size = path.stat().st_size
        if size > _LARGEST_CONFIG:
            raise UserError(
                f"model {name} cannot be loaded: its {CONFIG} has {size:,} bytes, too many for a configuration"
            )
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise machine_error(error, path) or UserError(f"model {name} cannot be loaded: {CONFIG}: {error}") from error
    except RecursionError:
        raise UserError(f"model {name} cannot be loaded: its {CONFIG} is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"model {name} cannot be loaded: its {CONFIG} is damaged: {error}") from error
    if not isinstance(held, dict):
        raise UserError(f"model {name} cannot be loaded: its {CONFIG} is not a JSON object")
