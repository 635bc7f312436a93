"""The contents of a report: a store with its newest search, run and comparison, or those that the caller names."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import duckdb

from hnas import __version__
from hnas.errors import UsageError
from hnas.optim.evaluations import Query
from hnas.pipeline.catalog.info import store_info
from hnas.pipeline.catalog.views import RunRow, pick_run
from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.saved import stored_comparison
from hnas.pipeline.io.printable import printable
from hnas.pipeline.report.comparison import comparison_sections
from hnas.pipeline.report.parts import Document, Section, Table, records_table, settings_table
from hnas.pipeline.report.run import run_sections
from hnas.pipeline.report.run_part import open_run
from hnas.pipeline.report.search import search_sections
from hnas.pipeline.search.saved import read_search
from hnas.pipeline.search.settings import SearchSettings
from hnas.pipeline.store.comparisons import FOLDER, RECORD
from hnas.pipeline.store.shipped_tables import find_run
from hnas.pipeline.store.store import Store

Search = tuple[str, SearchSettings, list[Query]]


def gather(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    also: Collection[Store] = (),
    *,
    run: str | None = None,
    search: str | None = None,
    comparison: str | None = None,
) -> Document:
    """The report on a run, a search with its run, a comparison, or several of these; by default on the store.

    Raises `UsageError` where a named item does not exist or the store is empty, `HnasError` where an item is damaged.
    """
    contents = store_info(connection)
    if not any(contents.values()):
        raise UsageError(
            f"the store {store.location} holds nothing to report; `hnas precompute` and `hnas import` fill one"
        )
    whole = run is None and search is None and comparison is None
    if whole:
        with_rows = {row["run"] for row in contents["runs"] if row["rows"]}
        newest = (row["search"] for row in contents["searches"] if row["run"] in with_rows and row["queries"])
        search = next(newest, None)
        comparisons = (
            row["comparison"] for row in contents["comparisons"] if row["run"] in with_rows and row["searches"]
        )
        comparison = next(comparisons, None)
    searched: Search | None = None if search is None else (search, *read_search(store, search))
    compared = None if comparison is None else _compared(store, comparison, required=not whole)
    for other in (searched and searched[1], compared and compared.methods[0]):
        run = run or (other.run if other else None)
    chosen = pick_run(connection, run=run) if run is not None or any(row["rows"] for row in contents["runs"]) else None
    names = [f"run {chosen.name}"] if chosen is not None else []
    names += [f"search {search}"] if search is not None else []
    names += [f"comparison {compared.name}"] if compared is not None else []
    title = f"Store {store.location}" if whole else ", ".join(names)
    lead = f"Shown below: {', '.join(names)}." if whole and names else f"From the store {store.location}."
    document = Document(printable(title[0].upper() + title[1:]), printable(lead))
    if whole:
        document.sections.append(_contents(contents))
    if chosen is not None:
        part = open_run(connection, chosen)
        evaluated = set()
        if searched is not None:
            of_run = searched[1].run
            own = part if of_run == chosen.name else open_run(connection, pick_run(connection, run=of_run))
            _add(document, *search_sections(connection, *searched, own))
            evaluated = {query.arch for query in searched[2]} if own is part else set()
        _add(document, *run_sections(connection, part, evaluated))
    if compared is not None:
        _add(document, *comparison_sections(store, connection, compared))
    document.provenance = _provenance(store, also, chosen, searched, compared)
    return document


def _add(document: Document, sections: list[Section], sets: dict[str, Any]) -> None:
    document.sections += sections
    document.sets |= sets


def _compared(store: Store, name: str, *, required: bool) -> Comparison | None:
    """The comparison `name`, or None if it is unfinished and not `required`."""
    try:
        return stored_comparison(store, name)
    except UsageError:
        if required:
            raise
        return None


def _contents(contents: dict[str, list[dict[str, Any]]]) -> Section:
    captions = {
        "runs": "Runs", "scores": "Scores", "accuracies": "Accuracies", "curves": "Learning curves",
        "proxies": "Scores computed elsewhere", "columns": "Imported columns", "searches": "Searches",
        "comparisons": "Comparisons",
    }  # fmt: skip
    tables = [records_table(caption, contents[name]) for name, caption in captions.items() if contents[name]]
    return Section("What the store holds", (), tables)


def _provenance(
    store: Store,
    also: Collection[Store],
    chosen: RunRow | None,
    searched: Search | None,
    compared: Comparison | None,
) -> list[Table]:
    """The settings that determine the numbers, and the versions that computed them."""
    tables = [settings_table("This report", {"hnas": __version__, "store": store.location})]
    if chosen is not None:
        run = find_run(store, chosen.name, also)
        record = {name: value for name, value in run.read_record().items() if name not in ("requests", "architectures")}
        sessions = record.pop("sessions", [])
        tables.append(settings_table(f"run.json of run {chosen.name}", record))
        if sessions:
            shown = [{name: value for name, value in one.items() if not isinstance(value, list)} for one in sessions]
            names = list(dict.fromkeys(name for one in shown for name in one))
            tables.append(records_table("Its sessions", [{name: one.get(name) for name in names} for one in shown]))
    if searched is not None:
        record = store.read_json("searches", searched[0], "search.json")
        tables.append(settings_table(f"search.json of search {searched[0]}", record))
    if compared is not None:
        record = store.read_json(FOLDER, compared.name, RECORD)
        methods = {f"method {k}": of for k, of in enumerate(record.pop("methods"))}
        record.pop("parts", None)
        tables.append(settings_table(f"{RECORD} of comparison {compared.name}", record | methods))
    return tables
