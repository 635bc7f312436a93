"""Each imported file becomes a separate source, entirely or not at all, however the import ends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hnas.pipeline.catalog.views import connect
from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.store.manifests import imported_files, manifest_names, read_manifest
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import files_of, query
from tests.support.import_files import A, B, table, write_older_import
from tests.support.nasbench101_files import framed, training
from tests.support.places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def sources(store: Store) -> list[tuple[str, int]]:
    return query(store, "SELECT source, count(*) FROM accuracies GROUP BY source ORDER BY source")


# --- one source per file --------------------------------------------------------------------------------------------


def test_two_csv_files_are_two_sources_and_never_averaged(store: Store, tmp_path: Path) -> None:
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0, 80.0))
    import_accuracies(store, "csv", table(tmp_path / "theirs.csv", 10.0))
    assert sources(store) == [("mine", 2), ("theirs", 1)]
    means = query(store, "SELECT arch, source, test_accuracy FROM mean_accuracies ORDER BY ALL")
    assert means == [(A, "mine", 90.0), (B, "mine", 80.0)]


def test_two_files_of_one_benchmark_are_two_sources(store: Store, tmp_path: Path) -> None:
    for name, seeds in (("nasbench_only108.tfrecord", 1), ("nasbench_full.tfrecord", 2)):
        (tmp_path / name).write_bytes(framed(*(training(1, seed=seed) for seed in range(seeds))))
        import_accuracies(store, "nasbench101", tmp_path / name)
    assert sources(store) == [("nasbench101", 1), ("nasbench101-nasbench_full", 2)]
    curves = query(store, "SELECT source, count(*) FROM curves GROUP BY source ORDER BY source")
    assert curves == [("nasbench101", 2), ("nasbench101-nasbench_full", 4)]


@pytest.mark.parametrize(
    ("first", "second"), [("a.csv", "a.txt"), ("a b.csv", "a_b.csv"), ("Table.csv", "table.csv"), ("..csv", "_.csv")]
)
def test_files_with_similar_names_stay_separate(store: Store, tmp_path: Path, first: str, second: str) -> None:
    import_accuracies(store, "csv", table(tmp_path / first, 90.0))
    import_accuracies(store, "csv", table(tmp_path / second, 80.0))
    assert [count for _, count in sources(store)] == [1, 1]
    assert import_accuracies(store, "csv", tmp_path / first).changed is False
    assert import_accuracies(store, "csv", tmp_path / second).changed is False


def test_the_user_can_name_a_source(store: Store, tmp_path: Path) -> None:
    path = table(tmp_path / "export.csv", 90.0)
    done = hnas("import", "csv", path, "--name", "lab-1", "--store", store.root)
    assert (done.status, done.err) == (0, "")
    assert done.out == f"imported: 1 rows of 1 architectures from {path}, as the source lab-1\n"
    assert sources(store) == [("lab-1", 1)]
    # The file keeps that name from now on, and another file imported under the name replaces it.
    assert import_accuracies(store, "csv", path).source == "lab-1"
    done = hnas("import", "csv", table(tmp_path / "new.csv", 70.0, 60.0), "--name", "lab-1", "--store", store.root)
    assert done.out.endswith("as the source lab-1, replacing its earlier rows\n")
    assert sources(store) == [("lab-1", 2)]
    for wrong in ("", "../x", "a/b", ".x", "é", "x" * 101, "a\x1b[2J"):
        done = hnas("import", "csv", path, "--name", wrong, "--store", store.root)
        assert (done.status, done.out) == (2, "")
        assert "must be 1 to 100 letters" in done.err
        assert "\x1b" not in done.err
    assert (
        "one that differs not only in case" in hnas("import", "csv", path, "--name", "LAB-1", "--store", store.root).err
    )


@pytest.mark.parametrize("name", ["trained-9ff694c9b8", "latency-6cb2bf4b", "Trained-x"])
def test_names_of_trainings_and_latencies_are_reserved(store: Store, tmp_path: Path, name: str) -> None:
    path = table(tmp_path / f"{name}.csv", 90.0)
    done = hnas("import", "csv", path, "--name", name, "--store", store.root)
    assert (done.status, done.out) == (2, "")
    assert f"the source name '{name}' begins like those of trainings and latencies made here" in done.err
    assert import_accuracies(store, "csv", path).source == f"csv-{name}"
    assert import_accuracies(store, "csv", path).changed is False


# --- imports by older versions --------------------------------------------------------------------------------------


def test_files_of_an_older_store_are_sources_of_their_own(store: Store) -> None:
    write_older_import(store, "nasbench201", "only.pth", 70.0)
    assert sources(store) == [("nasbench201", 1)]
    one, two = write_older_import(store, "csv", "one.csv", 90.0), write_older_import(store, "csv", "two.csv", 10.0)
    assert sources(store) == [(f"csv/{one}", 1), (f"csv/{two}", 1), ("nasbench201", 1)]
    means = query(store, "SELECT DISTINCT test_accuracy FROM mean_accuracies")
    assert means in ([(90.0,)], [(10.0,)], [(70.0,)])
    listed = json.loads(hnas("info", "--json", "--store", store.root).out)["accuracies"]
    assert [row["source"] for row in listed] == [f"csv/{one}", f"csv/{two}", "nasbench201"]


def test_a_changed_file_replaces_what_an_older_version_imported_of_it(store: Store, tmp_path: Path) -> None:
    write_older_import(store, "csv", "mine.csv", 50.0)
    other = write_older_import(store, "csv", "other.csv", 40.0)
    assert import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0, 80.0)).replaced
    found = query(store, "SELECT source, test_accuracy FROM accuracies ORDER BY ALL")
    assert found == [("csv", 40.0), ("mine", 80.0), ("mine", 90.0)]
    assert query(store, "SELECT count(*) FROM curves") == [(1,)]
    assert [path.name for path in (Path(store.root) / "accuracies" / "csv").iterdir()] == [f"{other}.parquet"]


def test_reimporting_a_file_of_an_older_version_changes_nothing(store: Store, tmp_path: Path) -> None:
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    content = read_manifest(store, "mine").content
    shutil.rmtree(store.root)
    write_older_import(store, "csv", "mine.csv", 90.0, content)
    before = files_of(store)
    done = import_accuracies(store, "csv", tmp_path / "mine.csv")
    assert (done.changed, done.source, done.rows, done.curves) == (False, "csv", 1, 1)
    assert files_of(store) == before


def test_older_spellings_of_data_sets_are_read(store: Store) -> None:
    write_older_import(store, "csv", "mine.csv", 90.0, dataset="CIFAR-10")
    assert query(store, "SELECT dataset FROM accuracies UNION ALL SELECT dataset FROM curves") == [("cifar10",)] * 2


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_manifest_cannot_name_a_file_outside_its_source(store: Store, tmp_path: Path) -> None:
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    path = Path(store.root) / "imports" / "mine.json"
    good = json.loads(path.read_text())
    good.pop("checksum", None)
    other = {"accuracies": {"file": "../../../secret.parquet", "rows": 1}}
    for changed in (
        {"tables": other}, {"tables": {"runs": good["tables"]["accuracies"]}}, {"source": "x"}, {"tables": []},
        {"replaces": ["../../secret"]}, {"replaces": ["runs/x/run.json"]}, {"architectures": True}, {"more": 1},
    ):  # fmt: skip
        path.write_text(json.dumps(good | changed))
        done = hnas("info", "--store", store.root)
        assert (done.status, done.out) == (1, "")
        assert done.err.count("\n") == 1
        assert "`hnas rm mine` removes it" in done.err
    path.write_text(json.dumps(good))
    assert hnas("info", "--store", store.root).status == 0


def test_a_missing_file_is_reported_and_restored_by_the_next_import(store: Store, tmp_path: Path) -> None:
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    before = files_of(store)
    Path(store.path(*imported_files(store)["accuracies"][0].parts)).unlink()
    done = hnas("info", "--store", store.root)
    assert (done.status, done.out) == (1, "")
    assert "but listed in imports/mine.json; import mine.csv again, or `hnas rm mine`" in done.err
    assert import_accuracies(store, "csv", tmp_path / "mine.csv").changed
    assert files_of(store) == before


@pytest.mark.parametrize("place", [0.1, 0.9])
def test_a_damaged_file_is_restored_by_the_next_import(store: Store, tmp_path: Path, place: float) -> None:
    path = table(tmp_path / "mine.csv", 90.0)
    import_accuracies(store, "csv", path)
    before = files_of(store)
    (file,) = Path(store.root, "accuracies", "mine").iterdir()
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    file.write_bytes(content)
    assert "import its file again" in hnas("sql", "FROM accuracies", "--store", store.root).err
    assert import_accuracies(store, "csv", path).changed
    assert files_of(store) == before
    assert import_accuracies(store, "csv", path).changed is False


def test_foreign_files_next_to_the_imports_are_ignored(store: Store, tmp_path: Path) -> None:
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    root = Path(store.root)
    (root / "imports" / "._mine.json").write_bytes(b"\0\5\26\7")
    (root / "imports" / "mine (copy).json").write_text("{}")
    (root / "accuracies" / ".DS_Store").write_bytes(b"x")
    (root / "accuracies" / "mine" / "._x.parquet").write_bytes(b"x")
    (root / "accuracies" / "mine" / f"{'0' * 32}.parquet").write_bytes(b"left by a stopped import")
    assert sources(store) == [("mine", 1)]


# --- killed ---------------------------------------------------------------------------------------------------------

#: For each n, imports a file in a child process that kills itself before the n-th file change in the store.
KILLER = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path
from hnas.pipeline.importers import import_accuracies, nasbench101
from hnas.pipeline.store.store import Store

base, path, work = map(Path, sys.argv[1:])
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "shutil.rmtree")
for stop in count(1):
    place = work / str(stop) / "store"
    place.parent.mkdir()
    if base.exists():
        shutil.copytree(base, place)
    child = os.fork()
    if not child:
        changes = 0
        def before(event, arguments):
            global changes
            opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (event in CHANGES or opened) and str(place) in str(arguments[0]):
                changes += 1
                if changes == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(before)
        try:
            import_accuracies(Store(str(place)), "nasbench101", path)
            os._exit(0)
        except BaseException:
            os._exit(3)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        sys.exit(status)
"""


@pytest.mark.parametrize("had", ["nothing", "an older version's", "other rows"])
def test_a_killed_import_changes_all_or_nothing(tmp_path: Path, had: str) -> None:
    """Wherever it is killed, the store reads as before or as after, and the next import finishes without leftovers."""
    base, path = Store(str(tmp_path / "base")), tmp_path / "bench.tfrecord"
    if had == "other rows":
        path.write_bytes(framed(training(1), training(3)))
        import_accuracies(base, "nasbench101", path)
    elif had != "nothing":
        write_older_import(base, "nasbench101", path.name, 50.0)
    path.write_bytes(framed(training(1), training(2, 4)))
    after = Store(shutil.copytree(base.root, tmp_path / "after") if had != "nothing" else str(tmp_path / "after"))
    import_accuracies(after, "nasbench101", path)

    def state(store: Store) -> list[list[tuple[Any, ...]]]:
        connection = connect(Store(store.location))
        return [connection.execute(f"FROM {view} ORDER BY ALL").fetchall() for view in ("accuracies", "curves")]

    (tmp_path / "work").mkdir()
    command = [sys.executable, "-c", KILLER, base.root, str(path), str(tmp_path / "work")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    states = [state(base), state(after)]
    assert states[0] != states[1]
    seen = []
    places = sorted((tmp_path / "work").iterdir(), key=lambda place: int(place.name))
    for place in places:
        store = Store(str(place / "store"))
        seen.append(states.index(state(store)))
        assert import_accuracies(store, "nasbench101", path).source == "nasbench101"
        assert state(store) == states[1]
        if not seen[-1]:
            assert files_of(store) == files_of(after)
    assert len(places) > 12
    assert seen == sorted(seen), "the store showed the new state and then the old one"
    assert set(seen) == {0, 1}


def test_an_import_that_cannot_write_leaves_nothing(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "bench.tfrecord"
    path.write_bytes(framed(training(1)))
    import_accuracies(store, "nasbench101", path)
    before = files_of(store)
    path.write_bytes(framed(training(1), training(2)))
    # A folder in the manifest's place makes the last step of the import fail.
    manifest = Path(store.root) / "imports" / "nasbench101.json"
    kept = manifest.rename(tmp_path / "kept.json")
    manifest.mkdir()
    done = hnas("import", "nasbench101", path, "--store", store.root)
    assert done.status == 1
    assert done.err.count("\n") == 1
    manifest.rmdir()
    kept.rename(manifest)
    assert files_of(store) == before
    assert manifest_names(store) == ["nasbench101"]
