"""A unit of work in another process: its folder, its cores, and what it says."""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unifeat.engine.unit import Unit
from unifeat.errors import UserError
from unifeat.progress import collected
from unifeat.store import cache_root, write_text
from unifeat.store.writing import aside_name
from unifeat.threads import limited_to

_limit: tuple[int, ExitStack] | None = None  # the cores that this process uses, and how to give them back


def settings_here() -> dict[str, str]:
    """This process's settings of libraries of models, such as HF_HUB_OFFLINE."""
    return {name: value for name, value in os.environ.items() if name.startswith(("HF_", "TRANSFORMERS_"))}


@dataclass(frozen=True)
class Home:
    """Where the driver runs, as each worker must see it.

    Attributes:
        cache: the cache's folder.
        folder: the working folder, in which a study's relative paths begin.
        token: a file in the cache that holds `secret`.
        settings: the driver's environment variables that libraries of models read.
    """

    cache: str
    folder: str
    token: str
    secret: str
    settings: dict[str, str] = field(default_factory=settings_here, hash=False)

    @classmethod
    def here(cls) -> Home:
        """This process's, with a new token.

        Raises:
            UserError: the cache cannot be written.
        """
        home = cls(str(cache_root()), os.getcwd(), str(aside_name(cache_root() / "engine")), secrets.token_hex(8))
        home.keep()
        return home

    def keep(self) -> None:
        """Keep the token new: pruning the cache takes what looks left behind by a kill."""
        try:
            os.utime(self.token)
        except OSError:
            write_text(Path(self.token), self.secret)

    def leave(self) -> None:
        """Remove the token."""
        with suppress(OSError):
            Path(self.token).unlink()

    def enter(self) -> None:
        """Work here from now on.

        Raises:
            UserError: this process does not see the driver's cache or working folder.
        """
        os.environ.update(self.settings)
        os.environ["UNIFEAT_CACHE"] = self.cache
        node = os.uname().nodename
        try:
            seen = Path(self.token).read_text(encoding="utf-8") == self.secret
        except OSError:
            seen = False
        if not seen:
            raise UserError(
                f"a worker on {node} does not see the cache {self.cache}: set UNIFEAT_CACHE to a folder that all nodes "
                "share"
            )
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise UserError(
                f"a worker on {node} does not see the folder {self.folder}: run unifeat in one that all nodes share"
            ) from error


def run_unit(unit: Unit[Any], home: Home, cores: int) -> list[str]:
    """Run a unit, so that its result is stored; returns the messages for the user's terminal.

    Args:
        cores: how many it may use.
    """
    home.enter()
    _use(cores)
    with collected() as messages:
        unit.result()
    return messages


def _use(cores: int) -> None:
    """Use so many cores from now on. Looking for the libraries that have threads takes longer than a small unit."""
    global _limit
    if _limit is not None and _limit[0] == cores:
        return
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(cores)  # for libraries that are loaded later
    if _limit is not None:
        _limit[1].close()
    stack = ExitStack()
    stack.enter_context(limited_to(cores))
    _limit = (cores, stack)
