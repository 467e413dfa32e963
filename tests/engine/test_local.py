"""The engine of this machine: order, laziness, errors, threads, units that fill it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unifeat.engine import Held, Local, Unit, forget
from unifeat.engine.worker import Home
from unifeat.errors import UserError
from unifeat.store import JSON, Piece
from unifeat.threads import cores


def unit_of(work: Callable[[], Any], name: str, **how: Any) -> Unit[Any]:
    return Unit(Piece("tries", {"name": name}, JSON, "a try"), work, **how)


@pytest.mark.parametrize("filling", [set(), {3, 4, 11}, set(range(20))])
def test_results_come_in_order(filling: set[int]) -> None:
    chance = np.random.default_rng(0)

    def work(n: int) -> int:
        time.sleep(float(chance.random()) / 200)
        return n

    units = (unit_of(lambda n=n: work(n), str(n), fills_machine=n in filling) for n in range(20))
    assert list(Local().map(units)) == list(range(20))


def test_a_unit_that_fills_the_machine_runs_alone() -> None:
    running: list[int] = []

    def work(n: int) -> bool:
        running.append(n)
        time.sleep(0.01)
        alone = len(running) == 1
        running.remove(n)
        return alone

    found = list(Local().map(unit_of(lambda n=n: work(n), str(n), fills_machine=n % 4 == 0) for n in range(16)))
    assert all(found[::4])


def test_units_are_taken_as_they_are_needed() -> None:
    taken = []

    def units() -> Iterator[Unit[Any]]:
        for n in range(10_000):
            taken.append(n)
            yield unit_of(lambda n=n: n, str(n))

    results = Local().map(units())
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    assert len(taken) < 100


def test_the_first_error_is_raised_and_the_rest_does_not_run() -> None:
    ran = []

    def work(n: int) -> int:
        ran.append(n)
        if n == 2:
            raise UserError("two")
        time.sleep(0.01)
        return n

    with pytest.raises(UserError, match="two"):
        list(Local().map(unit_of(lambda n=n: work(n), str(n)) for n in range(500)))
    assert len(ran) < 100


def test_stored_results_are_not_computed_again() -> None:
    def never() -> None:
        raise AssertionError("computed again")

    assert list(Local().map([unit_of(lambda: 7, "seven")])) == [7]
    assert list(Local().map([unit_of(never, "seven")])) == [7]


def test_threads_are_those_asked_for() -> None:
    from threadpoolctl import threadpool_info

    def seen() -> list[int]:
        return [cores(), *{pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}]

    before = cores()
    assert list(Local(1).map([unit_of(seen, "one", fills_machine=True)])) == [[1, 1]]
    assert cores() == before


class TestHeld:
    def test_the_value_unused_longest_goes_before_a_new_one_is_made(self) -> None:
        held, made = Held(2), []

        def make(name: str) -> Callable[[], str]:
            return lambda: made.append(name) or name

        for name in ("a", "b", "a", "c", "a", "b"):
            assert held.get(name, make(name)) == name
        assert made == ["a", "b", "c", "b"]

    def test_what_cannot_be_made_is_tried_again(self) -> None:
        held = Held(1)
        with pytest.raises(ZeroDivisionError):
            held.get("x", lambda: 1 // 0)
        assert held.get("x", lambda: 5) == 5

    def test_all_of_it_is_forgotten(self) -> None:
        one, other = Held(1), Held(2)
        one.get("x", lambda: 1)
        other.get("y", lambda: 2)
        forget()
        assert (one.get("x", lambda: 3), other.get("y", lambda: 4)) == (3, 4)

    def test_under_another_name(self) -> None:
        held = Held(1)
        held.get("deep", lambda: [1, 2])
        held.rename("deep", "cut")
        assert held.get("cut", lambda: pytest.fail("made again")) == [1, 2]

    def test_two_threads_make_it_once(self) -> None:
        held, made = Held(1), []

        def make() -> int:
            time.sleep(0.02)
            made.append(1)
            return 1

        threads = [threading.Thread(target=held.get, args=("x", make)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [1]


def test_a_token_that_pruning_took_is_made_again() -> None:
    """A run of days must not end because its token looks left behind by a kill."""
    home = Home.here()
    Path(home.token).unlink()
    with pytest.raises(UserError, match="does not see the cache"):
        home.enter()
    home.keep()
    home.enter()
    os.utime(home.token, (0, 0))
    home.keep()
    assert Path(home.token).stat().st_mtime > 1e9
    home.leave()
    assert not Path(home.token).exists()
