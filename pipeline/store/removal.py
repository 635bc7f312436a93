"""`hnas rm`: take a run, search, comparison, model, supernet or source out of a store, and nothing outside it.

What is removed vanishes for readers at once: a folder is renamed to `.removed-…` in the store's root before it is
deleted, and a source's manifest goes before its files. The next removal deletes what a killed one left.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.pipeline.io.aside import in_use
from hnas.pipeline.io.dataset_names import canonical_dataset
from hnas.pipeline.io.printable import printable
from hnas.pipeline.store.claim_log import Drivers
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.manifests import (
    FOLDER,
    Manifest,
    manifest_names,
    older_files,
    read_manifest,
    remove_file,
    sweep,
)
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.shipped_tables import runs_beside
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import FOLDER as TRAININGS
from hnas.pipeline.store.trainings import LOCK, is_trained, trained_sources

_REMOVED = ".removed-"
FOLDERS = {
    "run": "runs", "search": "searches", "comparison": "comparisons", "model": "models", "supernet": "supernets"
}  # fmt: skip


@dataclass(frozen=True)
class Held:
    """Something in a store: a `run`, `search`, `comparison`, `model`, `supernet` or `source` of that name.

    `described` says what it is, `consequences` what else of the store is affected when it goes, a sentence each.
    """

    kind: str
    name: str
    described: str
    consequences: tuple[str, ...]


def find_held(store: Store, name: str, also: Sequence[Store] = ()) -> Held:
    """What of a store `name` is the whole name of; `run/NAME` and so on where several are called so.

    `also` are the stores that are read along, from which nothing is removed.

    Raises `UsageError` where there is none, or several.
    """
    store.check_version()
    held = held_names(store)
    kinds = [kind for kind, names in held.items() if name in names]
    if not kinds and name.partition("/")[0] in held:
        kind, _, rest = name.partition("/")
        kinds, name = ([kind], rest) if rest in held[kind] else ([], name)
    if len(kinds) > 1:
        raise UsageError(
            f"a {' and a '.join(kinds)} are called {name}; write {' or '.join(f'{k}/{name}' for k in kinds)}"
        )
    if not kinds:
        raise UsageError(
            f"the store {store.location} has no run, search, comparison, model, supernet or source {_shown(name)}"
            f"{_advice(store, held, name, also)}"
        )
    consequences: tuple[str, ...]
    if kinds == ["source"]:
        described, consequences = _about_source(store, name)
    else:
        described, consequences = _about_folder(store, kinds[0], name, also)
    return Held(kinds[0], name, described, consequences)


def remove(store: Store, held: Held) -> None:
    """Remove `held` from the store. A link is removed, never what it points to.

    Raises `HnasError` where it cannot be: a precompute works on the run, or the store cannot be written.
    """
    if held.kind == "source":
        _remove_source(store, held.name)
    else:
        _remove_folder(store, FOLDERS[held.kind], held.name)
    _sweep_removed(store)


def held_names(store: Store) -> dict[str, list[str]]:
    """By kind, the names of what the store holds, whether or not it can be read."""
    sources = {file.source for files in _older(store).values() for file in files} | set(manifest_names(store))
    sources |= set(trained_sources(store))
    folders = {kind: [n for n in store.names(folder) if not n.startswith(".")] for kind, folder in FOLDERS.items()}
    return {**folders, "source": sorted(sources)}


def latency_folders(store: Store, source: str) -> list[str]:
    """The folders below `latency/` with parts of this source that are not in its column yet."""
    return [name for name in store.folders("latency") if name.rpartition("-")[0] == source]


def _older(store: Store) -> dict[str, Any]:
    return older_files(store, {path for manifest in _manifests(store) for path in manifest.replaces})


def _manifests(store: Store) -> Iterator[Manifest]:
    for name in manifest_names(store):
        with suppress(HnasError):
            yield read_manifest(store, name)


def _advice(store: Store, held: dict[str, list[str]], name: str, also: Sequence[Store]) -> str:
    table = runs_beside(store, also).get(name)
    if table is not None:
        home = table.store.location
        return f": the run belongs to {home}, which is read along with it and is a store of its own; give it as --store"
    every = [found for names in held.values() for found in names]
    return did_you_mean(name, every) or "; `hnas info` lists what it holds"


def _shown(name: str) -> str:
    return f"{name!r:.120}"


def _settings(store: Store, kind: str, name: str) -> dict[str, Any]:
    """The settings in `run.json` or `search.json`, of the first method in `comparison.json`; empty where none are."""
    with suppress(HnasError):
        content = store.read_json(FOLDERS[kind], name, f"{kind}.json")
        settings = content.get("settings")
        if kind == "comparison" and isinstance(methods := content.get("methods"), list) and methods:
            settings = methods[0]
        if isinstance(settings, dict):
            return settings
    return {}


def _searched(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """The searches and comparisons by name, with their settings."""
    for kind in ("search", "comparison"):
        for name in sorted(store.names(FOLDERS[kind])):
            yield name, _settings(store, kind, name)


def _about_folder(store: Store, kind: str, name: str, also: Sequence[Store]) -> tuple[str, tuple[str, ...]]:
    settings = _settings(store, kind, name)
    place = f", {settings['space']} on {settings['dataset']}" if {"space", "dataset"} <= settings.keys() else ""
    told = []
    path = Path(store.path(FOLDERS[kind], name))
    if store.local and path.is_symlink():
        told.append(f"{path} is a link: it is removed, and what it points to stays")
    if kind == "run":
        users = [search for search, found in _searched(store) if name in (found.get("run"), *(found.get("runs") or []))]
        if users:
            told.append(f"it was searched by {', '.join(users)}, which cannot go on without it")
        others = (table for table in also if Path(table.root).resolve() != Path(store.root).resolve())
        having = (table.location for table in others if Run(table, name).recorded)
        told += [f"the table {table} has it too, and is read from then on" for table in having]
    return printable(f"{kind} {name}{place}"), tuple(map(printable, told))


def _about_source(store: Store, name: str) -> tuple[str, tuple[str, ...]]:
    manifest = next((found for found in _manifests(store) if found.source == name), None)
    if is_trained(name) and manifest is None:
        count = len(store.files("accuracies", name))
        return f"source {printable(name)}, {count:,} training{'' if count == 1 else 's'} made here", ()
    if manifest is None:
        return f"source {printable(name)}", ()
    rows = ", ".join(f"{count:,} rows of {table}" for table, count in manifest.rows.items())
    told = []
    for search, settings in _searched(store):
        dataset = canonical_dataset(str(settings.get("dataset")))
        if (
            "accuracies" in manifest.tables
            and settings.get("oracle") == "table"
            and dataset in manifest.datasets.get(str(settings.get("space")), ())
        ):
            told.append(search)
    users = f"accuracies of its data sets were looked up by the searches {', '.join(told)}, which may go on with others"
    described = f"source {name}, {rows} from {manifest.file}"
    return printable(described), (printable(users),) if told else ()


def _remove_source(store: Store, name: str) -> None:
    with locked(store, FOLDER):
        if name in manifest_names(store):
            manifest = next((found for found in _manifests(store) if found.source == name), None)
            for folder in latency_folders(store, name):
                busy = f"a latency measures the source {name}; stop it, or wait for its end, and remove it then"
                with locked(store, "latency", folder, busy=busy):
                    for part in store.files("latency", folder):
                        _delete(store, "latency", folder, part)
            # Before the manifest that hides them: files that it replaced would come back.
            for path in manifest.replaces if manifest else ():
                remove_file(store, *path.split("/"))
            _delete(store, FOLDER, f"{name}.json")
            with suppress(HnasError):  # another damaged manifest
                sweep(store, source=name)
            return
        if is_trained(name):
            _check_idle_trainings(store, name)
        # `accuracies` first: without it the rest says nothing of any search, and the same command removes it.
        for files in _older(store).values():
            for file in files:
                if file.source == name:
                    _delete(store, *file.parts)
        for rest in store.names(TRAININGS, name) if is_trained(name) else ():
            _delete(store, TRAININGS, name, rest)


def _check_idle_trainings(store: Store, source: str) -> None:
    """Raise `HnasError` where one of the trainings of a source is under way."""
    busy = f"a training of {source} is under way; stop it, or wait for its end, and remove it then"
    for name in store.files(TRAININGS, source, suffix=LOCK):
        with locked(store, TRAININGS, source, name=name, busy=busy):
            pass


def _delete(store: Store, *parts: str) -> None:
    """Delete a file of the store. Raises `HnasError` where it lies behind a link, or cannot be deleted."""
    path = store.path(*parts)
    store.refuse_links(*parts[:-1])
    with store.writing(path):
        if store.local:
            Path(path).unlink()
            if not store.names(*parts[:-1]):
                Path(path).parent.rmdir()
        else:
            store.fs.rm_file(path)


def _remove_folder(store: Store, folder: str, name: str) -> None:
    path = store.path(folder, name)
    store.refuse_links(folder)
    if not store.local:
        with store.writing(path):
            # Readers know a run by this file: without it the rest is not there.
            record = store.path(folder, name, f"{next(kind for kind, of in FOLDERS.items() if of == folder)}.json")
            for file in sorted(store.fs.find(path), key=lambda file: str(file) != record):
                store.fs.rm_file(file)
        return
    with _idle(store, folder, name), store.writing(path):
        Path(path).rename(store.path(f"{_REMOVED}{uuid.uuid4().hex}"))


@contextmanager
def _idle(store: Store, folder: str, name: str) -> Iterator[None]:
    """Keep others from a run, a comparison, a model or a supernet. Raises `HnasError` where somebody works on it."""
    linked = Path(store.path(folder, name)).is_symlink()  # a lock would be made behind the link
    if folder == "models" and in_use(Path(store.path(folder, name))):
        raise HnasError(f"the model {name} is being written; wait for the end of the search, and remove it then")
    if folder == "models" or linked:
        yield
        return
    if folder != "runs":
        kind = next(kind for kind, of in FOLDERS.items() if of == folder)
        command = "compare" if folder == "comparisons" else "search"
        busy = f"a {command} works on the {kind} {name}; stop it, or wait for its end, and remove it then"
        with locked(store, folder, name, busy=busy):
            yield
        return
    with locked(store, folder, name):
        living, _ = Drivers(Run(store, name)).others()
        if living:
            raise HnasError(f"a precompute works on the run {name}; stop it, or wait for its end, and remove it then")
        yield


def _sweep_removed(store: Store) -> None:
    """Delete what was renamed, and what killed removals left."""
    for left in Path(store.root).glob(f"{_REMOVED}*") if store.local else ():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
