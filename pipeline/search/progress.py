"""Progress of trainings on standard error."""

from __future__ import annotations

import time
from typing import Any, TextIO

from rich.progress import MofNCompleteColumn, TextColumn

from hnas.pipeline.io.progress import clock, duration, progress_bar

# Seconds between two lines in a log: the shortest trainings take seconds.
_LOG_EVERY = 10.0


class TrainingBar:
    """Progress of trainings: a bar for each on a terminal, a line now and then in a log."""

    def __init__(self, stderr: TextIO, *, quiet: bool) -> None:
        self._stderr, self._quiet = stderr, quiet
        self._last = time.monotonic()

    def __call__(self, epochs: int) -> Any:
        """The callback for a training of `epochs` epochs, or None where nothing is to be shown."""
        if self._quiet:
            return None
        return self._drawing() if self._stderr.isatty() else self._logging(epochs)

    def _drawing(self) -> Any:
        bar = progress_bar(self._stderr, MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
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

    def _logging(self, epochs: int) -> Any:
        begun = time.monotonic()
        before: int | None = None  # of a stopped training that goes on: what was done took none of this time
        last = 0

        def advance(done: int, total: int, loss: float) -> None:
            nonlocal before, last
            before = done - 1 if before is None else before
            doing = "measuring the accuracy" if done == last else f"loss {loss:.3f}"
            last = done
            now = time.monotonic()
            if now - self._last < _LOG_EVERY:
                return
            self._last = now
            epoch = (done - 1) * epochs // total + 1
            left = duration((now - begun) * (total - done) / (done - before))
            line = f"{clock()} epoch {epoch} of {epochs}, {doing}, {left} left"
            print(line, file=self._stderr, flush=True)

        return advance
