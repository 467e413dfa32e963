"""Location of the cache."""

from __future__ import annotations

import os
from pathlib import Path

from unifeat.store.paths import user_path


def cache_root() -> Path:
    """The user's cache: `$UNIFEAT_CACHE`, else `$XDG_CACHE_HOME/unifeat`, else `~/.cache/unifeat`.

    Raises:
        UserError: a `~` that names no home directory.
    """
    named = os.environ.get("UNIFEAT_CACHE")
    if named:
        return user_path(named, "UNIFEAT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path(base, "the cache folder") / "unifeat"
