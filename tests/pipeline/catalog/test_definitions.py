"""Views are created when a statement first uses them, without any visible effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.store import Store
from tests.support.stores import make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("definitions"), architectures=8)


def answers(connection: duckdb.DuckDBPyConnection, statements: tuple[str, ...]) -> list[Any]:
    """The result of each statement: its columns, types and rows, or DuckDB's error."""
    found: list[Any] = []
    for statement in statements:
        try:
            result = connection.execute(statement)
            described = [(name, str(kind)) for name, kind, *_ in result.description or []]
            found.append((described, sorted(map(repr, result.fetchall()))))
        except duckdb.Error as error:
            found.append((type(error), str(error)))
    return found


@pytest.mark.parametrize(
    "statements",
    [
        ("SELECT 1",),
        ("FROM runs", "FROM metrics", "FROM pool", "FROM scores", "FROM files.run_groups", "FROM empty.queries"),
        ('SELECT count(*) FROM "Pool"', "SELECT count(*) FROM main.POOL AS runs"),
        ("WITH metrics AS (SELECT 1 AS a) FROM metrics", "FROM metrics"),
        ("SELECT objective(2.0, 8.0, 1.0, 3.0, 1.0), canonical_dataset('CIFAR-10'), effective_rank([1.0, 2.0])",),
        ("FROM files.columns_of('nasbench201', 'digits')", "FROM mean_accuracies", "FROM incumbents"),
        ("-- of the run\nSELECT count(*) FROM requests", "/* both */ SELECT count(*) FROM requests, runs"),
        ("SELECT status, query FROM queries, metrics", "SELECT count(*) FROM query('FROM po' || 'ol')"),
        ("SELECT count(*) FROM query_table('mean' || '_pool')",),
        ("SHOW TABLES",),
        ("DESCRIBE", "FROM (DESCRIBE pool)", "SUMMARIZE runs"),
        ("SELECT schema_name, view_name FROM duckdb_views()", "SELECT type, name FROM sqlite_master"),
        ("SELECT table_name, column_name, data_type FROM information_schema.columns",),
        ("SELECT function_name FROM duckdb_functions() WHERE NOT internal", "PRAGMA show_tables"),
        ("PREPARE p AS SELECT count(*) FROM pool", "EXECUTE p"),
        ("CREATE VIEW pool AS SELECT 1", "CREATE OR REPLACE VIEW pool AS SELECT 1 AS mine", "FROM pool", "FROM scores"),
        ("DROP VIEW pool", "FROM pool", "FROM mean_pool"),
        ("CREATE TEMP TABLE metrics AS SELECT 1 AS mine", "FROM metrics", "SELECT count(*) FROM pool"),
        ("BEGIN", "SELECT count(*) FROM pool", "ROLLBACK", "SELECT count(*) FROM pool"),
        ("BEGIN", "FROM nothing", "FROM pool", "ROLLBACK", "FROM runs"),
        ("SET schema = 'files'", "SELECT count(*) FROM run_groups", "SELECT count(*) FROM main.pool"),
        ("SELECT 1; DROP SCHEMA files CASCADE", "FROM pool"),
        ("SET enable_external_access = false", "SELECT count(*) FROM pool"),
        (
            "FROM poool",
            "SELECT arhc FROM pool",
            "SELECT objektive(1, 2)",
            "FROM",
            "SELECT arch FROM pool, runs, metrics",
        ),
    ],
    ids=lambda statements: statements[0][:40],
)
def test_statements_give_the_same_as_with_all_views_created(store, statements):
    whole = connect(store)
    whole.execute("SHOW TABLES")
    assert answers(connect(store), statements) == answers(whole, statements)


def test_a_relation_creates_its_views(store):
    assert connect(store).sql("FROM pool").aggregate("count(*)").fetchall() == [(8,)]
    assert connect(store).table("pool").count("*").fetchall() == [(8,)]
    assert connect(store).from_query("FROM runs").fetchall() == connect(store).execute("FROM runs").fetchall()


def test_an_unreadable_file_affects_only_statements_that_use_it(tmp_path: Path):
    store = make_store(tmp_path, architectures=4)
    store.write_json({"id": "a", "settings": {}, "created": "2026-01-01T00:00:00"}, "searches", "a", "search.json")
    store.write_bytes(b"no Parquet", "searches", "a", "queries.parquet")
    connection = connect(store)
    assert connection.execute("SELECT count(*) FROM pool").fetchall() == [(4,)]
    with pytest.raises(Exception, match=r"queries\.parquet cannot be read: it is not a whole Parquet file"):
        connection.execute("SELECT count(*) FROM queries")
    assert connection.execute("SELECT count(*) FROM runs").fetchall() == [(1,)]
