"""Progress: silent when quiet or short, plain lines with rate and time left in a log, bars on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from unifeat import progress
from unifeat.progress import collected, say, set_mode, track, warn


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def work(clock: Clock, seconds: float, steps: int, total: int = 1000) -> None:
    with track("encoding", total) as advance:
        for _ in range(steps):
            clock.now += seconds / steps
            advance(total // steps, note="FVU 0.2")


def test_quiet_prints_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("quiet")
    say("news")
    work(clock, 100, 10)
    assert capfd.readouterr() == ("", "")


def test_warnings_are_never_swallowed(capfd: pytest.CaptureFixture[str]):
    """Nor those that another process collected and hands on."""
    set_mode("quiet")
    warn("this is one layer off")
    with collected() as said:
        warn("of another process")
        say("news")
    for message in said:
        say(message)
    assert capfd.readouterr() == ("", "warning: this is one layer off\nwarning: of another process\n")


def test_short_work_prints_nothing(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("log")
    work(clock, 1.9, 10)
    assert capfd.readouterr() == ("", "")


def test_a_log_has_rate_and_time_left(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("log")
    work(clock, 50, 50, total=100_000)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "encoding:   4%  2,000 tokens/s, 0:48 left  FVU 0.2",
        "encoding:  34%  2,000 tokens/s, 0:33 left  FVU 0.2",
        "encoding:  64%  2,000 tokens/s, 0:18 left  FVU 0.2",
        "encoding:  94%  2,000 tokens/s, 0:03 left  FVU 0.2",
        "encoding: done  2,000 tokens/s in 0:50  FVU 0.2",
    ]


def test_long_and_slow_work(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("log")
    with track("scoring", 10, unit="cells") as advance:
        clock.now += 1000
        advance()
    assert capfd.readouterr().err.splitlines()[0] == "scoring:  10%  0.0 cells/s, 2:30:00 left"


def test_work_that_has_not_begun_has_no_time_left(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("log")
    with track("encoding", 0) as advance:
        clock.now += 3
        advance(0)
    assert "encoding:   0%  0.0 tokens/s, 0:00 left" in capfd.readouterr().err


def test_a_failure_is_not_called_done(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("log")

    def fail() -> None:
        clock.now += 30
        raise KeyError

    with pytest.raises(KeyError), track("encoding", 10):
        fail()
    assert "done" not in capfd.readouterr().err


def test_news_go_to_stderr(capfd: pytest.CaptureFixture[str]):
    set_mode("log")
    say("converting")
    assert capfd.readouterr() == ("", "converting\n")


def test_auto_is_a_log_without_a_terminal(clock: Clock, capfd: pytest.CaptureFixture[str]):
    set_mode("auto")
    work(clock, 3, 3)
    err = capfd.readouterr().err
    assert err.splitlines()[-1].startswith("encoding: done")
    assert "\x1b" not in err


class Terminal(io.StringIO):
    """A stderr that is a terminal. Put in place by the test itself: pytest puts its own there after the fixtures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, patience: float = 0.0) -> None:
        super().__init__()
        monkeypatch.setattr(sys, "stderr", self)
        monkeypatch.setattr(progress, "_QUIET_START_S", patience)
        monkeypatch.setenv("TERM", "xterm")
        for name in ("NO_COLOR", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        set_mode("auto")

    def isatty(self) -> bool:
        return True


class TestBar:
    def test_shows_rate_note_and_time_left(self, monkeypatch: pytest.MonkeyPatch):
        terminal = Terminal(monkeypatch)
        with track("encoding", 4) as advance:
            for _ in range(4):
                advance(note="FVU 0.2")
        shown = terminal.getvalue()
        for word in ("encoding", "100%", "tokens/s", "FVU 0.2", "0:00:00"):
            assert word in shown

    def test_of_short_work_is_not_seen(self, monkeypatch: pytest.MonkeyPatch):
        terminal = Terminal(monkeypatch, patience=60.0)
        with track("encoding", 4) as advance:
            advance(4, note="FVU 0.2")
        assert "encoding" not in terminal.getvalue()

    def test_inside_a_bar_is_not_shown(self, monkeypatch: pytest.MonkeyPatch):
        terminal = Terminal(monkeypatch)
        with track("outer", 2) as outer:
            with track("inner", 2) as inner:
                inner(2)
            outer(2)
        assert "inner" not in terminal.getvalue()
        with track("after", 1) as advance:
            advance()
        assert "after" in terminal.getvalue()

    def test_ends_with_a_failure(self, monkeypatch: pytest.MonkeyPatch):
        terminal = Terminal(monkeypatch)
        with pytest.raises(KeyError), track("first", 1):
            raise KeyError
        with track("second", 1) as advance:
            advance()
        assert "second" in terminal.getvalue()
