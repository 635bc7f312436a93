"""How much work a chunk is: a number of networks that the user gave, or about a minute of a worker's time.

Time is learnt from the chunks that finish. With relative costs c of networks and the seconds s that the last chunks
took, a second does r = Σc / Σs, and a chunk is

    c ≤ min(60 r, remaining cost / (4 · workers)),    networks ≤ 4 · the largest chunk measured so far

The first term is for the run's middle, the second makes chunks smaller toward the end, so that all workers finish
together, and the third keeps one odd network from misleading: the first chunks are one network each.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

#: Seconds of one worker's time that a chunk is meant to take.
CHUNK_SECONDS = 60.0
_MOST = 4096
_GROWTH = 4
_SHARES = 4
_REMEMBERED = 8
# Tiny chunks are handed out several at a time, as one task of so many seconds: Dask takes some 4 ms for each task.
_TASK_SECONDS = 0.25
_MOST_IN_TASK = 64
# Seconds of work that wait for each worker, so that none idles between two tasks.
_QUEUED_SECONDS = 2.0
_MOST_QUEUED = 8


@dataclass(frozen=True)
class Budget:
    """What the next chunk may take: networks, and their cost. Above `block` networks it takes whole blocks."""

    networks: int
    cost: float
    block: int = 1


class ChunkSizes:
    """The sizes of the chunks of one command: `fixed` networks, or measured ones, in whole `block`s."""

    def __init__(self, fixed: int | None, block: int) -> None:
        self._fixed, self._block = fixed, block
        self._measured: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._largest = 0

    def learn(self, networks: int, cost: float, seconds: float) -> None:
        """A chunk of `networks` with that summed cost took a worker so many seconds."""
        if seconds > 0:
            self._largest = max(self._largest, networks)
            self._measured.append((cost, seconds))

    def budget(self, remaining: float, workers: int) -> Budget:
        """What the next chunk may take of the `remaining` cost, where `workers` share it."""
        if self._fixed is not None:
            return Budget(self._fixed, math.inf)
        if not self._measured:
            return Budget(1, math.inf)
        rate = sum(cost for cost, _ in self._measured) / sum(seconds for _, seconds in self._measured)
        cost = min(CHUNK_SECONDS * rate, remaining / (_SHARES * workers))
        return Budget(min(_GROWTH * self._largest, _MOST), cost, self._block)

    @property
    def together(self) -> int:
        """The number of chunks that make a task: one, unless they are tiny."""
        return max(1, min(_MOST_IN_TASK, math.floor(_TASK_SECONDS / self._seconds))) if self._measured else 1

    def in_flight(self, workers: int) -> int:
        """The number of tasks that are handed out at a time: one each, and what keeps workers from idling between.

        One more than there are workers at least, which a worker that joins finds waiting.
        """
        queued = min(_QUEUED_SECONDS / (self._seconds * self.together), _MOST_QUEUED) if self._measured else 0
        return workers + max(1, math.floor(workers * queued))

    @property
    def _seconds(self) -> float:
        return sum(seconds for _, seconds in self._measured) / len(self._measured)
