"""The engines by name: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from unifeat.engine.local import Local
from unifeat.engine.unit import Engine
from unifeat.errors import UserError, did_you_mean


def _local(address: str | None, threads: int | None) -> Any:
    if address is not None:
        raise UserError("--address names a cluster: give --engine ray with it")
    return Local(threads)


def _ray(address: str | None, threads: int | None) -> Any:
    from unifeat.engine.ray import AUTO, Ray

    return Ray(address or AUTO, threads)


ENGINES: dict[str, Callable[[str | None, int | None], Any]] = {"local": _local, "ray": _ray}


@contextmanager
def engine_called(name: str, address: str | None = None, threads: int | None = None) -> Iterator[Engine]:
    """The engine with this name, closed at the end.

    Args:
        name: one of `ENGINES`.
        address: of the cluster, for an engine that has one.
        threads: cores of a unit that fills a machine.

    Raises:
        UserError: an unknown name, an engine that is not installed, or a cluster that does not answer.
    """
    if name not in ENGINES:
        raise UserError(f"no engine {name!r}{did_you_mean(name, ENGINES)}; there are {', '.join(ENGINES)}")
    engine = ENGINES[name](address, threads)
    try:
        yield engine
    finally:
        engine.close()
