"""Searches as the store keeps them: the settings, and a row for each query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import duckdb
import pyarrow as pa

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.optim.algorithm import Query, check_limits
from hnas.pipeline.catalog.signals import signal_of_views
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.search.request import StartedSearch
from hnas.pipeline.search.settings import SearchSettings
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.warm_starts import read_known

#: The columns of `queries.parquet`.
SCHEMA = pa.schema(
    [
        ("query", pa.int32()),
        ("mu", pa.float64()),
        ("nu", pa.float64()),
        ("arch", pa.string()),
        ("objective", pa.float64()),
        ("performance", pa.float64()),
        ("seconds", pa.float64()),
        ("own_seconds", pa.float64()),
        ("cost", pa.float64()),
        ("epochs", pa.int32()),
        ("failure", pa.string()),
        ("output", pa.string()),
        ("exit_status", pa.int32()),
        ("asked", pa.int32()),
        ("asks", pa.int32()),
        ("elapsed", pa.float64()),
    ]
)


def open_search(
    connection: duckdb.DuckDBPyConnection, store: Store, name: str, *, parallel: int | None = None, **asked: object
) -> StartedSearch:
    """A saved search to go on with, from now on with `parallel` evaluations at a time where that is given.

    Raises `UsageError` where there is none of that name, and where other settings are `asked` for that are not its own.
    """
    settings, history = read_search(store, name)
    for setting, value in asked.items():
        if value is not None and value != (begun := getattr(settings, setting)):
            raise UsageError(
                f"the search {name} was begun with {setting} {begun}, not {value!r:.200}, and goes on so; leave that "
                "out, or start a new search, which makes no training again"
            )
    if parallel is not None:
        settings = replace(settings, parallel=parallel)
    check_limits(settings.queries, settings.budget, settings.parallel)  # before so many workers are started
    if settings.oracle == "table" and settings.signal is None:  # saved by a version that did not keep it
        signal = signal_of_views(connection, settings.space, canonical_dataset(settings.dataset), settings.accuracy)
        settings = replace(settings, signal=signal)
    known = None if settings.warm is None else read_known(store, settings.warm.digest, "searches", name)
    return StartedSearch(settings, name, tuple(history), known)


def read_search(store: Store, name: str) -> tuple[SearchSettings, list[Query]]:
    """The settings and the saved queries of a search. Raises `UsageError` where there is none of that name."""
    if not name or "/" in name or not store.exists("searches", name, "search.json"):
        hint = did_you_mean(name, store.names("searches"))
        raise UsageError(
            f"there is no search {name!r} in {store.location}; `hnas sql 'FROM searches'` lists them{hint}"
        )
    saved = store.read_json("searches", name, "search.json").get("settings")
    try:
        settings = SearchSettings.from_dict(saved)
    except TypeError as error:
        raise HnasError(f"searches/{name}/search.json has settings this hnas does not know: {error}") from error
    table = store.read_table(None, "searches", name, "queries.parquet")
    if missing := [column for column in _SAVED_ALWAYS if column not in table.column_names]:
        raise HnasError(
            f"searches/{name}/queries.parquet has no column {', '.join(missing)}; restore it, or remove the search"
        )
    return settings, [query_of(row) for row in table.to_pylist()]


# Queries of older versions have no cost and no epochs: they were charged the wall time of a training. None failed.
_SAVED_ALWAYS = SCHEMA.names[: SCHEMA.names.index("cost")]


def query_of(row: dict[str, Any]) -> Query:
    """A saved query."""
    row = {name: row[name] for name in SCHEMA.names if name in row}
    cost = row["seconds"] if row.get("cost") is None else row["cost"]
    return Query(**{**row, "cost": cost, "performance": math.nan if row["performance"] is None else row["performance"]})


def queries_table(queries: Sequence[Query]) -> pa.Table:
    """The queries (n) as rows of `SCHEMA`; those that failed have no performance."""
    rows = [asdict(query) | ({"performance": None} if query.failure is not None else {}) for query in queries]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
