"""A unit of work: a pure function whose result is stored. It can run anywhere, in any order, and run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from unifeat.errors import UserError

T = TypeVar("T")
S = TypeVar("S", covariant=True)


class Stored(Protocol[S]):
    """Where a unit's result is, or will be: a `Piece`, or files of another format with the same two methods."""

    def read(self) -> S | None:
        """The result, or None if it is not there or damaged.

        Raises:
            UserError: the machine cannot read it.
        """
        ...

    def write(self, value: Any) -> None:
        """Store what `compute` gave, whole or not at all. If another process stored it first, that one stays.

        Raises:
            UserError: an error of the machine: no space, no permission …
        """
        ...


@dataclass(frozen=True)
class Unit(Generic[T]):
    """One unit of work.

    Attributes:
        piece: where its result is stored, under a key made from everything that determines it.
        compute: computes the result. It is pure, and it and its arguments can be sent to another process. It should be
            light: what is large belongs into the store, and is read by `compute`.
        fills_machine: whether it uses all cores, or so much memory that nothing else should run at the same time.
        model: names the language model that it keeps loaded between units (see `Held`); None if it needs none.
        gpu: whether it runs on a GPU where there are any.
    """

    piece: Stored[T]
    compute: Callable[[], Any]
    fills_machine: bool = False
    model: str | None = None
    gpu: bool = False

    def result(self) -> T:
        """The stored result. If there is none, or it is damaged, the result is computed and stored first.

        Raises:
            UserError: as `compute` does, and for errors of the machine.
        """
        found = self.piece.read()
        if found is not None:
            return found
        for _ in range(3):
            self.piece.write(self.compute())
            # Read back: another process may have stored its result first, and a value from the disk is the same now as
            # after a restart.
            stored = self.piece.read()
            if stored is not None:
                return stored
        where = getattr(self.piece, "path", self.piece)
        raise UserError(f"{where} is missing or damaged right after it was written: check the cache's disk")


class Engine(Protocol):
    """Anything that runs units.

    Attributes:
        remote: whether they may run on other machines than this one.
        gpus: how many GPUs they can use, if remote.
        memory: bytes that a unit may take, on the smallest machine.
    """

    @property
    def remote(self) -> bool: ...
    @property
    def gpus(self) -> int: ...
    @property
    def memory(self) -> float: ...

    def map(self, units: Iterable[Unit[T]]) -> Iterator[T]:
        """The results of the units, in order. Only a few units are taken from `units` before they are needed, so that
        memory does not grow with their number. The first error is raised, and pending units are cancelled.
        """
        ...
