"""`hnas check`: reads a whole store, and reports what is damaged and how to repair it.

Other commands verify only the files that they read. This one reads every file and chunk, and compares redundant
information: names with content, rows of `metrics` with each other, eigenvalues with `trace`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa

from hnas.errors import HnasError
from hnas.pipeline.store.comparisons import FOLDER as COMPARISONS
from hnas.pipeline.store.comparisons import RECORD as COMPARISON
from hnas.pipeline.store.comparisons import lost_parts, stored_parts
from hnas.pipeline.store.manifests import imported_files
from hnas.pipeline.store.ntk_arrays import ARRAYS, NTKArrays
from hnas.pipeline.store.records import comparison_records, run_records, search_records
from hnas.pipeline.store.run import RECORD, Run, runs_of
from hnas.pipeline.store.scores import FOLDER as SCORES
from hnas.pipeline.store.scores import FURTHER, ScoreColumns, keys_in
from hnas.pipeline.store.store import Store, mend_of
from hnas.pipeline.store.supernets import FOLDER as SUPERNETS
from hnas.pipeline.store.supernets import RECORD as SUPERNET
from hnas.pipeline.store.supernets import STATE
from hnas.pipeline.store.trainings import FOLDER as TRAININGS
from hnas.pipeline.store.trainings import SETTINGS, StoredState, lost_curves, stopped, trained_sources
from hnas.pipeline.store.warm_starts import FILE as WARM
from hnas.pipeline.store.warm_starts import read_known

_RECOMPUTE = "the same `hnas precompute` computes it again"
_REMOVE = "restore the run, or remove it and precompute it again"
# Θ₀'s trace and the sum of its eigenvalues agree up to float64 rounding.
_CLOSE = 1e-9


@dataclass(frozen=True)
class Finding:
    """A damaged place: its path, the evidence, and how to repair it."""

    path: str
    what: str
    mend: str


@dataclass
class Report:
    """The result of a check: the number of files read and of those without a checksum, the damage, and remarks."""

    files: int = 0
    unsealed: int = 0
    damaged: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_store(store: Store) -> Report:
    """Read everything in `store`. Raises `HnasError` if it is not a store, or has another version."""
    store.check_version()
    report = Report()
    _check_places(store, report)
    for space in store.folders("architectures"):
        for name in store.files("architectures", space):
            _read(store, report, "architectures", space, name)
    for run in runs_of(store):
        _check_run(report, run)
    with _damage(report, store.path("imports"), "import its file again, or `hnas rm` the source"):
        for listed in imported_files(store).values():
            for file in listed:
                _read(store, report, *file.parts)
    with _damage(report, store.path("searches"), mend_of("searches")):
        search_records(store)
    for search in store.folders("searches"):
        _check_warm_start(store, report, "searches", search, "search.json")
        report.files += 1
        if any(store.exists("searches", search, name) for name in ("search.json", "queries.parquet")):
            _read(store, report, "searches", search, "queries.parquet")
    _check_comparisons(store, report)
    _check_trainings(store, report)
    _check_latencies(store, report)
    for model in store.folders("models"):
        with _damage(report, store.path("models", model), "save the model again, or `hnas rm` it"):
            report.files += 2
            recorded = store.read_json("models", model, "model.json").get("weights")
            weights = store.read_bytes("models", model, "weights.safetensors")
            if recorded != {"bytes": len(weights), "sha256": sha256(weights).hexdigest()}:
                raise HnasError("its weights do not match its record")
    for name in store.folders(SUPERNETS):
        report.files += 2
        with _damage(report, store.path(SUPERNETS, name, SUPERNET), "restore it, or `hnas rm` the supernet"):
            store.read_json(SUPERNETS, name, SUPERNET)
        if store.exists(SUPERNETS, name, STATE) and StoredState(store, SUPERNETS, name, STATE).read() is None:
            place = store.path(SUPERNETS, name, STATE)
            report.damaged.append(Finding(place, "it is damaged", "the same search starts it anew"))
    return report


def _check_trainings(store: Store, report: Report) -> None:
    for source in trained_sources(store):
        report.files += 1
        with _damage(
            report, store.path(TRAININGS, source, SETTINGS), "restore it; its trainings can be read without it"
        ):
            store.read_json(TRAININGS, source, SETTINGS)
        for name in lost_curves(store, source):
            mend = "the architecture is trained again when a command needs it"
            report.damaged.append(Finding(store.path("curves", source, name), "it is missing", mend))
        for name in stopped(store, source):
            place = store.path(TRAININGS, source, name)
            report.files += 1
            if store.exists(TRAININGS, source, name) and StoredState(store, TRAININGS, source, name).read() is None:
                report.damaged.append(Finding(place, "it is damaged", "the same command starts the training anew"))
            else:
                report.remarks.append(f"{place} is an unfinished training; the same command resumes it")


def _check_latencies(store: Store, report: Report) -> None:
    for folder in store.folders("latency"):
        parts = store.files("latency", folder)
        for name in parts:
            _read(store, report, "latency", folder, name)
        if parts:
            place = store.path("latency", folder)
            report.remarks.append(f"{place} has latencies in no column yet; the same `hnas latency` goes on with them")


def _check_comparisons(store: Store, report: Report) -> None:
    with _damage(report, store.path(COMPARISONS), mend_of(COMPARISONS)):
        comparison_records(store)
    for name in store.folders(COMPARISONS):
        _check_warm_start(store, report, COMPARISONS, name, COMPARISON)
        report.files += store.exists(COMPARISONS, name, COMPARISON)
        searches: Counter[str] = Counter()
        for part in stored_parts(store, name):
            table = _read(store, report, COMPARISONS, name, part.name)
            if table is not None:
                searches.update(set(table["search"].to_pylist()))
        for lost in lost_parts(store, name):
            report.damaged.append(Finding(store.path(COMPARISONS, name, lost), "it is missing", mend_of(COMPARISONS)))
        if again := sorted(search for search, count in searches.items() if count > 1):
            what = f"{len(again):,} searches are in more than one part, {again[0]} among them"
            report.damaged.append(Finding(store.path(COMPARISONS, name), what, "delete one of the parts"))


def _check_warm_start(store: Store, report: Report, folder: str, name: str, record: str) -> None:
    """Check the known performances of a search or comparison against the digest in its record."""
    with suppress(HnasError):  # damage of the record itself is reported elsewhere
        content = store.read_json(folder, name, record)
        methods = content.get("methods")
        settings = methods[0] if isinstance(methods, list) and methods else content.get("settings")
        warm = settings.get("warm") if isinstance(settings, dict) else None
        if isinstance(warm, dict):
            report.files += 1
            with _damage(report, store.path(folder, name, WARM), "restore it, or remove the search"):
                read_known(store, str(warm.get("digest")), folder, name)


@contextmanager
def _damage(report: Report, path: str, mend: str) -> Iterator[None]:
    """Record an error as damage."""
    try:
        yield
    except HnasError as error:
        report.damaged.append(_finding(error, path, mend))


def _finding(error: HnasError, path: str, mend: str) -> Finding:
    """Convert an error, whose sentence names the place and often the repair, to a finding."""
    what, _, own = str(error).partition("; ")
    return Finding(path, what.removeprefix(path).strip().removeprefix("cannot be read: "), own or mend)


def _read(store: Store, report: Report, *parts: str) -> pa.Table | None:
    """Read a whole Parquet file; None if it is damaged."""
    report.files += 1
    try:
        table, sealed = store.read_checked(*parts)
    except HnasError as error:
        report.damaged.append(_finding(error, store.path(*parts), mend_of(*parts)))
        return None
    report.unsealed += not sealed
    return table


def _check_run(report: Report, run: Run) -> None:
    path = run.path()
    report.files += 1
    if not run.recorded:
        report.damaged.append(Finding(path, "it has no run.json", f"{_RECOMPUTE}, or remove the folder"))
        return
    scores: list[ScoreColumns] = []
    with _damage(report, run.path(RECORD), _REMOVE):
        (record,) = run_records([run])
        scores = record["scores"]
        if run.exists("batch.npz"):
            report.files += 1
            with _damage(report, run.path("batch.npz"), _RECOMPUTE):
                run.batch(record["settings"]["batch"])
    requested = _rows(report, run, "requests")
    measured = _rows(report, run, "metrics")
    if requested is not None:
        expected = set(requested["canonical"].to_pylist())
        done = expected & set(measured["canonical"].to_pylist()) if measured is not None else set()
        if len(done) < len(expected):
            report.remarks.append(
                f"run {run.name} is unfinished: {len(done):,} of {len(expected):,} classes are computed; the same "
                "`hnas precompute` finishes it"
            )
    if measured is not None:
        _check_counts(report, path, measured)
        _check_spectra(report, run, measured)
    elif run.exists("ntk.zarr"):  # the rows that are computed next go there
        with _damage(report, run.ntk.path, _REMOVE):
            run.ntk.lost([])
    _check_scores(report, run, scores, requested)


def _check_scores(report: Report, run: Run, scores: list[ScoreColumns], requested: pa.Table | None) -> None:
    """Check that each class has each score only once, and whether the requested scores are complete."""
    if run.exists(FURTHER):
        report.files += 1
        with _damage(report, run.path(FURTHER), _RECOMPUTE):
            run.images(FURTHER, str(run.read_record().get("further")))
    counts: Counter[tuple[str, str]] = Counter()
    for name in run.store.files(*run.place(SCORES)):
        if (table := _read(run.store, report, *run.place(SCORES, name))) is not None:
            classes = table["canonical"].to_pylist()
            counts.update((key, canonical) for key in keys_in(table.column_names) for canonical in classes)
    if again := sum(count > 1 for count in counts.values()):
        what = f"{again:,} scores of classes are in more than one part"
        report.damaged.append(Finding(run.path(SCORES), what, "delete one of the parts"))
    expected = set() if requested is None else set(requested["canonical"].to_pylist())
    for score in scores:
        done = sum((score.key, canonical) in counts for canonical in expected)
        if done < len(expected):
            report.remarks.append(
                f"the score {score.name} of run {run.name} is unfinished: {done:,} of {len(expected):,} classes are "
                f"computed; `hnas precompute` with --scores {score.name} finishes it"
            )


def _rows(report: Report, run: Run, folder: str) -> pa.Table | None:
    tables = [_read(run.store, report, *run.place(folder, name)) for name in run.store.files(*run.place(folder))]
    read = [table for table in tables if table is not None]
    return pa.concat_tables(read, promote_options="default") if read else None


def _check_counts(report: Report, path: str, measured: pa.Table) -> None:
    for column, what in (
        ("canonical", "classes are in more than one part"),
        ("ntk_row", "rows of ntk.zarr belong to two"),
    ):
        again = sum(count > 1 for count in Counter(measured[column].to_pylist()).values())
        if again:
            report.damaged.append(Finding(f"{path}/metrics", f"{again:,} {what}", "delete one of the parts"))


def _check_spectra(report: Report, run: Run, measured: pa.Table) -> None:
    arrays = run.ntk
    rows = measured["ntk_row"].to_numpy()
    with _damage(report, arrays.path, _REMOVE):
        for block in arrays.lost(rows.tolist()):
            report.damaged.append(
                Finding(arrays.path, f"the eigenvalues of rows {block.start} to {block.stop - 1} are gone", _RECOMPUTE)
            )
        for name in ARRAYS:
            if name == "eigenvalues" or run.exists("ntk.zarr", name, "zarr.json"):
                report.files += len(arrays.blocks(name))
                report.unsealed += 0 if arrays.sealed(name) else len(arrays.blocks(name))
                for chunk, reason in arrays.damaged(name):
                    mend = f"delete it, and {_RECOMPUTE}" if name == "eigenvalues" else _REMOVE
                    report.damaged.append(Finding(f"{arrays.path}/{name}/{chunk}", reason, mend))
        if not any(finding.path.startswith(arrays.path) for finding in report.damaged):
            _compare(report, arrays, measured)


def _compare(report: Report, arrays: NTKArrays, measured: pa.Table) -> None:
    """Check trace = √(Σ λ / m), eq. (4), between the stored values of both sides."""
    rows, trace = measured["ntk_row"].to_numpy(), measured["trace"].to_numpy()
    finite = np.array(measured["status"].to_pylist()) != "nonfinite"
    eigenvalues = arrays.read()[rows]
    expected = np.sqrt(np.maximum(eigenvalues.sum(1), 0.0) / eigenvalues.shape[1])
    wrong = finite & ~np.isclose(trace, expected, rtol=_CLOSE, atol=1e-12)
    if wrong.any():
        what = f"the eigenvalues of {int(wrong.sum()):,} rows do not give their trace"
        report.damaged.append(Finding(arrays.path, what, _REMOVE))


def _check_places(store: Store, report: Report) -> None:
    """Look for links, irregular files, and leftovers of killed commands."""
    if not store.local:
        return
    for folder, folders, files in os.walk(store.root):
        for name in sorted(folders + files):
            place = Path(folder) / name
            if place.is_symlink():
                report.damaged.append(
                    Finding(str(place), "it is a symbolic link", "replace it by its target, or remove it")
                )
            elif not (place.is_file() or place.is_dir()):
                report.damaged.append(Finding(str(place), "it is neither a file nor a folder", "remove it"))
            elif name.endswith(".partial") and place.parts[-3] == COMPARISONS:
                report.remarks.append(f"{place} is an unfinished search; the same `hnas compare` resumes it")
            elif name.endswith((".part", ".partial")):
                report.remarks.append(f"{place} is a leftover of a killed command; nothing reads it")
            elif name.startswith(".") and name != ".lock":
                report.remarks.append(f"{place} does not belong to the store; nothing reads it")
