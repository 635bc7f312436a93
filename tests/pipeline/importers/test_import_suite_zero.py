"""Importing NAS-Bench-Suite-Zero: every row of the real files is imported, and an error changes nothing."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hnas import search_spaces
from hnas.errors import UsageError
from hnas.pipeline.importers.json_stream import JSONStream
from hnas.spaces import key_of
from tests.support import importing
from tests.support.command_line import hnas
from tests.support.contents import rows, snapshot
from tests.support.import_files import TABLE, needs_table

DATA = Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent"))
FILES = {"nasbench101": ("nasbench101", 250), "nasbench201": ("nasbench201", 491), "nasbench301": ("darts", 250)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


imported = partial(importing.imported, "suite-zero")


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


# --- the real files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_value_of_the_real_file_is_imported(store: Path, name: str) -> None:
    path = DATA / name / f"zc_{name}.json"
    space, n = FILES[name]
    if not path.is_file():
        pytest.skip(f"HNAS_TEST_DATA is unset or has no {name}/zc_{name}.json: the real scores are needed")
    if importlib.util.find_spec(f"hnas.spaces.{space}") is None:
        pytest.skip(f"the search space {space} is not installed")
    content = json.loads(path.read_text())[name]["cifar10"]
    reader: Any = search_spaces[space]
    archs = [key_of(reader, reader.from_suite_zero(ast.literal_eval(encoding))) for encoding in content]
    printed = imported(store, path)
    assert printed.startswith(f"imported: {n} rows of {len(set(archs))} architectures, {11 * n:,} proxy scores from ")
    expected = [
        (space, arch, "cifar10", entry["val_accuracy"]) for arch, entry in zip(archs, content.values(), strict=True)
    ]
    assert len(expected) == n
    found = rows(store, "SELECT space, arch, dataset, valid_accuracy FROM accuracies")
    assert [tuple(row.values()) for row in found] == expected
    empty = "count(epochs) + count(train_accuracy) + count(test_accuracy) + count(seconds)"
    repeats = n - len(set(archs))
    assert rows(store, f"SELECT {empty} AS known, count(seed) AS seeds FROM accuracies") == [
        {"known": 0, "seeds": repeats}
    ]
    expected_proxies = [
        (space, arch, "cifar10", proxy, value, None)
        for arch, entry in zip(archs, content.values(), strict=True)
        for proxy, value in entry.items()
        if proxy != "val_accuracy"
    ]
    found = rows(store, "SELECT space, arch, dataset, proxy, value, seconds FROM proxies")
    assert [tuple(row.values()) for row in found] == expected_proxies
    before = snapshot(store)
    assert imported(store, path).startswith("already in the store")
    assert snapshot(store) == before


@needs_table
def test_nasbench201_encodings_decode_to_the_right_architectures(store: Path) -> None:
    """Decoded correctly, validation accuracies correlate almost perfectly with the benchmark's test accuracies."""
    path = DATA / "nasbench201" / "zc_nasbench201.json"
    if not path.is_file():
        pytest.skip("HNAS_TEST_DATA has no nasbench201/zc_nasbench201.json")
    imported(store, path)
    assert hnas("import", "csv", TABLE, "--store", store).status == 0
    query = (
        "SELECT corr(z.valid_accuracy, t.test_accuracy) AS r, count(*) AS n FROM accuracies AS z "
        "JOIN accuracies AS t USING (space, arch, dataset) WHERE z.source = 'suite-zero' "
        "AND t.source = 'cifar10-test-accuracy'"
    )
    (found,) = rows(store, query)
    assert found["n"] == 491
    assert found["r"] > 0.99  # type: ignore[operator]
    (mean,) = rows(
        store, "SELECT count(*) AS n, any_value(source) AS source, count(valid_accuracy) AS valid FROM mean_accuracies"
    )
    assert mean == {"n": 15_625, "source": "cifar10-test-accuracy", "valid": 0}


# --- synthetic files ------------------------------------------------------------------------------------------------

SKIP = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
MIXED = "|none~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|none~2|"
ENTRY = {"snip": 1.5, "val_accuracy": 90.0}


def file(entries: Any, *, dataset: str = "cifar10", space: str = "nasbench201") -> dict[str, Any]:
    return {space: {dataset: entries}}


def test_encodings_list_the_edges_in_their_authors_order(store: Path, tmp_path: Path) -> None:
    entries = {"(0, 0, 0, 0, 0, 0)": ENTRY, "[1, 2, 0, 3, 4, 1]": ENTRY}
    imported(store, write(tmp_path / "a.json", file(entries, dataset="ImageNet16-120")))
    assert [row["arch"] for row in rows(store)] == [SKIP, MIXED]
    assert {row["dataset"] for row in rows(store)} == {"imagenet16-120"}


def test_the_distributed_layout_is_read(store: Path, tmp_path: Path) -> None:
    """It has no level of spaces, has times next to scores, and numbers its architectures."""
    entry = {
        "id": 7, "nwot": {"score": 740.5, "time": 0.25}, "zen": {"score": float("-inf"), "time": None},
        "snip": {"score": float("nan"), "time": 1}, "val_accuracy": 88,
    }  # fmt: skip
    content = {"cifar10": {"(0, 0, 0, 0, 0, 0)": entry}, "cifar100": {"(1, 2, 0, 3, 4, 1)": ENTRY}}
    printed = imported(store, write(tmp_path / "a.json", content))
    assert "2 rows of 2 architectures, 4 proxy scores" in printed
    columns = "space, arch, dataset, proxy, value, seconds"
    assert [tuple(row.values()) for row in rows(store, f"SELECT {columns} FROM proxies")] == [
        ("nasbench201", SKIP, "cifar10", "nwot", 740.5, 0.25),
        ("nasbench201", SKIP, "cifar10", "zen", "-inf", None),
        ("nasbench201", SKIP, "cifar10", "snip", None, 1.0),
        ("nasbench201", MIXED, "cifar100", "snip", 1.5, None),
    ]
    assert [row["valid_accuracy"] for row in rows(store)] == [88.0, 90.0]


def test_equivalent_encodings_have_a_row_each(store: Path, tmp_path: Path) -> None:
    entries = {"(0,0,0,0,0,0)": ENTRY, "(0, 0, 0, 0, 0, 0)": {"val_accuracy": 91.0}, "[0,0,0,0,0,0]": ENTRY}
    assert "3 rows of 1 architectures" in imported(store, write(tmp_path / "a.json", file(entries)))
    assert [(row["seed"], row["valid_accuracy"]) for row in rows(store)] == [(None, 90.0), (1, 91.0), (2, 90.0)]
    (mean,) = rows(store, "FROM mean_accuracies")
    assert mean["valid_accuracy"] == pytest.approx(271 / 3)


def test_a_changed_file_replaces_its_rows_in_both_tables(store: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", file({"(0, 0, 0, 0, 0, 0)": ENTRY}))
    imported(store, path)
    imported(store, write(path, file({"(1, 2, 0, 3, 4, 1)": {"val_accuracy": 50.0}})))
    assert [row["arch"] for row in rows(store)] == [MIXED]
    assert rows(store, "FROM proxies") == []
    assert not list(store.glob("proxies/*/*"))


@pytest.mark.parametrize("block", [1, 7, 100])
def test_values_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("hnas.pipeline.importers.json_stream._BLOCK", block)
    content = {"a": {'x\n"ü': 1234.5e-7, "y": {"z": [1, 2, {"q": None}]}}, "b": {}, "c": {"n": -12}}
    found: dict[str, dict[str, Any]] = {}
    stream = JSONStream(io.StringIO(json.dumps(content, indent=2)))
    for name in stream.members():
        found[name] = {inner: stream.value() for inner in stream.members()}
    stream.finish()
    assert found == content


ZEROS = "(0, 0, 0, 0, 0, 0)"
INSIDE = f"nasbench201, cifar10, {ZEROS}: "
GOOD = json.dumps(file({ZEROS: ENTRY}))
FAULTS: dict[str, tuple[object, str]] = {
    "an empty file": ("", "the file ends in the middle"),
    "no JSON": ("arch,dataset\n", "expected '{', found 'arch,dataset\\n'; give a JSON file of NAS-Bench-Suite"),
    "a list": ([1], "expected '{', found"),
    "an empty object": ({}, "has no architectures"),
    "no data sets": ({"nasbench201": {}}, "has no architectures"),
    "a number for a space": ({"nasbench201": 1}, "nasbench201: expected '{', found '1}'"),
    "an unknown name": ({"transbench101": {}}, "'transbench101' is neither a space (nasbench101,"),
    "truncated": (GOOD[:-30], "nasbench201, cifar10"),
    "truncated at the end": (GOOD[:-1], "the file ends in the middle"),
    "something after the end": (GOOD + "{}", "there is text after the end: '{}'"),
    "a comma too many": (GOOD.replace("90.0}", "90.0,}"), INSIDE + "it is not complete JSON"),
    "a colon missing": (GOOD.replace(': {"snip', ' {"snip'), "expected ':', found"),
    "an entry that is a number": (file({ZEROS: 90.0}), INSIDE + "the entry is not an object"),
    "an empty entry": (file({ZEROS: {}}), INSIDE + "the entry is not an object"),
    "a proxy twice": (GOOD.replace('"snip": 1.5', '"snip": 1.5, "snip": 2'), INSIDE + "it names 'snip' twice"),
    "an encoding twice": (GOOD.replace('{"(0', f'{{"{ZEROS}": {json.dumps(ENTRY)}, "(0'), INSIDE + "the encoding"),
    "no accuracy": (file({ZEROS: {"snip": 1.0}}), INSIDE + "val_accuracy is missing"),
    "an accuracy above 100": (file({ZEROS: {"val_accuracy": 100.5}}), "val_accuracy is 100.5; it must be percent"),
    "an accuracy that is nan": (file({ZEROS: {"val_accuracy": float("nan")}}), "val_accuracy is nan; it must be a"),
    "an accuracy as text": (file({ZEROS: {"val_accuracy": "90"}}), "val_accuracy is '90', not a number"),
    "a score as text": (file({ZEROS: {**ENTRY, "snip": "x"}}), "snip is 'x', not a number"),
    "a score without end": (GOOD.replace("1.5", "1" + "0" * 400), "snip is too large for a float"),
    "a number with too many digits": (GOOD.replace("1.5", "1" * 5000), INSIDE),
    "truth for a score": (file({ZEROS: {**ENTRY, "snip": True}}), "snip is True, not a number"),
    "an infinite time": (file({ZEROS: {**ENTRY, "snip": {"score": 1, "time": float("inf")}}}), "the time of snip is"),
    "five operations": (file({"(0, 0, 0, 0, 0)": ENTRY}), "(0, 0, 0, 0, 0): an encoding of a NAS-Bench-201 cell must"),
    "an operation too large": (file({"(0, 0, 0, 0, 0, 5)": ENTRY}), "must be six numbers from 0 to 4"),
    "an encoding that is code": (file({"__import__('os').getcwd()": ENTRY}), "the encoding is not a Python literal"),
    "an encoding that is not closed": (file({"(0, 0": ENTRY}), "the encoding is not a Python literal"),
    "an encoding that is a number": (file({"5": ENTRY}), "the encoding is not a Python literal"),
    "an encoding that is a dict": (file({"{[]: 1}": ENTRY}), "the encoding is not a Python literal"),
    "an encoding with a null": (file({"(0,\0)": ENTRY}), "the encoding is not a Python literal"),
    "a deep encoding": (file({"(" * 900 + ")" * 900: ENTRY}), "the encoding is"),
    "a long encoding": (file({"(" + "0, " * 1000 + ")": ENTRY}), "the encoding has 3,002 characters"),
    "a deep entry": (GOOD.replace("1.5", "[" * 100_000), INSIDE),
    "an entry without end": (GOOD.replace("1.5", '"' + "x" * 2_500_000), INSIDE),
    "an encoding of no space": ({"cifar10": {"(1, 2)": ENTRY}}, "cifar10, (1, 2): the encoding fits no known space"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_is_reported_with_its_encoding_and_leaves_nothing(store: Path, tmp_path: Path, name: str) -> None:
    content, words = FAULTS[name]
    assert len(importing.refused("suite-zero", store, write(tmp_path / "a.json", content), words)) < 1000


def test_files_that_are_not_text_are_rejected(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, words in ((b"\xff\xfe{", "is not UTF-8 text (byte 0)"), (None, "No such file")):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        done = hnas("import", "suite-zero", path, "--store", store)
        assert (done.status, words in done.err) == (2, True)
    assert "directory" in hnas("import", "suite-zero", tmp_path, "--store", store).err
    assert not store.exists()


@pytest.mark.parametrize("encoding", ["x", None, 5, (1, 2), (0, 0, 0, 0, 0, -1), (0, 0, 0, 0, 0, 1.0), (True,) * 6, {}])
def test_invalid_encodings_of_nasbench201_are_rejected(encoding: object) -> None:
    with pytest.raises(UsageError, match="an encoding of a NAS-Bench-201 cell must be six numbers from 0 to 4"):
        search_spaces["nasbench201"].from_suite_zero(encoding)  # type: ignore[attr-defined]
