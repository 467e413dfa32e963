"""What the calibration scripts have in common: their options, and simulated studies that are carried out once."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from unifeat.progress import set_mode
from unifeat.store import written_aside


def options_of(description: str | None, studies: int) -> argparse.Namespace:
    """`studies`, `page` and `cache`, as given on the command line; nothing but results is printed from here on.

    Args:
        description: the script's docstring.
        studies: the number of studies where none is given.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=studies)
    parser.add_argument("--page", type=Path, default=Path("docs/calibration.md"))
    parser.add_argument("--cache", type=Path, default=Path("build/calibration"), help="of scripts that store studies")
    set_mode("quiet")
    return parser.parse_args()


def folder_of(cache: Path, name: str, settings: list[Any]) -> Path:
    """The folder for studies made with these settings; a change of the code itself needs an empty cache."""
    folder = cache / f"{name}-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def carried_out(name: str, count: int, study: Callable[[int], dict[str, list[float]]], folder: Path) -> dict[str, Any]:
    """Case -> (count, values) array; stored every 100 studies, so that a stopped run loses little."""
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.json"
    known: dict[str, list[list[float]]] = json.loads(path.read_text()) if path.exists() else {}
    done = len(next(iter(known.values()), []))
    for seed in range(done, count):
        for case, values in study(seed).items():
            known.setdefault(case, []).append(values)
        if (seed + 1) % 100 == 0 or seed + 1 == count:
            with written_aside(path) as aside:
                aside.write_text(json.dumps(known))
            print(f"{name}: {seed + 1} of {count}", flush=True)
    return {case: np.array(values[:count]) for case, values in known.items()}
