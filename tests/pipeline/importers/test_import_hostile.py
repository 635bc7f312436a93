"""Files that are not tables, never end, or use another dialect: one error sentence, and nothing is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.io import importers
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas, hnas_process
from tests.support.contents import query
from tests.support.import_files import A, B, table
from tests.support.importing import imported, refused
from tests.support.places import ROOT

HEADER = "arch,dataset,test_accuracy\n"
KINDS = tuple(importers._BUILT_IN)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"arch;dataset;test_accuracy\n{A};cifar10;93\n", "separates its columns by semicolons; write commas"),
        (f'"arch";"dataset";"test_accuracy"\n{A};cifar10;93\n', "separates its columns by semicolons"),
        (f"arch\tdataset\ttest_accuracy\n{A}\tcifar10\t93\n", "separates its columns by tabs"),
        (f"dataset arch test_accuracy\ncifar10 {A} 93\n", "separates its columns by blanks"),
        (f'{HEADER}{A},cifar10,"93,5"\n', "test_accuracy is '93,5', not a number; write a decimal point"),
        (f"{HEADER}{A},cifar10,93,5\n", "line 2 has 4 fields; the header names 3"),
        (f"{HEADER}{A},cifar10,9_3\n", "is '9_3', not a number"),
        (f"{HEADER}{A},cifar10,93%\n", "is '93%', not a number"),
        (f"{HEADER}{A},cifar10,True\n", "is 'True', not a number"),
        (f"{HEADER}{A},cifar10,nan\n", "is nan; it must be between 0 and 100"),
        (f"{HEADER}{A},cifar10,inf\n", "is inf; it must be between 0 and 100"),
        (f"{HEADER}{A},cifar10,-1\n", "is -1; it must be between 0 and 100"),
        (f"{HEADER}{A},cifar10,100.1\n", "is 100.1; it must be between 0 and 100"),
        (f"{HEADER}{A},cifar10,\n", "has no accuracy"),
        (f"{HEADER}{A},cifar10,0.93\n", "no test_accuracy on cifar10 exceeds 1, so they look like fractions"),
        (f"{HEADER}{A},imagenet16-120,0.4\n{B},imagenet16-120,0.5\n", "they look like fractions"),
        (
            f"{HEADER}{A},digits,0.5\n{A},cifar10,50\n{B},cifar10,60\n{B},digits,0.6\n",
            "no test_accuracy on digits exceeds 1, so they look like fractions",
        ),
        (f"arch,dataset,test_accuracy,test_accuracy\n{A},cifar10,93,92\n", "has the same column twice"),
        (f'{HEADER}{A},"x\x1b[2Jy",93\n', r"the data set is called 'x\x1b[2Jy'"),
        (f"{HEADER}{A},{'x' * 300},93\n", "at most 200 characters"),
        ("x" * 2**18, "line 1 has more than 131,072 characters"),
        (HEADER + "x" * 2**18, "line 2 has more than 131,072 characters"),
        (HEADER + '"' + "x\n" * 2**17, "field larger than field limit"),
    ],
)  # fmt: skip
def test_tables_in_another_dialect_are_rejected(place: Path, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert "\x1b" not in refused("csv", place, path, words)


def test_one_low_accuracy_is_accepted_where_chance_is_as_low(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{HEADER}{A},imagenet16-120,0.83\n{B},imagenet16-120,40\n")
    assert "2 rows" in imported("csv", place, path)


def test_parquet_decimals_become_the_nearest_double(place: Path, tmp_path: Path) -> None:
    """93.1 has no exact binary representation and was once rejected."""
    values = pa.array(["93.1", "0.7"]).cast(pa.decimal128(5, 2))
    pq.write_table(
        pa.table({"arch": [A, B], "dataset": ["cifar10"] * 2, "test_accuracy": values}), tmp_path / "t.parquet"
    )
    imported("parquet", place, tmp_path / "t.parquet")
    assert query(Store(str(place)), "SELECT test_accuracy FROM accuracies ORDER BY 1") == [(0.7,), (93.1,)]


def test_parquet_booleans_are_not_accuracies(place: Path, tmp_path: Path) -> None:
    columns = {"arch": [A], "dataset": ["cifar10"], "test_accuracy": [True]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    refused("parquet", place, tmp_path / "t.parquet", "the column test_accuracy has the type bool")


# --- endless files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_devices_are_rejected(place: Path, kind: str, device: str) -> None:
    refused(kind, place, Path(device), "is a device, which may never end; give ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipe_without_a_writer_is_rejected(
    place: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hnas.pipeline.importers.files.PATIENCE", 0.2)
    os.mkfifo(tmp_path / "pipe")
    refused(kind, place, tmp_path / "pipe", "pipe")


def test_a_shell_pipe_is_imported(place: Path, tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", 90.0, 80.0)
    command = 'exec "$0" -m cli import csv <(cat "$1") --name piped --store "$2"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for state in ("imported", "already in the store"):
        done = subprocess.run(
            ["bash", "-c", command, sys.executable, path, place],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{state}: 2 rows of 2 architectures from /dev/fd/")


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_rejected_without_being_searched(place: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    os.mkfifo(folder / "inner" / "pipe.pickle.pbz2")
    refused(kind, place, folder, "")


# --- deep nesting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [100, 900, 1500, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("closed", [True, False])
def test_deeply_nested_json_is_rejected(place: Path, tmp_path: Path, depth: int, opening: str, closed: bool) -> None:
    inner = opening * depth + ("1" + ("]" if opening == "[" else "}") * depth if closed else "")
    for text in (
        f'{{"nasbench201":{{"cifar10":{{"(1,1,1,1,1,1)":{{"val_accuracy":{inner}}}}}}}}}',
        f'{{"nasbench201":{{"cifar10":{{"(1,1,1,1,1,1)":{inner}}}}}}}',
        f'{{"nasbench201":{inner}}}',
        inner,
        f'{{"nasbench201":{{"cifar10":{{"{"(" * depth}":{{}}}}}}}}',
    ):
        path = tmp_path / "t.json"
        path.write_text(text)
        refused("suite-zero", place, path, "")


def entry(**members: object) -> str:
    return json.dumps({"nasbench201": {"cifar10": {"(1, 1, 1, 1, 1, 1)": members}}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (entry(snip=1.0), "val_accuracy is missing"),
        (entry(val_accuracy=None), "val_accuracy is missing"),
        (entry(val_accuracy=float("nan")), "val_accuracy is nan"),
        (entry(val_accuracy=float("inf")), "val_accuracy is inf"),
        (entry(val_accuracy=True), "val_accuracy is True, not a number"),
        (entry(val_accuracy="93"), "val_accuracy is '93', not a number"),
        (entry(val_accuracy=-1), "val_accuracy is -1"),
        (entry(val_accuracy=101), "val_accuracy is 101"),
        (entry(val_accuracy=9, snip={"score": 1, "time": -1}), "the time of snip is -1"),
        (entry(val_accuracy=9, snip={"score": 1, "time": float("inf")}), "the time of snip is inf"),
        (entry(val_accuracy=9, snip=False), "snip is False, not a number"),
        (entry(val_accuracy=9, **{"a\x1b[2J": 1}), r"a proxy is called 'a\x1b[2J'"),
        (entry(val_accuracy=9, **{"x" * 300: 1}), "a proxy is called"),
        (
            json.dumps(
                {
                    "cifar10": {f"({n},1,1,1,1,1)": {"val_accuracy": 0.9} for n in range(2)},
                    "svhn": {f"({n},1,1,1,1,1)": {"val_accuracy": 90} for n in range(2)},
                }
            ),
            "no val_accuracy on cifar10 exceeds 1, so they look like fractions",
        ),
    ],
)
def test_invalid_numbers_of_suite_zero_are_rejected(place: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    refused("suite-zero", place, path, words)


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_file_name_that_is_not_utf8_is_imported(place: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff\x1b.csv")
    shutil.copy(table(tmp_path / "t.csv", 90.0), path)
    done = hnas_process("import", "csv", path, "--store", place)
    assert (done.status, done.out) == (2, "")
    assert "is not UTF-8 text; rename the file" in done.err
    assert r"a\xff\x1b.csv" in done.err
    for changed in (True, False):  # a program may pass the name as the system does
        assert import_accuracies(Store(str(place)), "csv", path).changed == changed
    assert hnas("info", "--store", place).status == 0


def test_control_characters_in_an_older_store_do_not_reach_the_terminal(place: Path) -> None:
    store = Store(str(place))
    store.prepare()
    row = {"space": "nasbench201", "arch": A, "dataset": "\x1b]0;title\x07\x1b[2Jx", "test_accuracy": 50.0}
    store.write_table(pa.Table.from_pylist([row], schema=SCHEMAS["accuracies"]), "accuracies", "csv", "old-1.parquet")
    done = hnas("info", "--store", place)
    assert done.status == 0
    assert "\x1b" not in done.out + done.err
    assert r"\x1b]0;title\x07\x1b[2jx" in done.out


# --- random damage --------------------------------------------------------------------------------------------------


def test_damaged_parquet_files_give_one_sentence(place: Path, tmp_path: Path) -> None:
    """Random damage, wrong sizes included, raises nothing but errors with a sentence."""
    rng, path = Random(0), tmp_path / "t.parquet"
    columns = {"arch": [A, B] * 50, "dataset": ["d"] * 100, "seed": list(range(100)), "test_accuracy": [50.0] * 100}
    pq.write_table(pa.table(columns), path)
    good = path.read_bytes()
    for _ in range(150):
        bad = bytearray(good)
        for _ in range(rng.choice((1, 1, 4))):
            at = rng.randrange(len(bad) - 700, len(bad)) if rng.random() < 0.7 else rng.randrange(len(bad))
            bad[at] = rng.randrange(256)
        path.write_bytes(bad[: rng.choice((len(bad), len(bad), rng.randrange(len(bad))))])
        done = hnas("import", "parquet", path, "--store", place)
        assert done.status in (0, 2), done.err
        assert "did not foresee" not in done.err
        assert done.err.count("\n") <= 1
