"""BOHB's short trainings: the curves of a table, and trainings of fewer epochs."""

from __future__ import annotations

from math import exp
from pathlib import Path

import pyarrow as pa
import pytest

from hnas.errors import HnasError
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.search.settings import TrainingSettings
from hnas.pipeline.search.training import Trainer
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from tests.support.stores import make_store

EPOCHS = 9


def curve(place: int, epoch: int) -> float:
    return (40 + place) * (1 - 0.5 * exp(-epoch / 3))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """40 cells by name, each better than the previous one, with curves of 9 epochs of 2 s each."""
    store = make_store(tmp_path_factory.mktemp("bohb"), architectures=40, accuracies=False)
    archs = [arch for (arch,) in connect(store).execute("SELECT arch FROM requests ORDER BY arch").fetchall()]
    common = {"space": "nasbench201", "dataset": "digits", "epochs": EPOCHS}
    tables = {
        "accuracies": [
            {**common, "arch": arch, "valid_accuracy": curve(i, EPOCHS), "seconds": 2.0 * EPOCHS}
            for i, arch in enumerate(archs)
        ],
        "curves": [
            {**common, "arch": arch, "epoch": epoch, "valid_accuracy": curve(i, epoch), "seconds": 2.0 * epoch}
            for i, arch in enumerate(archs)
            for epoch in range(1, EPOCHS + 1)
        ],
    }
    for table, rows in tables.items():
        store.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[table]), table, "synthetic", "a.parquet")
    return store


def test_curves_of_a_table_answer_short_trainings_at_their_cost(store: Store) -> None:
    connection = connect(store)
    started = new_search(connection, space="nasbench201", method="bohb", queries=30)
    result = run_search(store, connection, started)
    assert [query.epochs for query in result.queries[:17]] == [1] * 9 + [3] * 3 + [9] + [3] * 3 + [9]
    assert all(query.cost == 2.0 * query.epochs for query in result.queries)
    assert result.best.epochs == EPOCHS
    short, longer = result.queries[:9], result.queries[9:12]
    assert {query.arch for query in longer} == {
        query.arch for query in sorted(short, key=lambda query: -query.performance)[:3]
    }
    saved = open_search(connection, store, result.search)
    assert run_search(store, connection, saved).queries == result.queries


def test_a_budget_counts_short_and_full_trainings_alike(store: Store) -> None:
    connection = connect(store)
    result = run_search(
        store, connection, new_search(connection, space="nasbench201", method="bohb", queries=None, budget=100.0)
    )
    assert result.cost > 100 >= result.cost - result.queries[-1].cost


def test_a_table_without_curves_is_rejected_with_advice(tmp_path: Path) -> None:
    store = make_store(tmp_path, architectures=30)
    connection = connect(store)
    with pytest.raises(HnasError, match=r"epochs|curves"):
        run_search(store, connection, new_search(connection, space="nasbench201", method="bohb", queries=3))
    assert not store.exists("searches")


def test_architectures_are_trained_for_the_epochs_of_their_rung(store: Store) -> None:
    connection = connect(store)
    training = TrainingSettings(epochs=3, batch_size=256, lr=0.1, threads=1, images="digits")
    started = new_search(connection, space="nasbench201", dataset="digits", method="bohb", training=training, queries=8)
    queries = run_search(store, connection, started).queries
    assert [query.epochs for query in queries] == [1, 1, 1, 3, 3, 3, 1, 1]
    assert all(query.cost > 0 for query in queries)
    assert queries[3].arch in {query.arch for query in queries[:3]}


def test_halving_pays_for_what_each_rung_adds(store: Store) -> None:
    connection = connect(store)
    started = new_search(connection, space="nasbench201", method="halving", queries=None, budget=60.0, parallel=4)
    result = run_search(store, connection, started)
    epochs = [query.epochs for query in result.queries]
    assert epochs == sorted(epochs)
    assert [query.cost for query in result.queries] == [
        {1: 2.0, 3: 4.0, 9: 12.0}[query.epochs] for query in result.queries
    ]
    assert result.best.epochs == EPOCHS
    assert 30 < result.cost <= 60
    saved = open_search(connection, store, result.search)
    assert run_search(store, connection, saved).queries == result.queries


def test_halving_continues_trainings_bit_identically(store: Store, tmp_path: Path) -> None:
    connection = connect(store)
    training = TrainingSettings(epochs=3, batch_size=256, lr=0.1, threads=1, images="digits", channels=2, cells=1)
    started = new_search(
        connection, space="nasbench201", dataset="digits", method="halving", training=training, queries=9,
        options={"candidates": 3},
    )  # fmt: skip
    queries = run_search(store, connection, started).queries
    assert [query.epochs for query in queries] == [1, 1, 1, 3]
    alone = Trainer(search_spaces["nasbench201"], training, channels=2, cells=1, store=Store(str(tmp_path)))
    assert queries[3].performance == alone.train(queries[3].arch).valid_accuracy
    assert queries[3].arch == max(queries[:3], key=lambda query: query.performance).arch
