"""One process for each GPU of this machine, for units that run a model."""

from __future__ import annotations

import multiprocessing
import os
import secrets
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any

from unifeat.engine.unit import Unit
from unifeat.engine.worker import Home, run_unit
from unifeat.errors import UserError
from unifeat.progress import say
from unifeat.store import cache_root, write_text
from unifeat.store.writing import aside_name
from unifeat.threads import cores

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus_here() -> list[str]:
    """The GPUs that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name for name in os.environ.get(_VISIBLE, "").split(",") if name]
    return named[:count] if named else [str(number) for number in range(count)]


class Processes:
    """A pool of processes that see one GPU each."""

    def __init__(self, devices: list[str]) -> None:
        """Start a process for each device."""
        spawn = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
        names = spawn.SimpleQueue()
        for name in devices:
            names.put(name)
        self._pool = ProcessPoolExecutor(len(devices), spawn, _begin, (names,))
        self._threads = max(cores() // len(devices), 1)
        self._token = aside_name(cache_root() / "engine")
        secret = secrets.token_hex(8)
        write_text(self._token, secret)
        self._home = Home(str(cache_root()), os.getcwd(), str(self._token), secret)

    def submit(self, unit: Unit[Any]) -> Future[list[str]]:
        """Begin a unit as soon as a process is free."""
        return self._pool.submit(run_unit, unit, self._home, self._threads)

    @staticmethod
    def wait(begun: Future[list[str]]) -> None:
        """Wait until a unit is done, and say what it said.

        Raises:
            UserError: what the unit raised, or the death of its process.
        """
        try:
            messages = begun.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that ran a model died, for want of memory perhaps: the same command continues"
            ) from error
        for message in messages:
            say(message)

    def close(self) -> None:
        """End the processes; units that have not begun are dropped."""
        self._pool.shutdown(cancel_futures=True)
        with suppress(OSError):
            self._token.unlink()


def _begin(names: Any) -> None:
    os.environ[_VISIBLE] = names.get()
