"""Progress of work that takes longer than two seconds: bars on a terminal, plain lines in a log, or nothing.

A step calls `track(...)`. The command line chooses the form once, with `set_mode`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Mode = Literal["auto", "bar", "log", "quiet"]
Advance = Callable[..., None]

_mode: Mode = "auto"
_said: list[str] | None = None  # see `collected`
_bars: list[str] = []  # labels of the work being reported, outermost first
_QUIET_START_S = 2.0  # work shorter than this shows nothing
_LOG_EVERY_S = 15.0


def set_mode(mode: Mode) -> None:
    """Choose how progress is shown: `auto` is bars on a terminal and plain lines otherwise."""
    global _mode
    _mode = mode


def _resolved() -> Mode:
    if _mode != "auto":
        return _mode
    return "bar" if sys.stderr.isatty() else "log"


@contextmanager
def collected() -> Iterator[list[str]]:
    """Inside this context nothing is shown; yields the list of what is said instead, for another process to say."""
    global _said, _mode
    before, _said, mode, _mode = _said, [], _mode, "quiet"
    try:
        yield _said
    finally:
        _said, _mode = before, mode


class Warned(str):
    """A message that is printed in every mode, also when another process collected it."""


def say(message: str) -> None:
    """Print one line on stderr, unless the mode is quiet."""
    if _said is not None:
        _said.append(message)
        return
    if _resolved() == "quiet" and not isinstance(message, Warned):
        return
    print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print a warning on stderr, in every mode: what a result may be wrong by is never swallowed."""
    say(Warned(f"warning: {message}"))


@contextmanager
def track(label: str, total: int, unit: str = "tokens") -> Iterator[Advance]:
    """Report progress over `total` units; yields `advance(n=1, note="")`."""
    mode = _resolved()
    if _bars:
        # Nested work: only the outer bar is shown.
        yield _say_nothing
        return
    if mode == "bar":
        with _rich_bar(label, total, unit) as advance:
            yield advance
        return
    state = _PlainLog(label, total, unit, enabled=mode == "log")
    _bars.append(label)
    try:
        yield state.advance
    finally:
        _bars.pop()
    state.finish()


class _PlainLog:
    def __init__(self, label: str, total: int, unit: str, enabled: bool) -> None:
        self.label, self.total, self.unit, self.enabled = label, total, unit, enabled
        self.done = 0
        self.note = ""
        self.start = time.monotonic()
        self.next_line = self.start + _QUIET_START_S

    def advance(self, n: int = 1, note: str = "") -> None:
        self.done += n
        self.note = note or self.note
        now = time.monotonic()
        if self.enabled and now >= self.next_line:
            self._line(now, f"{self.done / max(self.total, 1):4.0%}")
            self.next_line = now + _LOG_EVERY_S

    def finish(self) -> None:
        now = time.monotonic()
        if self.enabled and now - self.start >= _QUIET_START_S:
            self._line(now, "done")

    def _line(self, now: float, where: str) -> None:
        seconds = max(now - self.start, 1e-9)
        rate = self.done / seconds
        left = (self.total - self.done) / rate if rate > 0 and where != "done" else 0.0
        tail = f", {_clock(left)} left" if where != "done" else f" in {_clock(seconds)}"
        note = f"  {self.note}" if self.note else ""
        print(f"{self.label}: {where}  {_rate(rate)} {self.unit}/s{tail}{note}", file=sys.stderr, flush=True)


@contextmanager
def _rich_bar(label: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            rate = task.finished_speed or task.speed or 0.0
            return Text(f"{_rate(rate)} {unit}/s", style="cyan")

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f}%"),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=False) as bar:
        # The bar is hidden for the first two seconds, so that short work shows none.
        task = bar.add_task(label, total=total, note="", visible=False)

        def advance(n: int = 1, note: str = "") -> None:
            bar.update(task, advance=n, visible=time.monotonic() - start >= _QUIET_START_S)
            if note:
                bar.update(task, note=note)

        _bars.append(label)
        try:
            yield advance
        finally:
            _bars.pop()


def _say_nothing(n: int = 1, note: str = "") -> None:
    pass


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 10 else f"{per_second:.1f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
