"""Scores of a run: computed once, with its metrics or later, by any command, with the same numbers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import rankdata

from hnas.errors import HnasError
from hnas.pipeline.analysis.correlate import correlate
from hnas.pipeline.catalog.info import store_info
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.precompute.chunking import Budget
from hnas.pipeline.precompute.claims import Claims
from hnas.pipeline.precompute.plan import Plan, record_request
from hnas.pipeline.precompute.worker import Chunk, _clock, _score, run_chunk
from hnas.pipeline.store.check import check_store
from hnas.pipeline.store.packing import pack
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.scores import scored
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from tests.support.command_line import hnas
from tests.support.contents import snapshot
from tests.support.foreign_scores import install
from tests.support.processes import precompute_command, run_command, running, wait_until
from tests.support.runs import claims_of, exact_table, fill, job_of

MakePlan = Callable[..., Plan]
BOTH = ["spread", "weight"]
SAMPLE = 24


@pytest.fixture(scope="module", autouse=True)
def _foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        install(tmp_path_factory.mktemp("site"), patch)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A read-only run whose metrics and scores a worker process computed in one pass."""
    store = Store(str(tmp_path_factory.mktemp("whole") / "store"))
    command = precompute_command(store.root, f"--sample={SAMPLE}", "--workers=1", "--scores=weight,spread")
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    assert "computed now (with the scores spread, weight)" in done.stdout
    return store


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, small_plan: MakePlan) -> Store:
    """The same run without scores, to be copied."""
    store = Store(str(tmp_path_factory.mktemp("plain") / "store"))
    fill(store, small_plan(store, sample=SAMPLE))
    return store


@pytest.fixture
def finished(plain: Store, tmp_path: Path) -> Store:
    """A copy of a finished run without scores."""
    shutil.copytree(plain.root, tmp_path / "finished")
    return Store(str(tmp_path / "finished"))


def run_of(store: Store) -> str:
    (name,) = store.names("runs")
    return name


def scores_of(store: Store) -> dict[str, tuple[str, ...]]:
    """The exact scores by class; each is in only one part."""
    found: dict[str, dict[str, str]] = {}
    run = Run(store, run_of(store))
    for name in store.files(*run.place("scores")):
        for row in store.read_table(None, *run.place("scores", name)).to_pylist():
            having = found.setdefault(row.pop("canonical"), {})
            for column, value in row.items():
                assert column not in having, "a score is in two parts"
                having[column] = "seconds" if "_seconds@" in column else value.hex()
    return {canonical: tuple(sorted(row.items())) for canonical, row in found.items()}


def untouched(store: Store) -> dict[str, Any]:
    return {
        path: content for path, content in snapshot(store.root).items() if "/metrics/" in path or "/ntk.zarr/" in path
    }


# --- the numbers


def test_scores_added_later_equal_those_of_one_pass(whole, finished, small_plan):
    before = untouched(finished)
    assert before
    for names, chunk_size in ((["weight"], 5), (BOTH, 3)):
        fill(finished, small_plan(finished, sample=SAMPLE, scores=names, chunk_size=chunk_size))
    assert scores_of(finished) == scores_of(whole)
    assert untouched(finished) == before
    assert exact_table(finished, run_of(finished)) == exact_table(whole, run_of(whole))
    assert small_plan(finished, sample=SAMPLE, scores=BOTH).todo == ()


def test_the_images_beside_the_batch_are_kept_and_must_match(whole, finished, small_plan, digits):
    run = Run(whole, run_of(whole))
    images, _ = run.images("further.npz", run.read_record()["further"])
    assert images.shape == (128, 3, 8, 8)
    batch, _ = run.batch()
    assert not (images[:, None] == batch[None]).all((2, 3, 4)).any()
    fill(finished, small_plan(finished, sample=2, scores=["weight"]))
    record = Run(finished, run_of(finished)).read_record()
    Run(finished, run_of(finished)).write_record({**record, "further": "0" * 16})
    with pytest.raises(HnasError, match="belong to other images beside the batch"):
        small_plan(finished, sample=2, scores=BOTH)


def test_a_later_command_computes_only_what_is_missing(finished, small_plan):
    fill(finished, small_plan(finished, sample=8, scores=["weight"]))
    plan = small_plan(finished, sample=SAMPLE + 4, scores=BOTH)
    asked = len({canonical for _, canonical in plan.requested})
    lacking = dict(plan.lacking)
    assert lacking["spread@1"] == asked == len(plan.todo)
    assert 0 < lacking["metrics"] < lacking["weight@1"] < asked
    with claims_of(finished, plan) as claims:
        chunks = claims.claim(Budget(100, float("inf")), 9)
        assert {chunk.scores for chunk in chunks} == {("spread@1", "weight@1"), ("spread@1",)}
        assert {chunk.ntk_row >= 0 for chunk in chunks} == {True, False}
        assert sum(len(chunk.members) for chunk in chunks) == asked
        assert claims.free_cost == pytest.approx(0)


# --- killed and concurrent commands


def test_a_killed_command_neither_loses_nor_duplicates_anything(whole, finished, small_plan):
    chance = random.Random(0)
    options = [f"--sample={SAMPLE}", "--workers=1", "--chunk-size=2", "--scores=weight,spread"]
    run = Run(finished, run_of(finished))
    with running(*precompute_command(finished.root, *options)) as process:
        wait_until(lambda: bool(finished.files(*run.place("scores"))), process)
        time.sleep(chance.random() / 20)
        os.killpg(process.pid, signal.SIGKILL)
    assert small_plan(finished, sample=SAMPLE, scores=BOTH).todo, "the command ended before it was killed"
    done = run_command(*precompute_command(finished.root, *options))
    assert done.returncode == 0, done.stderr
    assert scores_of(finished) == scores_of(whole)
    assert not run.exists("drivers")


def test_a_worker_dying_between_parts_duplicates_nothing(whole, store, small_plan, monkeypatch):
    plan = small_plan(store, sample=SAMPLE, scores=BOTH)
    with claims_of(store, plan) as claims:
        (chunk,) = claims.claim(Budget(5, float("inf")))
        job = job_of(store, plan, token=claims.token)
        with monkeypatch.context() as patch:
            patch.setattr(Run, "write_part", lambda *_: (_ for _ in ()).throw(MemoryError("killed")))
            with pytest.raises(MemoryError):
                run_chunk(job, chunk)
    assert len(scored(Run(store, plan.settings.id)).parts) == 1
    again = small_plan(store, sample=SAMPLE, scores=BOTH)
    assert dict(again.lacking)["spread@1"] == len(again.todo) - 5
    fill(store, again)
    assert scores_of(store) == scores_of(whole)
    assert exact_table(store, plan.settings.id) == exact_table(whole, plan.settings.id)


def test_commands_with_different_scores_compute_each_piece_once(store, small_plan):
    selections = [[], ["weight"], ["spread"], BOTH]
    chance = random.Random(1)
    plans = [small_plan(store, sample=40, scores=names) for names in selections]
    run = Run(store, plans[0].settings.id)
    seen: list[tuple[str, str]] = []
    commands: list[tuple[Claims, list[Chunk]]] = []
    with claims_of(store, plans[3]):
        for _ in range(500):
            if len(commands) < 4 and chance.random() < 0.2:
                claims = Claims(run, chance.choice(plans), {}, keep_gram=False)
                claims.join()
                commands.append((claims, []))
            elif commands:
                claims, held = chance.choice(commands)
                if held and chance.random() < 0.5:
                    chunk = held.pop()
                    seen += store_made_up(run, chunk)
                    claims.done([chunk])
                elif chance.random() < 0.1:
                    claims.leave(clean=False)
                    commands = [pair for pair in commands if pair[0] is not claims]
                else:
                    held += claims.claim(Budget(chance.randint(1, 4), float("inf")))
        for claims, _ in commands:
            claims.leave(clean=False)
        assert len(seen) == len(set(seen))
        assert len(seen) == 3 * len(plans[0].todo), "the simulation ended too early"


def store_made_up(run: Run, chunk: Chunk) -> list[tuple[str, str]]:
    """Store parts with only what the bookkeeping reads; return the pieces."""
    classes = [canonical for canonical, _ in chunk.members]
    if chunk.scores:
        names = [f"{key.partition('@')[0]}_seconds@1" for key in chunk.scores]
        table = pa.table({"canonical": classes, **{name: [0.0] * len(classes) for name in names}})
        run.store.write_table(table, *run.place("scores", chunk.scores_part))
    if chunk.ntk_row >= 0:
        rows = range(chunk.ntk_row, chunk.ntk_row + len(classes))
        run.write_part(pa.table({"canonical": classes, "ntk_row": pa.array(rows, pa.int32())}), chunk.part)
    keys = [*chunk.scores, *(["metrics"] if chunk.ntk_row >= 0 else [])]
    return [(key, canonical) for key in keys for canonical in classes]


# --- rejected scores


def test_a_score_that_cannot_be_stored_or_computed_is_reported(store, small_plan):
    with pytest.raises(HnasError, match="the name of its column kappa is already taken"):
        small_plan(store, sample=2, scores=["taken"])
    for name, reason in (("wrong", "'a file of its own'"), ("quits", "it ends the process, with 3")):
        with pytest.raises(HnasError, match=rf"the score {name} of \|.* could not be computed: {reason}"):
            fill(store, small_plan(store, sample=2, scores=[name]))


def test_a_score_that_always_fails_is_not_requested_again(finished, small_plan):
    run = Run(finished, run_of(finished))
    fill(finished, small_plan(finished, sample=8, scores=["weight"]))
    with pytest.raises(HnasError, match="the score wrong of"):
        fill(finished, small_plan(finished, sample=8, scores=["weight", "wrong"]))
    assert run.read_record()["scores"] == {"weight@1": ["weight"]}
    assert [row["score"] for row in store_info(connect(finished))["scores"]] == ["weight"]
    assert not any("wrong" in remark for remark in check_store(finished).remarks)


def test_a_score_that_fails_for_some_is_kept_for_the_others(finished, small_plan):
    run = Run(finished, run_of(finished))
    first, second = (small_plan(finished, sample=SAMPLE, scores=names) for names in (["weight"], ["wrong"]))
    record_request(finished, search_spaces["nasbench201"], second)
    with claims_of(finished, first):  # another command at work, which may store one yet
        with pytest.raises(HnasError, match="the score wrong of"):
            fill(finished, second)
        assert set(run.read_record()["scores"]) == {"weight@1", "wrong@1"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "has columns \\(\\); they must be a tuple of at least one name"),
        ("below", "has version -1; it must be an integer from 0"),
        ("words", "has version 'one'; it must be an integer from 0"),
        ("silent", "has version None; it must be an integer from 0"),
        ("needy", r"has needs \('nothing',\); they must be among .*agreements"),
        ("seconds", "names that end in _seconds are reserved for the cost"),
    ],
)
def test_a_score_with_an_invalid_declaration_writes_nothing(store, small_plan, name, reason):
    with pytest.raises(HnasError, match=reason):
        small_plan(store, sample=2, scores=[name])
    assert not Path(store.root).exists()


def test_a_column_of_another_score_in_the_run_is_taken(whole, small_plan):
    with pytest.raises(HnasError, match=r"is already taken \(the run has one of the score weight"):
        small_plan(whole, sample=2, scores=["weightier"])


@pytest.mark.parametrize("name", ["rude", "ruder"])
def test_a_score_that_changes_its_inputs_is_reported(plain, store, small_plan, name):
    with pytest.raises(HnasError, match=rf"the score {name} of \|.* weights, modes or images changed"):
        fill(store, small_plan(store, sample=SAMPLE, scores=[name]))
    fill(store, small_plan(store, sample=SAMPLE))  # in the same process, with its images in memory
    assert exact_table(store, run_of(store)) == exact_table(plain, run_of(plain))


def test_thread_time_is_used_only_for_single_threaded_torch(monkeypatch):
    clocks = {}
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        clocks[threads] = _clock(torch.zeros(1))
    assert clocks == {1: time.thread_time, 2: time.perf_counter}


@pytest.mark.parametrize(("folder", "column"), [("scores", "weight@1"), ("metrics", "trace"), ("metrics", "canonical")])
def test_a_part_with_values_of_another_type_is_reported_by_name(finished, small_plan, folder, column):
    fill(finished, small_plan(finished, sample=SAMPLE, scores=["weight"]))
    run = Run(finished, run_of(finished))
    name = finished.files(*run.place(folder))[0]
    table = finished.read_table(None, *run.place(folder, name))
    other: list[Any] = list(range(len(table))) if column == "canonical" else ["high"] * len(table)
    finished.write_table(
        table.set_column(table.column_names.index(column), column, pa.array(other)), *run.place(folder, name)
    )
    kind = "int64, not text" if column == "canonical" else "string, not numbers"
    message = rf"{folder}/{name}.*its column {column} has values of type {kind}; delete it"
    store = Store(finished.root)
    with pytest.raises((HnasError, duckdb.Error), match=message):
        connect(store).execute(f"FROM {folder}")
    with pytest.raises(HnasError, match=message):
        small_plan(store, sample=SAMPLE, scores=["weight"])
    assert [finding.path for finding in check_store(store).damaged] == [run.path(folder, name)]


# --- SQL


def test_scores_are_columns_of_views_and_search_pools(whole):
    connection = connect(whole)
    run = run_of(whole)
    rows = connection.execute("SELECT canonical, spread, weight, weight_seconds FROM pool ORDER BY arch").fetchall()
    expected = {name: dict(row) for name, row in scores_of(whole).items()}
    assert len(rows) == SAMPLE
    for canonical, spread, weight, seconds in rows:
        assert spread.hex() == expected[canonical]["spread@1"]
        assert weight.hex() == expected[canonical]["weight@1"]
        assert 0 <= seconds < 60
    assert connection.execute("SELECT canonical, spread FROM scores ORDER BY canonical").fetchall() == sorted(
        {(canonical, spread) for canonical, spread, *_ in rows}
    )
    pool = RunPool(connection, run, where="spread > 0 AND NOT isnan(weight)")
    assert len(pool) == sum(not np.isnan(weight) for _, _, weight, _ in rows)
    without = RunPool(connection, run, where="weight > -1e9")
    assert without.archs == pool.archs, "a condition on the score excludes networks without it"
    combined = pool.column("log_rank(spread) + log_rank(-weight)")
    columns = pool.column("spread"), -pool.column("weight")
    shares = [rankdata(column) / len(pool) for column in columns]
    np.testing.assert_allclose(combined, np.log(shares[0]) + np.log(shares[1]))
    known = pool.column("spread_seconds"), pool.column("weight_seconds")
    np.testing.assert_array_equal(pool.score_seconds("log_rank(Spread) + log_rank(-weight)"), known[0] + known[1])
    np.testing.assert_array_equal(pool.score_seconds("params - weight"), known[1])
    assert not pool.score_seconds("params").any()
    low = RunPool(connection, run, where="rank_share(weight) <= 0.5 AND spread < max(spread) OVER ()")
    weights = np.array([weight for _, _, weight, _ in rows], dtype=float)
    half = rankdata(weights, nan_policy="omit") / (~np.isnan(weights)).sum() <= 0.5
    assert len(low) == (half & (np.array([s for _, s, *_ in rows]) < max(s for _, s, *_ in rows))).sum()


def test_regularised_swap_is_available_in_sql_and_expressions(whole):
    text = "swap_regularised(spread, params / 1000, 800, 2e5)"
    connection = connect(whole)
    rows = connection.execute(f"SELECT spread, params, {text} FROM pool ORDER BY arch").fetchall()
    spread, params, regularised = np.array(rows, dtype=float).T
    expected = spread * np.exp(-((params / 1000 - 800) ** 2) / 2e5)
    assert len(set(expected)) > 2
    np.testing.assert_allclose(regularised, expected, rtol=1e-12)
    np.testing.assert_allclose(RunPool(connection, run_of(whole)).column(text), expected, rtol=1e-12)


def test_a_search_by_a_partly_known_score_says_what_computes_the_rest(finished, small_plan):
    fill(finished, small_plan(finished, sample=8, scores=["weight"]))
    connection = connect(finished)
    having, size = connection.execute("SELECT count(weight), count(*) FROM pool").fetchall()[0]
    assert 0 < having < size
    pool = RunPool(connection, run_of(finished))
    assert (pool.complete("weight"), pool.complete("params"), pool.complete("colour")) == (False, True, False)
    message = f"{size - having} of the {size} candidates lack the score weight, and come last or not at all; the run's"
    given = ("--oracle", "command: echo {arch} 5", "--queries", 1, "--store", finished.root)
    for method in ("naswot:weight", "best-of:-weight", "top:abs(weight)", "hnas:weight"):
        done = hnas("search", "nasbench201", "--method", method, *given)
        assert message in done.err, method
        assert "--scores weight computes it" in done.err
    assert "lack" not in hnas("search", "nasbench201", "--method", "top:params", *given).err
    assert message in hnas("search", "nasbench201", "--method", "naswot:weight", "--dry-run", *given).err
    compared = ("compare", "nasbench201", "--methods", "naswot:weight,top:weight", "--seeds", 1, "--workers", 1)
    assert hnas(*compared, *given).err.count(message) == 1
    done = hnas("search", "nasbench201", "--method", "naswot", *given)
    assert (done.status, "with --scores naswot computes it" in done.last) == (2, True)


def test_correlate_uses_scores_and_counts_rows_without_them(whole):
    found = correlate(connect(whole), pick_run(connect(whole)), target="spread")
    assert {"spread", "spread_again", "weight"} <= set(found.names)
    assert not {"spread_seconds", "weight_seconds"} & set(found.names)
    lost = sum(dict(row)["weight@1"] == "nan" for row in scores_of(whole).values())
    assert lost
    assert found.missing["weight"] >= lost


def test_the_cost_of_a_score_with_columns_of_other_names_is_known_as_one(store, small_plan):
    run = fill(store, small_plan(store, sample=6, scores=["pair"]))
    connection = connect(store)
    assert {"largest", "smallest", "pair_seconds"} <= set(RunPool(connection, run).columns)
    assert "pair_seconds" not in correlate(connection, pick_run(connection), target="smallest").names
    pool = RunPool(connection, run)
    np.testing.assert_array_equal(pool.score_seconds("largest - smallest"), pool.column("pair_seconds"))


def test_info_and_check_report_completeness(whole, finished, small_plan):
    (spread, weight) = store_info(connect(whole))["scores"]
    assert (spread["score"], spread["version"], spread["rows"], spread["complete"]) == (
        "spread",
        1,
        spread["classes"],
        "yes",
    )
    assert weight["rows"] == spread["rows"]
    assert check_store(whole).damaged == check_store(whole).remarks == []
    assert store_info(connect(finished))["scores"] == []
    plan = small_plan(finished, sample=SAMPLE, scores=["weight"])
    with claims_of(finished, plan) as claims:
        (chunk,) = claims.claim(Budget(5, float("inf")))
        run_chunk(job_of(finished, plan, token=claims.token), chunk)
    (row,) = store_info(connect(finished))["scores"]
    assert (row["rows"], row["complete"]) == (5, "no")
    (remark,) = check_store(finished).remarks
    assert remark.startswith(f"the score weight of run {run_of(finished)} is unfinished: 5 of ")
    assert connect(finished).execute("SELECT count(weight) FROM files.run_scores").fetchall() == [(5,)]


def test_another_version_of_a_score_is_computed_anew(finished, small_plan, monkeypatch):
    fill(finished, small_plan(finished, sample=SAMPLE, scores=["weight"]))
    module = __import__("foreign_scores")
    monkeypatch.setattr(module.Weight, "version", 2)
    monkeypatch.setattr(module.Weight, "__call__", lambda self, subject: {"weight": 2.0})
    _score.cache_clear()
    with pytest.raises(HnasError, match="the score weight has version 2 on a worker, but version 1"):
        _score("weight@1")
    plan = small_plan(finished, sample=8, scores=["weight"])
    assert dict(plan.lacking)["weight@2"] == len(plan.todo)
    fill(finished, plan)
    rows = connect(finished).execute("SELECT DISTINCT canonical, weight FROM pool").fetchall()
    asked = {canonical for canonical, _ in plan.todo}
    assert len(rows) > len(asked)
    assert all(weight == (2.0 if canonical in asked else None) for canonical, weight in rows)
    assert [(row["version"], row["shown"], row["complete"]) for row in store_info(connect(finished))["scores"]] == [
        (1, "no", "yes"),
        (2, "yes", "no"),
    ]
    _score.cache_clear()


@pytest.mark.parametrize(
    "scores", [{"weight": ["weight"]}, {"weight@1": ['x" AS y']}, {"weight@1": []}, 7, {"weight@01": ["weight"]}]
)
def test_only_plain_score_names_of_a_record_reach_sql(finished, scores):
    run = Run(finished, run_of(finished))
    run.write_record({**run.read_record(), "scores": scores})
    with pytest.raises(HnasError, match=r"run\.json was damaged after it was written: scores is"):
        connect(finished)


def test_a_packed_run_keeps_its_scores_and_accepts_more(finished, small_plan, tmp_path):
    fill(finished, small_plan(finished, sample=10, scores=["spread"]))
    fill(finished, small_plan(finished, sample=SAMPLE, scores=["weight"]))
    table, own = Store(str(tmp_path / "table")), Store(str(tmp_path / "own"))
    pack(Run(finished, run_of(finished)), table)
    assert scores_of(table) == scores_of(finished)
    assert len(table.files("runs", run_of(table), "scores")) == 2
    before = snapshot(table.root)
    plan = small_plan(own, sample=SAMPLE, scores=BOTH, also=[table])
    assert dict(plan.lacking) == {"metrics": 0, "spread@1": len(plan.todo), "weight@1": 0}
    fill(own, plan)
    assert snapshot(table.root) == before
    assert {name: len(row) for name, row in scores_of(own).items()} == dict.fromkeys(scores_of(own), 5)
    assert len(scores_of(own)) == len(exact_table(own, run_of(own)))
    assert untouched(own) != {}
