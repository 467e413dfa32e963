"""The engine of a Ray cluster (`pip install 'unifeat[ray]'`).

Ray starts the work, moves it when a worker or a node dies, and keeps models loaded in actors. Results do not go through
Ray: all workers write into the cache, which must be a folder that every node sees, and the driver reads them there.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from unifeat.engine.actors import Actors
from unifeat.engine.unit import Unit
from unifeat.engine.worker import Home, run_unit
from unifeat.errors import UserError
from unifeat.progress import say
from unifeat.store import cache_root
from unifeat.threads import cores

T = TypeVar("T")
AUTO = "auto"
_AHEAD = 4  # units submitted for each core of the cluster
_TRIES = 8  # of a unit whose worker dies
_ANSWER_S = 5.0


@dataclass(frozen=True)
class _Size:
    """The cluster's machines with cores: cores in all, the fewest on one, GPUs in all, the least memory of one."""

    cores: int
    fewest: int
    gpus: int
    memory: float


class Ray:
    """Runs units on a Ray cluster, until it is closed."""

    remote = True

    def __init__(self, address: str = AUTO, threads: int | None = None) -> None:
        """Connect to a cluster.

        Args:
            address: of the cluster's head; "auto" finds one that runs on this machine (or that RAY_ADDRESS names), and
                starts one here if there is none.
            threads: cores of a unit that fills a machine; by default those of the cluster's smallest one.

        Raises:
            UserError: Ray is not installed, nobody answers at the address, or a node does not see the cache.
        """
        _connect(address)
        self._size = _size()
        self._threads = min(threads or self._size.fewest, self._size.fewest)
        self._home = Home.here()
        self._actors: Actors | None = None

    @property
    def gpus(self) -> int:
        """GPUs of the cluster."""
        return self._size.gpus

    @property
    def memory(self) -> float:
        """Bytes of memory that Ray counts on the smallest node."""
        return self._size.memory

    def close(self) -> None:
        """Stop the workers that hold models, and leave the cluster."""
        import ray

        self._stop_actors()
        self._home.leave()
        ray.shutdown()

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of the units, in order. The first error is raised, and pending units are cancelled.

        Raises:
            UserError: what a unit raises, a worker that does not see the cache, or one that keeps dying.
        """
        pending: deque[tuple[Unit[T], Any]] = deque()
        try:
            for unit in units:
                # What is stored need not be asked for.
                pending.append((unit, None if unit.piece.read() is not None else self._submit(unit)))
                while pending and (pending[0][1] is None or len(pending) > _AHEAD * self._size.cores):
                    yield self._take(*pending.popleft())
            while pending:
                yield self._take(*pending.popleft())
        finally:
            self._cancel([ticket for _, ticket in pending if ticket is not None])

    def _submit(self, unit: Unit[Any]) -> Any:
        import ray

        self._home.keep()
        if unit.model is not None:
            gpu = unit.gpu and self._size.gpus > 0
            if self._actors is None or self._actors.gpu != gpu:
                self._stop_actors()
                most = self._size.gpus if gpu else max(self._size.cores // self._threads, 1)
                self._actors = Actors(self._home, self._threads, most, gpu=gpu, tries=_TRIES)
            return self._actors.submit(unit)
        self._stop_actors()  # their cores are needed
        share = self._threads if unit.fills_machine else 1
        gpus = int(unit.gpu and self._size.gpus > 0)
        task = ray.remote(run_unit).options(num_cpus=share, num_gpus=gpus, max_retries=_TRIES, retry_exceptions=False)
        return task.remote(unit, self._home, share)

    def _take(self, unit: Unit[T], ticket: Any) -> T:
        """The result of a submitted unit, read from the store."""
        for _ in range(3):
            if ticket is not None:
                for message in self._wait(unit, ticket):
                    say(message)
            found = unit.piece.read()
            if found is not None:
                return found
            ticket = self._submit(unit)  # what was stored has been damaged or removed since
        raise UserError(f"results disappear from {cache_root()} right after they are written: check the cache's disk")

    def _wait(self, unit: Unit[Any], ticket: Any) -> list[str]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._actors.wait(ticket) if unit.model is not None and self._actors else ray.get(ticket)
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise UserError(str(error.cause)) from error
            raise
        except RayError as error:
            lines = str(error).strip().splitlines()
            raise UserError(
                f"a worker died {_TRIES} times on the same unit of work, for want of memory perhaps: {lines[0]}"
            ) from error

    def _cancel(self, tickets: list[Any]) -> None:
        import ray

        for ticket in tickets:
            if isinstance(ticket, ray.ObjectRef):
                with suppress(Exception):  # what is done cannot be cancelled
                    ray.cancel(ticket, force=True)
        if tickets:
            self._stop_actors()

    def _stop_actors(self) -> None:
        if self._actors is not None:
            self._actors.stop()
        self._actors = None


def _connect(address: str) -> None:
    try:
        import ray
    except ImportError as error:
        raise UserError("the engine ray needs Ray: pip install 'unifeat[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    how: dict[str, Any] = {"log_to_driver": False, "namespace": "unifeat", "logging_level": "ERROR"}
    if address != AUTO:
        _check_answer(address)
    try:
        ray.init(address=address, **how)
    except ConnectionError as error:
        if address != AUTO or os.environ.get("RAY_ADDRESS"):
            where = os.environ.get("RAY_ADDRESS", address) if address == AUTO else address
            raise UserError(f"no Ray cluster answers at {where}: `ray start --head` starts one") from error
        say("no Ray cluster is up: one is started on this machine")
        ray.init(num_cpus=cores(), include_dashboard=False, **how)
    except (RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"the Ray cluster at {address} cannot be used: {lines[0]}") from error


def _check_answer(address: str) -> None:
    """Raise a UserError if nobody listens at HOST:PORT. (Ray itself would try for half a minute.)"""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address {address}: give the address of a Ray cluster's head as HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster answers at {address}: `ray start --head` starts one") from error


def _size() -> _Size:
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = [int(own["CPU"]) for own in alive if own.get("CPU", 0) >= 1]
    if not each:
        raise UserError("no node of the Ray cluster has a core to work on")
    memory = min(own.get("memory", float("inf")) for own in alive if own.get("CPU", 0) >= 1)
    return _Size(sum(each), min(each), int(sum(own.get("GPU", 0) for own in alive)), memory)
