"""A unit of work in another process: its folder, its cores, and what it says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unifeat.engine.unit import Unit
from unifeat.errors import UserError
from unifeat.progress import collected
from unifeat.threads import limited_to


@dataclass(frozen=True)
class Home:
    """Where the driver runs, as each worker must see it.

    Attributes:
        cache: the cache's folder.
        folder: the working folder, in which a study's relative paths begin.
        token: a file in the cache that holds `secret`.
    """

    cache: str
    folder: str
    token: str
    secret: str

    def enter(self) -> None:
        """Work here from now on.

        Raises:
            UserError: this process does not see the driver's cache or working folder.
        """
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
    with collected() as messages, limited_to(cores):
        unit.result()
    return messages
