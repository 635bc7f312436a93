"""The work of one `precompute` that is still to be claimed, in one run that several commands may fill at once.

A class needs its metrics, and each of the scores that the command asks for; a chunk is classes that need the same.

Every claim is made under the run's lock after reading what the others claimed since the last one, so its cost does not
grow with the run. A command that ended, or whose process died, holds no claim: what it had not stored is free again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from hnas.errors import HnasError
from hnas.pipeline.precompute.chunking import Budget
from hnas.pipeline.precompute.plan import Plan
from hnas.pipeline.precompute.worker import Chunk
from hnas.pipeline.store.claim_log import Drivers, Log, logged
from hnas.pipeline.store.ntk_arrays import Blocks
from hnas.pipeline.store.run import Part, Run
from hnas.pipeline.store.scores import forget_scores, has_part, part_name, scored

# Blocks that `ntk.zarr` gets at a time: making it longer rewrites its metadata, not its content.
_ROOM = 64
# The bit of the metrics in what a class needs; the scores have the higher ones.
_METRICS = 1


class Claims:
    """What the classes of `plan.todo` need, each piece free, held by a command, or done; the most expensive go first.

    `computed` counts the classes that this command's chunks completed, `elsewhere` those of `plan.todo` that other
    commands did, `free_cost` is the summed cost of what is free, `commands` the number of commands that live.
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
        self._keys = tuple(score.key for score in plan.scores)
        self._bits = {key: _METRICS << i for i, key in enumerate(self._keys, start=1)}
        # By class, the pieces that it needs, and those of them that somebody holds.
        self._needs = [0] * len(self._todo)
        self._holds = [0] * len(self._todo)
        # By what is free of them, the classes; one that has changed since is taken out when it comes up.
        self._heaps: dict[int, list[int]] = {}
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
        having = scored(self._run, self._plan.scored)
        with self._run.locked():
            self._drivers.join()
            stored = self._run.stored(stored, logged)
            having = scored(self._run, having)
            self._block = self._prepare(0)
            self._blocks = Blocks(stored.rows, self._block)
            self._end = max(stored.rows, default=-1) + 1
            for index, (canonical, _) in enumerate(self._todo):
                needs = self._mask(having.lacking(self._keys, canonical))
                needs |= 0 if canonical in stored.classes else _METRICS
                self._change(index, needs, 0)
                self.elsewhere += not needs
            # What the ended ones claimed is stored, or free again.
            self._ended = set(self._drivers.others()[1])
            self._joined = True
            self._refresh()

    def leave(self, *, clean: bool, failed: bool = False) -> None:
        """Give up what is not stored. The last command of a run drops unused rows and, if all went well, the logs.

        Where it `failed` it takes back what was asked of scores that no class has: they may not be computable at all.
        """
        with self._run.locked():
            if stands := self._joined and self._drivers.stands():
                for chunk in list(self._mine.values()):
                    if self._stored(_claim_of(chunk)) == self._mask_of(_claim_of(chunk)):
                        self._finished(chunk)
                self._refresh()
            self._drivers.leave()
            if clean and stands and self.commands == 1:
                self._arrays.trim(self._end)
                self._drivers.forget()
            if failed and stands and self.commands == 1:
                forget_scores(self._run, self._keys)

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
        """Whether other commands hold what classes of the plan need."""
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
            while len(chunks) < count:
                taken, mask = self._take(budget)
                if not taken:
                    break
                members = tuple(self._todo[index] for index in taken)
                row = self._blocks.take(len(members)) if mask & _METRICS else -1
                chunks.append(Chunk(members, row, scores=tuple(key for key in self._keys if self._bits[key] & mask)))
            if chunks:
                self._drivers.claim([_claim_of(chunk) for chunk in chunks])
                self._mine_held += sum(map(self._pieces, chunks))
                self._mine |= {chunk.name: chunk for chunk in chunks}
                ends = [chunk.ntk_row + len(chunk.members) for chunk in chunks if chunk.ntk_row >= 0]
                self._make_room(max(ends, default=0))
            return chunks

    def done(self, chunks: list[Chunk]) -> None:
        """The chunks are stored."""
        for chunk in chunks:
            self._finished(chunk)
        self._drivers.done([chunk.name for chunk in chunks])

    def cost(self, chunk: Chunk) -> float:
        """The summed cost of a chunk."""
        return sum(self._costs[self._index[canonical]] for canonical, _ in chunk.members)

    def _take(self, budget: Budget) -> tuple[list[int], int]:
        """Classes of which the same is free, now held, and what that is."""
        mask = self._first_free()
        heap = self._heaps.get(mask, [])
        taken: list[int] = []
        cost = 0.0
        while heap and len(taken) < budget.networks:
            index = heap[0]
            if self._free(index) != mask:
                heapq.heappop(heap)
                continue
            cost += self._costs[index]
            if taken and cost > budget.cost:
                break
            heapq.heappop(heap)
            self._hold(index, mask)
            taken.append(index)
        surplus = len(taken) % budget.block if len(taken) > budget.block else 0
        for index in taken[len(taken) - surplus :]:
            self._release(index, mask)
        return taken[: len(taken) - surplus], mask

    def _first_free(self) -> int:
        """What is free of the most expensive class of which anything is; 0 where nothing is."""
        for mask, heap in list(self._heaps.items()):
            while heap and self._free(heap[0]) != mask:
                heapq.heappop(heap)
            if not heap:
                del self._heaps[mask]
        return min(self._heaps, key=lambda mask: self._heaps[mask][0], default=0)

    def _prepare(self, rows: int) -> int:
        plan = self._plan
        return self._arrays.prepare(plan.settings.batch_size, rows, block=plan.block, gram=self._keep_gram)

    def _make_room(self, rows: int) -> None:
        if rows > self._room:
            self._room = rows + _ROOM * self._block
            self._prepare(self._room)

    # --- what the classes need

    def _mask(self, keys: Iterable[str]) -> int:
        return sum(self._bits.get(key, 0) for key in keys)

    def _mask_of(self, claim: Part) -> int:
        """What of it this command asks for too."""
        return self._mask(claim.scores) | (_METRICS if claim.row >= 0 else 0)

    def _pieces(self, chunk: Chunk) -> int:
        return len(chunk.members) * self._mask_of(_claim_of(chunk)).bit_count()

    def _free(self, index: int) -> int:
        return self._needs[index] & ~self._holds[index]

    def _change(self, index: int, needs: int, holds: int) -> None:
        before = self._free(index)
        self._held += holds.bit_count() - self._holds[index].bit_count()
        self._needs[index], self._holds[index] = needs, holds
        after = self._free(index)
        if after and after != before:
            heapq.heappush(self._heaps.setdefault(after, []), index)
        self.free_cost += self._costs[index] * (bool(after) - bool(before))

    def _hold(self, index: int, mask: int) -> None:
        self._change(index, self._needs[index], self._holds[index] | mask & self._needs[index])

    def _release(self, index: int, mask: int) -> None:
        self._change(index, self._needs[index], self._holds[index] & ~mask)

    def _finish(self, index: int, mask: int) -> bool:
        """Whether that completes the class."""
        before = self._needs[index]
        self._change(index, before & ~mask, self._holds[index] & ~mask)
        return before != 0 and self._needs[index] == 0

    def _finished(self, chunk: Chunk) -> None:
        del self._mine[chunk.name]
        self._mine_held -= self._pieces(chunk)
        mask = self._mask_of(_claim_of(chunk))
        self.computed += sum([self._finish(self._index[canonical], mask) for canonical, _ in chunk.members])
        self._end = max(self._end, chunk.ntk_row + len(chunk.members) if mask & _METRICS else 0)

    def _stored(self, claim: Part) -> int:
        """What of a claim is stored."""
        stored = _METRICS if claim.row >= 0 and self._run.has_part(claim.name) else 0
        scores = bool(claim.scores) and has_part(self._run, part_name(claim.classes, claim.scores))
        return stored | (self._mask(claim.scores) if scores else 0)

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
            self._done_elsewhere(claim, self._stored(claim))
            for index in self._indices(claim):
                self._release(index, self._mask_of(claim))
        del self._logs[token]

    def _follow(self, token: str, *, ended: bool) -> Log:
        log = self._logs.setdefault(token, Log())
        claimed, done = log.news(self._drivers.log_of(token, ended=ended))
        for claim in claimed:
            if claim.row >= 0:
                self._blocks.occupy(claim.row, len(claim.classes))
            for index in self._indices(claim):
                self._hold(index, self._mask_of(claim))
        for claim in done:
            self._done_elsewhere(claim, self._mask_of(claim))
        return log

    def _done_elsewhere(self, claim: Part, mask: int) -> None:
        self.elsewhere += sum([self._finish(index, mask) for index in self._indices(claim)])
        self._end = max(self._end, claim.row + len(claim.classes) if mask & _METRICS else 0)

    def _indices(self, claim: Part) -> Iterator[int]:
        return (self._index[canonical] for canonical in claim.classes if canonical in self._index)


def _claim_of(chunk: Chunk) -> Part:
    return Part(chunk.name, chunk.ntk_row, tuple(canonical for canonical, _ in chunk.members), chunk.scores)


@contextmanager
def joined(claims: Claims) -> Iterator[Claims]:
    """Join a run, and leave it at the end, whatever happens within."""
    try:
        claims.join()
        yield claims
    except BaseException as error:
        claims.leave(clean=False, failed=isinstance(error, HnasError))
        raise
    claims.leave(clean=True)
