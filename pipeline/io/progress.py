"""Progress on standard error: a bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

#: Seconds between two progress lines in a log.
LOG_EVERY = 30.0


def duration(seconds: float) -> str:
    """Format seconds for people: `8 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def durations(seconds: Iterable[float]) -> str:
    """Format the range of some seconds for people: `8 s to 1 min 05 s`, or `8 s` where all are the same."""
    seconds = sorted(seconds)
    least, most = duration(seconds[0]), duration(seconds[-1])
    return least if least == most else f"{least} to {most}"


def clock() -> str:
    """Return the time of day that log lines begin with."""
    return time.strftime("%H:%M:%S")


class Reporter:
    """Progress on standard error: a bar on a terminal, plain lines in a log, nothing when `quiet`."""

    def __init__(self, stderr: TextIO, *, quiet: bool) -> None:
        self._stderr, self._quiet = stderr, quiet
        self._bar: Bar | None = None
        self._task: Any = None

    def _start(self, bar: Bar, description: str, total: float, **fields: Any) -> Bar:
        self._bar, self._task = bar, bar.add_task(description, total=total, **fields)
        bar.start()
        return bar

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class ReadingReporter(Reporter):
    """Progress of reading a file."""

    def __init__(self, stderr: TextIO, *, quiet: bool, verb: str = "importing") -> None:
        super().__init__(stderr, quiet=quiet)
        self._verb = verb
        self._begun = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes, rows or files have been read."""
        if self._quiet or not total:
            return
        share, now = min(done / total, 1.0), time.monotonic()
        if self._stderr.isatty():
            bar = self._bar or self._start(progress_bar(self._stderr, TaskProgressColumn()), self._verb, 1.0)
            bar.update(self._task, completed=share)
        elif share and now - self._last >= LOG_EVERY:
            self._last = now
            left = (now - self._begun) * (1 - share) / share
            print(f"{self._verb}: {share:.0%}, {duration(left)} left", file=self._stderr, flush=True)


def progress_bar(stderr: TextIO, *columns: ProgressColumn) -> Bar:
    """Return a bar with `columns` next to it that disappears when it is done."""
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(file=stderr),
        transient=True,
    )


@contextmanager
def status(stderr: TextIO, text: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on a terminal what is in progress, unless `quiet`."""
    if quiet or not stderr.isatty():
        yield
        return
    with Console(file=stderr).status(text):
        yield
