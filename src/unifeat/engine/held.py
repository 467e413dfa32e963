"""What a process keeps between units: a loaded model, SAEs, decoders. Loading them again takes longer than a unit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
_ALL: WeakSet[Held] = WeakSet()


class Held:
    """The values used last. When there is no room, the one unused longest is dropped before a new one is made."""

    def __init__(self, most: int) -> None:
        """Make room for `most` values."""
        self._most, self._values, self._lock = most, OrderedDict[Hashable, Any](), RLock()
        _ALL.add(self)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for a key; made now if it is not held."""
        with self._lock:
            if key not in self._values:
                while len(self._values) >= self._most:
                    self._values.popitem(last=False)
                self._values[key] = make()
            self._values.move_to_end(key)
            return self._values[key]

    def rename(self, key: Hashable, new: Hashable) -> None:
        """Hold a value under another key, after it was changed."""
        with self._lock:
            self._values[new] = self._values.pop(key)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._values.clear()


def forget() -> None:
    """Drop everything that this process holds: a notebook that ran a study goes on without its models and codes."""
    for held in list(_ALL):
        held.clear()
