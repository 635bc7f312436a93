"""Saved searches: the settings, and one row per query."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import duckdb
import pyarrow as pa

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.optim.algorithm import Query, check_limits
from hnas.pipeline.catalog.signals import signal_of_views
from hnas.pipeline.io.dataset_names import canonical_dataset, dataset_name
from hnas.pipeline.search.request import StartedSearch
from hnas.pipeline.search.settings import SearchSettings, assignments
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
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    name: str,
    *,
    parallel: int | None = None,
    trained: Mapping[str, Any] | None = None,
    final: bool = False,
    **asked: object,
) -> StartedSearch:
    """Return a saved search to resume, from now on with `parallel` evaluations at a time if given.

    Raises `UsageError` for an unknown name, for `asked` settings other than its own, and for `trained` settings other
    than those of its trainings: `epochs`, `dataset`, and options of `training_settings`. If it makes no trainings,
    these belong to the `final` training of a model to save. None means not asked for.
    """
    settings, history = read_search(store, name)
    begun = {
        **vars(settings),
        "source": None if settings.signal is None else settings.signal.source,
        "average": bool(settings.runs),
    }
    wanted = [(option, value, begun[option]) for option, value in asked.items()]
    if settings.training is not None or not final:
        wanted += _of_trainings(settings, trained or {})
    for option, value, own in wanted:
        if value is None or value == own or (option == "run" and settings.run.startswith(str(value))):
            continue
        option = option.replace("_", " ")
        none = own is None or own is False or own == {}
        difference = f"without {option}" if none else f"with {option} {own}, not {value!r:.200}"
        raise UsageError(
            f"the search {name} was begun {difference}; omit the option to resume, or start a new search, which reuses "
            "stored trainings"
        )
    if parallel is not None:
        settings = replace(settings, parallel=parallel)
    check_limits(settings.queries, settings.budget, settings.parallel)  # before starting that many workers
    if settings.oracle == "table" and settings.signal is None:  # saved by an older version
        signal = signal_of_views(connection, settings.space, canonical_dataset(settings.dataset), settings.accuracy)
        settings = replace(settings, signal=signal)
    known = None if settings.warm is None else read_known(store, settings.warm.digest, "searches", name)
    return StartedSearch(settings, name, tuple(history), known)


def _begun(settings: SearchSettings) -> dict[str, object]:
    """Return the settings of a search by the names of the command line's options."""
    guided = settings.training or settings.signal or settings.own
    return {
        **vars(settings),
        **({} if settings.training is None else vars(settings.training)),
        "oracle": settings.oracle,
        "options": settings.options,
        "dataset": canonical_dataset(settings.dataset),
        "epochs": None if guided is None else guided.epochs,
        "source": None if settings.signal is None else settings.signal.source,
        "average": bool(settings.runs),
    }


def _shown(begun: object) -> str:
    if isinstance(begun, dict):
        return ", ".join(f"{name}={value}" for name, value in begun.items()) or "none"
    return "none" if begun is None else str(begun)


def _of_trainings(settings: SearchSettings, trained: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Yield each given training option, its value, and the value in the search."""
    guided = settings.training or settings.signal
    begun: dict[str, Any] = {"epochs": None if guided is None else guided.epochs}
    if settings.training is not None:
        begun = {**settings.training.options, **vars(settings.training)}
    for option, value in trained.items():
        if option == "dataset":
            name = None if value is None else canonical_dataset(dataset_name(value))
            yield option, name, canonical_dataset(settings.dataset)
        elif option == "recipe_option":
            for changed, to in assignments(value, "--recipe-option", "cutout=16").items():
                yield changed, to, begun.get(changed)
        elif option != "epochs" or settings.own is None:  # a custom oracle is passed again with its epochs
            yield option, value, begun.get(option)


def read_search(store: Store, name: str) -> tuple[SearchSettings, list[Query]]:
    """Return the settings and the saved queries of a search. Raises `UsageError` for an unknown name."""
    if not name or "/" in name or not store.exists("searches", name, "search.json"):
        hint = did_you_mean(name, store.names("searches"))
        raise UsageError(
            f"there is no search {name!r} in {store.location}; `hnas sql 'FROM searches'` lists them{hint}"
        )
    saved = store.read_json("searches", name, "search.json").get("settings")
    try:
        settings = SearchSettings.from_dict(saved)
    except TypeError as error:
        raise HnasError(f"searches/{name}/search.json has settings that this hnas does not know: {error}") from error
    table = store.read_table(None, "searches", name, "queries.parquet")
    if missing := [column for column in _SAVED_ALWAYS if column not in table.column_names]:
        raise HnasError(
            f"searches/{name}/queries.parquet has no column {', '.join(missing)}; restore it, or remove the search"
        )
    return settings, [query_of(row) for row in table.to_pylist()]


# Queries of older versions lack cost and epochs: they were charged the wall time of a training, and none failed.
_SAVED_ALWAYS = SCHEMA.names[: SCHEMA.names.index("cost")]


def query_of(row: dict[str, Any]) -> Query:
    """Return the query in a saved row."""
    row = {name: row[name] for name in SCHEMA.names if name in row}
    cost = row["seconds"] if row.get("cost") is None else row["cost"]
    return Query(**{**row, "cost": cost, "performance": math.nan if row["performance"] is None else row["performance"]})


def queries_table(queries: Sequence[Query]) -> pa.Table:
    """Return the queries (n) as rows of `SCHEMA`; failed ones have no performance."""
    rows = [asdict(query) | ({"performance": None} if query.failure is not None else {}) for query in queries]
    return pa.Table.from_pylist(rows, schema=SCHEMA)
