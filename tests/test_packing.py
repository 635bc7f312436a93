"""A packed run has the numbers of the run it was made of, in few files, and stands for it in every command."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hnas.errors import HnasError, UsageError
from pipeline import catalog
from pipeline.packing import pack
from pipeline.plan import record_request
from pipeline.runs import open_run
from pipeline.store import Store
from tests.conftest import SPACE, exact_table, fill, snapshot


def test_a_packed_run_has_every_number_to_the_last_bit_in_one_part(filled, tmp_path):
    store, plan = filled
    run = plan.settings.id
    before = snapshot(store.root)
    target = Store(str(tmp_path / "packed"))
    assert pack(store, run, target) == len(plan.todo)
    assert exact_table(target, run) == exact_table(store, run)
    assert len(target.glob("runs", run, "metrics", "*")) == 1
    assert len(target.glob("runs", run, "ntk.zarr", "eigenvalues", "c", "*", "*")) == 1
    assert not target.exists("runs", run, "batch.npz")
    assert target.read_json("runs", run, "run.json") == store.read_json("runs", run, "run.json")
    assert snapshot(store.root) == before


def test_queries_of_a_packed_run_answer_as_those_of_the_run(filled, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(store, plan.settings.id, target)
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
    pack(store, plan.settings.id, target)
    again = small_plan(target, sample=20)
    assert again.todo == ()
    assert again.done == len(plan.todo)


def test_a_packed_run_grows_by_what_is_asked_for_later(filled, small_plan, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(store, plan.settings.id, target)
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
    pack(store, plan.settings.id, target)
    pack(other, second.settings.id, target)
    asked = {arch for arch, _ in (*plan.requested, *second.requested)}
    rows = catalog.connect(target).execute("SELECT arch FROM architectures").fetchall()
    assert sorted(arch for (arch,) in rows) == sorted(asked)


def test_an_unfinished_run_is_refused_and_nothing_is_written(small_plan, tmp_path):
    store, target = Store(str(tmp_path / "store")), Store(str(tmp_path / "packed"))
    plan = small_plan(store, sample=8)
    store.prepare()
    open_run(store, plan.settings, plan.batch)
    record_request(store, SPACE, plan)
    with pytest.raises(UsageError, match=f"lacks {len(plan.todo)} of the {len(plan.todo)} rows"):
        pack(store, plan.settings.id, target)
    fill(store, replace(plan, todo=plan.todo[:4]))
    with pytest.raises(UsageError, match=f"lacks {len(plan.todo) - 4} of the {len(plan.todo)} rows"):
        pack(store, plan.settings.id, target)
    assert not (tmp_path / "packed").exists()


def test_a_run_that_the_target_has_is_left_alone(filled, tmp_path):
    store, plan = filled
    target = Store(str(tmp_path / "packed"))
    pack(store, plan.settings.id, target)
    before = snapshot(target.root)
    with pytest.raises(UsageError, match="has a run"):
        pack(store, plan.settings.id, target)
    assert snapshot(target.root) == before


def test_the_command_of_the_page_says_what_it_packed_or_what_is_wrong(filled, tmp_path):
    store, plan = filled
    page = (Path(__file__).parent.parent / "docs" / "store.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^python (-m \S+) \S+ \S+ \S+$", page, re.M)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, *shown.split(), *arguments]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    run, target = plan.settings.id, str(tmp_path / "packed")
    done = command(store.root, run, target)
    assert done.stdout == f"run {run}: {len(plan.todo)} rows packed into {target}\n"
    refused = command(store.root, "0000000000", target)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "Traceback" not in refused.stderr
    assert command(store.root).stderr.startswith("usage: ")


def test_a_run_that_does_not_exist_is_told(filled, tmp_path):
    with pytest.raises(HnasError, match="cannot be read"):
        pack(filled[0], "0000000000", Store(str(tmp_path / "packed")))
