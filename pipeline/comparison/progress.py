"""Progress of a comparison on standard error."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import MofNCompleteColumn

from hnas.pipeline.io.progress import LOG_EVERY, Reporter, clock, duration, progress_bar

if TYPE_CHECKING:
    from hnas.pipeline.comparison.driver import Progress


class CompareReporter(Reporter):
    """Progress of a comparison: searches done, and the time left."""

    _last = -LOG_EVERY
    _lost = 0

    def __call__(self, progress: Progress) -> None:
        """Show the progress of the comparison."""
        if self._quiet:
            return
        lines = [f"lost the worker {lost}: its searches will be repeated" for lost in progress.lost[self._lost :]]
        self._lost = len(progress.lost)
        if self._stderr.isatty():
            bar = self._bar or self._start(
                progress_bar(self._stderr, MofNCompleteColumn()), "searches", progress.total, completed=progress.already
            )
            for line in lines:
                bar.console.print(line, highlight=False, markup=False)
            bar.update(self._task, completed=progress.done)
            return
        now = time.monotonic()
        if now - self._last >= LOG_EVERY:
            self._last = now
            left = f", {duration(progress.left)} left" if progress.left is not None else ""
            lines.append(f"{progress.done}/{progress.total} searches{left}")
        for line in lines:
            print(f"{clock()} {line}", file=self._stderr, flush=True)
