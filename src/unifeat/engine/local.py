"""The engine of this machine: one thread per core, since the measures release the GIL while they compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from unifeat.engine.unit import Unit
from unifeat.threads import cores, limited_to, one_blas_thread

T = TypeVar("T")
_AHEAD = 4  # units taken from the iterable for each core


class Local:
    """Runs units in parallel on this machine's cores. Units that fill it run one by one, with all BLAS threads."""

    remote = False
    gpus = 0

    def __init__(self, threads: int | None = None) -> None:
        """Choose how many cores to use.

        Args:
            threads: cores to use, by default all that this process may use.
        """
        self._threads = threads

    def close(self) -> None:
        """Nothing is left to close."""

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of the units, in order. The first error is raised, and pending units are cancelled."""
        with ExitStack() as whole:
            if self._threads is not None:
                whole.enter_context(limited_to(self._threads))
            yield from self._map(units)

    def _map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        pending: deque[Future[T]] = deque()
        with ExitStack() as together:
            pool: ThreadPoolExecutor | None = None
            together.callback(lambda: [future.cancel() for future in pending])
            for unit in units:
                if unit.fills_machine:
                    while pending:
                        yield pending.popleft().result()
                    together.close()
                    together.callback(lambda: [future.cancel() for future in pending])
                    pool = None
                    yield unit.result()
                    continue
                if pool is None:
                    together.enter_context(one_blas_thread())
                    pool = together.enter_context(ThreadPoolExecutor(cores()))
                    # (Entered last, so left first: before the pool waits for what it has.)
                    together.callback(lambda: [future.cancel() for future in pending])
                pending.append(pool.submit(unit.result))
                if len(pending) > _AHEAD * cores():
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
