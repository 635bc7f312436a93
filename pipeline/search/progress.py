"""Progress of trainings on standard error."""

from __future__ import annotations

import math
import threading
import time
from typing import Any, TextIO

from rich.markup import escape
from rich.progress import MofNCompleteColumn, TextColumn

from hnas.pipeline.io.progress import clock, duration, progress_bar
from hnas.pipeline.io.terminal_tables import cut

# Seconds between two log lines; the shortest trainings take seconds.
_LOG_EVERY = 10.0


# Characters of an architecture's name next to its training.
_NAME = 40


class TrainingBar:
    """Progress of trainings: one bar each on a terminal, or occasional log lines with all running trainings."""

    def __init__(self, stderr: TextIO, *, quiet: bool) -> None:
        self._stderr, self._quiet = stderr, quiet
        self._last = time.monotonic()
        self._lock = threading.Lock()
        self._side_by_side: dict[str, _Training] = {}
        self._bars: Any = None

    def show(self, message: dict[str, Any]) -> None:
        """Show the report of one of several trainings; see `hnas.pipeline.search.workers.Cluster`. Thread-safe."""
        if self._quiet:
            return
        with self._lock:
            training = self._side_by_side.setdefault(message["arch"], _Training(time.monotonic(), message["done"]))
            training.message = message
            if self._stderr.isatty():
                self._draw(training)
            elif (now := time.monotonic()) - self._last >= _LOG_EVERY:
                self._last = now
                lines = "; ".join(one.line(now) for one in self._side_by_side.values())
                print(f"{clock()} {lines}", file=self._stderr, flush=True)

    def evaluated(self, arch: str) -> None:
        """Remove the training of `arch`, and all bars, before a line is printed."""
        with self._lock:
            self._side_by_side.pop(arch, None)
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
                for training in self._side_by_side.values():
                    training.task = None

    def _draw(self, training: _Training) -> None:
        if self._bars is None:
            self._bars = progress_bar(self._stderr, MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
            self._bars.start()
        message = training.message
        if training.task is None:
            training.task = self._bars.add_task(escape(cut(message["arch"], _NAME)), total=message["total"], loss="")
        self._bars.update(training.task, completed=message["done"], loss=f"loss {message['loss']:.3f}")

    def __call__(self, epochs: int) -> Any:
        """Return the callback for a training of `epochs` epochs, or None if nothing is to be shown."""
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
            bar.update(task, completed=done, loss="" if math.isnan(loss) else f"loss {loss:.3f}")
            if done >= total:
                bar.stop()

        return advance

    def _logging(self, epochs: int) -> Any:
        begun = time.monotonic()
        before: int | None = None  # steps done before a training was resumed, which took none of this time
        last = 0

        def advance(done: int, total: int, loss: float) -> None:
            nonlocal before, last
            before = done - 1 if before is None else before
            doing = "measuring the accuracy" if done == last else f"loss {loss:.3f}"
            doing = "" if math.isnan(loss) else f", {doing}"
            last = done
            now = time.monotonic()
            if now - self._last < _LOG_EVERY:
                return
            self._last = now
            epoch = (done - 1) * epochs // total + 1
            left = duration((now - begun) * (total - done) / (done - before))
            line = f"{clock()} epoch {epoch} of {epochs}{doing}, {left} left"
            print(line, file=self._stderr, flush=True)

        return advance


class _Training:
    """A training in another process, first reported at the time `begun`, when `before` steps were done."""

    def __init__(self, begun: float, before: int) -> None:
        self._begun, self._before = begun, before
        self.message: dict[str, Any] = {}
        self.task: Any = None

    def line(self, now: float) -> str:
        """Return its progress for a log."""
        done, total, epochs = (self.message[name] for name in ("done", "total", "epochs"))
        made = done - self._before
        left = f", {duration((now - self._begun) * (total - done) / made)} left" if made else ""
        epoch = (done - 1) * epochs // total + 1
        return f"{cut(self.message['arch'], _NAME)} epoch {epoch} of {epochs}, loss {self.message['loss']:.3f}{left}"
