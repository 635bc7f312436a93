"""Progress of a precomputation on standard error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import MofNCompleteColumn, TextColumn

from hnas.pipeline.io.progress import LOG_EVERY, Reporter, clock, duration, progress_bar

if TYPE_CHECKING:
    from hnas.pipeline.precompute.driver import Progress


class PrecomputeReporter(Reporter):
    """Progress of a precomputation."""

    _last = -LOG_EVERY
    _begun = False
    _lost = 0

    def __call__(self, progress: Progress) -> None:
        """Show the progress."""
        if self._quiet:
            return
        if self._stderr.isatty():
            self._draw(progress)
        else:
            self._log(progress)

    def _news(self, progress: Progress) -> list[str]:
        """Return lines about events since the last call, other than finished rows."""
        lines = []
        if progress.already and not self._begun:
            rows = progress.already + progress.total
            lines.append(f"{progress.already:,} of {rows:,} rows were already there")
        self._begun = True
        lines += [f"lost the worker {lost}: its chunk will be repeated" for lost in progress.lost[self._lost :]]
        self._lost = len(progress.lost)
        return lines

    def _log(self, progress: Progress) -> None:
        for line in self._news(progress):
            print(f"{clock()} {line}", file=self._stderr, flush=True)
        if progress.done == progress.total or time.monotonic() - self._last >= LOG_EVERY:
            self._last = time.monotonic()
            left = f", {duration(progress.left)} left" if progress.left is not None else ""
            rate = f", {progress.rate:.2f}/s" if progress.done else ""
            line = f"{clock()} {progress.done}/{progress.total} architectures{rate}{left}"
            print(line, file=self._stderr, flush=True)

    def _draw(self, progress: Progress) -> None:
        columns = (MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
        bar = self._bar or self._start(progress_bar(self._stderr, *columns), "metrics", progress.total, rate="")
        for line in self._news(progress):
            # Printed above the bar, where it stays visible.
            bar.console.print(line, highlight=False, markup=False)
        rate = f"{progress.rate:.2f}/s" if progress.done else "starting workers"
        bar.update(self._task, completed=progress.done, rate=rate)
