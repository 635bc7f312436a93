"""The remaining work of one `precompute`, in a run that several commands may fill at the same time.

A class may need its metrics and any of the scores that the command asks for. A chunk is a set of classes that need the
same.

Every claim is made under the run's lock, after reading what other commands have claimed since the last one, so its cost
does not grow with the run. A command that has ended, or whose process has died, holds no claims: its unstored work is
free again.
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

# Number of blocks by which `ntk.zarr` grows: making it longer rewrites its metadata, not its content.
_ROOM = 64
# The bit for the metrics in a class's needs; the scores have the higher bits.
_METRICS = 1


class Claims:
    """The needs of the classes in `plan.todo`, each free, held by a command, or done. Expensive classes come first.

    `computed` counts the classes completed by this command's chunks, `elsewhere` those of `plan.todo` completed by
    other commands. `free_cost` is the summed cost of the free classes, `commands` the number of live commands.
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
        # For each class, the bits that it needs, and those of them that some command holds.
        self._needs = [0] * len(self._todo)
        self._holds = [0] * len(self._todo)
        # Classes by their free bits. Outdated entries are dropped when they reach the top.
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
        """Join the run, alongside the commands that are working on it.

        Raises `HnasError` if what the plan counts as stored was removed since.
        """
        stored = self._run.stored(self._plan.stored, logged)  # read most of it before taking the lock
        scores_stored = scored(self._run, self._plan.scored)
        with self._run.locked():
            if not (self._run.recorded and self._plan.stored.parts <= set(self._run.parts())):
                raise HnasError(
                    f"run {self._run.name} was removed while this command started; start the same command again"
                )
            self._drivers.join()
            stored = self._run.stored(stored, logged)
            scores_stored = scored(self._run, scores_stored)
            self._block = self._prepare(0)
            self._blocks = Blocks(stored.rows, self._block)
            self._end = max(stored.rows, default=-1) + 1
            for index, (canonical, _) in enumerate(self._todo):
                needs = self._mask(scores_stored.lacking(self._keys, canonical))
                needs |= 0 if canonical in stored.classes else _METRICS
                self._change(index, needs, 0)
                self.elsewhere += not needs
            # Claims of ended commands are already stored or released.
            self._ended = set(self._drivers.others()[1])
            self._joined = True
            self._refresh()

    def leave(self, *, clean: bool, failed: bool = False) -> None:
        """Release what is not stored. The last command on a run drops unused rows and, after a clean end, the logs.

        If the command `failed`, it withdraws requests for scores that no class has, since they may not be computable.
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
        """The name of this command in messages to its workers."""
        return self._drivers.token

    @property
    def block(self) -> int:
        """The number of rows in a block of `ntk.zarr`."""
        return self._block

    @property
    def waiting(self) -> bool:
        """Whether other commands hold anything that classes of the plan need."""
        return self._held > self._mine_held

    def claim(self, budget: Budget, count: int = 1) -> list[Chunk]:
        """Claim up to `count` chunks, each of at least one network and within the budget; none if nothing is free.

        Raises `HnasError` if another command took this one for dead, or started on the same object store.
        """
        with self._run.locked():
            if not self._drivers.stands():
                raise HnasError(
                    f"another precompute has taken over run {self._run.name} in {self._run.store.location}; on an "
                    "object store only one can work on a run at a time, elsewhere the file system must support locks"
                )
            self._refresh()
            chunks: list[Chunk] = []
            while len(chunks) < count:
                picked, mask = self._take(budget)
                if not picked:
                    break
                members = tuple(self._todo[index] for index in picked)
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
        """Record that the chunks are stored."""
        for chunk in chunks:
            self._finished(chunk)
        self._drivers.done([chunk.name for chunk in chunks])

    def cost(self, chunk: Chunk) -> float:
        """Return the summed cost of a chunk."""
        return sum(self._costs[self._index[canonical]] for canonical, _ in chunk.members)

    def _take(self, budget: Budget) -> tuple[list[int], int]:
        """Hold classes with the same free bits and return them with these bits."""
        mask = self._first_free()
        heap = self._heaps.get(mask, [])
        picked: list[int] = []
        cost = 0.0
        while heap and len(picked) < budget.networks:
            index = heap[0]
            if self._free(index) != mask:
                heapq.heappop(heap)
                continue
            cost += self._costs[index]
            if picked and cost > budget.cost:
                break
            heapq.heappop(heap)
            self._hold(index, mask)
            picked.append(index)
        surplus = len(picked) % budget.block if len(picked) > budget.block else 0
        for index in picked[len(picked) - surplus :]:
            self._release(index, mask)
        return picked[: len(picked) - surplus], mask

    def _first_free(self) -> int:
        """Return the free bits of the most expensive class that has any; 0 if there is none."""
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
        """Return the bits of a claim that this command needs too."""
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
        """Clear bits of a class; return whether that completes it."""
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
        """Return the bits of a claim that are stored."""
        stored = _METRICS if claim.row >= 0 and self._run.has_part(claim.name) else 0
        scores = bool(claim.scores) and has_part(self._run, part_name(claim.classes, claim.scores))
        return stored | (self._mask(claim.scores) if scores else 0)

    # --- other commands

    def _refresh(self) -> None:
        """Read what other commands have claimed, stored, or left behind when they ended.

        Ended commands come first: live commands may claim what ended ones held, never the other way round. Blocks of
        ended commands in `ntk.zarr` stay occupied for as long as this command works.
        """
        living, ended = self._drivers.others()
        self.commands = 1 + len(living)
        for token in ended:
            if token not in self._ended:
                self._bury(token)
        for token in living:
            self._follow(token, ended=False)

    def _bury(self, token: str) -> None:
        """Mark what an ended command had stored as done, and free the rest of its claims."""
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
    """Join a run, and leave it at the end, whatever happens."""
    try:
        claims.join()
        yield claims
    except BaseException as error:
        claims.leave(clean=False, failed=isinstance(error, HnasError))
        raise
    claims.leave(clean=True)
