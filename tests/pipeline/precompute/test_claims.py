"""Several commands on one run, without Dask: claims are exclusive, and abandoned work is found by the others."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.errors import HnasError
from hnas.pipeline.precompute import worker
from hnas.pipeline.precompute.chunking import Budget
from hnas.pipeline.precompute.claims import Claims
from hnas.pipeline.precompute.plan import Plan, relative_costs
from hnas.pipeline.store.claim_log import logged
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.ntk_arrays import Blocks, NTKArrays
from hnas.pipeline.store.removal import find_held, remove
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from tests.support.runs import SPACE, claims_of, exact_table, fill, job_of, metrics_of

MakePlan = Callable[..., Plan]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def budget(networks: int, *, block: int = 1) -> Budget:
    return Budget(networks, math.inf, block)


def carry_out(store: Store, plan: Plan, claims: Claims, networks: int = 3) -> list[str]:
    """Compute one chunk as `precompute` does, and return its classes."""
    chunks = claims.claim(budget(networks))
    for chunk in chunks:
        assert worker.run_chunk(job_of(store, plan, token=claims.token), chunk).rows
    claims.done(chunks)
    return [canonical for chunk in chunks for canonical, _ in chunk.members]


def test_a_run_removed_since_the_plan_is_noticed(store, small_plan):
    fill(store, small_plan(store, sample=4))
    plan = small_plan(store, sample=8)
    remove(store, find_held(store, plan.settings.id))
    with pytest.raises(HnasError, match=r"run \w+ was removed while .*; start the same command again"):
        fill(store, plan)
    assert store.names("runs", plan.settings.id, "drivers") == []
    fill(store, small_plan(store, sample=8))


# --- order and size


def test_the_most_expensive_networks_are_claimed_first(store, small_plan):
    plan = small_plan(store, sample=30)
    with claims_of(store, plan) as claims:
        costs = relative_costs(store, SPACE, plan)
        order = [canonical for _ in range(9) for chunk in claims.claim(budget(4)) for canonical, _ in chunk.members]
        assert sorted(order) == sorted(costs)
        assert [costs[canonical] for canonical in order] == sorted(costs.values(), reverse=True)
        assert claims.free_cost == pytest.approx(0)
        assert claims.claim(budget(4)) == []


def test_a_cost_uses_the_smallest_known_member_of_a_class(store, small_plan):
    plan = small_plan(store, sample=30)
    with claims_of(store, plan):
        costs = relative_costs(store, SPACE, plan)
    flops = {canonical: SPACE.describe(arch)["flops"] for canonical, arch in plan.todo}
    least = min(flops, key=flops.__getitem__)
    assert min(costs, key=costs.__getitem__) == least
    assert all(cost > 1 for cost in costs.values())
    assert np.mean(list(costs.values())) == pytest.approx(2, rel=0.1)


def test_a_chunk_respects_its_cost_but_holds_at_least_one_network(store, small_plan):
    plan = small_plan(store, sample=12)
    with claims_of(store, plan, costs=dict.fromkeys((canonical for canonical, _ in plan.todo), 2.0)) as claims:
        assert [len(chunk.members) for chunk in claims.claim(Budget(100, 7.0))] == [3]
        assert [len(chunk.members) for chunk in claims.claim(Budget(100, 0.5), 3)] == [1, 1, 1]
        assert [len(chunk.members) for chunk in claims.claim(Budget(100, 10.9, block=4))] == [4]
        assert claims.free_cost == 2.0 * (len(plan.todo) - 10)


# --- several commands


def test_two_commands_claim_disjoint_work_and_see_each_others_results(store, small_plan):
    first_plan, second_plan = small_plan(store, sample=20, chunk_size=2), small_plan(store, sample=30)
    assert {c for c, _ in first_plan.todo} & {c for c, _ in second_plan.todo}, "nothing to share"
    with claims_of(store, first_plan) as first, claims_of(store, second_plan) as second:
        (early,) = first.claim(budget(5))
        taken: set[str] = {canonical for canonical, _ in early.members}
        blocks = set(range(early.ntk_row // 2, -(-(early.ntk_row + 5) // 2)))
        while chunks := second.claim(budget(3)):
            (chunk,) = chunks
            mine = set(range(chunk.ntk_row // 2, -(-(chunk.ntk_row + len(chunk.members)) // 2)))
            assert not blocks & mine
            blocks |= mine
            assert not taken & {canonical for canonical, _ in chunk.members}
            taken |= {canonical for canonical, _ in chunk.members}
            assert worker.run_chunk(job_of(store, second_plan, token=second.token), chunk).rows
            second.done(chunks)
        asked = {canonical for canonical, _ in second_plan.todo}
        shared = asked & {canonical for canonical, _ in early.members}
        assert second.waiting == bool(shared)
        worker.run_chunk(job_of(store, first_plan, token=first.token), early)
        first.done([early])
        assert second.claim(budget(3)) == []
        assert not second.waiting
        assert second.elsewhere == len(shared)
        assert second.computed + second.elsewhere == len(asked)
        assert first.commands == second.commands == 2
        while carry_out(store, first_plan, first):
            pass
        assert first.computed + first.elsewhere == len(first_plan.todo)
    assert set(exact_table(store, first_plan.settings.id)) == taken | {c for c, _ in first_plan.todo}


def test_released_work_is_free_and_its_workers_store_nothing_more(store, small_plan):
    plan = small_plan(store, sample=20)
    with claims_of(store, plan) as staying:
        leaving = Claims(Run(store, plan.settings.id), plan, {}, keep_gram=False)
        leaving.join()
        carry_out(store, plan, leaving)
        unheard, lost = leaving.claim(budget(4), 2)
        job = job_of(store, plan, token=leaving.token)
        assert worker.run_chunk(job, unheard).rows == 4
        assert staying.claim(budget(1))
        leaving.leave(clean=False)
        assert leaving.computed == 7, "a stored chunk that was not reported counts too"
        before = metrics_of(store, plan.settings.id)
        assert worker.run_chunk(job, lost).rows == 0
        assert metrics_of(store, plan.settings.id) == before
        claimed = [canonical for chunk in staying.claim(budget(100)) for canonical, _ in chunk.members]
        assert {canonical for canonical, _ in lost.members} <= set(claimed)
        assert len(claimed) == len(plan.todo) - 7 - 1
        assert staying.elsewhere == 7


KILLED = """
import sys
from tests.support.runs import claims_of, job_of, SIZE, SPACE
from hnas.pipeline.precompute import worker
from hnas.pipeline.precompute.chunking import Budget
from hnas.pipeline.images import open_dataset
from hnas.pipeline.precompute.plan import make_plan
from hnas.pipeline.store.store import Store
store = Store(sys.argv[1])
plan = make_plan(store, SPACE, open_dataset("digits"), **{**SIZE, "sample": 20, "chunk_size": 4})
with claims_of(store, plan) as claims:
    for reported in (True, False):
        chunks = claims.claim(Budget(3, float("inf")))
        worker.run_chunk(job_of(store, plan, token=claims.token), chunks[0])
        if reported:
            claims.done(chunks)
    claims.claim(Budget(3, float("inf")))
    print(claims.token, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def killed(store: Store) -> Callable[[], tuple[subprocess.Popen[str], str]]:
    """A command in another process that stored two chunks, logged one of them, and holds a third."""

    def start() -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, store.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout
        return process, process.stdout.readline().strip()

    return start


@pytest.mark.parametrize("joined_before", [True, False])
def test_the_work_of_a_killed_command_is_taken_over_row_for_row(store, small_plan, filled, killed, joined_before: bool):
    plan = small_plan(store, sample=20)
    reference = exact_table(filled[0], plan.settings.id)
    if joined_before:
        with claims_of(store, plan) as claims:
            process, token = killed()
            assert claims.claim(budget(2))
            assert (claims.commands, claims.elsewhere) == (2, 3)
            process.kill()
            process.wait()
            rest = [canonical for chunk in claims.claim(budget(100)) for canonical, _ in chunk.members]
            assert (claims.commands, claims.elsewhere) == (1, 6)
            assert len(rest) == len(plan.todo) - 6 - 2
    else:
        process, token = killed()
        process.kill()
        process.wait()
    run = plan.settings.id
    assert len(metrics_of(store, run)) == 6
    fill(store, small_plan(store, sample=20))
    assert exact_table(store, run) == reference
    assert len(store.names("runs", run, "metrics")) > 2
    assert not store.exists("runs", run, "drivers")
    assert token


def test_an_incomplete_line_of_a_killed_command_is_ignored(store, small_plan):
    plan = small_plan(store, sample=20)
    run = plan.settings.id
    with claims_of(store, plan) as claims, claims_of(store, plan) as other:
        claims.claim(budget(3))
        log = Path(store.path("runs", run, "drivers", f"{claims.token}.claims"))
        with log.open("ab") as file:
            file.write(json.dumps({"part": "x.parquet", "row": 400, "classes": [plan.todo[0][0]]}).encode()[:-4])
        assert len(logged(Run(store, run))) == 1
        (chunk,) = other.claim(budget(100))
        assert len(chunk.members) == len(plan.todo) - 3


def test_a_damaged_log_is_reported(store, small_plan):
    plan = small_plan(store, sample=20)
    with claims_of(store, plan) as claims:
        log = Path(store.path("runs", plan.settings.id, "drivers", "feed.claims"))
        log.write_text("{}\n")
        with pytest.raises(HnasError, match=r"feed\.revoked is damaged .* delete it"):
            claims.claim(budget(1))
        log.with_suffix(".revoked").unlink()


def test_a_command_whose_claims_were_revoked_stops(store, small_plan):
    plan = small_plan(store, sample=20)
    with claims_of(store, plan) as claims:
        (chunk,) = claims.claim(budget(3))
        folder = Path(store.path("runs", plan.settings.id, "drivers"))
        (folder / f"{claims.token}.claims").rename(folder / f"{claims.token}.revoked")
        assert worker.run_chunk(job_of(store, plan, token=claims.token), chunk).rows == 0
        with pytest.raises(HnasError, match=f"another precompute has taken over run {plan.settings.id} in"):
            claims.claim(budget(3))
        claims.done([])
        assert not (folder / f"{claims.token}.claims").exists(), "the claims file was recreated"


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_reclaimed_chunk_is_recognised_by_its_stored_rows(store, small_plan, monkeypatch, newest_first: bool):
    plan = small_plan(store, sample=20)
    run = plan.settings.id
    with claims_of(store, plan, costs={}) as staying:
        ended = Claims(Run(store, plan.settings.id), plan, {}, keep_gram=False)
        ended.join()
        (lost,) = ended.claim(budget(3))
        ended.leave(clean=False)
        (chunk,) = staying.claim(budget(3))
        assert chunk.part == lost.part
        assert chunk.ntk_row != lost.ntk_row
        assert worker.run_chunk(job_of(store, plan, token=staying.token), chunk).rows
        staying.done([chunk])
        names = Store.names
        monkeypatch.setattr(
            Store,
            "names",
            lambda self, *folder: sorted(
                names(self, *folder), key=lambda name: name.startswith(staying.token) != newest_first
            ),
        )
        assert Run(store, run).stored(claimed=logged).rows == set(range(chunk.ntk_row, chunk.ntk_row + 3))


def test_on_an_object_store_a_later_command_revokes_an_earlier_one(small_plan, tmp_path):
    store = Store(f"memory://{tmp_path}/store")
    plan = small_plan(store, sample=20)
    with claims_of(store, plan) as early:
        (chunk,) = early.claim(budget(3))
        with claims_of(store, plan) as late:
            assert worker.run_chunk(job_of(store, plan, token=early.token), chunk).rows == 0
            with pytest.raises(HnasError, match="on an object store only one can work on a run at a time"):
                early.claim(budget(3))
            while carry_out(store, plan, late, 7):
                pass
        assert store.names("runs", plan.settings.id, "drivers") == []
    assert len(exact_table(store, plan.settings.id)) == len(plan.todo)


def test_the_logs_agree_with_the_parts(store, small_plan):
    plan = small_plan(store, sample=20)
    run = plan.settings.id
    with claims_of(store, plan) as claims:
        while carry_out(store, plan, claims):
            pass
        claimed = logged(Run(store, run))
        assert set(claimed) == set(store.names("runs", run, "metrics"))
        for part, claim in claimed.items():
            table = store.read_table(["canonical", "ntk_row"], "runs", run, "metrics", part)
            assert tuple(table["canonical"].to_pylist()) == claim.classes
            assert table["ntk_row"].to_pylist() == list(range(claim.row, claim.row + len(claim.classes)))
        assert small_plan(store, sample=20).todo == ()


def test_only_the_last_command_drops_unused_rows(store, small_plan):
    plan = small_plan(store, sample=20)
    run = plan.settings.id
    with claims_of(store, plan) as staying:
        with claims_of(store, plan) as leaving:
            carry_out(store, plan, leaving)
        room = len(NTKArrays(store, run).read())
        assert room > len(plan.todo)
        while carry_out(store, plan, staying):
            pass
        assert len(NTKArrays(store, run).read()) >= room
    assert len(NTKArrays(store, run).read()) == max(row["ntk_row"] for row in metrics_of(store, run)) + 1


HOLDER = """
import sys
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.store import Store
with locked(Store(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_free_after_its_holder_was_killed(store):
    command = [sys.executable, "-c", HOLDER, store.root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        with locked(store, "x"):
            holder.wait()


# --- blocks of ntk.zarr


@given(st.data())
def test_blocks_belong_to_one_chunk_and_gaps_are_used(data: st.DataObject):
    size = data.draw(st.integers(1, 9))
    stored = set(data.draw(st.lists(st.integers(0, 60), max_size=40)))
    blocks = Blocks(stored, size)
    taken = {row // size for row in stored}
    for _ in range(data.draw(st.integers(0, 12))):
        rows = data.draw(st.integers(1, 25))
        if data.draw(st.booleans()):
            start = blocks.take(rows)
            assert start % size == 0
            mine = set(range(start // size, -(-(start + rows) // size)))
            assert not mine & taken
            count = len(mine)
            assert start // size == next(k for k in range(10**6) if not taken & set(range(k, k + count)))
        else:
            first = data.draw(st.integers(0, 40))
            blocks.occupy(first * size, rows)
            mine = set(range(first, first - (-rows // size)))
        taken |= mine


def test_the_gap_of_a_lost_chunk_is_reused():
    blocks = Blocks([row for row in range(20) if not 4 <= row < 8], 4)
    assert [blocks.take(4), blocks.take(3), blocks.take(9)] == [4, 20, 24]


def test_commands_in_any_order_claim_each_class_once(store, small_plan):
    plan = small_plan(store, sample=60)
    chance = random.Random(0)
    seen: list[str] = []
    commands: list[tuple[Claims, list[worker.Chunk]]] = []
    with claims_of(store, plan):
        for _ in range(400):
            if len(commands) < 3 and chance.random() < 0.2:
                claims = Claims(Run(store, plan.settings.id), plan, {}, keep_gram=False)
                claims.join()
                commands.append((claims, []))
            elif commands:
                claims, open_chunks = chance.choice(commands)
                if open_chunks and chance.random() < 0.5:
                    chunk = open_chunks.pop()
                    store.write_table(part_of(chunk), "runs", plan.settings.id, "metrics", chunk.part)
                    claims.done([chunk])
                    seen += [canonical for canonical, _ in chunk.members]
                elif chance.random() < 0.15:
                    claims.leave(clean=False)
                    commands = [pair for pair in commands if pair[0] is not claims]
                else:
                    open_chunks += claims.claim(budget(chance.randint(1, 4)))
        for claims, _ in commands:
            claims.leave(clean=False)
    assert len(seen) == len(set(seen))
    assert len(seen) == len(plan.todo), "the simulation ended too early"


def part_of(chunk: worker.Chunk) -> pa.Table:
    """A part with only what the bookkeeping reads."""
    rows = range(chunk.ntk_row, chunk.ntk_row + len(chunk.members))
    return pa.table({"canonical": [canonical for canonical, _ in chunk.members], "ntk_row": pa.array(rows, pa.int32())})
