"""The signal that guides a search, the reported accuracies of its winner, its budget and its candidates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hnas.errors import HnasError, UsageError
from hnas.optim.algorithm import Evaluation, search
from hnas.optim.pools import ArrayPool
from hnas.pipeline.catalog.expressions import condition
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import Signal, choose_signal, reported
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.search.prepared import prepare
from hnas.pipeline.search.report import search_summary
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search, read_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.search.settings import method_of, options_of
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.stores import make_store

ON = {"space": "nasbench201", "dataset": "digits"}


def add(store: Store, source: str, rows: list[dict[str, object]], table: str = "accuracies") -> None:
    """Accuracies of a source in the layout of older versions: a file in the folder of their table."""
    content = pa.Table.from_pylist([{**ON, **row} for row in rows], schema=SCHEMAS[table])
    store.write_table(content, table, source, "a.parquet")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve and two hundred epochs, two seeds, validation and test accuracies, curves, and a second data set."""
    store = make_store(tmp_path_factory.mktemp("signals"), architectures=40, accuracies=False)
    archs = [arch for (arch,) in connect(store).execute("SELECT arch FROM requests ORDER BY arch").fetchall()]
    short = [
        {"arch": arch, "epochs": 12, "seed": seed, "valid_accuracy": 50.0 + i + seed, "seconds": 10.0 + seed}
        for i, arch in enumerate(archs)
        for seed in (0, 1)
    ]
    curves = [
        {"arch": arch, "epochs": 12, "epoch": epoch, "valid_accuracy": 20.0 + i + epoch, "seconds": 1.5 * epoch}
        for i, arch in enumerate(archs)
        for epoch in (1, 4, 12)
    ]
    long = []
    for i, arch in enumerate(archs):
        long.append({"arch": arch, "epochs": 200, "valid_accuracy": 60.0 + i, "test_accuracy": 70.0 + i / 2})
        long.append({"arch": arch, "epochs": 200, "dataset": "cifar100", "test_accuracy": 40.0 + i / 2})
        long.append({"arch": arch, "epochs": 200, "dataset": "cifar100-ori-test", "test_accuracy": 41.0 + i / 2})
    add(store, "short", short)
    add(store, "long", long)
    add(store, "few", [{"arch": archs[0], "epochs": 600, "valid_accuracy": 99.0, "test_accuracy": 99.0}])
    add(store, "short", curves, "curves")
    return store


def pool_of(store: Store, signal: Signal | None, where: str | None = None) -> RunPool:
    connection = connect(store)
    return RunPool(connection, pick_run(connection).name, signal=signal, where=where)


def test_short_validation_guides_and_the_longest_test_is_reported(store):
    connection = connect(store)
    assert choose_signal(connection, "nasbench201", "digits") == Signal("valid_accuracy", "short", "digits", 12)
    assert str(Signal("valid_accuracy", "short", "digits", 1)) == "validation accuracy after 1 epoch on digits (short)"
    assert reported(connection, "nasbench201") == [
        Signal("test_accuracy", "long", "cifar100", 200),
        Signal("test_accuracy", "long", "digits", 200),
    ]


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({"epochs": 200}, Signal("valid_accuracy", "long", "digits", 200)),
        ({"accuracy": "test_accuracy"}, Signal("test_accuracy", "long", "digits", 200)),
        ({"source": "few"}, Signal("valid_accuracy", "few", "digits", 600)),
        ({"epochs": 4}, Signal("valid_accuracy", "short", "digits", 4, of=12)),
        ({"epochs": 12}, Signal("valid_accuracy", "short", "digits", 12)),
    ],
)
def test_a_signal_is_chosen_by_accuracy_epochs_and_source(store, criteria, expected):
    assert choose_signal(connect(store), "nasbench201", "digits", **criteria) == expected


@pytest.mark.parametrize(
    ("criteria", "words"),
    [
        ({"epochs": 13}, r"after 13 epochs on digits; the store has few \(600 epochs\), long \(200"),
        ({"source": "shrt"}, "of shrt on digits"),
        ({"accuracy": "test_accuracy", "epochs": 12}, "test_accuracy after 12 epochs"),
    ],
)
def test_a_signal_that_no_architecture_has_is_rejected(store, criteria, words):
    with pytest.raises(UsageError, match=words):
        choose_signal(connect(store), "nasbench201", "digits", **criteria)
    with pytest.raises(UsageError, match=words):
        new_search(connect(store), space="nasbench201", **criteria)


def test_performance_and_cost_are_means_over_the_seeds_of_the_signal(store):
    pool = pool_of(store, choose_signal(connect(store), "nasbench201", "digits"))
    expected = [50.5 + i for i in range(40)]
    assert [pool.evaluate(arch).performance for arch in pool.archs] == expected
    assert {pool.evaluate(arch).cost for arch in pool.archs} == {10.5}
    assert pool.evaluate(pool.archs[3], 4) == Evaluation(27.0, 6.0)
    with pytest.raises(HnasError, match="no curves with epoch 3"):
        pool.evaluate(pool.archs[3], 3)


def test_accuracies_of_trainings_on_half_are_preferred(tmp_path):
    """The benchmark calls the trainings with validation accuracies `cifar10-valid`."""
    store = make_store(tmp_path, architectures=6, accuracies=False)
    archs = [arch for (arch,) in connect(store).execute("SELECT arch FROM requests").fetchall()]
    rows = [{"arch": arch, "epochs": 12, "valid_accuracy": 50.0, "seconds": 20.0} for arch in archs]
    add(
        store,
        "both",
        rows + [{**row, "dataset": "digits-valid", "seconds": 10.0, "test_accuracy": 1.0} for row in rows],
    )
    signal = choose_signal(connect(store), "nasbench201", "digits")
    assert signal == Signal("valid_accuracy", "both", "digits-valid", 12)
    assert set(pool_of(store, signal).costs) == {10.0}


def test_a_search_is_guided_by_the_signal_and_reports_the_test_accuracy_of_its_winner(store):
    connection = connect(store)
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=4))
    pool = pool_of(store, result.settings.signal)
    position = pool.position(result.best.arch)
    assert result.best.performance == 50.5 + position
    assert result.test == {"cifar100": 40 + position / 2, "digits": 70 + position / 2}
    assert result.cost == 4 * 10.5
    text = search_summary(result)
    assert f"{50.5 + position:.2f} % validation accuracy after 12 epochs" in text
    assert (
        f"test accuracy after 200 epochs: {40 + position / 2:.2f} % on cifar100, {70 + position / 2:.2f} % on digits"
        in text
    )
    row = connect(store).execute(
        "SELECT method, metric, accuracy, epochs, source, cost FROM searches WHERE search = ?", [result.search]
    )
    assert row.fetchall() == [("hnas", "trace", "valid_accuracy", 12, "short", 42.0)]


def test_a_search_guided_by_test_accuracy_says_so(store):
    connection = connect(store)
    started = new_search(connection, space="nasbench201", queries=2, accuracy="test_accuracy")
    assert "guided by test accuracy" in search_summary(run_search(store, connection, started))


def test_a_budget_counts_the_seconds_of_the_table(store):
    connection = connect(store)
    started = new_search(connection, space="nasbench201", method="random", queries=None, budget=50.0)
    result = run_search(store, connection, started)
    assert [query.cost for query in result.queries] == [10.5] * 5
    again = run_search(store, connection, open_search(connection, store, result.search))
    assert again.queries == result.queries
    incumbents = connect(store).execute(
        "SELECT query, spent, arch, performance FROM incumbents WHERE search = ? ORDER BY query", [result.search]
    )
    expected, best = [], result.queries[0]
    for i, query in enumerate(result.queries):
        best = max(best, query, key=lambda q: q.performance)
        expected.append((i + 1, 10.5 * (i + 1), best.arch, best.performance))
    assert incumbents.fetchall() == expected


def test_a_budget_without_seconds_in_the_table_is_rejected(store):
    connection = connect(store)
    started = new_search(connection, space="nasbench201", epochs=200, queries=None, budget=50.0)
    with pytest.raises(UsageError, match="has none; give --queries instead"):
        run_search(store, connection, started)


def test_a_budget_with_seconds_for_some_candidates_only_is_rejected(tmp_path):
    store = make_store(tmp_path, architectures=10)
    table = store.read_table(None, "accuracies", "csv", "made-up.parquet").to_pylist()
    rows = [{**row, "seconds": None if k < 3 else 100.0} for k, row in enumerate(table)]
    store.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS["accuracies"]), "accuracies", "csv", "made-up.parquet")
    connection = connect(store)
    started = new_search(connection, space="nasbench201", queries=None, budget=500.0)
    with pytest.raises(UsageError, match=r"but .* has none for 3 of the 10 candidates; give --queries instead"):
        run_search(store, connection, started)


def test_where_limits_the_candidates_of_every_method(store):
    everything = pool_of(store, None)
    params, kappa = everything.column("params"), everything.column("kappa")
    limit = float(np.median(params))
    where = condition("kappa < 1e3 -- well conditioned", max_params=limit)
    connection = connect(store)
    expected = {a for a, p, k in zip(everything.archs, params, kappa, strict=True) if p <= limit and k < 1e3}
    assert set(pool_of(store, None, where).archs) == expected
    for method in ("hnas", "random"):
        result = run_search(
            store, connection, new_search(connection, space="nasbench201", method=method, queries=5, where=where)
        )
        assert {query.arch for query in result.queries} <= expected
        assert read_search(store, result.search)[0].where == where


def test_a_column_can_be_any_expression_over_the_pool(store):
    pool = pool_of(store, None)
    assert np.array_equal(pool.column("-ln(params)"), -np.log(pool.column("params")))
    ranks = pool.column("cume_dist() OVER (ORDER BY flops) + 0 * (CASE WHEN status = 'ok' THEN 1 ELSE 2 END)")
    assert ranks.max() == 1
    assert len(pool.minimiser("flops / 1e6").terms()[0]) == np.isfinite(pool.column("kappa")).sum()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("params <", "not an SQL expression"),
        ("param < 1e6", "no column 'param' .*did you mean 'params'"),
        ("1 < 2", "uses no column"),
        ("params", "not a condition"),
        ("params < 'many'", "cannot be computed"),
        ("CAST(params AS nosuch) > 1", "cannot be computed: Catalog Error: Type with name nosuch"),
        ("arch LIKE 'x' ESCAPE 'yy'", "cannot be computed: Syntax Error"),
        (f"{' + '.join(['params'] * 900)} > 1", "too many operations inside each other"),
        (f"{'abs(' * 1200}params{')' * 1200} > 1", "too many operations inside each other"),
        ("params < 1) OR (kappa < 2", "params|not one SQL expression"),
        ("params < 1; DROP TABLE runs", "not an SQL expression"),
        ("params < (SELECT count(*) FROM runs)", "other than columns, numbers and comparisons"),
        ("arch = read_text('/etc/hostname')", "read_text"),
        ("arch = getenv('HOME')", "getenv"),
        ("params < random()", "random"),
        ("params < max(params)", r"write max\(…\) OVER \(\)"),
        ("params < 1", "0 architectures.*under --where"),
        ("rank_share(params) < 0", "0 architectures.*under --where"),
        ("\ud800 < 1", "cannot be read as SQL"),
    ],
)
def test_an_invalid_condition_gives_one_sentence(store, where, words):
    connection = connect(store)
    before = store.names("searches")
    with pytest.raises(UsageError, match=words) as caught:
        run_search(store, connection, new_search(connection, space="nasbench201", where=where))
    assert "\n" not in str(caught.value)
    assert store.names("searches") == before


def test_a_saved_condition_is_as_restricted_as_a_typed_one(store):
    connection = connect(store)
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=1))
    place = ("searches", result.search, "search.json")
    saved = store.read_json(*place)
    saved["settings"] |= {"where": "arch IN (SELECT content FROM read_text('/etc/hostname'))", "queries": 2}
    store.write_json(saved, *place)
    with pytest.raises(UsageError, match="other than columns, numbers and comparisons"):
        run_search(store, connection, open_search(connection, store, result.search))


@pytest.mark.parametrize(
    "edit",
    [
        {"t": []},
        {"seed": "0"},
        {"queries": 2.5},
        {"where": 3},
        {"metric": {}},
        {"options": {"draws": []}},
        {"runs": [1]},
    ],
)
def test_saved_settings_of_wrong_types_give_one_sentence(store, edit):
    connection = connect(store)
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=1))
    place = ("searches", result.search, "search.json")
    saved = store.read_json(*place)
    saved["settings"] |= edit
    store.write_json(saved, *place)
    with pytest.raises(HnasError, match=rf"settings that this hnas does not know: {next(iter(edit))} is "):
        read_search(store, result.search)


@pytest.mark.parametrize(("name", "limit"), [("max_params", 0.0), ("max_flops", -1.0), ("max_params", float("nan"))])
def test_a_limit_that_leaves_nothing_is_rejected(name, limit):
    with pytest.raises(UsageError, match="leaves no architecture"):
        condition(None, **{name: limit})


@pytest.mark.parametrize("where", ["", " ", "kappa < 1) OR (trace > 0"])
def test_empty_and_unbalanced_conditions_are_rejected(store, where):
    with pytest.raises(UsageError, match="--where"):
        run_search(store, connect(store), new_search(connect(store), space="nasbench201", where=condition(where)))
    with pytest.raises(UsageError, match="--max-flops inf leaves every architecture"):
        condition(None, max_flops=float("inf"))


def test_a_method_with_nothing_to_evaluate_is_rejected_first(store, monkeypatch):
    connection = connect(store)
    monkeypatch.setattr("hnas.optim.methods.random.Random.ask", lambda self: None)
    with pytest.raises(UsageError, match="random finds nothing to evaluate among the 40 candidates"):
        prepare(connection, new_search(connection, space="nasbench201", method="random").settings)


def test_a_method_takes_one_argument_in_any_spelling():
    assert method_of("hnas") == ("hnas", None)
    assert method_of("top:-kappa") == ("top", "-kappa")
    assert method_of("top", by="flops") == ("top", "flops")
    assert method_of("hnas:snip", metric="snip") == ("hnas", "snip")
    with pytest.raises(UsageError, match="--metric snip and --by flops give two columns"):
        method_of("hnas", metric="snip", by="flops")
    with pytest.raises(UsageError, match="nothing after the colon"):
        method_of("hnas:")
    with pytest.raises(UsageError, match="--by is empty"):
        method_of("top", by="")


def test_options_of_a_method_are_numbers_or_words():
    assert options_of(["draws=100", "scale=5e3", "xi=0.5", "kind=forest"]) == {
        "draws": 100, "scale": 5000, "xi": 0.5, "kind": "forest",
    }  # fmt: skip
    for wrong in (["draws"], ["=3"], ["draws="], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="must be a new NAME=VALUE"):
            options_of(wrong)
    with pytest.raises(UsageError, match="--option seed is not an option of a method"):
        options_of(["seed=3"])


def test_a_search_saved_before_signals_resumes_with_the_views(tmp_path):
    store = make_store(tmp_path, architectures=30)
    connection = connect(store)
    whole = run_search(store, connection, new_search(connection, space="nasbench201", queries=6))
    place = Path(store.path("searches", whole.search, "search.json"))
    content = json.loads(place.read_text())
    del content["checksum"]
    for name in ("method", "signal", "budget", "where", "options"):
        del content["settings"][name]
    place.write_text(json.dumps(content))
    queries = store.read_table(None, "searches", whole.search, "queries.parquet").drop_columns(["cost", "epochs"])
    store.write_table(queries.slice(0, 3), "searches", whole.search, "queries.parquet")
    again = run_search(store, connection, open_search(connect(store), store, whole.search))
    assert [query.arch for query in again.queries] == [query.arch for query in whole.queries]
    assert connect(store).execute(
        "SELECT method, count(*) FROM searches JOIN queries USING (search) GROUP BY ALL"
    ).fetchall() == [("hnas", 6)]


def test_minimising_a_column_equals_the_search_in_memory(store):
    connection = connect(store)
    started = new_search(connection, space="nasbench201", queries=10, options={"minimise": "flops / 1e6"})
    result = run_search(store, connection, started)
    pool = pool_of(store, result.settings.signal)
    columns = {"trace": pool.column("trace"), "kappa": pool.column("kappa"), "mflops": pool.column("flops / 1e6")}
    known = ArrayPool(list(pool.archs), columns, [str(number) for number in pool.classes])
    expected = search(known, pool.evaluate, queries=10, minimise="mflops")
    assert [query.arch for query in result.queries] == [query.arch for query in expected]
    assert f"hnas pareto --search {result.search} --minimise 'flops / 1e6'" in search_summary(result)
    for options, words in (
        ({"minimise": "latency"}, "no column 'latency'"),
        ({"minimise": "now()"}, "now"),
        ({"minimise": ""}, "is empty"),
        ({"minimise": 0}, "minimise must be a column, such as params, got 0"),
        ({"minimise": "status"}, "'trace' or 'status' does not give numbers"),
        ({"flops": 1}, "hnas has no option flops; it has t, acquisition, minimise$"),
    ):
        with pytest.raises(UsageError, match=words):
            run_search(store, connection, new_search(connection, space="nasbench201", options=options))
    with pytest.raises(UsageError, match="random has no option minimise"):
        run_search(
            store,
            connection,
            new_search(connection, space="nasbench201", method="random", options={"minimise": "flops"}),
        )


def test_bohb_without_curves_is_rejected_before_evaluating(store):
    connection = connect(store)
    heard = []
    started = new_search(connection, space="nasbench201", method="bohb", epochs=200, queries=3)
    with pytest.raises(HnasError, match=r"no curves with epoch \d+"):
        run_search(store, connection, started, on_start=heard.append)
    assert heard == []


@pytest.mark.parametrize(
    "accuracy",
    [
        "valid_accuracy) AS performance, 7.0 AS cost FROM accuracies GROUP BY arch; COPY (SELECT 1) TO 'written'; --",
        "valid_accuracy) + (SELECT max(length(content)) FROM read_text('/etc/hostname')) - avg(0",
        "\ud800",
        3,
        None,
    ],
)
def test_an_accuracy_in_a_saved_search_must_be_a_column(store, accuracy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    connection = connect(store)
    result = run_search(store, connection, new_search(connection, space="nasbench201", queries=1))
    place = Path(store.path("searches", result.search, "search.json"))
    saved = json.loads(place.read_text())
    del saved["checksum"]
    saved["settings"] |= {"accuracy": accuracy, "queries": 2}
    saved["settings"]["signal"]["accuracy"] = accuracy
    place.write_text(json.dumps(saved))
    with pytest.raises((UsageError, HnasError)):
        run_search(store, connection, open_search(connection, store, result.search))
    assert not (tmp_path / "written").exists()
    place.write_text(
        json.dumps({**saved, "settings": {**saved["settings"], "accuracy": "valid_accuracy", "signal": None}})
    )
