"""Engines by name: wrong names, engines that are not installed, addresses nobody answers at."""

from __future__ import annotations

import builtins
import socket
from typing import Any

import pytest

from unifeat.engine.choose import engine_called
from unifeat.engine.local import Local
from unifeat.errors import UserError


def opened(*how: Any) -> None:
    with engine_called(*how):
        pass


def test_local_is_this_machine() -> None:
    with engine_called("local") as engine:
        assert isinstance(engine, Local)
        assert (engine.remote, engine.gpus) == (False, 0)


def test_an_unknown_name() -> None:
    with pytest.raises(UserError, match=r"no engine 'rey' \(did you mean 'ray'\?\); there are local, ray"):
        opened("rey")


def test_an_address_without_a_cluster() -> None:
    with pytest.raises(UserError, match="--address names a cluster: give --engine ray with it"):
        opened("local", "10.0.0.1:6379")


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "ray":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"the engine ray needs Ray: pip install 'unifeat\[ray\]'"):
        opened("ray")


@pytest.mark.parametrize("address", ["nowhere", "here:there", "localhost:", ":6379", "localhost:99999"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match=r"(HOST:PORT, or auto|no Ray cluster answers at)"):
        opened("ray", address)


def test_nobody_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"no Ray cluster answers at {address}: `ray start --head` starts one"):
            opened("ray", address)
