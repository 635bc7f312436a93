"""Damage to a store is reported when it is read, and never silently changes a number."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnas.errors import HnasError
from hnas.pipeline.analysis.correlate import correlate
from hnas.pipeline.catalog.info import store_info
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.console.query import run_query
from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.io.checksums import CHECKSUM, DamagedError, parquet_bytes, verify_parquet
from hnas.pipeline.precompute.driver import precompute
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import queries_table, read_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.store.check import check_store
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.records import SEARCH_COLUMNS
from hnas.pipeline.store.run import Run, RunSettings
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import snapshot
from tests.support.import_files import table
from tests.support.places import ROOT
from tests.support.runs import SPACE, exact_table, fill, job_of
from tests.support.stores import make_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pristine(filled, small_plan, tmp_path_factory) -> tuple[Store, str, str]:
    """A read-only store with two runs of 20 architectures each, that of `filled` and one with another seed."""
    store = Store(str(tmp_path_factory.mktemp("two") / "store"))
    shutil.copytree(filled[0].root, store.root)
    return store, filled[1].settings.id, fill(store, small_plan(store, sample=20, seed=1))


@pytest.fixture
def copied(pristine, tmp_path) -> tuple[Store, str, str]:
    """A copy of the store."""
    store, run, other = pristine
    return Store(shutil.copytree(store.root, tmp_path / "store")), run, other


def rows(store: Store, query: str) -> list[tuple]:
    """The rows of a query, with errors as `hnas sql` raises them."""
    connection: duckdb.DuckDBPyConnection = connect(store)
    path = Path(store.root).parent / "result.parquet"
    run_query(connection, query, format="parquet", output=path)
    return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]


def flip(path: Path, place: float = 0.5) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 0x40
    path.write_bytes(content)


# --- where a store is


ALL = ("SELECT * FROM pool ORDER BY arch", "SELECT * FROM spectra ORDER BY canonical", "SELECT * FROM runs")


@pytest.fixture(scope="module")
def expected(filled) -> list[list[tuple]]:
    return [rows(filled[0], query) for query in ALL]


@pytest.mark.parametrize(
    "place", ["trace=7", "kappa=1", "seed=3", "dataset=cifar10", "id=7", "filename=x", "a\\b", "x[1]*\\?", "run=q/a*"]
)
def test_numbers_do_not_depend_on_the_stores_location(filled, expected, tmp_path, place):
    there = tmp_path / place / "store"
    shutil.copytree(filled[0].root, there)
    assert [rows(Store(str(there)), query) for query in ALL] == expected


def test_hidden_system_files_are_not_parts(copied):
    store, run, _ = copied
    expected = rows(store, "SELECT run, count(*) FROM metrics GROUP BY run ORDER BY run")
    part = Path(store.path("runs", run, "metrics", store.files("runs", run, "metrics")[0]))
    part.with_name(f"._{part.name}").write_bytes(b"\0\5\26\7")
    shutil.copy(part, part.with_name(".nfs0000a1.parquet"))
    assert rows(store, "SELECT run, count(*) FROM metrics GROUP BY run ORDER BY run") == expected
    assert any("nothing reads it" in remark for remark in check_store(store).remarks)


def test_the_users_zarr_settings_do_not_affect_the_store(tmp_path):
    program = (
        "from hnas.pipeline.store.store import Store; from hnas.pipeline.store.ntk_arrays import NTKArrays\n"
        "import sys, numpy as np\n"
        "store = Store(sys.argv[1]); store.prepare(); arrays = NTKArrays(store, 'r')\n"
        "arrays.prepare(3, 8, block=4, gram=False); arrays.write(0, np.full((5, 3), np.nan), None)\n"
        "assert arrays.read().shape == (8, 3) and arrays.blocks('eigenvalues') == [0, 1]\n"
    )
    settings = {"ZARR_DEFAULT_ZARR_FORMAT": "2", "ZARR_ARRAY__WRITE_EMPTY_CHUNKS": "False", "ZARR_ARRAY__ORDER": "F"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")], env={**os.environ, **settings}, cwd=ROOT, check=False
    )
    assert done.returncode == 0


# --- checksums


@given(rows=st.integers(1, 40), bit=st.integers(0, 2**20), other=st.booleans())
def test_every_flipped_bit_of_a_part_is_detected_or_hits_the_note(rows, bit, other):
    table = pa.table({"canonical": [f"y={i}" for i in range(rows)], "trace": np.linspace(1, 2, rows)})
    content = parquet_bytes(table, "runs/r/metrics/p.parquet")
    assert verify_parquet(content, "runs/r/metrics/p.parquet")
    if other:
        with pytest.raises(DamagedError, match=r"copy of runs/r/metrics/p\.parquet"):
            verify_parquet(content, "runs/s/metrics/p.parquet")
    damaged = bytearray(content)
    damaged[bit // 8 % len(content)] ^= 1 << bit % 8
    try:
        sealed = verify_parquet(bytes(damaged), "runs/r/metrics/p.parquet")
    except DamagedError:
        return
    # A flip in the key or its prefix makes the file read as one without a checksum; its rows are intact.
    assert not sealed
    key = content.rfind(CHECKSUM)
    assert key <= bit // 8 % len(content) < key + 24
    assert pq.read_table(pa.BufferReader(bytes(damaged))).equals(table)


def test_a_part_of_an_older_version_is_verified_by_its_rows(copied):
    store, run, _ = copied
    name = store.files("runs", run, "metrics")[0]
    old = store.read_table(None, "runs", run, "metrics", name)
    path = Path(store.path("runs", run, "metrics", name))
    pq.write_table(old, path, compression="zstd")
    assert not store.read_checked("runs", run, "metrics", name)[1]
    assert rows(store, "SELECT count(*) FROM metrics") == [(len(exact_table_rows(store)),)]
    shutil.copy(path, path.with_name("0000000000000000.parquet"))
    with pytest.raises(HnasError, match=f"its rows are those of {name}"):
        rows(store, "SELECT count(*) FROM metrics")


def exact_table_rows(store: Store) -> list[tuple]:
    """All rows of both runs, read without DuckDB."""
    return [
        row
        for run in store.folders("runs")
        for name in store.files("runs", run, "metrics")
        for row in store.read_table(["canonical"], "runs", run, "metrics", name).to_pylist()
    ]


@pytest.mark.parametrize(
    ("folder", "query", "other"),
    [
        ("runs/{run}/metrics", "FROM pool", "SELECT count(*) FROM requests"),
        ("runs/{run}/requests", "FROM pool", "SELECT count(*) FROM metrics"),
        ("architectures/nasbench201", "SELECT params FROM architectures", "SELECT count(*) FROM metrics"),
    ],
)
def test_a_flipped_bit_affects_only_statements_that_read_it(copied, folder, query, other):
    store, run, _ = copied
    flip(sorted(Path(store.path(folder.format(run=run))).glob("*.parquet"))[0])
    with pytest.raises(HnasError, match="does not match its checksum; delete it"):
        rows(store, query)
    with pytest.raises(HnasError, match="does not match its checksum"):
        rows(store, f"{query} LIMIT 1" if query.startswith("SELECT") else f"SELECT 1 {query} LIMIT 1")
    assert rows(store, other)
    (finding,) = check_store(store).damaged
    assert finding.path.startswith(store.path(folder.format(run=run)))


def test_a_part_under_two_names_is_reported(copied):
    store, run, _ = copied
    folder = Path(store.path("runs", run, "metrics"))
    name = sorted(folder.iterdir())[0].name
    shutil.copy(folder / name, folder / f"{name.removesuffix('.parquet')} (1).parquet")
    with pytest.raises(HnasError, match=f"it is a copy of runs/{run}/metrics/{name}"):
        rows(store, "SELECT count(*) FROM metrics")


def test_parts_of_another_run_are_reported(copied):
    store, run, other = copied
    for folder in ("metrics", "requests"):
        place = Path(store.path("runs", run, folder))
        kept = place.rename(place.with_name("kept"))
        shutil.copytree(store.path("runs", other, folder), place)
        with pytest.raises(HnasError, match=rf"it is a copy of runs/{other}/{folder}/|is missing"):
            rows(store, "SELECT * FROM pool")
        shutil.rmtree(place)
        kept.rename(place)


# --- records of runs and searches


def test_a_run_must_match_its_name(copied):
    store, run, other = copied
    shutil.copy(store.path("runs", other, "run.json"), store.path("runs", run, "run.json"))
    with pytest.raises(HnasError, match=f"has the settings of run {other}; a run is named by its settings"):
        connect(store)
    assert f"settings of run {other}" in check_store(store).damaged[0].what


def test_another_runs_images_are_rejected_before_computing(copied, small_plan):
    store, run, other = copied
    shutil.copy(store.path("runs", other, "batch.npz"), store.path("runs", run, "batch.npz"))
    with pytest.raises(HnasError, match="does not hold the images of run"):
        Run(store, run).batch()
    before = exact_table(store, run)
    with pytest.raises(HnasError, match=r"batch\.npz does not hold the images"):
        fill(store, small_plan(store, sample=24))
    assert exact_table(store, run) == before


@pytest.mark.parametrize("member", ["created", "sessions", "versions"])
def test_changes_to_a_record_are_reported(copied, member):
    store, run, _ = copied
    path = Path(store.path("runs", run, "run.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, member: "2020-01-01T00:00:00+00:00"}))
    with pytest.raises(HnasError, match="does not match its checksum"):
        connect(store)


@pytest.mark.parametrize(
    "content",
    [
        {"settings": 5},
        {"settings": {}},
        {"created": 7},
        {"id": 3},
        {"settings": {"batch_size": "64"}},
        {"settings": {"seed": 1.5}},
    ],
    ids=str,
)
def test_wrong_types_in_a_record_give_one_sentence(copied, content):
    store, run, _ = copied
    record = store.read_json("runs", run, "run.json")
    if isinstance(settings := content.get("settings"), dict) and settings:
        content = {"settings": {**record["settings"], **settings}}
    store.write_json({**record, **content}, "runs", run, "run.json")
    with pytest.raises(HnasError, match=r"run\.json") as error:
        connect(store)
    assert "\n" not in str(error.value)


def test_deeply_nested_json_gives_one_sentence(copied):
    store, run, _ = copied
    Path(store.path("runs", run, "run.json")).write_text("[" * 100_000)
    with pytest.raises(HnasError, match="is not valid JSON"):
        connect(store)


@pytest.mark.parametrize("lost", ["run.json", "requests/*.parquet"])
def test_a_lost_record_or_request_is_detected(copied, lost):
    store, run, _ = copied
    for path in Path(store.path("runs", run)).glob(lost):
        path.unlink()
    with pytest.raises(HnasError, match="is missing; restore it, or remove the folder"):
        connect(store)


def test_lost_static_columns_are_detected_and_rewritten(copied, small_plan):
    store, _, other = copied
    before = connect(store).sql("FROM pool ORDER BY ALL").fetchall()
    for path in Path(store.path("architectures")).glob("*/*.parquet"):
        path.unlink()
    with pytest.raises(HnasError, match="is missing; restore it, or let the same `hnas precompute` of run"):
        connect(store)
    fill(store, small_plan(store, sample=9))  # any request will do
    with pytest.raises(HnasError, match=f"of run {other} write its rows again"):
        connect(store)
    fill(store, small_plan(store, sample=9, seed=1))
    assert connect(store).sql("FROM pool ORDER BY ALL").fetchall() == before


# --- ntk.zarr


def test_a_flipped_bit_of_a_chunk_is_reported_with_a_working_repair(copied, small_plan):
    store, run, other = copied
    before = exact_table(store, run)
    chunk = Path(store.path("runs", run, "ntk.zarr", "eigenvalues", "c", "1", "0"))
    flip(chunk)
    with pytest.raises(HnasError, match=r"its chunk c/1/0 was damaged .*delete that file, and the same `hnas precom"):
        rows(store, f"FROM spectra WHERE run = '{run}'")
    assert rows(store, f"SELECT count(*) FROM spectra WHERE run = '{other}'")
    (finding,) = check_store(store).damaged
    assert finding.path == str(chunk)
    chunk.unlink()
    with pytest.raises(HnasError, match="has lost eigenvalues"):
        rows(store, f"SELECT eigenvalues FROM spectra WHERE run = '{run}'")
    assert "are gone" in check_store(store).damaged[0].what
    plan = small_plan(store, sample=20)
    assert (plan.todo, len(plan.repairs)) == ((), 1)
    assert exact_table_after(store, plan) == before


def exact_table_after(store: Store, plan) -> dict:
    """The content of a run after its lost spectra are recomputed in this process, as workers do for `precompute`."""
    from hnas.pipeline.precompute.worker import run_chunk

    for chunk in plan.repairs:
        run_chunk(job_of(store, plan), chunk)
    return exact_table(store, plan.settings.id)


def test_swapped_chunks_are_reported(copied):
    store, run, _ = copied
    first, second = (Path(store.path("runs", run, "ntk.zarr", "eigenvalues", "c", block, "0")) for block in "01")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    with pytest.raises(HnasError, match="are those of other architectures"):
        rows(store, "SELECT sum(list_sum(eigenvalues)) FROM spectra")
    assert "do not give their trace" in check_store(store).damaged[0].what


def test_an_overflowed_row_has_no_spectrum_but_is_not_lost(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.prepare()
    arrays = NTKArrays(store, "r")
    arrays.prepare(3, 8, block=4, gram=False)
    arrays.write(0, np.full((4, 3), np.nan), None)
    assert arrays.lost(range(4)) == []
    assert arrays.lost(range(8)) == [range(4, 8)]


@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "string"},
        {"codecs": [{"name": "pickle"}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "numcodecs.pickle"}]},
        {"shape": [10**12, 8], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**12, 8]}}},
        {"shape": [20, 9]},
        {"storage_transformers": [{"name": "x"}]},
        {"zarr_format": 2},
        {"chunk_key_encoding": {"name": "v2"}},
    ],
    ids=str,
)
def test_an_array_that_hnas_did_not_write_is_never_opened(copied, change):
    store, run, _ = copied
    path = Path(store.path("runs", run, "ntk.zarr", "eigenvalues", "zarr.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(HnasError, match="it is not as hnas writes it"):
        rows(store, "FROM spectra")


def test_check_reports_arrays_in_which_no_row_could_be_stored(copied):
    store, run, _ = copied
    shutil.rmtree(store.path("runs", run, "metrics"))
    assert check_store(store).damaged == []
    metadata = Path(store.path("runs", run, "ntk.zarr", "eigenvalues", "zarr.json"))
    metadata.write_text(metadata.read_text().replace("float64", "float32"))
    (finding,) = check_store(store).damaged
    assert finding.path.endswith("ntk.zarr") or "zarr.json" in finding.path


def test_nothing_in_zarr_metadata_of_version_2_runs(copied, tmp_path):
    store, run, _ = copied
    zarr, mark = Path(store.path("runs", run, "ntk.zarr")), tmp_path / "mark"
    shutil.rmtree(zarr)
    (zarr / "eigenvalues").mkdir(parents=True)
    (zarr / ".zgroup").write_text('{"zarr_format": 2}')
    array = {
        "zarr_format": 2, "shape": [20, 8], "chunks": [20, 8], "dtype": "|O", "fill_value": None, "order": "C",
        "compressor": {"id": "pickle", "protocol": 5}, "filters": [{"id": "vlen-utf8"}],
    }  # fmt: skip
    (zarr / "eigenvalues" / ".zarray").write_text(json.dumps(array))
    (zarr / "eigenvalues" / "0.0").write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())
    (zarr / "eigenvalues" / "zarr.json").write_text("")
    with pytest.raises(HnasError):
        rows(store, f"SELECT eigenvalues FROM spectra WHERE run = '{run}'")
    assert not mark.exists()


# --- links


@pytest.mark.parametrize(
    "link", ["drivers", "metrics", "ntk.zarr", "ntk.zarr/eigenvalues", "ntk.zarr/eigenvalues/c", "requests"]
)
def test_nothing_outside_a_store_is_written_or_deleted(copied, small_plan, tmp_path, link):
    store, run, _ = copied
    place, outside = Path(store.path("runs", run, link)), tmp_path / "outside"
    if place.exists():
        place.rename(outside)
    else:
        outside.mkdir()
        (outside / "thesis.tex").write_text("mine")
        (outside / "notes.claims").write_text("mine too")
    place.symlink_to(outside)
    before = snapshot(outside)
    with pytest.raises(HnasError, match="is a symbolic link, and a store must not be written or deleted through links"):
        fill(store, small_plan(store, sample=28))
    assert snapshot(outside) == before
    assert any(finding.path == str(place) for finding in check_store(store).damaged)


def test_a_lock_that_is_a_link_is_not_opened(copied, small_plan, tmp_path):
    store, run, _ = copied
    (tmp_path / "thesis.tex").write_text("mine")
    lock = Path(store.path("runs", run, ".lock"))
    lock.unlink()
    lock.symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(HnasError, match="symbolic link"):
        fill(store, small_plan(store, sample=24))
    assert (tmp_path / "thesis.tex").read_text() == "mine"


# --- stores that come and go


def test_a_store_removed_during_writing_is_not_recreated(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.prepare()
    store.write_json({}, "runs", "r", "x.json")
    shutil.rmtree(store.root)
    with pytest.raises(HnasError, match="was removed while it was being written"):
        store.write_json({}, "runs", "r", "x.json")
    assert not Path(store.root).exists()


@pytest.mark.parametrize(
    "location", ["zip://x.zip", "tar://x.tar", "reference://x", "ftp://127.0.0.1/x", "a::b", "d\udcff/s"]
)
def test_an_invalid_location_gives_one_sentence(location):
    with pytest.raises(HnasError) as error:
        Store(location)
    assert "\n" not in str(error.value)


def test_irregular_files_are_rejected_at_once(copied):
    store, run, _ = copied
    path = Path(store.path("runs", run, "run.json"))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(HnasError, match="is not a regular file"):
        connect(store)


def test_a_finished_run_on_a_read_only_file_system_needs_no_lock(copied, small_plan, monkeypatch):
    store, run, _ = copied
    before = snapshot(store.root)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for step in ("filelock.FileLock.acquire", "pathlib.Path.mkdir", "tempfile.mkstemp"):
        monkeypatch.setattr(step, refuse)
    assert precompute(store, SPACE, small_plan(store, sample=20)).run == run
    assert snapshot(store.root) == before


def test_a_killed_commands_leftovers_on_a_finished_run_are_removed(copied, small_plan):
    store, run, _ = copied
    left = Path(store.path("runs", run, "drivers"))
    left.mkdir()
    (left / "0123.claims").write_text("")
    (left / "0123.lock").write_text("")
    assert precompute(store, SPACE, small_plan(store, sample=20)).run == run
    assert not left.exists()


# --- unfinished runs


def test_an_unfinished_run_is_rejected_unless_partial_is_allowed(copied):
    store, run, other = copied
    part = Path(store.path("runs", run, "metrics", store.files("runs", run, "metrics")[0]))
    rows_lost = pq.read_metadata(part).num_rows
    part.unlink()
    connection = connect(store)
    classes = connection.execute("SELECT count(DISTINCT canonical) FROM requests WHERE run = ?", [run]).fetchall()[0][0]
    figure = f"run {run} is unfinished: {classes - rows_lost} of {classes} classes"
    with pytest.raises(HnasError, match=figure):
        correlate(connection, pick_run(connection, run=run))
    with pytest.raises(HnasError, match=figure):
        correlate(connection, pick_run(connection, run=other), average=True)
    assert correlate(connection, pick_run(connection, run=run), partial=True).n
    assert correlate(connection, pick_run(connection, run=other)).n == 20
    complete = {row["run"]: row["complete"] for row in store_info(connection)["runs"]}
    assert complete == {run: "no", other: "yes"}
    assert any(f"{classes - rows_lost} of {classes}" in remark for remark in check_store(store).remarks)


def test_check_reports_damage_and_exits_with_1(copied):
    store, run, _ = copied
    done = hnas("check", "--store", store.root)
    assert (done.status, done.out.splitlines()[-1]) == (0, "nothing is damaged")
    flip(Path(store.path("runs", run, "metrics", store.files("runs", run, "metrics")[0])))
    done = hnas("check", "--store", store.root, "--json")
    assert done.status == 1
    assert done.err == f"hnas: 1 thing in the store {store.root} is damaged\n"
    (finding,) = json.loads(done.out)["damaged"]
    assert finding["mend"] == "delete it, and its rows are computed again"


def test_parts_of_latencies_are_checked_and_removed(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.prepare()
    folder = ("latency", "latency-0123abcd-4567cdef")
    part = pa.table({"canonical": ["y=0"], "ms": [1.5]})
    store.write_table(part, *folder, "good.parquet")
    report = check_store(store)
    assert (report.damaged, report.files) == ([], 1)
    assert any("the same `hnas latency` goes on with them" in remark for remark in report.remarks)
    bad = Path(store.path(*folder, "bad.parquet"))
    bad.write_bytes(b"junk")
    Path(store.path(*folder, ".lock")).touch()
    (finding,) = check_store(store).damaged
    assert (finding.path, finding.mend) == (str(bad), "delete it, and its networks are measured again")
    assert json.loads(hnas("info", "--json", "--store", store.root).out)["sizes"][0]["name"] == "latency-0123abcd"
    done = hnas("rm", "latency-0123abcd", "--yes", "--store", store.root)
    assert (done.status, done.err) == (0, "")
    assert not store.names("latency")
    assert hnas("rm", "latency-0123abcd", "--yes", "--store", store.root).status == 2


def test_broken_json_is_reported_with_a_working_remedy(tmp_path):
    store = Store(str(tmp_path / "store"))
    import_accuracies(store, "csv", table(tmp_path / "mine.csv", 90.0))
    Path(store.path("store.json")).write_text("{")
    with pytest.raises(HnasError, match=r'restore it, or write \{"version": 1\} into it'):
        store.check_version()
    Path(store.path("store.json")).write_text('{"version": 1}')
    Path(store.path("imports", "mine.json")).write_text("{")
    for command in (("info",), ("check",), ("import", "csv", tmp_path / "mine.csv")):
        done = hnas(*command, "--store", store.root)
        assert done.status == 1
        assert "`hnas rm mine` removes it, and importing its file again restores it" in done.out + done.err
    assert hnas("rm", "mine", "--yes", "--store", store.root).status == 0
    assert import_accuracies(store, "csv", tmp_path / "mine.csv").changed
    assert check_store(store).damaged == []


@pytest.mark.parametrize(
    "settings",
    [
        {"runs": [1]}, {"signal": {"epochs": "x"}}, {"signal": {"source": [1]}}, {"training": {"epochs": 2**31}},
        {"queries": 2**31}, {"parallel": 2**40}, {"seed": 2**63}, {"t": 10**400}, {"where": "\ud800"},
    ],
    ids=lambda settings: next(iter(settings)),
)  # fmt: skip
def test_settings_that_the_view_of_searches_cannot_hold_are_reported(tmp_path, settings):
    store = Store(str(tmp_path / "store"))
    store.prepare()
    store.write_table(queries_table([]), "searches", "s", "queries.parquet")
    created = "2026-01-01T00:00:00+00:00"
    good = {"id": "s", "created": created, "settings": {"space": "nasbench201", "t": 3}}
    comparison = {"id": "c", "created": created, "seeds": 1, "methods": [good["settings"]]}
    for content, folder in (
        (good, ("searches", "s", "search.json")),
        (comparison, ("comparisons", "c", "comparison.json")),
    ):
        store.write_json(content, *folder)
        assert len(rows(store, f"SELECT * FROM {folder[0]}")) == 1
        assert check_store(store).damaged == []
        held = "methods" if folder[0] == "comparisons" else "settings"
        wrong = {"space": "nasbench201", **settings}
        path = Path(store.path(*folder))
        path.write_text(json.dumps({**content, held: [wrong] if held == "methods" else wrong}))
        assert any(folder[2] in finding.path + finding.what for finding in check_store(store).damaged)
        with pytest.raises(HnasError, match=f"{folder[2]} was damaged after it was written: its settings are not"):
            rows(store, f"SELECT * FROM {folder[0]}")
        store.write_json(content, *folder)


def test_the_checked_columns_of_searches_are_those_of_the_view(tmp_path):
    store = Store(str(tmp_path / "store"))
    store.prepare()
    struct = connect(store).sql("FROM empty.searches").to_arrow_table().schema.field("settings").type
    expected = {field.name: field.type for field in struct}
    assert {field.name: field.type for field in SEARCH_COLUMNS} == expected


def test_a_run_record_with_a_number_out_of_range_is_reported(copied):
    store, run, _ = copied
    record = store.read_json("runs", run, "run.json")
    settings = RunSettings(**{**record["settings"], "channels": 2**31})
    Path(store.path("runs", run)).rename(store.path("runs", settings.id))
    store.write_json({**record, "id": settings.id, "settings": settings.as_dict()}, "runs", settings.id, "run.json")
    with pytest.raises(HnasError, match=r"run\.json .*channels is 2147483648"):
        connect(store)


def test_a_missing_store_is_distinguished_from_an_empty_one(tmp_path):
    absent = hnas("info", "--store", tmp_path / "store")
    assert absent.status == 2
    assert "there is no store at" in absent.err
    (tmp_path / "store").mkdir()
    empty = hnas("info", "--store", tmp_path / "store")
    assert (empty.status, empty.err) == (0, "")


@pytest.mark.parametrize("name", ["eigenvalues", "gram"])
@pytest.mark.parametrize("endless", [True, False])
def test_an_endless_chunk_is_not_read(tmp_path, name, endless):
    store = Store(str(tmp_path / "store"))
    store.prepare()
    arrays = NTKArrays(store, "r")
    arrays.prepare(3, 8, block=4, gram=True)
    arrays.write(0, np.ones((8, 3)), np.ones((8, 3, 3)))
    (chunk,) = Path(arrays.path, name, "c", "1").rglob("0/0" if name == "gram" else "0")
    chunk.unlink()
    if endless:
        chunk.symlink_to("/dev/zero")
    else:
        with chunk.open("wb") as file:
            file.truncate(2**40)
    with pytest.raises(HnasError, match="it is not a regular file" if endless else r"it has 1,099,511,627,776 bytes"):
        arrays.read(name)
    assert [chunk for chunk, _ in arrays.damaged(name)] == [str(chunk.relative_to(Path(arrays.path, name)))]
    assert len(arrays.rows(arrays.open(name), 0, 4)) == 4


def test_lost_queries_of_a_search_are_detected(tmp_path):
    store = make_store(tmp_path, architectures=20)
    started = new_search(connect(store), space="nasbench201", queries=2)
    found = run_search(store, connect(store), started)
    Path(store.path("searches", found.search, "queries.parquet")).unlink()
    with pytest.raises(HnasError, match=r"queries\.parquet cannot be read"):
        rows(store, "FROM queries")
    with pytest.raises(HnasError, match=r"queries\.parquet cannot be read"):
        read_search(store, found.search)
    assert any("queries.parquet" in finding.path for finding in check_store(store).damaged)
