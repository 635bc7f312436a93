"""A packed run has the numbers of its original in a few files, and replaces it in every command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog import views as catalog
from hnas.pipeline.precompute.driver import precompute
from hnas.pipeline.precompute.plan import adopted, record_request
from hnas.pipeline.store.check import check_store
from hnas.pipeline.store.packing import pack
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from tests.support.contents import matching, snapshot
from tests.support.places import ROOT
from tests.support.runs import SPACE, exact_table, fill


def test_a_packed_run_is_bit_identical_in_one_part(filled, tmp_path):
    store, plan = filled
    run = plan.settings.id
    before = snapshot(store.root)
    target = Store(str(tmp_path / "packed"))
    assert pack(Run(store, run), target) == len(plan.todo)
    assert exact_table(target, run) == exact_table(store, run)
    assert len(matching(target, "runs", run, "metrics", "*")) == 1
    assert len(matching(target, "runs", run, "ntk.zarr", "eigenvalues", "c", "*", "*")) == 1
    assert not target.exists("runs", run, "batch.npz")
    assert target.read_json("runs", run, "run.json") == store.read_json("runs", run, "run.json")
    assert snapshot(store.root) == before


def test_queries_of_a_packed_run_give_the_same_results(filled, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(Run(store, plan.settings.id), target)
    for query in (
        "SELECT * FROM pool ORDER BY arch",
        "SELECT * FROM spectra ORDER BY canonical",
        "SELECT * FROM requests ORDER BY arch",
        "SELECT * FROM architectures ORDER BY arch",
    ):
        found, expected = (catalog.connect(place).execute(query).fetchall() for place in (target, store))
        assert found == expected
        assert found


def test_a_precompute_into_a_packed_run_has_nothing_to_do(filled, small_plan, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(Run(store, plan.settings.id), target)
    again = small_plan(target, sample=20)
    assert again.todo == ()
    assert again.done == len(plan.todo)


def test_a_packed_run_grows_with_later_requests(filled, small_plan, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(Run(store, plan.settings.id), target)
    packed = exact_table(target, plan.settings.id)
    wider = small_plan(target, sample=24)
    assert wider.todo
    fill(target, wider)
    grown = exact_table(target, plan.settings.id)
    assert len(grown) == len(packed) + len(wider.todo)
    assert {name: grown[name] for name in packed} == packed


def test_runs_of_one_space_share_their_architectures(filled, small_plan, tmp_path):
    store, plan = filled
    other = Store(str(tmp_path / "other"))
    second = small_plan(other, sample=20, seed=1)
    fill(other, second)
    target = Store(str(tmp_path / "packed"))
    pack(Run(store, plan.settings.id), target)
    pack(Run(other, second.settings.id), target)
    asked = {arch for arch, _ in (*plan.requested, *second.requested)}
    rows = catalog.connect(target).execute("SELECT arch FROM architectures").fetchall()
    assert sorted(arch for (arch,) in rows) == sorted(asked)


def test_an_unfinished_run_is_rejected_and_nothing_is_written(small_plan, tmp_path):
    store, target = Store(str(tmp_path / "store")), Store(str(tmp_path / "packed"))
    plan = small_plan(store, sample=8)
    store.prepare()
    Run(store, plan.settings.id).create(plan.settings, plan.batch)
    record_request(store, SPACE, plan)
    with pytest.raises(UsageError, match=f"lacks {len(plan.todo)} of the {len(plan.todo)} requested rows"):
        pack(Run(store, plan.settings.id), target)
    fill(store, replace(plan, todo=plan.todo[:4]))
    with pytest.raises(UsageError, match=f"lacks {len(plan.todo) - 4} of the {len(plan.todo)} requested rows"):
        pack(Run(store, plan.settings.id), target)
    assert not (tmp_path / "packed").exists()


def test_an_existing_run_of_the_target_is_not_changed(filled, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(Run(store, plan.settings.id), target)
    before = snapshot(target.root)
    with pytest.raises(UsageError, match="has a run"):
        pack(Run(store, plan.settings.id), target)
    assert snapshot(target.root) == before


def test_the_documented_command_reports_success_or_the_error(filled, tmp_path):
    store, plan = filled
    page = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^python (-m \S+) \S+ \S+ \S+$", page, re.M)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, *shown.split(), *arguments]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    run, target = plan.settings.id, str(tmp_path / "packed")
    done = command(store.root, run, target)
    assert done.stdout == f"run {run}: {len(plan.todo)} rows packed into {target}\n"
    refused = command(store.root, "0000000000", target)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"hnas: {store.root} has no run 0000000000; ")
    again = command(store.root, run, target)
    assert (again.returncode, again.stderr[:6]) == (2, "hnas: ")
    wrong = command(store.root)
    assert (wrong.returncode, wrong.stderr) == (2, "hnas: packing needs the three arguments STORE RUN TARGET, got 1\n")


def test_a_missing_run_is_reported(filled, tmp_path):
    with pytest.raises(UsageError, match="has no run 0000000000"):
        pack(Run(filled[0], "0000000000"), Store(str(tmp_path / "packed")))
    with pytest.raises(UsageError, match="has no run"):
        pack(Run(Store(str(tmp_path / "nowhere")), filled[1].settings.id), Store(str(tmp_path / "packed")))
    assert not (tmp_path / "packed").exists()


def damaged(store: Store, folder: Path, pattern: str, harm: Callable[[Path], object]) -> Store:
    """A copy of `store` in `folder` whose file at `pattern` was damaged by `harm`."""
    shutil.copytree(store.root, folder)
    (found, *_) = sorted(folder.glob(pattern))
    harm(found)
    return Store(str(folder))


@pytest.mark.parametrize(
    ("pattern", "harm"),
    [
        ("runs/*/ntk.zarr/eigenvalues/c/0/0", lambda path: path.write_bytes(path.read_bytes()[:40])),
        ("runs/*/ntk.zarr/eigenvalues/c/0/0", Path.unlink),
        ("runs/*/ntk.zarr/eigenvalues/zarr.json", lambda path: path.write_text("{")),
        ("runs/*/ntk.zarr/zarr.json", lambda path: path.write_text("{")),
        ("runs/*/ntk.zarr/eigenvalues/zarr.json", lambda path: path.write_text(shorter(path.read_text()))),
        ("runs/*/metrics/*.parquet", lambda path: path.write_bytes(b"")),
        ("runs/*/requests/*.parquet", lambda path: path.write_bytes(b"")),
        ("runs/*/run.json", lambda path: path.write_text("{}")),
        ("runs/*/run.json", lambda path: path.write_text(path.read_text().replace("nasbench201", "nasbench999"))),
        ("store.json", lambda path: path.write_text('{"version": 99}')),
    ],
)
def test_a_damaged_run_gives_one_sentence_and_writes_nothing(filled, tmp_path, pattern, harm):
    store, plan = filled
    source = damaged(store, tmp_path / "damaged", pattern, harm)
    with pytest.raises(HnasError) as error:
        pack(Run(source, plan.settings.id), Store(str(tmp_path / "packed")))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "packed").exists()


def shorter(text: str) -> str:
    """The metadata of an array shortened to its first rows."""
    described = json.loads(text)
    described["shape"][0] = 4
    return json.dumps(described)


def test_a_failing_target_receives_nothing_of_the_run(filled, tmp_path, monkeypatch):
    store, plan = filled
    target, run = Store(str(tmp_path / "packed")), plan.settings.id

    write = target.write_json

    def full(value: dict[str, object], *parts: str) -> None:
        if "run.json" in parts:
            raise HnasError("the disk is full")
        write(value, *parts)

    monkeypatch.setattr(target, "write_json", full)
    with pytest.raises(HnasError, match="the disk is full"):
        pack(Run(store, run), target)
    assert not target.exists("runs", run)
    monkeypatch.undo()
    assert pack(Run(store, run), target) == len(plan.todo)
    assert exact_table(target, run) == exact_table(store, run)


@pytest.fixture
def table(filled, tmp_path) -> Store:
    """A table with the finished run."""
    store, plan = filled
    target = Store(str(tmp_path / "tables" / "digits"))
    pack(Run(store, plan.settings.id), target)
    return target


@pytest.fixture
def empty(tmp_path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_plan_counts_the_rows_of_a_table_and_writes_nothing(filled, empty, table, small_plan, tmp_path):
    plan = small_plan(empty, sample=24, also=[table])
    missing = {canonical for _, canonical in plan.requested} - set(exact_table(filled[0], plan.settings.id))
    assert {canonical for canonical, _ in plan.todo} == missing
    assert missing
    assert not (tmp_path / "store").exists()


def test_a_precompute_extends_the_run_of_a_table(filled, empty, table, small_plan, tmp_path):
    store, first = filled
    run = first.settings.id
    before = snapshot(tmp_path / "tables")
    plan = small_plan(empty, sample=24, also=[table])
    assert precompute(empty, SPACE, plan, workers=1).run == run
    rows, packed = exact_table(empty, run), exact_table(store, run)
    assert len(rows) == len(packed) + len(plan.todo)
    assert packed.items() <= rows.items()
    asked = {arch for arch, _ in (*first.requested, *plan.requested)}
    rows = catalog.connect(empty, [table]).execute("SELECT arch FROM pool WHERE run = ?", [run]).fetchall()
    assert sorted(arch for (arch,) in rows) == sorted(asked)
    assert empty.exists("runs", run, "batch.npz")
    assert snapshot(tmp_path / "tables") == before


def test_a_precompute_of_rows_in_a_table_computes_nothing(filled, empty, table, small_plan):
    store, first = filled
    plan = small_plan(empty, sample=20, also=[table])
    assert plan.todo == ()
    precompute(empty, SPACE, plan, workers=1)
    assert exact_table(empty, plan.settings.id) == exact_table(store, first.settings.id)
    assert len(empty.read_json("runs", plan.settings.id, "run.json")["sessions"]) == len(
        store.read_json("runs", plan.settings.id, "run.json")["sessions"]
    )


def test_the_stores_own_run_is_preferred_to_a_tables(filled, empty, table, small_plan):
    plan = small_plan(empty, sample=4, also=[table])
    empty.prepare()
    Run(empty, plan.settings.id).create(plan.settings, plan.batch)
    with pytest.raises(HnasError, match=r"another command began run .* start the same command again"):
        adopted(empty, plan)  # the plan counts on rows that the own run lacks
    assert len(small_plan(empty, sample=4, also=[table]).todo) == len({canonical for _, canonical in plan.requested})


@pytest.mark.parametrize("last", ["requests", "ntk.zarr", "metrics"])
def test_a_killed_copy_of_a_table_is_made_anew(filled, empty, table, small_plan, tmp_path, last):
    store, first = filled
    run = first.settings.id
    adopted(empty, small_plan(empty, sample=20, also=[table]))
    shutil.rmtree(Path(empty.path("runs", run, "scores")), ignore_errors=True)
    Path(empty.path("runs", run, "run.json")).unlink()
    for later in ("metrics", "ntk.zarr")[: ("metrics", "ntk.zarr", "requests").index(last)]:
        shutil.rmtree(empty.path("runs", run, later))
    plan = small_plan(empty, sample=20, also=[table])
    assert (plan.todo, plan.repairs) == ((), ())
    precompute(empty, SPACE, plan, workers=1)
    assert exact_table(empty, run) == exact_table(store, run)
    assert check_store(empty).damaged == []


def test_rows_of_a_run_that_lost_its_record_are_not_a_killed_copy(empty, table, small_plan):
    run = fill(empty, small_plan(empty, sample=4))
    Path(empty.path("runs", run, "run.json")).unlink()
    plan = small_plan(empty, sample=4, also=[table])
    assert (plan.table, plan.todo) == (None, ())


def test_an_unfinished_table_is_used_as_it_is(filled, small_plan, tmp_path):
    table, store = Store(str(tmp_path / "tables" / "half")), Store(str(tmp_path / "store"))
    plan = small_plan(table, sample=20)
    fill(table, replace(plan, todo=plan.todo[:4]))
    remaining = small_plan(store, sample=20, also=[table])
    assert len(remaining.todo) == len(plan.todo) - 4
    precompute(store, SPACE, remaining, workers=1)
    assert exact_table(store, plan.settings.id) == exact_table(filled[0], plan.settings.id)
