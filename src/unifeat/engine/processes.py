"""One process for each GPU of this machine, for units that use one."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from unifeat.engine.unit import Unit
from unifeat.engine.worker import Home, run_unit
from unifeat.errors import UserError
from unifeat.progress import say
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
        self._home = Home.here()

    def submit(self, unit: Unit[Any]) -> Future[list[str]]:
        """Begin a unit as soon as a process is free."""
        self._home.keep()
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
                "a process that used a GPU died, for want of memory perhaps: the same command continues"
            ) from error
        for message in messages:
            say(message)

    def close(self) -> None:
        """End the processes; units that have not begun are dropped."""
        self._pool.shutdown(cancel_futures=True)
        self._home.leave()


def _begin(names: Any) -> None:
    os.environ[_VISIBLE] = names.get()
