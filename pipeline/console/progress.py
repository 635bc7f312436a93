"""Progress on standard error: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    # Loads torch, which many commands never need.
    from hnas.pipeline.precompute.driver import Progress

# Seconds between two lines of progress in a log, and in that of trainings, of which the shortest take seconds.
_LOG_EVERY, _TRAINING_LOG_EVERY = 30.0, 10.0


def duration(seconds: float) -> str:
    """`8 s`, `3 min 20 s`, `1 h 05 min`: seconds for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def clock() -> str:
    """The time of day, as lines of a log begin."""
    return time.strftime("%H:%M:%S")


class _Reporter:
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
        """Take the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Reporter(_Reporter):
    """Progress of a precomputation."""

    _last = -_LOG_EVERY
    _begun = False
    _lost = 0
    #: Rows that this command computed.
    computed = 0

    def __call__(self, progress: Progress) -> None:
        """Show how far the work is."""
        self.computed = progress.computed
        if self._quiet:
            return
        if self._stderr.isatty():
            self._draw(progress)
        else:
            self._log(progress)

    def _news(self, progress: Progress) -> list[str]:
        """Lines for what has happened since the last call beside the rows."""
        lines = []
        if progress.already and not self._begun:
            rows = progress.already + progress.total
            lines.append(f"{progress.already:,} of {rows:,} rows were there already")
        self._begun = True
        lines += [f"lost the worker {lost}: what it was at is done again" for lost in progress.lost[self._lost :]]
        self._lost = len(progress.lost)
        return lines

    def _log(self, progress: Progress) -> None:
        for line in self._news(progress):
            print(f"{clock()} {line}", file=self._stderr, flush=True)
        if progress.done == progress.total or time.monotonic() - self._last >= _LOG_EVERY:
            self._last = time.monotonic()
            left = f", {duration(progress.left)} left" if progress.left is not None else ""
            rate = f", {progress.rate:.2f}/s" if progress.done else ""
            line = f"{clock()} {progress.done}/{progress.total} architectures{rate}{left}"
            print(line, file=self._stderr, flush=True)

    def _draw(self, progress: Progress) -> None:
        columns = (MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        bar = self._bar or self._start(_bar(self._stderr, *columns), "metrics", progress.total, rate="")
        for line in self._news(progress):
            # Above the bar, where it stays.
            bar.console.print(line, highlight=False, markup=False)
        rate = f"{progress.rate:.2f}/s" if progress.done else "starting workers"
        bar.update(self._task, completed=progress.done, rate=rate)


class ReadingReporter(_Reporter):
    """Progress through a file."""

    def __init__(self, stderr: TextIO, *, quiet: bool, verb: str = "importing") -> None:
        super().__init__(stderr, quiet=quiet)
        self._verb = verb
        self._begun = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes, rows or files are read."""
        if self._quiet or not total:
            return
        share, now = min(done / total, 1.0), time.monotonic()
        if self._stderr.isatty():
            bar = self._bar or self._start(_bar(self._stderr, TaskProgressColumn()), self._verb, 1.0)
            bar.update(self._task, completed=share)
        elif share and now - self._last >= _LOG_EVERY:
            self._last = now
            left = (now - self._begun) * (1 - share) / share
            print(f"{self._verb}: {share:.0%}, {duration(left)} left", file=self._stderr, flush=True)


def _bar(stderr: TextIO, *columns: ProgressColumn) -> Bar:
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(file=stderr),
        transient=True,
    )


class TrainingBar:
    """Progress of trainings of `epochs` epochs: a bar for each on a terminal, a line now and then in a log."""

    def __init__(self, stderr: TextIO, *, quiet: bool, epochs: int) -> None:
        self._stderr, self._quiet, self._epochs = stderr, quiet, epochs
        self._last = time.monotonic()

    def __call__(self, arch: str) -> Any:
        """The callback for the training of `arch`, or None where nothing is to be shown."""
        if self._quiet:
            return None
        return self._drawing() if self._stderr.isatty() else self._logging()

    def _drawing(self) -> Any:
        bar = _bar(self._stderr, MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
        task: Any = None

        def advance(done: int, total: int, loss: float) -> None:
            nonlocal task
            if task is None:
                bar.start()
                task = bar.add_task("training", total=total, loss="")
            bar.update(task, completed=done, loss=f"loss {loss:.3f}")
            if done >= total:
                bar.stop()

        return advance

    def _logging(self) -> Any:
        begun = time.monotonic()

        def advance(done: int, total: int, loss: float) -> None:
            now = time.monotonic()
            if now - self._last < _TRAINING_LOG_EVERY:
                return
            self._last = now
            epoch = (done - 1) * self._epochs // total + 1
            left = duration((now - begun) * (total - done) / done)
            line = f"{clock()} epoch {epoch} of {self._epochs}, loss {loss:.3f}, {left} left"
            print(line, file=self._stderr, flush=True)

        return advance


@contextmanager
def status(stderr: TextIO, text: str) -> Iterator[None]:
    """Say on a terminal what is being worked on, for as long as it takes."""
    if not stderr.isatty():
        yield
        return
    with Console(file=stderr).status(text):
        yield
