"""Chunk sizes: a number of networks chosen by the user, or about a minute of one worker's time.

The speed is learnt from finished chunks. If the last chunks had relative network costs c and took s seconds, one second
handles the cost r = Σc / Σs, and the next chunk satisfies

    c ≤ min(60 r, remaining cost / (4 · workers)),    networks ≤ 4 · the largest chunk measured so far

The first term governs most of the run. The second makes chunks smaller toward the end, so that all workers finish
together. The last bound limits the effect of one odd network: the first chunks hold one network each.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

#: Target duration of a chunk, in seconds of one worker's time.
CHUNK_SECONDS = 60.0
_MOST = 4096
_GROWTH = 4
_SHARES = 4
_REMEMBERED = 8
# Tiny chunks are combined into one task of about this many seconds, because Dask needs some 4 ms per task.
_TASK_SECONDS = 0.25
_MOST_IN_TASK = 64
# Seconds of queued work per worker, so that none idles between two tasks.
_QUEUED_SECONDS = 2.0
_MOST_QUEUED = 8


@dataclass(frozen=True)
class Budget:
    """Limits of the next chunk: networks and summed cost. Above `block` networks it consists of whole blocks."""

    networks: int
    cost: float
    block: int = 1


class ChunkSizes:
    """The chunk sizes of one command: `fixed` networks, or sizes learnt from measurements in whole `block`s."""

    def __init__(self, fixed: int | None, block: int) -> None:
        self._fixed, self._block = fixed, block
        self._measured: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._largest = 0

    def learn(self, networks: int, cost: float, seconds: float) -> None:
        """Record that a chunk of `networks` with that summed cost took one worker so many seconds."""
        if seconds > 0:
            self._largest = max(self._largest, networks)
            self._measured.append((cost, seconds))

    def budget(self, remaining: float, workers: int) -> Budget:
        """Return the limits of the next chunk, given the `remaining` cost and the `workers` that share it."""
        if self._fixed is not None:
            return Budget(self._fixed, math.inf)
        if not self._measured:
            return Budget(1, math.inf)
        rate = sum(cost for cost, _ in self._measured) / sum(seconds for _, seconds in self._measured)
        cost = min(CHUNK_SECONDS * rate, remaining / (_SHARES * workers))
        return Budget(min(_GROWTH * self._largest, _MOST), cost, self._block)

    @property
    def together(self) -> int:
        """The number of chunks in a task: one, unless chunks are tiny."""
        return max(1, min(_MOST_IN_TASK, math.floor(_TASK_SECONDS / self._seconds))) if self._measured else 1

    def in_flight(self, workers: int) -> int:
        """Return the number of tasks to have in flight: one per worker, plus a queue that keeps workers busy.

        At least one more than there are workers, so that a worker that joins finds a task.
        """
        queued = min(_QUEUED_SECONDS / (self._seconds * self.together), _MOST_QUEUED) if self._measured else 0
        return workers + max(1, math.floor(workers * queued))

    @property
    def _seconds(self) -> float:
        return sum(seconds for _, seconds in self._measured) / len(self._measured)
