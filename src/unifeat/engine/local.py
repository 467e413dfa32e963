"""The engine of this machine: one thread per core, since the measures release the GIL while they compute; and one
process per GPU, where there are several."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from unifeat.engine.processes import Processes, gpus_here
from unifeat.engine.unit import Unit
from unifeat.memory import free_memory
from unifeat.threads import cores, limited_to, one_blas_thread

T = TypeVar("T")
_AHEAD = 4  # units taken from the iterable for each core


class Local:
    """Runs units in parallel on this machine's cores. Units that fill it run one by one, with all BLAS threads. Where
    there are several GPUs, units that use one run in a process for each.
    """

    remote = False
    gpus = 0

    def __init__(self, threads: int | None = None, devices: list[str] | None = None) -> None:
        """Choose what to use.

        Args:
            threads: cores to use, by default all that this process may use.
            devices: GPUs to use, as CUDA_VISIBLE_DEVICES names them; by default all.
        """
        self._threads, self._devices = threads, devices

    @property
    def memory(self) -> float:
        """Bytes that are free."""
        return free_memory()

    def close(self) -> None:
        """Nothing is left to close."""

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of the units, in order. The first error is raised, and pending units are cancelled."""
        with ExitStack() as whole:
            if self._threads is not None:
                whole.enter_context(limited_to(self._threads))
            yield from self._map(units)

    def _map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        pending: deque[Callable[[], T]] = deque()
        with ExitStack() as opened:
            threads: ThreadPoolExecutor | None = None
            processes: Processes | None = None
            for unit in units:
                on_gpu = unit.gpu and len(self._gpus()) > 1
                if on_gpu != (processes is not None) or (unit.fills_machine and not on_gpu):
                    while pending:
                        yield pending.popleft()()
                    opened.close()
                    threads = processes = None
                if on_gpu:
                    if processes is None:
                        processes = Processes(self._gpus())
                        opened.callback(processes.close)
                    pending.append(_on_gpu(unit, processes))
                    most = 2 * len(self._gpus())
                elif unit.fills_machine:
                    yield unit.result()
                    continue
                else:
                    if threads is None:
                        opened.enter_context(one_blas_thread())
                        threads = opened.enter_context(ThreadPoolExecutor(cores()))
                        # (Entered last, so left first: before the pool waits for what it has.)
                        opened.callback(threads.shutdown, wait=False, cancel_futures=True)
                    pending.append(threads.submit(unit.result).result)
                    most = _AHEAD * cores()
                if len(pending) > most:
                    yield pending.popleft()()
            while pending:
                yield pending.popleft()()

    def _gpus(self) -> list[str]:
        if self._devices is None:
            self._devices = gpus_here()
        return self._devices


def _on_gpu(unit: Unit[Any], processes: Processes) -> Callable[[], Any]:
    """Begin a unit in one of the processes; returns what waits for its result."""
    if unit.piece.read() is not None:
        return unit.result
    begun = processes.submit(unit)

    def result() -> Any:
        processes.wait(begun)
        return unit.result()

    return result
