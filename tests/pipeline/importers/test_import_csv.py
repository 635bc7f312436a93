"""Importing accuracies from CSV: every value is imported once, and an error changes nothing."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command_line import hnas
from tests.support.contents import rows, snapshot
from tests.support.import_files import TABLE, A, B, needs_table

PLAIN = f"arch,dataset,test_accuracy\n{A},cifar10,10.5\n{B},cifar10,91.25\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def imported(store: Path, path: Path) -> str:
    done = hnas("import", "csv", path, "--store", store)
    assert (done.status, done.err) == (0, "")
    return done.out


def stored(store: Path) -> pa.Table:
    (path,) = (store / "accuracies").glob("*/*.parquet")
    return pq.read_table(path)


# --- the real table -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A read-only store with the accuracies of all of NAS-Bench-201, and the import's output."""
    store = tmp_path_factory.mktemp("real") / "store"
    return store, imported(store, TABLE)


@needs_table
def test_every_value_of_the_real_table_is_imported(real: tuple[Path, str]) -> None:
    store, printed = real
    assert printed == f"imported: 15,625 rows of 15,625 architectures from {TABLE}\n"
    with TABLE.open(newline="") as file:
        expected = [
            (line["arch"], line["dataset"], int(line["epochs"]), float(line["test_accuracy"]))
            for line in csv.DictReader(file)
        ]
    assert len(expected) == 15_625
    table = stored(store)
    found = zip(*(table[name].to_pylist() for name in ("arch", "dataset", "epochs", "test_accuracy")), strict=True)
    assert list(found) == expected
    assert set(table["space"].to_pylist()) == {"nasbench201"}
    assert all(table[name].null_count == 15_625 for name in ("seed", "seconds", "train_accuracy", "valid_accuracy"))
    query = "SELECT arch, dataset, epochs, test_accuracy FROM accuracies ORDER BY arch"
    done = hnas("sql", query, "--format", "csv", "--store", store)
    read = [(a, d, int(e), float(t)) for a, d, e, t in list(csv.reader(done.out.splitlines()))[1:]]
    assert sorted(read) == sorted(expected)


@needs_table
def test_importing_the_real_table_again_changes_nothing(real: tuple[Path, str]) -> None:
    store, _ = real
    before = snapshot(store)
    assert imported(store, TABLE) == f"already in the store: 15,625 rows of 15,625 architectures from {TABLE}\n"
    assert snapshot(store) == before


@needs_table
@pytest.mark.parametrize(
    ("name", "last", "words"),
    [
        (TABLE.name, "|nor_conv_3x3~0|+|nope~0|none~1|+|none~0|none~1|none~2|,cifar10,200,90.0", "operation 'nope'"),
        (TABLE.name, f"{A},cifar10,200", "has 3 fields; the header names 4"),
        ("other.csv", f"{A},cifar10,200,900.0", "test_accuracy is 900.0; it must be between 0 and 100"),
    ],
)
def test_an_error_in_the_last_line_leaves_the_store_unchanged(
    real: tuple[Path, str], tmp_path: Path, name: str, last: str, words: str
) -> None:
    store = Path(shutil.copytree(real[0], tmp_path / "store"))
    lines = TABLE.read_text().splitlines()
    path = write(tmp_path / name, "\n".join([*lines[:-1], last]) + "\n")
    before = snapshot(store)
    done = hnas("import", "csv", path, "--store", store)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"hnas: {path}, line 15626")
    assert words in done.err
    assert snapshot(store) == before


# --- small tables ---------------------------------------------------------------------------------------------------


def test_a_changed_file_with_the_same_name_replaces_its_rows(store: Path, tmp_path: Path) -> None:
    imported(store, write(tmp_path / "table.csv", PLAIN))
    imported(store, write(tmp_path / "other.csv", PLAIN.replace("cifar10", "cifar100")))
    printed = imported(store, write(tmp_path / "table.csv", f"arch,dataset,test_accuracy\n{B},cifar10,92\n"))
    assert printed.startswith("imported: 1 row")
    found = {(row["arch"], row["dataset"], row["test_accuracy"]) for row in rows(store)}
    assert found == {(A, "cifar100", 10.5), (B, "cifar100", 91.25), (B, "cifar10", 92.0)}
    (tmp_path / "elsewhere").mkdir()
    assert imported(store, write(tmp_path / "elsewhere" / "table.csv", PLAIN)).startswith("imported: 2 rows")
    assert len(rows(store)) == 4


def test_a_file_that_only_looks_different_is_already_in_the_store(store: Path, tmp_path: Path) -> None:
    imported(store, write(tmp_path / "table.csv", PLAIN))
    before = snapshot(store)
    again = imported(store, write(tmp_path / "table.csv", PLAIN.replace("10.5", "10.50").replace("\n", "\r\n")))
    assert again.startswith("already in the store: 2 rows")
    assert snapshot(store) == before


def test_an_error_in_the_first_import_creates_no_store(store: Path, tmp_path: Path) -> None:
    assert hnas("import", "csv", write(tmp_path / "t.csv", PLAIN + "x,y,z\n"), "--store", store).status == 2
    assert not store.exists()


def test_optional_columns_in_any_order(store: Path, tmp_path: Path) -> None:
    text = (
        "seconds,seed,valid_accuracy,space,epochs,arch,train_accuracy,dataset\n"
        f"12.5,777,88.5,nasbench201,12,{A},99,cifar10\n"
        f",888,87.25,nasbench201,200,{A},,cifar10\n"
        f"0,,0,,,{B},100,imagenet16-120\n"
    )
    imported(store, write(tmp_path / "table.csv", text))
    names = ("space", "arch", "dataset", "epochs", "seed", "seconds", "train_accuracy", "valid_accuracy")
    found = [tuple(row[name] for name in names) for row in rows(store, "FROM accuracies ORDER BY seed NULLS LAST")]
    assert found == [
        ("nasbench201", A, "cifar10", 12, 777, 12.5, 99.0, 88.5),
        ("nasbench201", A, "cifar10", 200, 888, None, None, 87.25),
        ("nasbench201", B, "imagenet16-120", None, None, 0.0, 100.0, 0.0),
    ]
    kinds = {field.name: str(field.type) for field in stored(store).schema}
    assert kinds == {
        "space": "string", "arch": "string", "dataset": "string", "epochs": "int32", "seed": "int64",
        "train_accuracy": "double", "valid_accuracy": "double", "test_accuracy": "double", "seconds": "double",
    }  # fmt: skip
    assert {row["test_accuracy"] for row in rows(store)} == {None}


def test_seeds_are_averaged_for_the_pool_and_kept_in_the_table(store: Path, tmp_path: Path) -> None:
    text = f"arch,dataset,seed,test_accuracy\n{A},cifar10,1,90\n{A},cifar10,2,91\n{A},cifar10,3,95\n"
    assert "3 rows of 1 architecture" in imported(store, write(tmp_path / "t.csv", text))
    assert [row["test_accuracy"] for row in rows(store, "FROM mean_accuracies")] == [92.0]


QUOTED = PLAIN.replace(A, f'"{A}"').replace("test_accuracy", '"test_accuracy"').replace("91.25", '"91.25"')


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\ufeff" + PLAIN, id="byte order mark"),
        pytest.param(PLAIN.replace("\n", "\r\n"), id="CRLF"),
        pytest.param("\ufeff" + QUOTED.replace("\n", "\r\n"), id="as Excel writes it"),
        pytest.param(QUOTED, id="quoted fields"),
        pytest.param(PLAIN.replace(",", " , ").replace("\n", " \n"), id="spaces around values"),
        pytest.param(PLAIN.replace(",", "\t,\t"), id="tabs around values"),
        pytest.param(PLAIN.removesuffix("\n"), id="no newline at the end"),
        pytest.param(PLAIN.replace("\n", "\n\n"), id="empty lines"),
        pytest.param(PLAIN.replace("10.5", "1.05e1"), id="exponent"),
    ],
)
def test_different_spellings_of_the_same_table(store: Path, tmp_path: Path, content: str) -> None:
    imported(store, write(tmp_path / "plain.csv", PLAIN))
    expected = stored(store)
    shutil.rmtree(store)
    imported(store, write(tmp_path / "table.csv", content))
    assert stored(store).equals(expected)


def test_a_file_name_with_any_characters(store: Path, tmp_path: Path) -> None:
    imported(store, write(tmp_path / "größe 'x' [1] 100%*.csv", PLAIN))
    again = imported(store, write(tmp_path / "größe 'x' [1] 100%*.csv", PLAIN))
    assert again.startswith("already in the store")
    assert len(rows(store)) == 2
