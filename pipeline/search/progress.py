"""Progress of trainings on standard error."""

from __future__ import annotations

import time
from typing import Any, TextIO

from rich.progress import MofNCompleteColumn, TextColumn

from hnas.pipeline.io.progress import clock, duration, progress_bar

# Seconds between two lines in a log: the shortest trainings take seconds.
_LOG_EVERY = 10.0


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

    def _logging(self) -> Any:
        begun = time.monotonic()

        def advance(done: int, total: int, loss: float) -> None:
            now = time.monotonic()
            if now - self._last < _LOG_EVERY:
                return
            self._last = now
            epoch = (done - 1) * self._epochs // total + 1
            left = duration((now - begun) * (total - done) / done)
            line = f"{clock()} epoch {epoch} of {self._epochs}, loss {loss:.3f}, {left} left"
            print(line, file=self._stderr, flush=True)

        return advance
