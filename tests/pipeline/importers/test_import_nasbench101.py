"""Importing NAS-Bench-101: every number is imported, and a file with any error changes nothing."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from hnas.errors import HnasError, UsageError
from hnas.pipeline.importers import import_accuracies, writing
from hnas.pipeline.importers.nasbench101 import read_nasbench101
from hnas.pipeline.store.store import Store
from tests.support import importing
from tests.support.command_line import hnas
from tests.support.contents import rows, snapshot
from tests.support.nasbench101_files import (
    CHAIN,
    OPERATIONS,
    Evaluation,
    evaluations,
    fields,
    frame,
    framed,
    message,
    name_of,
    training,
    varint,
)
from tests.support.places import ROOT


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


imported = partial(importing.imported, "nasbench101")


# --- imported values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budgets", [(108,), (4, 12, 36, 108)], ids=["only108", "full"])
def test_every_number_is_imported(store: Path, tmp_path: Path, budgets: tuple[int, ...]) -> None:
    order = [(cell, epochs, n) for cell, n in zip(range(12), [7, 6, 5, 4, 3, 2] * 2, strict=True) for epochs in budgets]
    order = order * 3
    Random(1).shuffle(order)
    expected, curves, file = [], [], b""
    seeds: Counter[tuple[int, int]] = Counter()
    for cell, epochs, n in order:
        seed = seeds[cell, epochs]
        seeds[cell, epochs] += 1
        file += framed(training(cell, epochs, seed, n))
        measured = evaluations(Random(f"{cell} {epochs} {seed}"), epochs)
        key = ("nasbench101", "nasbench101", name_of(cell), "cifar10", epochs, seed)
        at = [(seconds, 100 * train, 100 * valid, 100 * test) for _, seconds, train, valid, test in measured]
        expected.append((*key, *at[2]))
        curves += [(*key, 0, *at[0]), (*key, epochs // 2, *at[1])]
    printed = imported(store, write(tmp_path / "nasbench.tfrecord", file))
    n = 36 * len(budgets)
    assert printed.startswith(f"imported: {n} rows of 12 architectures, {2 * n} curve points from ")
    columns = "source, space, arch, dataset, epochs, seed"
    numbers = "seconds, train_accuracy, valid_accuracy, test_accuracy"
    assert [tuple(row.values()) for row in rows(store, f"SELECT {columns}, {numbers} FROM accuracies")] == expected
    assert [tuple(row.values()) for row in rows(store, f"SELECT {columns}, epoch, {numbers} FROM curves")] == curves
    assert rows(store, "FROM proxies") == []


def test_metrics_as_other_encoders_write_them(store: Path, tmp_path: Path) -> None:
    """Base64 with line breaks, fields in another order, and unknown field numbers."""
    row = training()
    start, half, end = (fields({4: 0.5, 1: epoch, 5: 0.25, 2: 0.0, 3: 0.0}) for epoch in (0, 54, 108))
    unknown = b"\x7a\x03abc" + b"\x80\x01\x07"
    metrics = unknown + b"".join(b"\x0a" + varint(len(e)) + e for e in (start, half + unknown, end))
    row[4] = base64.encodebytes(metrics).decode()
    assert "\n" in row[4]
    imported(store, write(tmp_path / "a.tfrecord", framed(row)))
    (found,) = rows(store)
    assert (found["valid_accuracy"], found["train_accuracy"], found["seconds"]) == (50, 0, 0)
    assert [row["epoch"] for row in rows(store, "FROM curves")] == [0, 54]


def test_the_mean_over_repeats_is_of_the_longest_training(store: Path, tmp_path: Path) -> None:
    order = [(cell, epochs, seed) for cell in range(2) for epochs in (4, 12, 36, 108) for seed in range(3)]
    imported(store, write(tmp_path / "a.tfrecord", framed(*(training(*which) for which in order))))
    for row in rows(store, "FROM mean_accuracies"):
        cell = [name_of(0), name_of(1)].index(str(row["arch"]))
        finals = [evaluations(Random(f"{cell} 108 {seed}"), 108)[2] for seed in range(3)]
        assert row["epochs"] == 108
        assert row["valid_accuracy"] == pytest.approx(100 * sum(final[3] for final in finals) / 3, rel=1e-14)


# --- again, and changed ---------------------------------------------------------------------------------------------


def test_reimporting_changes_nothing_and_a_changed_file_replaces_all(store: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", framed(training(1), training(2)))
    imported(store, write(tmp_path / "b.tfrecord", framed(training(3))))
    imported(store, path)
    before = snapshot(store)
    assert imported(store, path).startswith("already in the store: 2 rows of 2 architectures, 4 curve points")
    assert snapshot(store) == before
    final_only = training(1)
    final_only[4] = base64.b64encode(message([(108.0, 9.0, 0.5, 0.5, 0.5)])).decode()
    assert imported(store, write(path, framed(final_only))).startswith("imported: 1 row")
    assert {row["arch"] for row in rows(store)} == {name_of(1), name_of(3)}
    assert {row["arch"] for row in rows(store, "FROM curves")} == {name_of(3)}


def test_a_store_that_lost_its_curves_gets_them_again(store: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", framed(training(1)))
    imported(store, path)
    before = {name: content for name, (_, content) in snapshot(store).items()}
    next(store.glob("curves/*/*")).unlink()
    assert imported(store, path).startswith("imported")
    assert {name: content for name, (_, content) in snapshot(store).items()} == before


def test_importing_into_a_store_at_a_url(tmp_path: Path) -> None:
    store = Store("memory://nasbench101-import")
    path = write(tmp_path / "a.tfrecord", framed(training(1), training(2)))
    assert import_accuracies(store, "nasbench101", path).changed
    assert not import_accuracies(store, "nasbench101", path).changed
    table = store.read_tables(["arch", "seed"], "accuracies", "nasbench101")
    assert table is not None
    assert table.to_pylist() == [{"arch": name_of(1), "seed": 0}, {"arch": name_of(2), "seed": 0}]


# --- errors ---------------------------------------------------------------------------------------------------------

GOOD = framed(training(1), training(2))


def changed(column: int, value: object) -> bytes:
    row = training(3)
    row[column] = value
    return GOOD + framed(row)


def with_metrics(*found: Evaluation) -> bytes:
    return changed(4, base64.b64encode(message(list(found))).decode())


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


SECOND = len(framed(training(1)))
THIRD = f"record 3 (byte {len(GOOD)})"


def metrics_without(number: int, evaluation: int) -> bytes:
    """`GOOD` and a training with one evaluation that lacks the field `number`."""
    values = [dict(enumerate(numbers, start=1)) for numbers in evaluations(Random("x"), 108)]
    del values[evaluation][number]
    content = b"".join(b"\x0a" + varint(len(e)) + e for e in map(fields, values))
    return changed(4, base64.b64encode(content).decode())


FAULTS = {
    **{
        f"evaluation {evaluation} without {name}": (
            metrics_without(number, evaluation - 1),
            f"{THIRD}, evaluation {evaluation}: {name} is nan or missing",
        )
        for evaluation, number, name in (
            (1, 1, "current_epoch"),
            (3, 2, "training_time"),
            (3, 3, "train_accuracy"),
            (2, 4, "validation_accuracy"),
            (3, 5, "test_accuracy"),
        )
    },
    "no evaluation at its end": (
        changed(4, base64.b64encode(message(evaluations(Random("x"), 108)[:2])).decode()),
        f"{THIRD}: its last evaluation is at epoch 54 of a training of 108 epochs",
    ),
    "a list for the hash": (changed(0, [[1]]), "the module hash is a list"),
    "an empty file": (b"", "is empty"),
    "a text": (b"arch,dataset,test_accuracy\n", "is not a TFRecord file; give nasbench_only108"),
    "a short text": (b"arch", "is not a TFRecord file"),
    "a gzip file": (b"\x1f\x8b\x08" + bytes(200), "is not a TFRecord file"),
    "zeros": (bytes(1000), "is not a TFRecord file"),
    "the length cut off": (GOOD[: SECOND + 7], f"record 2 (byte {SECOND}) is cut off"),
    "the content cut off": (GOOD[:-100], f"record 2 (byte {SECOND}) is cut off"),
    "the checksum cut off": (GOOD[:-1], f"record 2 (byte {SECOND}) is cut off"),
    "the length damaged": (
        flipped(GOOD, SECOND + 1),
        f"record 2 (byte {SECOND}) is damaged: the checksum of its length",
    ),
    "the content damaged": (flipped(GOOD, SECOND + 50), "record 2 (byte"),
    "the checksum damaged": (flipped(GOOD, len(GOOD) - 1), "the checksum of its content does not match"),
    "a record of a million bytes": (GOOD + frame(bytes(2**20 + 1))[:500], f"{THIRD} has 1,048,577 bytes"),
    "no JSON": (GOOD + frame(b"\x0a\x05hello"), f"{THIRD}: it is not JSON"),
    "nested JSON": (GOOD + frame(b"[" * 100_000), f"{THIRD}: it is not JSON"),
    "no list": (GOOD + frame(b'{"a": 1}'), "it is not a list of hash, epochs"),
    "a short list": (GOOD + frame(b"[1, 2]"), "it is not a list of hash, epochs"),
    "a hash of other digits": (changed(0, "x" * 32), "the module hash is 'xxxx"),
    "a number for the hash": (changed(0, 5), "the module hash is 5"),
    "other epochs": (changed(1, 7), "the number of epochs is 7; it must be one of 4, 12, 36, 108"),
    "epochs as text": (changed(1, "108"), "the number of epochs is '108'"),
    "an adjacency too short": (changed(2, CHAIN[6]), "its adjacency is"),
    "an adjacency with a cycle": (changed(2, "1" + CHAIN[7][1:]), "an upper triangular 7 x 7 matrix"),
    "ten edges": (changed(2, "0111111" + "0011110" + "0" * 35), "10 edges; NAS-Bench-101 has at most 9"),
    "an unknown operation": (changed(3, OPERATIONS[7].replace("maxpool3x3", "maxpool5x5")), "its operations are"),
    "no output": (changed(3, OPERATIONS[7].replace("output", "maxpool3x3")), "its operations are"),
    "metrics that are no base64": (changed(4, "!!!!"), "not a ModelMetrics message in base64"),
    "metrics that are no message": (
        changed(4, base64.b64encode(b"\xff\xff\xff").decode()),
        "not a ModelMetrics message",
    ),
    "no metrics": (changed(4, ""), "its metrics have no evaluation"),
    "a number for metrics": (changed(4, 1), "its metrics are not text"),
    "percent": (with_metrics((108, 1, 0.5, 93.5, 0.5)), "validation_accuracy is 93.5; it must be a finite number"),
    "not a number": (with_metrics((108, 1, 0.5, 0.5, float("nan"))), "test_accuracy is nan"),
    "seconds below zero": (with_metrics((108, -1, 0.5, 0.5, 0.5)), "training_time is -1"),
    "an infinite epoch": (with_metrics((float("inf"), 1, 0.5, 0.5, 0.5)), "current_epoch is inf"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_error_is_reported_and_leaves_the_store_unchanged(store: Path, tmp_path: Path, name: str) -> None:
    content, words = FAULTS[name]
    path = write(tmp_path / "nasbench.tfrecord", content)
    before: dict[str, object] = {}
    for existing in (False, True):
        if existing:
            imported(store, write(tmp_path / "nasbench.tfrecord", GOOD))
            before = dict(snapshot(store))
            write(path, content)
        done = hnas("import", "nasbench101", path, "--store", store)
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith(f"hnas: {path}")
        assert words in done.err
        assert done.err.count("\n") == 1
        assert snapshot(store) == before
        assert store.exists() == existing


def test_an_error_after_row_groups_were_written_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP", 10)
    monkeypatch.setattr("hnas.pipeline.importers.nasbench101._BATCH", 4)
    path = write(tmp_path / "a.tfrecord", framed(*(training(k) for k in range(100))) + b"x")
    seen = []

    def look(done: int, total: int) -> None:
        seen.append([file.suffix for file in store.iterdir()] if store.exists() else [])

    with pytest.raises(UsageError, match=r"record 101 \(byte \d+\) is cut off"):
        import_accuracies(Store(str(store)), "nasbench101", path, progress=look)
    assert [".part", ".part"] in seen
    assert not store.exists()


def test_hashes_are_checked_against_the_key_function(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", framed(training(1, seed=0), training(2), training(1, seed=1)))
    asked = []

    def key(cell: str) -> str:
        asked.append(cell)
        return name_of(len(asked))

    list(read_nasbench101(path, lambda done, total: None, key=key))
    assert asked == [f"{OPERATIONS[7]}:{CHAIN[7]}"] * 2
    with pytest.raises(UsageError, match=r"record 1 .* is not that of its cell input,"):
        list(read_nasbench101(path, lambda done, total: None, key=lambda cell: "0" * 32))


# --- size and interruption ------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP", 200)
    monkeypatch.setattr("hnas.pipeline.importers.nasbench101._BATCH", 100)
    part = b"".join(framed(training(k)) for k in range(100))

    def peak(times: int) -> int:
        path = write(tmp_path / f"{times}.tfrecord", part * times)
        tracemalloc.start()
        import_accuracies(Store(str(tmp_path / f"store{times}")), "nasbench101", path)
        (_, highest) = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(1)
    assert peak(40) < peak(4) + 500_000


def test_progress_ends_at_the_size_of_the_file(store: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tfrecord", GOOD)
    seen: list[tuple[int, int]] = []
    import_accuracies(Store(str(store)), "nasbench101", path, progress=lambda *update: seen.append(update))
    assert seen[-1] == (len(GOOD), len(GOOD))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_import_leaves_the_store_unchanged(store: Path, tmp_path: Path, number: int) -> None:
    imported(store, write(tmp_path / "a.tfrecord", GOOD))
    before = snapshot(store)
    pipe = tmp_path / "b.tfrecord"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "hnas.cli", "import", "nasbench101", pipe, "--store", store]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pipe.open("wb") as file:
        file.write(GOOD)
        file.flush()
        time.sleep(0.5)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", f"hnas: interrupted: nothing of {pipe} was imported\n")
    assert snapshot(store) == before


def test_an_interruption_between_row_groups_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP", 10)
    monkeypatch.setattr("hnas.pipeline.importers.nasbench101._BATCH", 20)
    path = write(tmp_path / "a.tfrecord", framed(*(training(k) for k in range(100))))

    def interrupt(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(HnasError, match=r"interrupted: nothing of .* was imported"):
        import_accuracies(Store(str(store)), "nasbench101", path, progress=interrupt)
    assert not store.exists()


def test_the_stored_files_are_compressed_row_groups(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "ROW_GROUP", 30)
    import_accuracies(Store(str(store)), "nasbench101", write(tmp_path / "a", framed(*map(training, range(70)))))
    for table, groups in (("accuracies", [30, 30, 10]), ("curves", [30, 30, 30, 30, 20])):
        metadata = pq.read_metadata(next(store.glob(f"{table}/nasbench101/*.parquet")))
        assert [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)] == groups
        assert metadata.row_group(0).column(1).compression == "ZSTD"
