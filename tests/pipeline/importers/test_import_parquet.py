"""Importing accuracies from Parquet: the columns and checks of CSV, for all column types."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hnas.pipeline.importers import gathered_rows
from tests.support import importing
from tests.support.command_line import hnas
from tests.support.contents import rows, snapshot
from tests.support.import_files import TABLE, A, B, needs_table

COLUMNS: dict[str, Any] = {"arch": [A, B], "dataset": ["cifar10", "cifar10"], "test_accuracy": [10.5, 91.25]}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


imported = partial(importing.imported, "parquet")


def in_csv(tmp_path: Path, text: str) -> list[dict[str, Any]]:
    """The rows of the same table imported as CSV."""
    (tmp_path / "table.csv").write_text(text)
    place = tmp_path / "csv-store"
    assert hnas("import", "csv", tmp_path / "table.csv", "--store", place).status == 0
    return rows(place, "SELECT * EXCLUDE (source) FROM accuracies")


def test_rows_equal_those_of_the_same_table_in_csv(store: Path, tmp_path: Path) -> None:
    columns = COLUMNS | {
        "space": [None, "nasbench201"],
        "epochs": pa.array([12, None], pa.int16()),
        "seed": [0.0, None],  # as pandas writes an integer column with a missing value
        "seconds": pa.array([Decimal("1.50"), None]),
        "valid_accuracy": pa.nulls(2),
    }
    printed = imported(store, write(tmp_path / "table.parquet", columns))
    assert printed.startswith("imported: 2 rows of 2 architectures from ")
    header = "arch,dataset,test_accuracy,space,epochs,seed,seconds,valid_accuracy"
    lines = [header, f"{A},cifar10,10.5,,12,0,1.5,", f"{B},cifar10,91.25,nasbench201,,,,"]
    assert rows(store, "SELECT * EXCLUDE (source) FROM accuracies") == in_csv(tmp_path, "\n".join(lines))
    assert {row["source"] for row in rows(store)} == {"table"}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_text_columns_of_any_type(store: Path, tmp_path: Path, kind: pa.DataType) -> None:
    columns = {name: pa.array(v).cast(kind) if isinstance(v[0], str) else v for name, v in COLUMNS.items()}
    imported(store, write(tmp_path / "table.parquet", columns))
    assert [row["arch"] for row in rows(store)] == [A, B]


@needs_table
def test_query_results_of_one_store_can_be_imported_into_another(store: Path, tmp_path: Path) -> None:
    assert hnas("import", "csv", TABLE, "--store", tmp_path / "first").status == 0
    query = "SELECT * EXCLUDE (source) FROM accuracies ORDER BY arch"
    out = tmp_path / "out.parquet"
    assert hnas("sql", query, "--format", "parquet", "--output", out, "--store", tmp_path / "first").status == 0
    assert imported(store, out).startswith("imported: 15,625 rows of 15,625 architectures")
    assert rows(store, query) == rows(tmp_path / "first", query)


def test_a_file_of_many_batches(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hnas.pipeline.importers.parquet.BATCH", 7)
    assert gathered_rows.BATCH > 7
    n = 50
    columns = {"arch": [A] * n, "dataset": ["d"] * n, "seed": range(n), "valid_accuracy": [50.0 + k for k in range(n)]}
    path = write(tmp_path / "t.parquet", columns)
    imported(store, path)
    assert [row["seed"] for row in rows(store)] == list(range(n))
    before = snapshot(store)
    assert imported(store, path).startswith("already in the store: 50 rows of 1 architectures")
    assert snapshot(store) == before
    columns["seed"] = [*range(n - 1), 3]
    done = hnas("import", "parquet", write(path, columns), "--store", store)
    assert f"{path}, row 50 repeats row 4: the same architecture" in done.err
    assert snapshot(store) == before


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no arch": ({"dataset": ["d"], "test_accuracy": [1.0]}, "no column arch; its header is dataset,test_accuracy"),
    "no accuracy": ({"arch": [A], "dataset": ["d"]}, "no column one of train_accuracy"),
    "another column": (COLUMNS | {"colour": [1, 2]}, "an unknown column 'colour'"),
    "no rows": ({name: pa.array(v[:0], pa.array(v).type) for name, v in COLUMNS.items()}, "has a header but no rows"),
    "numbers for architectures": (COLUMNS | {"arch": [1, 2]}, "the column arch has the type int64; it must hold text"),
    "text for accuracies": (COLUMNS | {"test_accuracy": ["a", "b"]}, "test_accuracy has the type string; it must hold"),
    "a list": (COLUMNS | {"test_accuracy": [[1.0], [2.0]]}, "test_accuracy has the type list"),
    "no dataset": (COLUMNS | {"dataset": ["d", None]}, "row 2 names no dataset"),
    "no architecture": (COLUMNS | {"arch": [A, None]}, "row 2: '' describes 1 nodes"),
    "an unknown operation": (COLUMNS | {"arch": [A, B.replace("none", "nope")]}, "row 2: operation 'nope'"),
    "an unknown space": (COLUMNS | {"space": ["nope", None]}, "row 1: the search space 'nope' is unknown"),
    "above 100": (COLUMNS | {"test_accuracy": [1.0, 101.0]}, "row 2: test_accuracy is 101.0; it must be between 0"),
    "not a number": (
        COLUMNS | {"test_accuracy": pa.array([1.0, float("nan")])},
        "row 2: test_accuracy is nan; it must",
    ),
    "infinite seconds": (COLUMNS | {"seconds": [1.0, float("inf")]}, "row 2: seconds is inf"),
    "half an epoch": (COLUMNS | {"epochs": [1.5, 2]}, "row 1: epochs is 1.5, not a whole number"),
    "a missing epoch as nan": (
        COLUMNS | {"epochs": pa.array([1.0, float("nan")])},
        "row 2: epochs is nan, not a",
    ),
    "epochs below one": (COLUMNS | {"epochs": [1, 0]}, "row 2: epochs is 0; it must be between 1"),
    "a seed below zero": (COLUMNS | {"seed": [-1, 0]}, "row 1: seed is -1"),
    "fractions": (COLUMNS | {"test_accuracy": [0.5, 0.9]}, "so they look like fractions; give percent"),
    "nothing measured": (COLUMNS | {"test_accuracy": [1.0, None]}, "row 2 has no accuracy"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_is_reported_with_its_row_and_leaves_nothing(store: Path, tmp_path: Path, name: str) -> None:
    columns, words = FAULTS[name]
    importing.refused("parquet", store, write(tmp_path / "table.parquet", columns), words)


def whole(tmp_path: Path) -> bytes:
    return write(tmp_path / "whole.parquet", COLUMNS).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"arch,dataset,test_accuracy\n", id="a CSV"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content[:4] + b"\xff" * 60 + content[64:], id="damaged pages"),
        pytest.param(lambda content: content[:-8] + b"\xff\xff\xff\x7fPAR1", id="a damaged footer"),
        pytest.param(lambda content: content.replace(b"nor_conv_3x3", b"\xff\xfe_conv_3x3"), id="no UTF-8"),
    ],
)
def test_a_damaged_file_is_reported_and_leaves_nothing(store: Path, tmp_path: Path, change: Any) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(change(whole(tmp_path)))
    done = hnas("import", "parquet", path, "--store", store)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hnas: {path}")
    assert done.err.endswith("; give a whole Parquet file\n")
    assert done.err.count("\n") == 1
    assert not store.exists()


def test_a_missing_file_and_a_folder_are_rejected(store: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, words in ((tmp_path / "nothing", "No such file"), (tmp_path / "folder", "directory")):
        done = hnas("import", "parquet", path, "--store", store)
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert words in done.err
