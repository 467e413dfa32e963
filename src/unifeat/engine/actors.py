"""Ray actors that keep a model loaded. One that dies is replaced, and its unit given to another.

Ray can restart an actor by itself, but its unit then waits for the new one, even where there is no room for it any more
and other actors are idle. So units are given only to actors that have answered.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from unifeat.engine.unit import Unit
from unifeat.engine.worker import Home, run_unit


class _Ticket:
    """A unit on its way."""

    def __init__(self, unit: Unit[Any]) -> None:
        self.unit, self.tries = unit, 0
        self.messages: list[str] | None = None


class Actors:
    """Workers that hold a model each, until a unit needs another.

    Attributes:
        gpu: whether each has a GPU to itself.
    """

    def __init__(self, home: Home, threads: int, most: int, *, gpu: bool, tries: int) -> None:
        """Prepare for at most `most` workers; they are started as units come.

        Args:
            threads: cores of each.
            tries: how often a unit is begun before its worker's death is an error.
        """
        self.gpu, self._home, self._threads, self._most = gpu, home, threads, most
        self._tries = tries
        self._starting: dict[Any, Any] = {}  # what an actor answers with -> the actor
        self._idle: list[Any] = []
        self._running: dict[Any, tuple[Any, _Ticket]] = {}
        self._waiting: deque[_Ticket] = deque()

    def submit(self, unit: Unit[Any]) -> _Ticket:
        """Begin a unit as soon as an actor is free."""
        ticket = _Ticket(unit)
        self._waiting.append(ticket)
        self._assign()
        return ticket

    def wait(self, ticket: _Ticket) -> list[str]:
        """Wait until a unit is done; returns its messages.

        Raises:
            RayError: what the unit raised, or the death of its worker, as often as it was tried.
        """
        import ray
        from ray.exceptions import RayActorError

        while ticket.messages is None:
            refs = [*self._starting, *self._running]
            for ref in ray.wait(refs, num_returns=1, timeout=1.0)[0]:
                if ref in self._starting:
                    actor = self._starting.pop(ref)
                    try:
                        ray.get(ref)
                        self._idle.append(actor)
                    except RayActorError:
                        continue
                else:
                    actor, done = self._running.pop(ref)
                    try:
                        done.messages = ray.get(ref)
                        self._idle.append(actor)
                    except RayActorError:
                        done.tries += 1
                        if done.tries >= self._tries:
                            raise
                        self._waiting.appendleft(done)
                    except BaseException:
                        self._idle.append(actor)
                        raise
            self._assign()
        return ticket.messages

    def stop(self) -> None:
        """End all actors."""
        import ray

        for actor in [*self._starting.values(), *self._idle, *(actor for actor, _ in self._running.values())]:
            ray.kill(actor)
        self._starting, self._idle, self._running = {}, [], {}
        self._waiting.clear()

    def _assign(self) -> None:
        while self._waiting and self._idle:
            actor, ticket = self._idle.pop(), self._waiting.popleft()
            self._running[actor.run.remote(ticket.unit, self._home, self._threads)] = (actor, ticket)
        there = len(self._starting) + len(self._idle) + len(self._running)
        for _ in range(min(len(self._waiting) - len(self._starting), self._most - there)):
            self._start()

    def _start(self) -> None:
        import ray

        how = {"num_cpus": self._threads, "num_gpus": int(self.gpu), "max_restarts": 0, "max_task_retries": 0}
        actor = ray.remote(_Worker).options(**how).remote()
        self._starting[actor.ready.remote()] = actor


class _Worker:
    """An actor. What its units hold (`Held`) stays in its process."""

    def ready(self) -> bool:
        return True

    def run(self, unit: Unit[Any], home: Home, threads: int) -> list[str]:
        return run_unit(unit, home, threads)
