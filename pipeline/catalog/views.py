"""DuckDB over a store: the views `runs, architectures, requests, metrics, accuracies, mean_accuracies, curves, proxies,
pool, mean_pool, spectra, grams, scores, searches, queries, incumbents, comparisons` and the macros, including
`objective`, on one connection. The SQL is in `pipeline/catalog/sql/*.sql`.

Each view reads a list of files, which are verified before a statement reads them (`hnas.pipeline.catalog.table_files`).
Nothing depends on the store's location or on the user's DuckDB settings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any, cast

import duckdb

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.pipeline.catalog.arrow_arrays import ARRAYS, ArrayRows
from hnas.pipeline.catalog.definitions import Definition, LazyConnection, names_in, statements
from hnas.pipeline.catalog.score_columns import means, score_views
from hnas.pipeline.catalog.table_files import Addresses, Check, File, Records, quoted
from hnas.pipeline.io.dataset_names import KNOWN, canonical_dataset, dataset_name, squeezed_dataset
from hnas.pipeline.store.comparisons import FOLDER as COMPARISONS
from hnas.pipeline.store.comparisons import lost_parts, stored_parts
from hnas.pipeline.store.manifests import ImportedFile, imported_columns, imported_files
from hnas.pipeline.store.records import comparison_records, run_records, search_records
from hnas.pipeline.store.run import Run, RunSettings, runs_of
from hnas.pipeline.store.shipped_tables import runs_beside
from hnas.pipeline.store.store import Store

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    # A table name must never resolve to a variable of this program.
    "python_enable_replacements": False,
    # Extensions are code, so a query must not download one implicitly.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    # Ignore secrets in the user's home.
    "allow_persistent_secrets": False,
}


def sql(name: str, /, **names: str) -> str:
    """Return the SQL file `name`, with each `$name` replaced if names are given."""
    text = _text(name)
    return Template(text).substitute(names) if names else text


@cache
def _text(name: str) -> str:
    return files("hnas.pipeline.catalog").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


def connect(store: Store, also: Collection[Store] = ()) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB connection with the store's views. The store is read, never written.

    It includes those runs of the stores `also`, such as `hnas.pipeline.store.shipped_tables.shipped_tables()`, that the
    store itself lacks. Each view is created when a statement first uses it, over the files that existed on opening.

    Raises `HnasError` if the store has another version or a run's settings are damaged. Other damage is reported by the
    statement that reads it: see `hnas.pipeline.catalog.table_files.file_error`.
    """
    store.check_version()
    runs = {run.name: run for run in runs_of(store)} | runs_beside(store, also)
    records = run_records(runs.values())
    for record in records:
        place = runs[record["id"]].store
        record["place"] = "store" if place is store else place.location
    connection = duckdb.connect(":memory:", config=_SETTINGS)
    connection.execute("SET enable_progress_bar = false; CREATE SCHEMA empty; CREATE SCHEMA files")
    making = _Making(connection)
    own = imported_columns(store)
    scores = score_views({record["id"]: record["scores"] for record in records}, [name for _, name in own])
    making.add(sql("columns", scores=scores.stored))
    making.add(_dataset_macro())
    making.add(_own_columns(own))
    addresses = Addresses(connection)
    for name, (column, listed) in _table_files(store, runs.values()).items():
        read = sql("read_files", files=addresses.literal(listed)) if listed else ""
        if name == "compared":
            listed = [*listed, *_lost(store)]
        making.add_files(name, Check(column, listed), read)
    for name, imported in imported_files(store).items():
        check = Check("arch", [File(store, file.parts) for file in imported])
        making.add_files(name, check, _imported(store, addresses, imported))
    making.add_records("runs", lambda: records)
    making.add_records("searches", lambda: search_records(store))
    making.add_records("comparisons", lambda: comparison_records(store))
    for name, array in ARRAYS.items():
        making.add_arrays([runs[record["id"]] for record in records], name, array)
    making.add(sql("own_views", values="".join(f', any_value("{name}") AS "{name}"' for _, name in own)))
    making.add(sql("scores", **scores.names))
    for name in ("macros", "spectrum", "averages", "views"):
        making.add(sql(name))
    making.add(sql("mean_pool", means=means(scores.columns)))
    # It offers everything that DuckDB's own class does, from which one cannot derive.
    return cast("duckdb.DuckDBPyConnection", LazyConnection(connection, making.definitions, making.checks))


class _Making:
    """The definitions of a connection in order, and the checks of files among them."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self.definitions: list[Definition] = []
        self.checks: list[Check] = []

    def _add(self, name: str, text: str, create: Callable[[], object]) -> None:
        self.definitions.append(Definition(name, names_in(text), create))

    def add(self, text: str) -> None:
        """Add what the statements of `text` create."""
        for name, statement in statements(text):
            self._add(name, statement, partial(self._connection.execute, statement))

    def add_files(self, name: str, check: Check, read: str) -> None:
        """Add the view `files.<name>` of what `read` selects, with its `check`."""

        def create() -> None:
            self._connection.register(f"_check_{name}", check)
            try:
                self._connection.execute(text)
            except duckdb.Error as error:
                check.verify()
                reason = str(error).splitlines()[0]
                raise HnasError(
                    f"the {name} of the store cannot be read: {reason}; restore or remove that file"
                ) from error

        text = sql("files", name=name, read=read)
        self.checks.append(check)
        self._add(f"files.{name}", text, create)

    def add_records(self, name: str, read: Callable[[], list[dict[str, Any]]]) -> None:
        """Add the view `files.<name>` of the records returned by `read`, with the columns of `empty.<name>`."""

        def create() -> None:
            schema = self._connection.sql(f"FROM empty.{name}").to_arrow_table().schema
            self._connection.register(f"_{name}", Records(schema, read))
            self._connection.execute(sql("records", name=name))

        self._add(f"files.{name}", f"empty.{name}", create)

    def add_arrays(self, runs: Sequence[Run], name: str, array: str) -> None:
        """Add the view `files.<name>` over an array of all runs, without reading any."""
        # On a remote store each check costs a request, and a missing array has no rows anyway.
        present = [run for run in runs if not run.store.local or run.exists("ntk.zarr", array)]
        named = [(run.name, f"_{name}_{run.name}") for run in present]
        branches = "".join(sql("array_of_run", array=array, run=run, source=source) for run, source in named)

        def create() -> None:
            for run, (_, source) in zip(present, named, strict=True):
                self._connection.register(source, ArrayRows(run, array))
            self._connection.execute(sql("arrays", name=name, branches=branches))

        self._add(f"files.{name}", f"empty.{name}", create)


def _table_files(store: Store, runs: Collection[Run]) -> dict[str, tuple[str, list[File]]]:
    """Return the files of each table, and one of its text columns."""
    described = dict.fromkeys([store, *(run.store for run in runs)])
    tables = {
        "architectures": (
            "arch",
            [
                File(place, ("architectures", space, name))
                for place in described
                for space in place.folders("architectures")
                for name in place.files("architectures", space)
            ],
        ),
        "queries": (
            "arch",
            [
                File(store, ("searches", search, "queries.parquet"))
                for search in store.folders("searches")
                # A missing file is reported when it is read: a search is saved with its first query.
                if store.exists("searches", search, "search.json")
                or store.exists("searches", search, "queries.parquet")
            ],
        ),
    }
    tables["compared"] = (
        "arch",
        [
            File(store, (COMPARISONS, comparison, part.name))
            for comparison in store.folders(COMPARISONS)
            for part in stored_parts(store, comparison)
        ],
    )
    for name, column in (("requests", "arch"), ("metrics", "canonical"), ("scores", "canonical")):
        tables[name] = (
            column,
            [File(run.store, run.place(name, file)) for run in runs for file in run.store.files(*run.place(name))],
        )
    return tables


def _lost(store: Store) -> list[File]:
    """Return the missing parts of comparisons, so that statements over the others report them."""
    return [
        File(store, (COMPARISONS, comparison, name))
        for comparison in store.folders(COMPARISONS)
        for name in lost_parts(store, comparison)
    ]


def _imported(store: Store, addresses: Addresses, imported: list[ImportedFile]) -> str:
    """Return the branches of imported rows: one per source, with the source's name as a constant."""
    branches = ""
    for (source, spelled), listed in groupby(imported, lambda file: (file.source, file.spelled)):
        dataset = "canonical_dataset(dataset)" if spelled else "dataset"
        literal = addresses.literal(File(store, file.parts) for file in listed)
        branches += sql("imported_files", source=quoted(source), dataset=dataset, files=literal)
    return branches


def _own_columns(own: list[tuple[str, str]]) -> str:
    """Return SQL for the table of user columns, each given as (source, name); names are plain identifiers."""
    sources, names = (", ".join(quoted(pair[i]) for pair in own) for i in (0, 1))
    return sql("own_columns", columns="".join(f', "{name}" DOUBLE' for _, name in own), sources=sources, names=names)


def _dataset_macro() -> str:
    known, squeezed = (", ".join(map(quoted, names)) for names in (KNOWN, map(squeezed_dataset, KNOWN)))
    return sql("datasets", known=known, squeezed=squeezed)


def check_complete(connection: duckdb.DuckDBPyConnection, runs: Sequence[str], *, partial: bool = False) -> None:
    """Raise `HnasError` if one of `runs` lacks requested rows, unless `partial` allows it.

    The most expensive networks are computed first, so the rows of an unfinished run are not a representative sample.
    """
    for run in () if partial else runs:
        rows, classes = connection.execute(sql("completeness"), [run]).fetchall()[0]
        if rows < classes:
            raise HnasError(
                f"run {run} is unfinished: {rows:,} of {classes:,} classes are computed, the most expensive first; "
                "the same `hnas precompute` finishes it, --run names another, and --partial uses what is there"
            )


@dataclass(frozen=True)
class RunRow:
    """A row of the view `runs`: the run `name` and its settings."""

    name: str
    settings: RunSettings


#: The order in which runs are preferred: the store's own before those of tables, of which seed 0 is first; newer ones.
PREFERRED = "place <> 'store', place <> 'store' AND seed <> 0, created DESC, run"


def pick_run(
    connection: duckdb.DuckDBPyConnection,
    *,
    run: str | None = None,
    space: str | None = None,
    dataset: str | None = None,
) -> RunRow:
    """Return the run that a command works on: the named one, or the newest that matches.

    The store's own runs come before those of tables, of which seed 0 comes first. A run without metrics, whose
    `precompute` has just begun or was stopped, comes after those with metrics. `dataset` is a name or the path of a
    data set, as for `precompute`. Raises `UsageError` if none matches, or the named one does not exist.
    """
    name = None if dataset is None else canonical_dataset(dataset_name(dataset))
    rows = connection.execute(
        "SELECT run, settings FROM runs JOIN (SELECT id, settings FROM files.runs) ON run = id "
        "WHERE ($run IS NULL OR starts_with(run, $run)) AND ($space IS NULL OR space = $space) "
        "AND ($dataset IS NULL OR canonical_dataset(dataset) = $dataset) "
        f"ORDER BY run IN (SELECT run FROM metrics) DESC, {PREFERRED}",
        {"run": run, "space": space, "dataset": name},
    )
    matches = [RunRow(run, RunSettings(**settings)) for run, settings in rows.fetchall()]
    if run is not None and len(matches) > 1:
        raise UsageError(
            f"--run {run} matches {len(matches)} runs: {', '.join(row.name for row in matches)}; name one of them"
        )
    if not matches:
        request = " ".join(
            f"{what} {value}" for what, value in (("run", run), ("space", space), ("dataset", dataset)) if value
        )
        hint = _meant(connection, run=run, space=space, dataset=name)
        raise UsageError(
            f"the store has no run{' with ' + request if request else ''}; `hnas precompute` makes one{hint}"
        )
    return matches[0]


def _meant(connection: duckdb.DuckDBPyConnection, **wanted: str | None) -> str:
    """Return a hint at a run, space or data set of the store with a similar name."""
    for column, value in wanted.items():
        names = [str(name) for (name,) in connection.execute(f"SELECT DISTINCT {column} FROM runs").fetchall()]
        if value is not None and value not in names and (hint := did_you_mean(value, sorted(names))):
            return hint
    return ""
