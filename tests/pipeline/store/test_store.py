"""The store: all writing is atomic, and every error is one sentence."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog import views as catalog
from hnas.pipeline.precompute.plan import Plan
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import STORE_VERSION, Store, store_location
from tests.support.contents import matching, snapshot
from tests.support.runs import exact_table, fill, metrics_of

pytestmark = pytest.mark.slow

MakePlan = Callable[..., Plan]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`mounted("size=64k")` mounts a tmpfs with these options, or remounts it; the same folder each time."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = "defaults"

    def mount(requested: str) -> Path:
        nonlocal options
        options = f"remount,{requested}" if folder.is_mount() else requested
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        return folder

    if sys.platform != "linux":
        pytest.skip("a tiny filesystem is mounted on Linux only")
    yield mount
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def one_sentence(error: pytest.ExceptionInfo[HnasError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


# --- writing


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failing_write_leaves_only_the_old_file(store, monkeypatch, step, refusal):
    store.write_json({"a": 1}, "runs", "r", "run.json")
    before = snapshot(store.root)

    def refuse(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(step, refuse)
    with pytest.raises(HnasError) as error:
        store.write_json({"a": 2}, "runs", "r", "run.json")
    assert "run.json cannot be written" in one_sentence(error)
    assert ("free some space" in str(error.value)) == (refusal == errno.ENOSPC)
    assert snapshot(store.root) == before


def test_an_interrupted_write_leaves_only_the_old_file(store, monkeypatch):
    store.write_json({"a": 1}, "x.json")
    before = snapshot(store.root)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write_json({"a": 2}, "x.json")
    assert snapshot(store.root) == before


def test_written_files_respect_the_umask(store):
    mask = os.umask(0o027)
    try:
        store.write_json({}, "x.json")
    finally:
        os.umask(mask)
    assert (Path(store.root) / "x.json").stat().st_mode & 0o777 == 0o640


def test_opening_a_store_writes_nothing(store):
    store.check_version()
    assert matching(store, "runs", "*", "run.json") == []
    assert store.read_tables(["arch"], "architectures", "nasbench201") is None
    assert not Path(store.root).exists()


def test_a_full_disk_is_reported_and_leaves_nothing_half_written(mounted, tmp_path, small_plan):
    reference = Store(str(tmp_path / "reference"))
    plan = small_plan(reference, sample=6, chunk_size=3)
    expected = exact_table(reference, fill(reference, plan))
    sentences = []
    for kilobytes in range(4, 52, 8):
        store = Store(str(mounted(f"size={kilobytes}k") / "store"))
        with pytest.raises(HnasError) as error:
            fill(store, small_plan(store, sample=6, chunk_size=3))
        sentences.append(one_sentence(error))
        assert "No space left on device; free some space, or use another --store" in sentences[-1]
        files = [path.name for path in Path(store.root).rglob("*") if path.is_file()]
        assert not [name for name in files if (name.startswith(".") and name != ".lock") or "partial" in name]
        assert {row["canonical"] for row in metrics_of(store, plan.settings.id)} < set(expected)
        catalog.connect(store).execute("SELECT * FROM pool").fetchall()
        mounted("size=4m")
        fill(store, small_plan(store, sample=6, chunk_size=3))
        assert exact_table(store, plan.settings.id) == expected
        subprocess.run(["umount", Path(store.root).parent], check=True)
    for place in ("batch.npz", "ntk.zarr", "metrics"):
        assert any(place in sentence for sentence in sentences), f"no size filled the disk at {place}"


def test_a_read_only_store_can_be_queried_but_not_written(mounted, small_plan):
    store = Store(str(mounted("size=4m") / "store"))
    plan = small_plan(store, sample=2)
    run = fill(store, plan)
    mounted("ro")
    assert catalog.connect(store).execute("SELECT count(*) FROM pool").fetchall() == [(2,)]
    with pytest.raises(HnasError) as error:
        fill(store, small_plan(store, sample=4))
    assert "cannot be written: Read-only file system" in one_sentence(error)
    assert len(exact_table(store, run)) == len(plan.todo)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to any folder")
def test_a_folder_without_permission_is_reported(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(HnasError, match="cannot be written: Permission denied"):
            Store(str(tmp_path / "store")).prepare()
    finally:
        tmp_path.chmod(0o700)


# --- damage


def test_another_store_version_is_rejected_by_readers_and_writers(store, small_plan):
    store.write_json({"version": STORE_VERSION + 1}, "store.json")
    for attempt in (store.prepare, lambda: catalog.connect(store), lambda: small_plan(store, sample=2)):
        with pytest.raises(HnasError) as error:
            attempt()
        assert f"has version {STORE_VERSION + 1}, but this hnas reads version {STORE_VERSION}" in one_sentence(error)


def test_a_folder_with_runs_but_no_store_json_is_rejected(store):
    Path(store.path("runs")).mkdir(parents=True)
    with pytest.raises(HnasError, match=r"has runs but no store\.json"):
        store.prepare()
    assert not store.exists("store.json")


def test_a_file_in_place_of_a_store_is_a_usage_error(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="is a file; a store must be a folder"):
        Store(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize("location", ["nosuchprotocol://bucket/x", "nosuchprotocol:///x"])
def test_an_unknown_protocol_is_a_usage_error(location):
    with pytest.raises(UsageError) as error:
        Store(location)
    assert "give a folder or an fsspec URL" in one_sentence(error)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"7"])
def test_a_damaged_json_file_is_reported_with_its_path(store, content):
    store.write_bytes(content, "runs", "r", "run.json")
    with pytest.raises(HnasError) as error:
        store.read_json("runs", "r", "run.json")
    assert store.path("runs", "r", "run.json") in one_sentence(error)
    assert "damaged after it was written" in str(error.value)


def test_a_missing_file_is_reported_with_its_path(store):
    with pytest.raises(HnasError) as error:
        store.read_json("runs", "r", "run.json")
    assert f"{store.path('runs', 'r', 'run.json')} cannot be read: No such file" in one_sentence(error)


def test_settings_of_another_hnas_are_reported(store):
    store.write_json({"settings": {"space": "x", "colour": "blue"}}, "runs", "r", "run.json")
    with pytest.raises(HnasError, match="settings that this hnas does not know"):
        Run(store, "r").read_settings()
    store.write_json({}, "runs", "r", "run.json")
    with pytest.raises(HnasError, match="settings that this hnas does not know"):
        Run(store, "r").read_settings()


@pytest.mark.parametrize("damage", [b"", b"no parquet at all", None], ids=["empty", "foreign", "cut short"])
def test_a_damaged_part_is_reported_and_recomputed_once_deleted(store, small_plan, filled, damage):
    reference, _ = filled
    run = fill(store, small_plan(store, sample=20))
    part = Path(matching(store, "runs", run, "metrics", "*.parquet")[1])
    rows = pq.read_metadata(part).num_rows
    part.write_bytes(part.read_bytes()[:-20] if damage is None else damage)
    with pytest.raises(HnasError) as error:
        small_plan(store, sample=20)
    assert f"{part} cannot be read" in one_sentence(error)
    assert "delete it, and its rows are computed again" in str(error.value)
    with pytest.raises(HnasError) as error:
        catalog.connect(store).execute("SELECT * FROM metrics").fetchall()
    assert part.name in one_sentence(error)
    part.unlink()
    again = small_plan(store, sample=20)
    assert len(again.todo) == rows
    fill(store, again)
    assert exact_table(store, run) == exact_table(reference, run)


# --- places


def test_the_store_comes_from_option_variable_or_default(monkeypatch):
    monkeypatch.delenv("HNAS_STORE", raising=False)
    assert store_location(None) == "data/store"
    monkeypatch.setenv("HNAS_STORE", "/elsewhere")
    assert store_location(None) == "/elsewhere"
    assert store_location("given") == "given"


@pytest.mark.parametrize("place", ["folder", "file URL", "memory URL"])
def test_a_store_behaves_the_same_in_a_folder_and_at_any_url(tmp_path, small_plan, filled, place):
    location = {
        "folder": str(tmp_path / "store"),
        "file URL": f"file://{tmp_path}/store",
        "memory URL": f"memory://{tmp_path.name}/store",
    }[place]
    store, (reference, _) = Store(location), filled
    assert store.local == (place != "memory URL")
    try:
        store.write_json({"é": [1, None]}, "runs", "r", "x.json")
        assert Store(location).read_json("runs", "r", "x.json") == {"é": [1, None]}
        store.fs.rm(store.path("runs"), recursive=True)
        run = fill(store, small_plan(store, sample=20), keep_gram=True)
        assert exact_table(Store(location), run) == exact_table(reference, run)
        assert NTKArrays(store, run).read("gram").shape[1:] == (8, 8)
        assert small_plan(Store(location), sample=20).todo == ()
        query = "SELECT * EXCLUDE (space) FROM pool ORDER BY arch"
        rows = catalog.connect(Store(location)).execute(query).fetchall()
        assert rows == catalog.connect(reference).execute(query).fetchall()
        assert len(rows) == 20
    finally:
        if place == "memory URL":
            fsspec.filesystem("memory").rm(store.root, recursive=True)


@pytest.mark.parametrize("name", ["it's a store", 'say "store"', "a$run;--", "ünïcode", "a%20b#c"])
def test_any_folder_name_works(tmp_path, small_plan, name):
    store = Store(str(tmp_path / name))
    run = fill(store, small_plan(store, sample=4))
    assert small_plan(store, sample=4).todo == ()
    connection = catalog.connect(store)
    assert connection.execute(
        "SELECT run, count(*), count(trace), count(params) FROM pool GROUP BY run"
    ).fetchall() == [(run, 4, 4, 4)]


@pytest.mark.parametrize(("name", "neighbour"), [("store[1]", "store1"), ("store*", "storehouse"), ("what?", "whats")])
def test_a_folder_name_is_never_a_pattern(tmp_path, small_plan, name, neighbour):
    for folder, sample in ((neighbour, 6), (name, 4)):
        store = Store(str(tmp_path / folder))
        fill(store, small_plan(store, sample=sample))
    assert small_plan(store, sample=4).todo == ()
    assert catalog.connect(store).execute("SELECT count(*) FROM pool").fetchall() == [(4,)]
    assert catalog.connect(store).execute("SELECT count(*) FROM runs").fetchall() == [(1,)]


# --- runs and tables


def test_the_batch_of_a_run_is_stored_exactly(filled):
    store, plan = filled
    images, labels = Run(store, plan.settings.id).batch()
    np.testing.assert_array_equal(images, plan.batch.images)
    np.testing.assert_array_equal(labels, plan.batch.labels)
    assert (images.dtype, labels.dtype) == (np.float32, np.int64)


def test_opening_a_run_again_changes_nothing(store, small_plan):
    plan = small_plan(store, sample=2)
    store.prepare()
    run = Run(store, plan.settings.id)
    run.create(plan.settings, plan.batch)
    before = snapshot(store.root)
    run.create(plan.settings, plan.batch)
    assert snapshot(store.root) == before
    assert run.read_settings() == plan.settings


def test_run_json_records_settings_and_provenance(filled):
    store, plan = filled
    content = store.read_json("runs", plan.settings.id, "run.json")
    assert content["id"] == plan.settings.id
    assert content["settings"]["dataset"] == "digits"
    assert {"hnas", "python", "torch", "numpy"} <= set(content["versions"])
    assert set(content["host"]) == {"system", "processor"}


def test_parts_are_read_as_one_table_in_name_order(store):
    store.write_table(pa.table({"a": [3], "b": ["z"]}), "t", "2.parquet")
    store.write_table(pa.table({"a": [1, 2], "b": ["x", "y"]}), "t", "1.parquet")
    table = store.read_tables(["a"], "t")
    assert table is not None
    assert table.to_pydict() == {"a": [1, 2, 3]}


def test_a_spectrum_that_was_not_kept_is_reported(filled, store):
    reference, plan = filled
    with pytest.raises(HnasError, match="--keep-gram keeps Gram matrices"):
        NTKArrays(reference, plan.settings.id).read("gram")
    with pytest.raises(HnasError, match="does not exist"):
        NTKArrays(store, "0123456789").read()
