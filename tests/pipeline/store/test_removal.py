"""`hnas rm` removes one thing; everything else, inside and outside the store, stays unchanged."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import files_of, query
from tests.support.import_files import table, write_older_import
from tests.support.places import ROOT
from tests.support.stores import make_store


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A read-only store with a run, a search of it, and two imported files."""
    tmp_path = tmp_path_factory.mktemp("pristine")
    (tmp_path / "store").mkdir()
    store = make_store(tmp_path / "store", architectures=8)
    (tmp_path / "store" / "list.txt").unlink()
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0, 80.0, dataset="digits"))
    import_accuracies(store, "csv", table(tmp_path / "theirs.csv", 50.0))
    done = hnas("search", "nasbench201", "--queries", 2, "--quiet", "--store", store.root)
    assert done.status == 0, done.err
    return store


@pytest.fixture
def store(pristine: Store, tmp_path: Path) -> Store:
    """A copy of the store."""
    return Store(shutil.copytree(pristine.root, tmp_path / "store"))


def names(store: Store) -> tuple[str, str]:
    """The names of the run and the search."""
    return (store.names("runs")[0], store.names("searches")[0])


def removed(store: Store, name: str) -> str:
    """Remove `name` and return standard error."""
    done = hnas("rm", name, "--yes", "--store", store.root)
    assert done.status == 0, done.err
    assert done.out.startswith("removed: ")
    return done.err


def test_removing_a_source_removes_nothing_else(store: Store) -> None:
    _, search = names(store)
    before = files_of(store)
    said = removed(store, "mine")
    assert said == f"its accuracies were used by the searches {search}, which may resume with others\n"
    after = files_of(store)
    gone = set(before) - set(after)
    assert after.items() <= before.items()
    assert {name.split("/")[0] for name in gone} == {"imports", "accuracies"}
    assert all("mine" in name for name in gone)
    assert query(store, "SELECT DISTINCT source FROM accuracies ORDER BY source") == [("csv",), ("theirs",)]
    assert removed(store, "theirs") == ""
    assert removed(store, "csv") == ""
    assert query(store, "SELECT count(*) FROM accuracies") == [(0,)]


def test_a_source_of_an_older_version_is_removed_from_every_table(store: Store) -> None:
    one, two = (
        write_older_import(store, "parquet", "one.parquet", 1.0),
        write_older_import(store, "parquet", "two.parquet", 2.0),
    )
    removed(store, f"parquet/{one}")
    assert query(store, "SELECT DISTINCT source FROM curves") == [("parquet",)]
    assert [path.name for path in Path(store.path("accuracies", "parquet")).iterdir()] == [f"{two}.parquet"]


def test_older_files_replaced_by_an_import_do_not_reappear(store: Store, tmp_path: Path) -> None:
    write_older_import(store, "csv", "again.csv", 1.0)
    kept = files_of(store)
    import_accuracies(store, "csv", table(tmp_path / "again.csv", 33.0))
    # As after an import killed before it deleted them.
    for name, content in kept.items():
        if "again" in name:
            Path(store.root, name).parent.mkdir(exist_ok=True)
            Path(store.root, name).write_bytes(content)
    assert query(store, "SELECT count(*) FROM accuracies WHERE test_accuracy = 1") == [(0,)]
    removed(store, "again")
    assert query(store, "SELECT count(*) FROM accuracies WHERE test_accuracy IN (1, 33)") == [(0,)]


def test_a_damaged_source_and_a_damaged_run_can_be_removed(store: Store) -> None:
    run, search = names(store)
    for parts in (("imports", "mine.json"), ("runs", run, "run.json"), ("searches", search, "search.json")):
        Path(store.path(*parts)).write_bytes(b"\0not JSON")
    for name in ("mine", run, search):
        removed(store, name)
    assert hnas("info", "--store", store.root).status == 0


def test_removing_a_run_and_a_search(store: Store) -> None:
    run, search = names(store)
    assert removed(store, run) == f"it was searched by {search}, which cannot be resumed without it\n"
    assert store.names("runs") == []
    assert removed(store, search) == ""
    assert store.names("searches") == []
    assert query(store, "SELECT count(*) FROM runs UNION ALL SELECT count(*) FROM searches") == [(0,), (0,)]
    assert not list(Path(store.root).glob(".removed*"))


@pytest.mark.parametrize(
    "name", ["", "nothing", "/", "..", "../store", ".lock", "runs", "imports/mine", "run/nope", "a\x1b["]
)
def test_an_unknown_name_is_reported(store: Store, name: str) -> None:
    before = files_of(store)
    done = hnas("rm", name, "--yes", "--store", store.root)
    assert (done.status, done.out) == (2, "")
    assert "has no run, search, comparison, model, supernet or source" in done.err
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err
    assert files_of(store) == before


def test_a_partial_name_is_not_enough(store: Store) -> None:
    run, _ = names(store)
    done = hnas("rm", run[:4], "--yes", "--store", store.root)
    assert done.status == 2
    assert f"did you mean {run!r}?" in done.err


def test_an_ambiguous_name_requires_its_kind(store: Store, tmp_path: Path) -> None:
    run, _ = names(store)
    import_accuracies(store, "csv", table(tmp_path / f"{run}.csv", 33.0))
    done = hnas("rm", run, "--yes", "--store", store.root)
    assert done.status == 2
    assert f"write run/{run} or source/{run}" in done.err
    removed(store, f"source/{run}")
    assert query(store, "SELECT count(*) FROM runs") == [(1,)]


def test_it_asks_on_a_terminal_and_requires_yes_elsewhere(store: Store) -> None:
    run, _ = names(store)
    before = files_of(store)
    done = hnas("rm", run, "--store", store.root)
    assert (done.status, done.out) == (2, "")
    assert done.err.endswith("and here is no terminal; give --yes\n")
    assert files_of(store) == before
    for answer, out in (("n", "nothing was removed\n"), ("y", f"removed: run {run}, nasbench201 on digits\n")):
        master, slave = pty.openpty()
        os.write(master, f"{answer}\n".encode())
        command = [sys.executable, "-m", "hnas.cli", "rm", run, "--store", store.root]
        asked = subprocess.run(
            command,
            stdin=slave,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        os.close(slave)
        os.close(master)
        assert (asked.returncode, asked.stdout[-len(out) :]) == (0, out)
        assert (files_of(store) == before) is (answer == "n")


def test_a_run_in_use_is_not_removed(store: Store) -> None:
    run, _ = names(store)
    drivers = Path(store.path("runs", run, "drivers"))
    drivers.mkdir()
    (drivers / "abc.claims").write_bytes(b"")
    with FileLock(str(drivers / "abc.lock")):
        done = hnas("rm", run, "--yes", "--store", store.root)
    assert (done.status, done.out) == (1, "")
    assert f"a precompute is using the run {run}" in done.err
    assert store.names("runs") == [run]


@pytest.mark.parametrize("what", ["run", "search", "mine", "csv"])
def test_a_dry_run_lists_files_and_removes_nothing(store: Store, what: str) -> None:
    run, search = names(store)
    name = {"run": run, "search": search}.get(what, what)
    before = files_of(store)
    done = hnas("rm", name, "--dry-run", "--store", store.root)
    assert done.status == 0, done.err
    assert files_of(store) == before
    lines = done.out.splitlines()
    assert lines[0].startswith("would be removed: ")
    assert lines[-1] == "nothing was removed"
    listed = {line.strip().partition(": ")[0] for line in lines[1:-1]}
    removed(store, name)
    gone = before.keys() - files_of(store).keys()
    assert {path for path in listed if any(f"{file}/".startswith(f"{path}/") for file in gone)} == listed
    assert all(any(f"{file}/".startswith(f"{path}/") for path in listed) for file in gone)
    sizes = json.loads(hnas("info", "--json", "--store", store.root).out)["sizes"]
    assert name not in [row["name"] for row in sizes]


def test_info_reports_size_date_and_use(store: Store) -> None:
    run, search = names(store)

    def rows() -> dict[str, dict[str, object]]:
        return {row["name"]: row for row in json.loads(hnas("info", "--json", "--store", store.root).out)["sizes"]}

    path = Path(store.path("runs", run))
    drivers = path / "drivers"
    drivers.mkdir()
    with FileLock(str(drivers / "abc.lock")):
        found = rows()
        assert found[run]["busy"] == "yes"
        assert found[run]["bytes"] == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert rows()[run]["busy"] == "no"
    assert {name: row["kind"] for name, row in found.items()} == {
        run: "run", search: "search", "mine": "source", "theirs": "source", "csv": "source",
    }  # fmt: skip
    assert all(str(row["changed"]).endswith("+00:00") for row in found.values())


# --- nothing outside ------------------------------------------------------------------------------------------------


def test_links_are_removed_but_not_their_targets(store: Store, tmp_path: Path) -> None:
    run, search = names(store)
    outside = tmp_path / "outside"
    outside.mkdir()
    for parts in (("runs", run), ("searches", search), ("accuracies", "theirs")):
        Path(store.path(*parts)).rename(outside / parts[1])
        Path(store.path(*parts)).symlink_to(outside / parts[1])
    Path(store.path("runs", "inner")).mkdir()
    Path(store.path("runs", "inner", "metrics")).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    for name in ("inner", search, "theirs"):
        removed(store, name)
    assert "is a link: the link is removed, its target stays" in removed(store, run)
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("folder", ["runs", "searches", "imports"])
def test_files_behind_a_link_are_not_deleted(store: Store, tmp_path: Path, folder: str) -> None:
    run, search = names(store)
    place = Path(store.path(folder))
    place.rename(tmp_path / "outside")
    place.symlink_to(tmp_path / "outside")
    before = {path: path.read_bytes() for path in (tmp_path / "outside").rglob("*") if path.is_file()}
    name = {"runs": run, "searches": search, "imports": "mine"}[folder]
    done = hnas("rm", name, "--yes", "--store", store.root)
    assert (done.status, done.out) == (1, "")
    assert "a store must not be written or deleted through links" in done.err
    assert (
        before.items()
        <= {path: path.read_bytes() for path in (tmp_path / "outside").rglob("*") if path.is_file()}.items()
    )


def test_a_run_of_a_table_is_not_removed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = names(store)
    (tmp_path / "tables").mkdir()
    own = Store(str(tmp_path / "own"))
    own.prepare()
    Path(store.root).rename(tmp_path / "tables" / "shipped")
    monkeypatch.setenv("HNAS_TABLES", str(tmp_path / "tables"))
    done = hnas("rm", run, "--yes", "--store", own.root)
    assert (done.status, done.out) == (2, "")
    assert f"the run belongs to {tmp_path / 'tables' / 'shipped'}" in done.err


def test_removal_from_a_store_at_a_url(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    store.write_json({"id": "s", "created": "2026-01-01T00:00:00", "settings": {}}, "searches", "s", "search.json")
    from hnas.pipeline.store.removal import find_held, remove

    for name in ("mine", "s"):
        remove(store, find_held(store, name))
    assert {path.split("/")[-1] for path in store.fs.find(store.root)} == {"store.json"}


def test_info_matches_the_manifests(store: Store) -> None:
    rows = json.loads(hnas("info", "--json", "--store", store.root).out)["accuracies"]
    assert {row["source"] for row in rows} == {"csv", "mine", "theirs"}
