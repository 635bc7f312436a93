"""The work of one `precompute` that is still to be claimed, in one run that several commands may fill at once.

Every claim is made under the run's lock after reading what the others claimed since the last one, so its cost does not
grow with the run. A command that ended, or whose process died, holds no claim: what it had not stored is free again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum

from hnas.errors import HnasError
from hnas.pipeline.precompute.chunking import Budget
from hnas.pipeline.precompute.plan import Plan
from hnas.pipeline.precompute.worker import Chunk
from hnas.pipeline.store.claim_log import Drivers, Log, logged
from hnas.pipeline.store.ntk_arrays import Blocks
from hnas.pipeline.store.run import Part, Run

# Blocks that `ntk.zarr` gets at a time: making it longer rewrites its metadata, not its content.
_ROOM = 64


class _State(IntEnum):
    FREE, HELD, DONE = range(3)


class Claims:
    """The classes of `plan.todo`, each free, held by a command, or done; the most expensive free ones go first.

    `computed` counts the rows of this command's chunks, `elsewhere` those of `plan.todo` that other commands stored,
    `free_cost` is the summed cost of what is free, `commands` the number of commands that live.
    """

    def __init__(self, run: Run, plan: Plan, costs: Mapping[str, float], *, keep_gram: bool) -> None:
        self.computed = self.elsewhere = 0
        self.free_cost = 0.0
        self.commands = 1
        self._plan, self._keep_gram = plan, keep_gram
        self._run = run
        self._drivers = Drivers(run)
        self._arrays = run.ntk
        self._todo = sorted(plan.todo, key=lambda member: -costs.get(member[0], 1.0))
        self._costs = [costs.get(canonical, 1.0) for canonical, _ in self._todo]
        self._index = {canonical: index for index, (canonical, _) in enumerate(self._todo)}
        self._states = bytearray(len(self._todo))
        self._heap: list[int] = []
        self._held = 0
        self._mine: dict[str, Chunk] = {}
        self._mine_held = 0
        self._logs: dict[str, Log] = {}
        self._ended: set[str] = set()
        self._end = self._room = 0
        self._joined = False

    # --- beginning and end

    def join(self) -> None:
        """Take part in the run, beside the commands that are at it."""
        stored = self._run.stored(self._plan.stored, logged)  # most of it without keeping others waiting
        with self._run.locked():
            self._drivers.join()
            stored = self._run.stored(stored, logged)
            self._block = self._prepare(0)
            self._blocks = Blocks(stored.rows, self._block)
            self._end = max(stored.rows, default=-1) + 1
            for index, (canonical, _) in enumerate(self._todo):
                if canonical in stored.classes:
                    self._states[index] = _State.DONE
                    self.elsewhere += 1
                else:
                    self.free_cost += self._costs[index]
                    self._heap.append(index)
            # What the ended ones claimed is stored, or free again.
            self._ended = set(self._drivers.others()[1])
            self._joined = True
            self._refresh()

    def leave(self, *, clean: bool) -> None:
        """Give up what is not stored. The last command of a run drops unused rows and, if all went well, the logs."""
        with self._run.locked():
            if stands := self._joined and self._drivers.stands():
                for chunk in list(self._mine.values()):
                    if self._run.has_part(chunk.part):
                        self._finished(chunk)
                self._refresh()
            self._drivers.leave()
            if clean and stands and self.commands == 1:
                self._arrays.trim(self._end)
                self._drivers.forget()

    # --- chunks

    @property
    def token(self) -> str:
        """What names this command to its workers."""
        return self._drivers.token

    @property
    def block(self) -> int:
        """The rows of a block of `ntk.zarr`."""
        return self._block

    @property
    def waiting(self) -> bool:
        """Whether classes of the plan are held by other commands."""
        return self._held > self._mine_held

    def claim(self, budget: Budget, count: int = 1) -> list[Chunk]:
        """Claim up to `count` chunks, each within the budget, but one network at least; none where nothing is free.

        Raises `HnasError` where another command took this one for dead, or began on an object store.
        """
        with self._run.locked():
            if not self._drivers.stands():
                raise HnasError(
                    f"another precompute took run {self._run.name} in {self._run.store.location} over; on an object "
                    "store one works on a run at a time, elsewhere the file system must support locks"
                )
            self._refresh()
            chunks: list[Chunk] = []
            while len(chunks) < count and (taken := self._take(budget)):
                members = tuple(self._todo[index] for index in taken)
                chunks.append(Chunk(members, self._blocks.take(len(members))))
            if chunks:
                self._drivers.claim([_claim_of(chunk) for chunk in chunks])
                self._mine_held += sum(len(chunk.members) for chunk in chunks)
                self._mine |= {chunk.part: chunk for chunk in chunks}
                self._make_room(max(chunk.ntk_row + len(chunk.members) for chunk in chunks))
            return chunks

    def done(self, chunks: list[Chunk]) -> None:
        """The chunks are stored."""
        for chunk in chunks:
            self._finished(chunk)
        self._drivers.done([chunk.part for chunk in chunks])

    def cost(self, chunk: Chunk) -> float:
        """The summed cost of a chunk."""
        return sum(self._costs[self._index[canonical]] for canonical, _ in chunk.members)

    def _take(self, budget: Budget) -> list[int]:
        taken: list[int] = []
        cost = 0.0
        while self._heap and len(taken) < budget.networks:
            index = self._heap[0]
            if self._states[index] != _State.FREE:
                heapq.heappop(self._heap)
                continue
            cost += self._costs[index]
            if taken and cost > budget.cost:
                break
            heapq.heappop(self._heap)
            self._hold(index)
            taken.append(index)
        surplus = len(taken) % budget.block if len(taken) > budget.block else 0
        for index in taken[len(taken) - surplus :]:
            self._release(index)
        return taken[: len(taken) - surplus]

    def _prepare(self, rows: int) -> int:
        plan = self._plan
        return self._arrays.prepare(plan.settings.batch_size, rows, block=plan.block, gram=self._keep_gram)

    def _make_room(self, rows: int) -> None:
        if rows > self._room:
            self._room = rows + _ROOM * self._block
            self._prepare(self._room)

    # --- states of the classes

    def _hold(self, index: int) -> None:
        self._states[index] = _State.HELD
        self._held += 1
        self.free_cost -= self._costs[index]

    def _release(self, index: int) -> None:
        self._states[index] = _State.FREE
        self._held -= 1
        self.free_cost += self._costs[index]
        heapq.heappush(self._heap, index)

    def _finish(self, index: int) -> bool:
        """Whether the class was not known to be done."""
        before = self._states[index]
        if before == _State.HELD:
            self._held -= 1
        elif before == _State.FREE:
            self.free_cost -= self._costs[index]
        self._states[index] = _State.DONE
        return before != _State.DONE

    def _finished(self, chunk: Chunk) -> None:
        del self._mine[chunk.part]
        self._mine_held -= len(chunk.members)
        for canonical, _ in chunk.members:
            self._finish(self._index[canonical])
        self.computed += len(chunk.members)
        self._end = max(self._end, chunk.ntk_row + len(chunk.members))

    # --- other commands

    def _refresh(self) -> None:
        """Learn what other commands claimed, stored, or left behind when they ended.

        Those that ended come first: what they held may be claimed by one that lives, never the other way round. Their
        blocks of `ntk.zarr` stay taken for as long as this command works.
        """
        living, ended = self._drivers.others()
        self.commands = 1 + len(living)
        for token in ended:
            if token not in self._ended:
                self._bury(token)
        for token in living:
            self._follow(token, ended=False)

    def _bury(self, token: str) -> None:
        """Take what a command that ended had stored for done, and free what else it held."""
        self._ended.add(token)
        for claim in self._follow(token, ended=True).open.values():
            if self._run.has_part(claim.name):
                self._done_elsewhere(claim)
                continue
            for index in self._indices(claim):
                if self._states[index] == _State.HELD:
                    self._release(index)
        del self._logs[token]

    def _follow(self, token: str, *, ended: bool) -> Log:
        log = self._logs.setdefault(token, Log())
        claimed, done = log.news(self._drivers.log_of(token, ended=ended))
        for claim in claimed:
            self._blocks.occupy(claim.row, len(claim.classes))
            for index in self._indices(claim):
                if self._states[index] == _State.FREE:
                    self._hold(index)
        for claim in done:
            self._done_elsewhere(claim)
        return log

    def _done_elsewhere(self, claim: Part) -> None:
        self.elsewhere += sum([self._finish(index) for index in self._indices(claim)])
        self._end = max(self._end, claim.row + len(claim.classes))

    def _indices(self, claim: Part) -> Iterator[int]:
        return (self._index[canonical] for canonical in claim.classes if canonical in self._index)


def _claim_of(chunk: Chunk) -> Part:
    return Part(chunk.part, chunk.ntk_row, tuple(canonical for canonical, _ in chunk.members))


@contextmanager
def joined(claims: Claims) -> Iterator[Claims]:
    """Join a run, and leave it at the end, whatever happens within."""
    try:
        claims.join()
        yield claims
    except BaseException:
        claims.leave(clean=False)
        raise
    claims.leave(clean=True)
