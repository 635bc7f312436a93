"""`--output FILE` of `hnas sql`: the suffix determines the format of the file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.command_line import hnas

QUERY = "SELECT i, i / 2 AS half FROM range(3) t(i)"


@pytest.mark.parametrize("name", ["x.parquet", "x.PARQUET", "x.pq", "a.csv.parquet"])
def test_a_parquet_suffix_gives_parquet(tmp_path: Path, name: str) -> None:
    done = hnas("sql", QUERY, "--output", tmp_path / name, "--store", tmp_path)
    assert (done.status, done.out, done.err) == (0, "", f"3 rows written to {tmp_path / name}\n")
    assert pq.read_table(tmp_path / name).to_pydict() == {"i": [0, 1, 2], "half": [0.0, 0.5, 1.0]}


def test_csv_json_and_text_suffixes_give_these_formats(tmp_path: Path) -> None:
    for name in ("x.csv", "x.Csv", "x.json", "x.txt"):
        done = hnas("sql", f"{QUERY} LIMIT 1", "--output", tmp_path / name, "--store", tmp_path)
        assert (done.status, done.out, done.err) == (0, "", f"1 row written to {tmp_path / name}\n")
    for name in ("x.csv", "x.Csv"):
        assert list(csv.reader((tmp_path / name).open())) == [["i", "half"], ["0", "0.0"]]
    assert json.loads((tmp_path / "x.json").read_text()) == [{"i": 0, "half": 0.0}]
    assert (tmp_path / "x.txt").read_text().split() == ["i", "half", "─", "────", "0", "0"]


@pytest.mark.parametrize("name", ["x.csv.gz", "x.tsv", "x.jsonl", "x.xlsx", "x.parquet.zst", "x", "x.dat", ".csv"])
def test_an_unsupported_suffix_is_rejected(tmp_path: Path, name: str) -> None:
    done = hnas("sql", QUERY, "--output", tmp_path / name, "--store", tmp_path / "store")
    assert (done.status, done.out) == (2, "")
    assert all(suffix in done.err for suffix in (name, ".parquet", ".csv", ".json"))
    assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_format_accepts_its_own_and_neutral_suffixes(tmp_path: Path) -> None:
    for name in ("x.csv", "x", "x.dat"):
        assert hnas("sql", QUERY, "--format", "csv", "--output", tmp_path / name, "--store", tmp_path).status == 0
        assert (tmp_path / name).read_text().startswith("i,half\n")
    for name in ("y.parquet", "y.json", "y.txt", "y.csv.gz", "y.tsv"):
        done = hnas("sql", QUERY, "--format", "csv", "--output", tmp_path / name, "--store", tmp_path)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
        assert not (tmp_path / name).exists()
