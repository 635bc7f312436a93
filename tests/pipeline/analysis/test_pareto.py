"""Pareto fronts of pools and of searches, their hypervolume, and `hnas pareto`."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.pipeline.analysis.pareto import hypervolume, pareto
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.session import run_search
from tests.support.command_line import hnas
from tests.support.stores import make_store

_NUMBERS = st.integers(0, 6).map(float)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    return make_store(tmp_path_factory.mktemp("pareto"), architectures=60)


def dominates(a, b) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def test_the_front_is_not_dominated_by_any_architecture(store):
    connection = connect(store)
    found = pareto(connection, pick_run(connection), minimise=["params", "-trace"], maximise=["valid_accuracy"])
    rows = connection.execute(
        "SELECT arch, params, -trace, valid_accuracy FROM pool WHERE valid_accuracy IS NOT NULL ORDER BY arch"
    ).fetchall()
    points = {arch: (params, trace, -accuracy) for arch, params, trace, accuracy in rows}
    expected = {a for a, p in points.items() if not any(dominates(q, p) for q in points.values())}
    first = {points[a]: min(b for b in expected if points[b] == points[a]) for a in expected}
    assert set(found.archs) == set(first.values())
    assert found.values[:, 0].tolist() == sorted(found.values[:, 0].tolist())
    assert [record["arch"] for record in found.records()] == found.archs


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS), min_size=1, max_size=8))
def test_the_hypervolume_is_the_dominated_share_of_the_box(points):
    """On an integer grid it can be counted. The corners (0, 0, 0) and (6, 6, 6) fix the box."""
    box = np.array([(0, 0, 0), (6, 6, 6)], dtype=float)
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    covered = np.zeros(len(grid), bool)
    for point in points:
        covered |= (grid >= np.array(point)).all(axis=1)
    assert hypervolume(np.array(points), box, [False] * 3) == pytest.approx(covered.mean(), abs=1e-12)
    turned = np.array(points) * [1, -1, 1]
    assert hypervolume(turned, box * [1, -1, 1], [False, True, False]) == pytest.approx(covered.mean(), abs=1e-12)


def test_a_constant_objective_is_ignored_by_the_hypervolume():
    pool = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert hypervolume(pool[:1], pool, [False, True]) == 1
    assert hypervolume(pool[:1, 1:], pool[:, 1:], [True]) == 1


def test_the_front_of_a_search_uses_the_box_of_the_pool(store):
    connection = connect(store)
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=9))
    connection = connect(store)
    run = pick_run(connection)
    found = pareto(connection, run, minimise=["params"], maximise=["performance"], searches=[result.search])
    whole = pareto(connection, run, minimise=["params"], maximise=["valid_accuracy"])
    assert set(found.archs) <= {query.arch for query in result.queries}
    assert len(found.everything) == 9
    assert 0 < found.hypervolume < whole.hypervolume <= 1
    box = np.column_stack([whole.everything[:, 0], whole.everything[:, 1]])
    assert found.hypervolume == pytest.approx(hypervolume(found.values, box, [False, True]), abs=1e-12)


def test_the_command_prints_the_front_in_three_formats_and_draws_it(store, tmp_path):
    arguments = ("pareto", "--store", store.location, "--minimise", "params,flops", "--maximise", "test_accuracy")
    for suffix in ("png", "svg", "pdf"):
        figure = tmp_path / f"front.{suffix}"
        shown = hnas(*arguments, "--plot", figure)
        assert shown.status == 0, shown.err
        assert figure.stat().st_size > 1000
    assert "hypervolume" in shown.out
    assert "test_accuracy: test accuracy" in shown.out
    records = json.loads(hnas(*arguments, "--format", "json").out)
    rows = list(csv.DictReader(io.StringIO(hnas(*arguments, "--format", "csv").out)))
    assert [row["arch"] for row in rows] == [record["arch"] for record in records]
    assert set(records[0]) == {"arch", "params", "flops", "test_accuracy"}
    limited = json.loads(hnas(*arguments, "--max-params", 3e5, "--format", "json").out)
    assert all(record["params"] <= 3e5 for record in limited)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--minimise", "params"), "two objectives"),
        (("--minimise", "params,params"), "an objective twice"),
        (("--minimise", "params", "--maximise", "params"), "an objective twice"),
        (("--minimise", "parms,flops"), "did you mean 'params'"),
        (("--minimise", "params,"), "is empty"),
        (("--minimise", "greatest(params,flops", "--maximise", "trace"), "does not close"),
        (("--minimise", "params,flops", "--search", "0000000000"), "no search '0000000000'"),
        (("--minimise", "params", "--maximise", "test_accuracy", "--epochs", "7"), "after 7 epochs"),
        (("--minimise", "params", "--maximise", "trace", "--epochs", "10"), "none is among the objectives"),
        (("--minimise", "params", "--maximise", "trace", "--source", "nosuch"), "none is among the objectives"),
        (("--minimise", "params", "--maximise", "trace", "--where", "params < 0"), "no architecture"),
        (("--minimise", "params", "--maximise", "trace", "--plot", "x.gif"), "must end in .png"),
    ],
)
def test_bad_objectives_give_one_sentence(store, arguments, words):
    done = hnas("pareto", "--store", store.location, *arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.last
