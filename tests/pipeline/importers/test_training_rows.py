"""Whole columns give the same rows as row-by-row reading, and the first error of a file is the one reported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hnas.errors import UsageError
from hnas.pipeline.importers import csv as csv_importer
from hnas.pipeline.importers.gathered_rows import GatheredRows
from hnas.pipeline.importers.training_rows import Trainings
from hnas.spaces import search_spaces
from hnas.spaces.nasbench101 import enumeration
from hnas.spaces.nasbench101.space import NASBench101
from tests.support.command_line import hnas
from tests.support.import_files import A, B

CELL = "00005c142e6f48ac74fdcf73e3439874"
NO_CELL = "f" * 32
ALL = Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent")) / "nasbench101" / "test-accuracy.parquet"


def rows_or_error(columns: dict[str, Any]) -> list[dict[str, Any]] | str:
    """The stored rows of these columns, or the error sentence."""
    trainings = Trainings(Path("file"), "row")
    arrays = {name: pa.array(values) for name, values in columns.items()}
    try:
        trainings.add(range(1, 1 + len(arrays["arch"])), arrays)
        trainings.finish()
    except UsageError as error:
        return str(error)
    return trainings.rows().batch.to_pylist()


GOOD = {"arch": [A, f" {B} ", A], "dataset": ["cifar10", "CIFAR-10", "cifar100"], "test_accuracy": [10.5, 91.25, 3.0]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"space": ["nasbench201"] * 3},
        {"space": ["nasbench201", "", None]},
        {"epochs": ["12", "", " 200 "], "seed": ["+1", "-0", "9007199254740993"], "seconds": ["", "1e3", ".5"]},
        {"epochs": [12.0, None, 3.0], "seed": pa.array([1, 2, 3], pa.uint64())},
        {"test_accuracy": ["9e1", "93.1", " 0 "], "valid_accuracy": ["", "", ""]},
        {"test_accuracy": pa.array([93.1, 0.7, None], pa.float32()), "valid_accuracy": [None, None, 5.0]},
        {"test_accuracy": [None, None, None], "valid_accuracy": [1, 2, 3]},
        *(
            {"test_accuracy": ["50", value, "50"]}
            for value in ("nan", "inf", "1_0", "0x10", "1e400", "-1", "100.1", "x", "", "\x1c7", "٣")
        ),
        *({"epochs": ["1", value, "1"]} for value in ("0x10", "1.0", "1e2", "0", "2147483648", "٣")),
        {"epochs": [1.0, 1.5, 1.0]},
        {"epochs": [1.0, float("nan"), 1.0]},
        {"seconds": [1.0, float("inf"), 1.0]},
        {"seconds": [1.0, -1.0, 1.0]},
        {"dataset": ["cifar10", "", "cifar10"]},
        {"dataset": ["cifar10", "x\x1b", "cifar10"]},
        {"dataset": ["cifar10", "cifar10", "Cifar 10"]},
        {"arch": [A, B, "nonsense"]},
        {"arch": [A, B, None]},
        {"space": ["nasbench201", "nope", "nasbench201"]},
        {"space": ["nope"] * 3},
        {"arch": [CELL, CELL.upper(), NO_CELL]},
        {"arch": [CELL, NO_CELL, CELL]},
        {"arch": [NO_CELL, CELL, CELL]},
        {"arch": [NO_CELL, CELL, CELL], "test_accuracy": [1.0, 200.0, 3.0]},
        {"arch": [CELL] * 3, "dataset": ["cifar10", "cifar100", "digits"]},
        {"test_accuracy": [0.5, 0.6, 0.7]},
    ],
    ids=",".join,
)
def test_whole_columns_give_the_same_as_row_by_row(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows_or_error(GOOD | more)
    monkeypatch.setattr(Trainings, "_whole", lambda self, columns: None)
    assert found == rows_or_error(GOOD | more)


def test_plain_columns_are_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(GatheredRows, "_row")
    for epochs in (["1", "2", "3"], [1, 2, 3]):
        assert [row["arch"] for row in rows_or_error(GOOD | {"epochs": epochs})] == [A, B, A]


LINES = {
    "a repeated row": (f"{CELL},cifar10,51", "line 4 repeats line 2"),
    "an unknown hash": (
        f"{NO_CELL},cifar10,51",
        f"line 4: the module hash '{NO_CELL}' must be that of one of the 423624 cells",
    ),
    "an accuracy": (f"{CELL},cifar100,101", "line 4: test_accuracy is 101"),
    "a field too few": (f"{CELL},cifar100", "line 4 has 2 fields"),
    "quotes": (f'{CELL},"cifar"100,5', "is not valid CSV"),
}


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
@pytest.mark.parametrize("second", LINES)
@pytest.mark.parametrize("first", LINES)
def test_the_first_of_two_errors_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str, batch: int
) -> None:
    monkeypatch.setattr(csv_importer, "BATCH", batch)
    line, words = LINES[first]
    rows = [f"{CELL},cifar10,50", f"{CELL},digits,50", line, LINES[second][0]]
    (tmp_path / "t.csv").write_text("\n".join(["arch,dataset,test_accuracy", *rows]))
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        list(csv_importer.read_csv(tmp_path / "t.csv", lambda done, total: None))


def test_the_digest_of_all_hashes_matches_the_table() -> None:
    space = search_spaces["nasbench101"]
    hashes = list(space.enumerate())
    digests = enumeration.digests_of(hashes)
    assert enumeration.are_all(digests[::-1])
    assert not enumeration.are_all(digests[1:])
    assert isinstance(space, NASBench101)
    assert space.first_unknown([*hashes[:5], NO_CELL, "0" * 32]) == NO_CELL
    assert space.first_unknown(hashes) is None


@pytest.mark.skipif(not ALL.is_file(), reason="HNAS_TEST_DATA is unset or has no nasbench101/test-accuracy.parquet")
def test_accuracies_of_all_cells_need_no_table_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_spaces["nasbench101"], "_known", None)
    monkeypatch.setattr(enumeration, "compute_table", lambda: pytest.fail("the table was computed"))
    done = hnas("import", "parquet", ALL, "--store", tmp_path)
    assert done.out == f"imported: 423,624 rows of 423,624 architectures from {ALL}\n"
