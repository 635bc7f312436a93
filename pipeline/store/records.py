"""The JSON records of runs, searches and comparisons in a store, as rows of the views of the same names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeGuard

import pyarrow as pa

from hnas.errors import HnasError
from hnas.pipeline.store.comparisons import FOLDER, stored_parts
from hnas.pipeline.store.comparisons import RECORD as COMPARISON
from hnas.pipeline.store.run import RECORD, Run
from hnas.pipeline.store.scores import recorded_scores
from hnas.pipeline.store.store import Store

# The settings of a search with their JSON types; searches of older versions may lack some.
_SEARCH_SETTINGS: dict[str, tuple[type, ...]] = {
    "space": (str,), "run": (str,), "dataset": (str,), "metric": (str,), "oracle": (str,), "accuracy": (str,),
    "queries": (int,), "t": (int, float), "acquisition": (str,), "seed": (int,), "runs": (list,), "method": (str,),
    "signal": (dict,), "budget": (int, float), "where": (str,), "options": (dict,), "training": (dict,),
    "parallel": (int,),
}  # fmt: skip
#: The columns of the view `searches`, as in `pipeline/catalog/sql/columns.sql`.
SEARCH_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("space", "run", "dataset", "method", "metric", "oracle", "accuracy")),
        *((name, pa.string()) for name in ("source", "condition", "recipe", "acquisition", "options")),
        *((name, pa.int32()) for name in ("epochs", "queries", "parallel")),
        *((name, pa.float64()) for name in ("budget", "t")),
        ("seed", pa.int64()),
        ("runs", pa.list_(pa.string())),
    ]
)


def run_records(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Return the records of those `runs` that have one: `id`, `created`, `settings` and `scores`.

    Raises `HnasError` if a record is damaged, does not match its folder's name, is missing although there are rows, or
    lists missing parts.
    """
    records = []
    for run in runs:
        if not run.recorded:
            if run.exists("requests") or run.exists("metrics"):
                raise HnasError(_lost(run.store, *run.place(RECORD)))
            continue
        content = run.read_record()
        settings = run.settings_in(content).as_dict()
        for place in run.lost_parts(content):
            if place[0] == "architectures":
                raise HnasError(
                    f"{run.store.path(*place)} is missing; restore it, or let the same `hnas precompute` of run "
                    f"{run.name} write its rows again"
                )
            raise HnasError(_lost(run.store, *place))
        record = _record(run.store, settings, content, *run.place(RECORD))
        records.append({**record, "scores": recorded_scores(run, content)})
    return records


def search_records(store: Store) -> list[dict[str, Any]]:
    """Return the records of the searches. Raises `HnasError` if a record is damaged."""
    records = []
    for search in store.folders("searches"):
        if not store.exists("searches", search, "search.json"):
            if store.exists("searches", search, "queries.parquet"):
                raise HnasError(_lost(store, "searches", search, "search.json"))
        else:
            content = store.read_json("searches", search, "search.json")
            settings = content.get("settings")
            if not _are_settings(settings):
                raise HnasError(
                    _damaged(store, "searches", search, "search.json", "its settings are not those of a search")
                )
            records.append(_record(store, _shown(settings), content, "searches", search, "search.json"))
    return records


def comparison_records(store: Store) -> list[dict[str, Any]]:
    """Return the records of the comparisons, with the settings of each of their `methods` and the number of `seeds`.

    Raises `HnasError` if a record is damaged.
    """
    records = []
    for name in store.folders(FOLDER):
        if not store.exists(FOLDER, name, COMPARISON):
            if stored_parts(store, name):
                raise HnasError(_lost(store, FOLDER, name, COMPARISON))
            continue
        content = store.read_json(FOLDER, name, COMPARISON)
        methods, seeds = content.get("methods"), content.get("seeds")
        if (
            type(seeds) is not int
            or abs(seeds) >= 2**31
            or type(methods) is not list
            or not methods
            or not all(map(_are_settings, methods))
        ):
            raise HnasError(_damaged(store, FOLDER, name, COMPARISON, "its settings are not those of a comparison"))
        record = _record(store, {}, content, FOLDER, name, COMPARISON)
        records.append({**record, "seeds": seeds, "methods": [_shown(settings) for settings in methods]})
    return records


def _are_settings(settings: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether these are settings of a search, judging by their JSON types, that the view can hold."""
    if not isinstance(settings, dict) or not all(
        settings.get(name) is None or type(settings[name]) in types for name, types in _SEARCH_SETTINGS.items()
    ):
        return False
    try:
        pa.Table.from_pylist([_shown(settings)], schema=SEARCH_COLUMNS)
    except (ValueError, TypeError, OverflowError, pa.ArrowException):  # such as a number out of range
        return False
    return True


def _shown(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a search as columns of the view `searches`."""
    training, signal = settings.get("training") or {}, settings.get("signal") or {}
    return {
        **{name: settings.get(name) for name in _SEARCH_SETTINGS},
        "method": settings.get("method") or "hnas",
        "parallel": settings.get("parallel", 1),
        "epochs": training.get("epochs", signal.get("epochs")),
        "source": signal.get("source"),
        "condition": settings.get("where"),
        "recipe": json.dumps(training) if training else None,
        "options": json.dumps(settings["options"]) if settings.get("options") else None,
    }


def _record(store: Store, settings: dict[str, Any], content: dict[str, Any], *parts: str) -> dict[str, Any]:
    if content.get("id") != parts[1]:
        raise HnasError(_damaged(store, *parts, f"it is the record of {content.get('id')!r}"))
    try:
        created = datetime.fromisoformat(content["created"]).astimezone(UTC).replace(tzinfo=None)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise HnasError(_damaged(store, *parts, "it does not say when it was created")) from error
    return {"id": parts[1], "created": created, "settings": settings}


def _lost(store: Store, *parts: str) -> str:
    return f"{store.path(*parts)} is missing; restore it, or remove the folder {store.path(*parts[:2])}"


def _damaged(store: Store, *place_and_reason: str) -> str:
    *parts, reason = place_and_reason
    return f"{store.path(*parts)} was damaged after it was written: {reason}; restore it, or remove its folder"
