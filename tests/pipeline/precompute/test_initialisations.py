"""Runs with another initialisation: their names and rows, and the commands that rebuild their networks."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from hnas import compute_metrics
from hnas.cli import InitOption
from hnas.errors import UsageError
from hnas.pipeline.catalog.averaging import group_of
from hnas.pipeline.catalog.info import store_info
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.images import ImageDataset
from hnas.pipeline.precompute.driver import precompute
from hnas.pipeline.precompute.plan import Plan, make_plan
from hnas.pipeline.precompute.report import dry_run_text
from hnas.pipeline.precompute.worker import resident_batch
from hnas.pipeline.search import workers
from hnas.pipeline.search.evaluation import evaluate
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.search.settings import TrainingSettings
from hnas.pipeline.search.workers import RemoteTrainer
from hnas.pipeline.store.check import check_store
from hnas.pipeline.store.packing import pack
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import trained_sources
from hnas.spaces import search_spaces
from hnas.spaces.initialise import INITIALISATIONS, initialise
from tests.support.command_line import hnas
from tests.support.places import ROOT
from tests.support.runs import SIZE, SPACE, exact_table, fill, job_of, metrics_of

pytestmark = pytest.mark.slow

MakePlan = Callable[..., Plan]
SHIPPED = {"nasbench201": "43b49bf90b", "darts": "01ff01e343", "nasbench101": "e244785986"}
TRAINING = TrainingSettings(epochs=1, batch_size=256, lr=0.1, threads=1, images="digits", channels=2, cells=1)


@pytest.fixture(scope="module")
def initialised(
    tmp_path_factory: pytest.TempPathFactory, small_plan: MakePlan
) -> tuple[Store, dict[str, str], dict[str, Plan]]:
    """A store with a run of each initialisation, of the same 12 architectures: their names and plans. Read only."""
    store = Store(str(tmp_path_factory.mktemp("initialised") / "store"))
    plans = {init: small_plan(store, sample=12, init=init) for init in INITIALISATIONS}
    return store, {init: fill(store, plan) for init, plan in plans.items()}, plans


# --- names and records


@pytest.mark.parametrize(("space", "name"), SHIPPED.items())
def test_shipped_runs_keep_their_names_and_have_torch_weights(space, name):
    run = Run(Store(str(ROOT / "data/tables" / f"{space}-cifar10")), name)
    assert "init" not in run.read_record()["settings"]
    settings = run.read_settings()
    assert (settings.init, settings.id) == ("torch", name)
    assert replace(settings, init="he").id != name


def test_each_initialisation_is_a_separate_run_that_records_it(initialised):
    store, runs, plans = initialised
    assert len(set(runs.values())) == 3
    connection = connect(store)
    assert dict(connection.sql("SELECT init, run FROM runs").fetchall()) == runs
    assert {row["init"]: row["run"] for row in store_info(connection)["runs"]} == runs
    for init, run in runs.items():
        assert store.read_json("runs", run, "run.json")["settings"]["init"] == init
        assert pick_run(connection, run=run).settings == plans[init].settings
        assert f"{init}, seed 0" in dry_run_text(plans[init], None, workers=1, keep_gram=False)
    assert check_store(store).damaged == []


def test_runs_with_different_initialisations_are_not_averaged(initialised, small_plan, tmp_path):
    store = Store(str(tmp_path / "store"))
    pack(Run(initialised[0], initialised[1]["torch"]), store)
    pack(Run(initialised[0], initialised[1]["he"]), store)
    with pytest.raises(UsageError, match="--average has no other run to average"):
        group_of(connect(store), initialised[1]["he"])
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(arch for arch, _ in initialised[2]["he"].requested))
    other = fill(store, small_plan(store, architectures=listed, init="he", seed=1))
    assert group_of(connect(store), other) == sorted([other, initialised[1]["he"]])


# --- rows


@pytest.mark.parametrize("init", INITIALISATIONS)
def test_rows_equal_the_metrics_of_the_network_with_these_weights(initialised, init):
    store, runs, plans = initialised
    batch = resident_batch(job_of(store, plans[init]))
    rows = {row["canonical"]: row for row in metrics_of(store, runs[init])}
    settings = plans[init].settings
    for arch, canonical in plans[init].requested[:3]:
        network = SPACE.network(arch, classes=10, channels=settings.channels, cells=settings.cells, seed=0)
        found = compute_metrics(initialise(network, 0, init), batch.images, batch.labels).columns()
        assert {name: rows[canonical][name] for name in found} == found


def test_rows_do_not_depend_on_workers_chunks_and_order(initialised, small_plan, tmp_path):
    archs = [arch for arch, _ in initialised[2]["he"].requested]
    expected = {init: exact_table(initialised[0], initialised[1][init]) for init in INITIALISATIONS}
    assert len({table[initialised[2]["he"].todo[0][0]] for table in expected.values()}) == 3
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(random.Random(1).sample(archs, len(archs))))
    store = Store(str(tmp_path / "store"))
    for init, chunk_size in (("he", 5), ("published", 1)):
        plan = small_plan(store, architectures=listed, init=init, chunk_size=chunk_size)
        assert exact_table(store, fill(store, plan)) == expected[init]
    two = Store(str(tmp_path / "two"))
    plan = small_plan(two, architectures=listed, init="published", chunk_size=7)
    assert exact_table(two, precompute(two, SPACE, plan, workers=2, device="cpu").run) == expected["published"]
    packed = Store(str(tmp_path / "packed"))
    pack(Run(two, plan.settings.id), packed)
    assert exact_table(packed, plan.settings.id) == expected["published"]
    assert small_plan(packed, architectures=listed, init="published").todo == ()


@pytest.mark.parametrize("space", ["darts", "nasbench101"])
def test_other_spaces_support_all_initialisations(space: str, digits: ImageDataset, tmp_path: Path):
    store = Store(str(tmp_path / "store"))
    listed = tmp_path / "list.txt"
    listed.write_text({"darts": "SNAS", "nasbench101": "input,conv3x3-bn-relu,output:010001000"}[space])
    rows = {}
    for init in INITIALISATIONS:
        plan = make_plan(store, search_spaces[space], digits, architectures=listed, init=init, **SIZE)
        assert precompute(store, search_spaces[space], plan, workers=1, device="cpu").computed == 1
        (row,) = metrics_of(store, plan.settings.id)
        rows[init] = row
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert len({row["grad_norm"] for row in rows.values()}) == 3


# --- commands


def test_the_command_line_lists_all_initialisations():
    assert get_args(get_args(InitOption)[0]) == INITIALISATIONS


def test_an_unknown_initialisation_is_a_usage_error_and_writes_nothing(small_plan, tmp_path):
    store = Store(str(tmp_path / "store"))
    with pytest.raises(UsageError, match="the initialisation 'lecun' is unknown; choose from torch, he, published"):
        small_plan(store, sample=2, init="lecun")
    for command in (
        ("precompute", "nasbench201", "--sample", "2"),
        ("evaluate", "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"),
    ):
        done = hnas(*command, "--dataset", "digits", "--init", "lecun", "--store", store.root)
        assert (done.status, done.err) == (2, "hnas: --init 'lecun' is unknown; choose from torch, he, published\n")
    assert not Path(store.root).exists()


def test_a_search_trains_networks_with_the_initialisation_of_the_run(small_plan, tmp_path, monkeypatch):
    store = Store(str(tmp_path / "store"))
    fill(store, small_plan(store, sample=12, init="he"))
    connection = connect(store)
    started = new_search(connection, space="nasbench201", dataset="digits", training=TRAINING, queries=2)
    result = run_search(store, connection, started)
    trained = result.queries[0]
    found = evaluate(trained.arch, TRAINING, space="nasbench201", init="he", store=store)
    assert found.valid_accuracy == trained.performance
    (source,) = trained_sources(store)
    other = evaluate(trained.arch, TRAINING, space="nasbench201", store=store)
    assert len(trained_sources(store)) == 2, "another initialisation is another training"
    assert other.curve[0].loss != found.curve[0].loss
    elsewhere = Store(str(tmp_path / "elsewhere"))
    settings = json.dumps(started.settings.as_dict())
    # Progress goes to the scheduler of a Dask worker, which this process is not.
    monkeypatch.setattr(workers, "report", lambda topic, message: None)
    remote = RemoteTrainer(elsewhere.root, settings, 2, 1, "he", "cpu", "nobody listens")
    assert remote(trained.arch).performance == trained.performance
    assert trained_sources(elsewhere) == [source]
