"""User columns: every number is imported next to the metrics; invalid names and architectures are rejected."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from hnas.errors import HnasError
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.importers.writing import TableWriters
from hnas.pipeline.store.manifests import imported_columns
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import snapshot
from tests.support.import_files import A, B, table
from tests.support.places import ROOT
from tests.support.stores import make_store

HARDWARE = Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent")) / "nasbench201" / "hw-nas-bench-cifar10.csv"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a run on digits."""
    return make_store(tmp_path, architectures=12)


def archs(store: Store) -> list[str]:
    return [arch for (arch,) in connect(store).execute("SELECT arch FROM pool ORDER BY arch").fetchall()]


def write(path: Path, columns: dict[str, Any]) -> Path:
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.table(columns), path)
    else:
        pq.write_table(pa.table(columns), path)
    return path


def imported(store: Store, path: Path) -> str:
    done = hnas("import", "columns", path, "--store", store.location)
    assert (done.status, done.err) == (0, "")
    return done.out


def values(store: Store, *names: str, view: str = "pool") -> list[tuple[Any, ...]]:
    return connect(store).execute(f"SELECT {', '.join(names)} FROM {view} ORDER BY arch").fetchall()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_appear_next_to_the_metrics(store: Store, tmp_path: Path, suffix: str) -> None:
    names = archs(store)
    columns = {"arch": names[:3], "latency": [1.5, 2.5, -3.0], "energy": [7, None, 9]}
    printed = imported(store, write(tmp_path / f"phone.{suffix}", columns))
    assert printed.startswith("imported: 2 columns, 3 rows of 3 architectures from ")
    expected = [(1.5, 7.0), (2.5, None), (-3.0, 9.0), *[(None, None)] * (len(names) - 3)]
    assert values(store, "latency", "energy") == expected
    connection = connect(store)
    (run,) = connection.execute("SELECT run FROM runs").fetchone()  # type: ignore[misc]
    assert RunPool(connection, run).column("latency * 2")[:3].tolist() == [3.0, 5.0, -6.0]


def test_columns_of_a_data_set_appear_only_in_its_runs(store: Store, tmp_path: Path) -> None:
    name = archs(store)[0]
    columns = {"arch": [name, name], "dataset": ["Digits", "cifar10"], "latency": [1.0, 2.0]}
    write(tmp_path / "a.csv", columns)
    assert hnas("import", "columns", tmp_path / "a.csv", "--store", store.location).status == 0
    assert values(store, "latency")[0] == (1.0,)
    assert len(values(store, "arch")) == 12
    macro = "SELECT latency FROM files.columns_of('nasbench201', 'cifar10')"
    assert connect(store).execute(macro).fetchall() == [(2.0,)]


def test_a_column_source_is_replaced_shown_checked_and_removed(store: Store, tmp_path: Path) -> None:
    names = archs(store)
    path = write(tmp_path / "phone.csv", {"arch": names[:2], "latency": [1.0, 2.0]})
    imported(store, path)
    before = snapshot(Path(store.root))
    assert imported(store, path).startswith("already in the store: 1 columns, 2 rows")
    assert snapshot(Path(store.root)) == before
    write(path, {"arch": names[:1], "latency": [5.0], "power": [6.0]})
    assert "replacing its earlier rows: latency, power" in imported(store, path)
    assert values(store, "latency", "power")[:2] == [(5.0, 6.0), (None, None)]
    text = hnas("info", "--store", store.location).out
    assert "latency power" in text
    assert "/columns/" not in hnas("check", "--store", store.location).out
    (file,) = Path(store.root, "columns", "phone").iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:100] + b"x" + good[101:])
    assert f"damaged: {file}" in hnas("check", "--store", store.location).out
    assert "import its file again" in hnas("sql", "SELECT latency FROM pool", "--store", store.location).err
    file.write_bytes(good)
    assert hnas("rm", "phone", "--yes", "--store", store.location).status == 0
    with pytest.raises(duckdb.BinderException, match="latency"):
        values(store, "latency")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no arch": ({"latency": [1.0]}, "has no column arch"),
    "no numbers": ({"arch": [A]}, "has no column of numbers besides arch"),
    "a capital": ({"arch": [A], "Latency": [1.0]}, "has a column 'Latency'; a column name must be"),
    "a blank": ({"arch": [A], "my latency": [1.0]}, "a column name must be"),
    "quotes": ({"arch": [A], 'x", y': [1.0]}, "a column name must be"),
    "a metric": ({"arch": [A], "kappa": [1.0]}, "has a column kappa, but so does the view pool; give it another name"),
    "a static column": ({"arch": [A], "flops": [1.0]}, "has a column flops, but so does the view pool"),
    "an accuracy": ({"arch": [A], "test_accuracy": [1.0]}, "has a column test_accuracy, but so does the view pool"),
    "another source's": (
        {"arch": [A], "latency": [1.0]},
        "has a column latency, but so does the source phone; give it another name, or remove that source",
    ),
    "no architecture": ({"arch": [A, B + "x"], "x": [1.0, 2.0]}, "3: "),
    "a row twice": ({"arch": [A, B, A], "x": [1.0, 2.0, 3.0]}, "repeats "),
    "a row twice on a data set": ({"arch": [A, A], "dataset": ["d", "D"], "x": [1.0, 2.0]}, "repeats "),
    "no data set": ({"arch": [A], "dataset": [""], "x": [1.0]}, " names no dataset"),
    "an unknown space": ({"arch": [A], "space": ["nope"], "x": [1.0]}, "the search space 'nope' is unknown"),
    "not finite": ({"arch": [A], "x": [float("inf")]}, "x is inf; it must be finite, or empty if unknown"),
    "no number": ({"arch": [A], "x": [float("nan")]}, "x is nan; it must be finite"),
    "no rows": ({"arch": pa.array([], pa.string()), "x": pa.array([], pa.float64())}, "has a header but no rows"),
}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("name", FAULTS)
def test_errors_are_reported_and_change_nothing(tmp_path: Path, name: str, suffix: str) -> None:
    place = tmp_path / "store"
    first = write(tmp_path / "phone.csv", {"arch": [A], "latency": [1.0]})
    assert hnas("import", "columns", first, "--store", place).status == 0
    before = snapshot(place)
    columns, words = FAULTS[name]
    done = hnas("import", "columns", write(tmp_path / f"t.{suffix}", columns), "--store", place)
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith(f"hnas: {tmp_path}/t.{suffix}")
    if words != "3: " or suffix == "csv":
        assert words in done.err
    assert snapshot(place) == before


def test_of_two_imports_of_one_column_at_once_only_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Store(str(tmp_path / "store"))
    paths = [write(tmp_path / f"{name}.csv", {"arch": [A], "latency": [1.0]}) for name in ("mine", "theirs")]
    keep = TableWriters.keep

    def late(*arguments: Any) -> None:
        monkeypatch.setattr(TableWriters, "keep", keep)
        import_accuracies(place, "columns", paths[1])
        keep(*arguments)

    monkeypatch.setattr(TableWriters, "keep", late)
    with pytest.raises(HnasError, match="has stored a column latency in the meantime, in the source theirs; give"):
        import_accuracies(place, "columns", paths[0])
    assert imported_columns(place) == [("theirs", "latency")]
    assert place.names("columns") == ["theirs"]


def test_a_static_column_of_an_attached_table_is_a_taken_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.csv", {"arch": archs(store)[:1], "depth": [1.0]})
    monkeypatch.setenv("HNAS_TABLES", str(ROOT / "data" / "tables"))
    done = hnas("import", "columns", path, "--store", store.location)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "has a column depth, but so does the view architectures" in done.err
    monkeypatch.setenv("HNAS_TABLES", "")
    assert hnas("import", "columns", path, "--store", store.location).status == 0
    # A table attached later brings a column of the same name.
    monkeypatch.setenv("HNAS_TABLES", str(ROOT / "data" / "tables"))
    assert hnas("sql", "SELECT count(*) FROM pool", "--store", store.location).status == 0
    assert hnas("correlate", "--run", connect(store).execute("SELECT run FROM runs").fetchone()[0],  # type: ignore[index]
                "--store", store.location).status == 0  # fmt: skip


def test_text_in_a_number_column_and_other_file_types_are_rejected(store: Store, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"arch,x\n{A},fast\n")
    (tmp_path / "t.json").write_text("{}")
    text = pq.write_table(pa.table({"arch": [A], "x": ["fast"]}), tmp_path / "t.parquet")
    assert text is None
    for name, words in (
        ("t.csv", "line 2: x is 'fast', not a number"),
        ("t.parquet", "the column x has the type string; it must hold numbers"),
        ("t.json", "must end in .csv or .parquet"),
    ):
        done = hnas("import", "columns", tmp_path / name, "--store", store.location)
        assert done.status == 2
        assert words in done.err


def test_accuracies_and_columns_with_one_file_name_are_two_sources(store: Store, tmp_path: Path) -> None:
    hnas("import", "csv", table(tmp_path / "t.csv", 90.0, dataset="digits"), "--store", store.location)
    (tmp_path / "new").mkdir()
    path = write(tmp_path / "new" / "t.csv", {"arch": archs(store)[:1], "x": [1.0]})
    assert "as the source t-" in imported(store, path)


@pytest.mark.skipif(
    not HARDWARE.is_file(), reason="HNAS_TEST_DATA is unset or has no nasbench201/hw-nas-bench-cifar10.csv"
)
def test_every_number_of_the_real_hardware_table_is_imported(store: Store) -> None:
    assert "10 columns, 15,625 rows of 15,625 architectures" in imported(store, HARDWARE)
    expected = pyarrow.csv.read_csv(HARDWARE)
    names = [name for name in expected.column_names if name != "arch"]
    found = connect(store).execute(f"SELECT arch, {', '.join(names)} FROM files.columns_of('nasbench201', 'digits')")
    assert sorted(found.fetchall()) == sorted(tuple(row.values()) for row in expected.to_pylist())
    known = {row["arch"]: row["pixel3_latency"] for row in expected.to_pylist()}
    assert values(store, "arch", "pixel3_latency") == [(arch, known[arch]) for arch in archs(store)]
