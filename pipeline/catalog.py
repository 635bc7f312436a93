"""DuckDB over a store: the views `runs, architectures, requests, metrics, accuracies, mean_accuracies, curves, proxies,
pool, mean_pool, spectra, grams, scores, searches, queries` and the macros, `objective` among them, made when a
connection opens. The SQL is in `pipeline/sql/*.sql`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from string import Template

import duckdb

from hnas.errors import HnasError, UsageError
from pipeline.datasets import KNOWN, canonical_dataset, squeezed_dataset
from pipeline.imports import ImportedFile, imported_files
from pipeline.shelf import shelf
from pipeline.spectra import ARRAYS, ArrayRows
from pipeline.store import Store

_PARQUET = {
    "architectures": ("architectures", "*", "*.parquet"),
    "requests": ("runs", "*", "requests", "*.parquet"),
    "metrics": ("runs", "*", "metrics", "*.parquet"),
    "queries": ("searches", "*", "queries.parquet"),
}
_JSON = {
    "runs": ("runs", "*", "run.json"),
    "searches": ("searches", "*", "search.json"),
}


def sql(name: str, /, **names: str) -> str:
    """The SQL file `name`, with `$name` replaced where names are given."""
    text = _text(name)
    return Template(text).substitute(names) if names else text


@cache
def _text(name: str) -> str:
    return files("pipeline").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB connection with the store's views. The store is read, never written.

    Stores in a folder `tables` beside a local store are read with it, as the tables that ship in `data/tables` are with
    `data/store`: the runs that it does not have itself.

    Raises `HnasError` where the store is of another version or a file of it is damaged.
    """
    store.check_version()
    connection = duckdb.connect(":memory:")
    connection.execute("SET python_enable_replacements = false; SET enable_progress_bar = false")
    if not store.local:
        connection.register_filesystem(store.fs)
    try:
        connection.begin()  # some sixty statements, of which each would be a transaction of its own
        connection.execute(sql("empty"))
        connection.execute(_dataset_macro())
        tables = shelf(store)
        for name, pattern in _PARQUET.items():
            _create(connection, store, tables, "parquet_files", name, pattern)
        for name, imported in imported_files(store).items():
            _create_imported(connection, store, name, imported)
        for name, pattern in _JSON.items():
            for path in store.glob(*pattern):
                _check_json(store, path)
            # Not from duckdb_columns(), which works out the columns of every view: 9 ms.
            settings = connection.execute(f"DESCRIBE SELECT settings FROM empty.{name}").fetchall()[0][1]
            _create(connection, store, tables, "json_files", name, pattern, settings=settings)
        own = [Path(path).parent.name for path in store.glob(*_JSON["runs"])]
        for name, array in ARRAYS.items():
            _create_arrays(connection, dict.fromkeys(own, store) | tables, name, array)
        connection.execute(sql("macros"))
        connection.execute(sql("spectrum"))
        connection.execute(sql("averages"))
        connection.execute(sql("views"))
        connection.commit()
    except duckdb.Error as error:
        connection.close()
        reason = str(error).strip().splitlines()[0]
        raise HnasError(f"the store {store.location} cannot be read: {reason}; remove or restore that file") from error
    return connection


def _check_json(store: Store, path: str) -> None:
    """DuckDB reads an empty file or a list as no row, and finds a damaged one only when a query comes to it."""
    content = store.read_json(*path.removeprefix(store.root.rstrip("/") + "/").split("/"))
    if not isinstance(content.get("settings"), dict):
        raise HnasError(f"{path} has no settings; it was damaged after it was written")


def _create(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    tables: dict[str, Store],
    kind: str,
    name: str,
    pattern: tuple[str, ...],
    **names: str,
) -> None:
    wanted = [(store, pattern)]
    if pattern[0] == "runs":
        wanted += [(table, ("runs", run, *pattern[2:])) for run, table in tables.items()]
    elif pattern[0] == "architectures":
        wanted += [(table, pattern) for table in dict.fromkeys(tables.values())]
    locations = [place.pattern(*parts).replace("'", "''") for place, parts in wanted if place.glob(*parts)]
    if locations:
        listed = ", ".join(f"'{location}'" for location in locations)
        connection.execute(sql(kind, name=name, patterns=f"[{listed}]", **names))
    else:
        connection.execute(sql("no_files", name=name))


def _create_imported(
    connection: duckdb.DuckDBPyConnection, store: Store, name: str, imported: list[ImportedFile]
) -> None:
    """The view `files.<name>` of imported rows: a branch for each source, whose name is a constant in it."""
    branches = ""
    for (source, spelled), listed in groupby(imported, lambda file: (file.source, file.spelled)):
        dataset = "canonical_dataset(dataset)" if spelled else "dataset"
        locations = ", ".join(_quoted(file.pattern(store)) for file in listed)
        branches += sql("imported_files", source=_quoted(source), dataset=dataset, files=f"[{locations}]")
    connection.execute(sql("imported", name=name, branches=branches))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _dataset_macro() -> str:
    known, squeezed = (", ".join(map(_quoted, names)) for names in (KNOWN, map(squeezed_dataset, KNOWN)))
    return sql("datasets", known=known, squeezed=squeezed)


def _create_arrays(connection: duckdb.DuckDBPyConnection, runs: dict[str, Store], name: str, array: str) -> None:
    """The view `files.<name>` over an array of all runs, none of which is read here."""
    branches = ""
    for run, place in runs.items():
        # Elsewhere a look costs a request, and an array that is not there has no rows either way.
        if not place.local or place.exists("runs", run, "ntk.zarr", array):
            source = f"_{name}_{run}"
            connection.register(source, ArrayRows(place, run, array))
            quoted = {"run": run.replace("'", "''"), "source": source.replace('"', '""')}
            branches += sql("array_of_run", array=array, **quoted)
    connection.execute(sql("arrays", name=name, branches=branches))


def _dataset_name(dataset: str) -> str:
    # Reading images takes imports that a query can do without.
    from pipeline.images import dataset_name

    return dataset_name(dataset)


def pick_run(
    connection: duckdb.DuckDBPyConnection,
    *,
    run: str | None = None,
    space: str | None = None,
    dataset: str | None = None,
) -> dict[str, object]:
    """The run that a command works on, as a row of `runs`: the one named, else the newest that fits.

    `dataset` is a name or the path of one, as `precompute` takes it.

    A run that has no metrics yet, since its `precompute` has just begun or was stopped, gives way to those that have.
    Raises `UsageError` where none fits, or the named one does not exist.
    """
    name = None if dataset is None else canonical_dataset(_dataset_name(dataset))
    rows = connection.execute(
        "SELECT * FROM runs WHERE ($run IS NULL OR starts_with(run, $run)) AND ($space IS NULL OR space = $space) "
        "AND ($dataset IS NULL OR canonical_dataset(dataset) = $dataset) "
        "ORDER BY run IN (SELECT run FROM metrics) DESC, created DESC, run",
        {"run": run, "space": space, "dataset": name},
    )
    names = [column[0] for column in rows.description or []]
    found = [dict(zip(names, row, strict=True)) for row in rows.fetchall()]
    if run is not None and len(found) > 1:
        raise UsageError(f"--run {run} fits {len(found)} runs: {', '.join(str(row['run']) for row in found)}; name one")
    if not found:
        wanted = " ".join(
            f"{what} {value}" for what, value in (("run", run), ("space", space), ("dataset", dataset)) if value
        )
        raise UsageError(f"the store has no run{' with ' + wanted if wanted else ''}; `hnas precompute` makes one")
    return found[0]
