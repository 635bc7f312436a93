"""`hnas rm`: removes a run, search, comparison, model, supernet or source from a store, and touches nothing else.

Readers see a removal at once: a folder is renamed to `.removed-…` in the store's root before it is deleted, and a
source's manifest goes before its files. The next removal deletes the leftovers of a killed one.
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
    SOURCE_NAME,
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
    """A thing in a store: the `run`, `search`, `comparison`, `model`, `supernet` or `source` called `name`.

    `described` says what it is; `consequences` are sentences on what else its removal affects.
    """

    kind: str
    name: str
    described: str
    consequences: tuple[str, ...]


def find_held(store: Store, name: str, also: Sequence[Store] = ()) -> Held:
    """Return what is called `name` in the store; write `run/NAME` and so on if several things share a name.

    `also` are the attached stores, from which nothing is removed. Raises `UsageError` if there is no such thing, or
    several.
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
    """Remove `held` from the store. For a link, remove the link itself, never its target.

    Raises `HnasError` if it is in use by a command, or the store cannot be written.
    """
    if held.kind == "source":
        _remove_source(store, held.name)
    else:
        _remove_folder(store, FOLDERS[held.kind], held.name)
    _sweep_removed(store)


def held_names(store: Store) -> dict[str, list[str]]:
    """Return the names of what the store holds by kind, readable or not."""
    sources = {file.source for files in _older(store).values() for file in files} | set(manifest_names(store))
    sources |= set(trained_sources(store)) | set(_measured(store))
    folders = {kind: [n for n in store.names(folder) if not n.startswith(".")] for kind, folder in FOLDERS.items()}
    return {**folders, "source": sorted(sources)}


def latency_folders(store: Store, source: str) -> list[str]:
    """Return the folders in `latency/` with parts of this source that are not in its column yet."""
    return [name for name in store.folders("latency") if name.rpartition("-")[0] == source]


def _measured(store: Store) -> Iterator[str]:
    """Yield the sources of latencies that have parts, perhaps without a column."""
    for folder in store.folders("latency"):
        source = folder.rpartition("-")[0]
        if SOURCE_NAME.fullmatch(source) and store.files("latency", folder):
            yield source


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
        return f": the run belongs to {home}, an attached store of its own; give it as --store"
    every = [held_name for names in held.values() for held_name in names]
    return did_you_mean(name, every) or "; `hnas info` lists what it holds"


def _shown(name: str) -> str:
    return f"{name!r:.120}"


def _settings(store: Store, kind: str, name: str) -> dict[str, Any]:
    """Return the settings in `run.json` or `search.json`, or of the first method in `comparison.json`, or {}."""
    with suppress(HnasError):
        content = store.read_json(FOLDERS[kind], name, f"{kind}.json")
        settings = content.get("settings")
        if kind == "comparison" and isinstance(methods := content.get("methods"), list) and methods:
            settings = methods[0]
        if isinstance(settings, dict):
            return settings
    return {}


def _searched(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the searches and comparisons by name with their settings."""
    for kind in ("search", "comparison"):
        for name in sorted(store.names(FOLDERS[kind])):
            yield name, _settings(store, kind, name)


def _about_folder(store: Store, kind: str, name: str, also: Sequence[Store]) -> tuple[str, tuple[str, ...]]:
    settings = _settings(store, kind, name)
    place = f", {settings['space']} on {settings['dataset']}" if {"space", "dataset"} <= settings.keys() else ""
    sentences = []
    path = Path(store.path(FOLDERS[kind], name))
    if store.local and path.is_symlink():
        sentences.append(f"{path} is a link: the link is removed, its target stays")
    if kind == "run":
        users = [search for search, found in _searched(store) if name in (found.get("run"), *(found.get("runs") or []))]
        if users:
            sentences.append(f"it was searched by {', '.join(users)}, which cannot be resumed without it")
        others = (table for table in also if Path(table.root).resolve() != Path(store.root).resolve())
        holders = (table.location for table in others if Run(table, name).recorded)
        sentences += [f"the table {table} also has it, and is read from then on" for table in holders]
    return printable(f"{kind} {name}{place}"), tuple(map(printable, sentences))


def _about_source(store: Store, name: str) -> tuple[str, tuple[str, ...]]:
    manifest = next((found for found in _manifests(store) if found.source == name), None)
    if is_trained(name) and manifest is None:
        count = len(store.files("accuracies", name))
        return f"source {printable(name)}, {count:,} training{'' if count == 1 else 's'} made here", ()
    if manifest is None:
        return f"source {printable(name)}", ()
    rows = ", ".join(f"{count:,} rows of {table}" for table, count in manifest.rows.items())
    searches = []
    for search, settings in _searched(store):
        dataset = canonical_dataset(str(settings.get("dataset")))
        if (
            "accuracies" in manifest.tables
            and settings.get("oracle") == "table"
            and dataset in manifest.datasets.get(str(settings.get("space")), ())
        ):
            searches.append(search)
    users = f"its accuracies were used by the searches {', '.join(searches)}, which may resume with others"
    described = f"source {name}, {rows} from {manifest.file}"
    return printable(described), (printable(users),) if searches else ()


def _remove_source(store: Store, name: str) -> None:
    with locked(store, FOLDER):
        for folder in latency_folders(store, name):
            busy = f"a latency measures the source {name}; stop it, or wait until it ends, then remove it"
            with locked(store, "latency", folder, busy=busy):
                for part in store.files("latency", folder):
                    _delete(store, "latency", folder, part)
                remove_file(store, "latency", folder, ".lock")
        if name in manifest_names(store):
            manifest = next((found for found in _manifests(store) if found.source == name), None)
            # Before the manifest, which hides them: otherwise the files that it replaced would reappear.
            for path in manifest.replaces if manifest else ():
                remove_file(store, *path.split("/"))
            _delete(store, FOLDER, f"{name}.json")
            with suppress(HnasError):  # another manifest is damaged
                sweep(store, source=name)
            return
        if is_trained(name):
            _check_idle_trainings(store, name)
        # `accuracies` first: without it the rest has no effect, and running the same command again removes it.
        for files in _older(store).values():
            for file in files:
                if file.source == name:
                    _delete(store, *file.parts)
        for rest in store.names(TRAININGS, name) if is_trained(name) else ():
            _delete(store, TRAININGS, name, rest)


def _check_idle_trainings(store: Store, source: str) -> None:
    """Raise `HnasError` if one of the trainings of a source is running."""
    busy = f"a training of {source} is running; stop it, or wait until it ends, then remove it"
    for name in store.files(TRAININGS, source, suffix=LOCK):
        with locked(store, TRAININGS, source, name=name, busy=busy):
            pass


def _delete(store: Store, *parts: str) -> None:
    """Delete a file of the store. Raises `HnasError` if it lies behind a link, or cannot be deleted."""
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
            # Readers recognise a run by this file, so delete it first.
            record = store.path(folder, name, f"{next(kind for kind, of in FOLDERS.items() if of == folder)}.json")
            for file in sorted(store.fs.find(path), key=lambda file: str(file) != record):
                store.fs.rm_file(file)
        return
    with _idle(store, folder, name), store.writing(path):
        Path(path).rename(store.path(f"{_REMOVED}{uuid.uuid4().hex}"))


@contextmanager
def _idle(store: Store, folder: str, name: str) -> Iterator[None]:
    """Lock others out of a run, comparison, model or supernet. Raises `HnasError` if it is in use."""
    linked = Path(store.path(folder, name)).is_symlink()  # a lock would be created behind the link
    if folder == "models" and in_use(Path(store.path(folder, name))):
        raise HnasError(f"the model {name} is being written; wait until the search has ended, then remove it")
    if folder == "models" or linked:
        yield
        return
    if folder != "runs":
        kind = next(kind for kind, of in FOLDERS.items() if of == folder)
        command = "compare" if folder == "comparisons" else "search"
        busy = f"a {command} is using the {kind} {name}; stop it, or wait until it ends, then remove it"
        with locked(store, folder, name, busy=busy):
            yield
        return
    with locked(store, folder, name):
        living, _ = Drivers(Run(store, name)).others()
        if living:
            raise HnasError(f"a precompute is using the run {name}; stop it, or wait until it ends, then remove it")
        yield


def _sweep_removed(store: Store) -> None:
    """Delete the renamed folders, including those of killed removals."""
    for left in Path(store.root).glob(f"{_REMOVED}*") if store.local else ():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
