"""Bad input gives the documented exit status and one sentence, prints no result and changes no store.

A row of `CASES` has a command, its exit status, and words that its error must contain. Arguments that are functions
prepare a file in the test's folder and return its path.
"""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hnas.pipeline.images import ImageDataset
from hnas.pipeline.precompute.plan import make_plan
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from tests.support import runs
from tests.support.command_line import (
    ARCHS,
    CONVOLUTION,
    Outcome,
    accuracies,
    add_accuracies_and_a_search,
    hnas,
    hnas_process,
)
from tests.support.places import ROOT

pytestmark = pytest.mark.slow

Prepare = Callable[[Path], object]
UNKNOWN = "|nope~0|+|none~0|none~1|+|none~0|none~1|none~2|"


@dataclass(frozen=True)
class Case:
    """A bad command: its name, exit status, the words of its error, its arguments and its store."""

    name: str
    status: int
    words: tuple[str, ...]
    arguments: tuple[object, ...]
    store: Prepare
    process: bool


def case(
    name: str, status: int, words: str, *arguments: object, store: Prepare | None = None, process: bool = False
) -> Case:
    """A case whose `words` are separated by ` ... `. With `process`, its command runs in a separate process."""
    return Case(name, status, tuple(words.split(" ... ")), arguments, store or filled, process)


# --- stores ---------------------------------------------------------------------------------------------------------

TEMPLATE: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    """The store that `filled` copies, with a run of 24 architectures, their accuracies and a search."""
    folder = tmp_path_factory.mktemp("bad-input")
    (folder / "archs.txt").write_text("\n".join(ARCHS))
    store = Store(str(folder / "store"))
    size: dict[str, Any] = {"channels": 4, "cells": 1, "batch_size": 16}
    plan = make_plan(store, runs.SPACE, digits, architectures=folder / "archs.txt", chunk_size=4, **size)
    runs.fill(store, plan)
    add_accuracies_and_a_search(folder / "store")
    TEMPLATE[:] = [folder / "store"]
    return TEMPLATE[0]


def filled(tmp: Path) -> Path:
    return Path(shutil.copytree(TEMPLATE[0], tmp / "store"))


def absent(tmp: Path) -> Path:
    return tmp / "store"


def empty(tmp: Path) -> Path:
    (tmp / "store").mkdir()
    (tmp / "store" / "store.json").write_text('{"version": 1}')
    return tmp / "store"


def a_file(tmp: Path) -> Path:
    (tmp / "store").write_text("no folder")
    return tmp / "store"


def below_a_file(tmp: Path) -> Path:
    return a_file(tmp) / "store"


def without(part: str) -> Prepare:
    def prepare(tmp: Path) -> Path:
        place = filled(tmp)
        path = place / part
        path.unlink() if path.is_file() else shutil.rmtree(path)
        return place

    return prepare


def damaged(pattern: str, change: Callable[[bytes], bytes] | bytes) -> Prepare:
    def prepare(tmp: Path) -> Path:
        place = filled(tmp)
        path = min(place.glob(pattern))
        path.write_bytes(change if isinstance(change, bytes) else change(path.read_bytes()))
        return place

    return prepare


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    """Damage data pages, but not the footer."""
    return content[:100] + b"\xff" * 300 + content[400:]


def two_runs(tmp: Path) -> Path:
    """A store with a second run whose name begins like the first one's."""
    place = filled(tmp)
    store = Store(str(place))
    (run,) = store.folders("runs")
    settings = Run(store, run).read_settings()
    other = next(s for seed in count(1) if (s := replace(settings, seed=seed)).id.startswith(run[:4]))
    record = store.read_json("runs", run, "run.json")
    del record["requests"]
    store.write_json({**record, "id": other.id, "settings": other.as_dict()}, "runs", other.id, "run.json")
    return place


def run_prefix(tmp: Path) -> str:
    return min(path for path in (tmp / "store" / "runs").iterdir() if path.is_dir()).name[:4]


def search_id(tmp: Path) -> str:
    return min((tmp / "store" / "searches").iterdir()).name


# --- files ----------------------------------------------------------------------------------------------------------


def text(name: str, content: str | bytes) -> Prepare:
    def prepare(tmp: Path) -> Path:
        (tmp / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp / name

    return prepare


def path(name: str) -> Prepare:
    return lambda tmp: tmp / name


def folder(name: str) -> Prepare:
    def prepare(tmp: Path) -> Path:
        (tmp / name).mkdir()
        return tmp / name

    return prepare


def table(*lines: str, header: str = "arch,dataset,test_accuracy") -> Prepare:
    """A CSV file in which `A` stands for an architecture."""
    return text("table.csv", "\n".join([header, *lines, ""]).replace("A,", f"{CONVOLUTION},"))


def picture(side: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def class_folders(
    *sides: int, images: int = 4, change: Callable[[bytes], bytes] = lambda content: content
) -> Callable[[Path], Path]:
    """A folder of class folders, each with images of one of the `sides`."""

    def prepare(tmp: Path) -> Path:
        for label, side in enumerate(sides):
            for number in range(images):
                file = tmp / "images" / f"class{label}" / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(change(picture(side, 10 * label + number)))
        return tmp / "images"

    return prepare


def parquet(change: Callable[[bytes], bytes], *, column: str = "image") -> Prepare:
    def prepare(tmp: Path) -> Path:
        cells = [{"bytes": picture(8, number), "path": None} for number in range(8)]
        file = tmp / "images.parquet"
        pq.write_table(pa.table({column: cells, "label": [0, 1] * 4}), file)
        file.write_bytes(change(file.read_bytes()))
        return file

    return prepare


class _Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def hostile_batches(tmp: Path) -> Path:
    place = tmp / "cifar-10-batches-py"
    place.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (place / name).write_bytes(pickle.dumps(_Hostile(tmp / "was-run")))
    return place


# --- the table ------------------------------------------------------------------------------------------------------

SIZE = ("--channels", 4, "--cells", 1, "--batch-size", 16)
ON_DIGITS = ("precompute", "nasbench201", "--dataset", "digits", *SIZE)
SAMPLE = (*ON_DIGITS, "--sample", 25)
FEW = ("--sample", 2, "--channels", 4, "--cells", 1, "--batch-size", 4)
ON = ("precompute", "nasbench201", *FEW, "--dataset")
SEARCH = ("search", "nasbench201", "--queries", 2)
EVALUATE = ("evaluate", CONVOLUTION, "--channels", 2, "--cells", 1, "--epochs", 1, "--dataset", "digits")
READERS = {"info": ("info",), "sql": ("sql", "FROM pool"), "correlate": ("correlate",), "search": SEARCH}
IMPORT = ("import", "csv")
NEEDS_MULTIPLE = "multiple of 4, got 6 pixels"

CASES = [
    # usage
    case("an unknown command", 2, "unknown command 'serch' ... did you mean 'search'?", "serch", process=True),
    case("an unknown option", 2, "no option --queriez; did you mean '--queries'", *SEARCH, "--queriez", 3),
    case("a word for a number", 2, "--batch-size takes a whole number, not 'many'", *SAMPLE, "--batch-size", "many"),
    case("an unknown choice", 2, "--ntk 'mean' ... summed", *SAMPLE, "--ntk", "mean"),
    case("precompute without a space", 2, "`hnas precompute` needs SPACE", "precompute"),
    case("precompute without a data set", 2, "needs --dataset ... digits", "precompute", "nasbench201"),
    case("search without a space", 2, "needs a SPACE ... --resume", "search"),
    case("evaluate without a data set", 2, "needs --dataset ... digits", "evaluate", CONVOLUTION),
    # architectures and spaces
    case("a malformed architecture", 2, "'conv' ... 3 ... |none~0|+", "evaluate", "conv", *EVALUATE[2:], process=True),
    case("an unknown operation", 2, "'nope' ... nor_conv_3x3", "evaluate", UNKNOWN, *EVALUATE[2:]),
    case("an empty architecture", 2, "'' ... 3", "evaluate", "", *EVALUATE[2:]),
    case("too few inputs", 2, "node 2 ... it needs 2", "evaluate", "|none~0|+|none~0|+|none~0|", *EVALUATE[2:]),
    case("a wrong source", 2, "input 1 of node 2 ... ~1",
         "evaluate", CONVOLUTION.replace("nor_conv_1x1~1", "nor_conv_1x1~2"), *EVALUATE[2:]),
    case("a malformed architecture in a list", 2, "list.txt, line 3: ... 'nope' ... nor_conv_3x3",
         *ON_DIGITS, "--architectures", text("list.txt", f"# mine\n{CONVOLUTION}\n{UNKNOWN}\n")),
    case("an empty list", 2, "list.txt is empty ... one architecture per line",
         *ON_DIGITS, "--architectures", text("list.txt", "#\n")),
    case("a binary list", 2, "list.txt ... UTF-8", *ON_DIGITS, "--architectures", text("list.txt", b"\xff\0")),
    case("a list that does not exist", 2, "list.txt ... No such file", *ON_DIGITS, "--architectures", path("list.txt")),
    case("a list that is a folder", 2, "list.txt ... directory", *ON_DIGITS, "--architectures", folder("list.txt")),
    case("an unknown space", 2, "the search space 'nope' is unknown ... nasbench201",
         "precompute", "nope", *ON_DIGITS[2:], "--sample", 2, process=True),
    case("an unknown space to search", 2, "the search space 'nope' is unknown ... nasbench201", "search", "nope"),
    case("an unknown space to evaluate in", 2, "the search space 'nope' is unknown", *EVALUATE, "--space", "nope"),
    case("an unknown space to correlate", 2, "no run ... space nope", "correlate", "--space", "nope"),
    # names
    case("an unknown metric", 2, "the pool has no column 'nope'; it has ... trace", *SEARCH, "--metric", "nope"),
    case("a metric that calls a function", 2, "calls 'getenv'", *SEARCH, "--metric", "getenv('HOME')"),
    case("an unknown search method", 2, "the search method 'nope' is unknown", *SEARCH, "--method", "nope"),
    case("a method without the argument it needs", 2, "top", *SEARCH, "--method", "top"),
    case("a budget of zero", 2, "budget must be a positive number of seconds", *SEARCH, "--budget", "0"),
    case("a condition that is not SQL", 2, "not an SQL expression", *SEARCH, "--where", "params <"),
    case("a condition on an unknown column", 2, "no column 'nope'", *SEARCH, "--where", "nope < 1"),
    case("a condition that leaves nothing", 2, "needs at least 2", *SEARCH, "--where", "params < 1"),
    case("a dry run in JSON", 2, "--dry-run prints text", *SEARCH, "--dry-run", "--json"),
    *(case(f"a dry run of compare in {form}", 2, f"--dry-run prints text ... --format {form}",
           "compare", "nasbench201", "--methods", "random", "--dry-run", "--format", form) for form in ("csv", "json")),
    case("a model and a store", 2, "--store has no effect on the model best", "info", "best"),
    case("a signal that no architecture has", 2, "after 13 epochs", *SEARCH, "--epochs", "13"),
    case("an option without a value", 2, "must be a new NAME=VALUE", *SEARCH, "--option", "draws"),
    case("training options with a table", 2, "trains nothing ... leave out --recipe-option, --lr, --threads",
         *SEARCH, "--lr", "0.1", "--threads", 2, "--recipe-option", "cutout=3"),
    case("training options to compare on a table", 2, "trains nothing ... leave out --image-size ... --oracle train",
         "compare", "nasbench201", "--methods", "hnas", "--image-size", 8),
    case("training options with a saved search", 2, "continues the search as it was begun: leave out --batch-size",
         "search", "--resume", "0123456789", "--batch-size", 8),
    case("a recipe without held-out images", 2, "darts holds out no images ... valid=0.2",
         *SEARCH, "--oracle", "train", "--recipe", "darts", "--dry-run"),
    case("an unknown accuracy", 2, "'train' is unknown ... valid_accuracy", *SEARCH, "--accuracy", "train"),
    case("an unknown column to correlate with", 2, "'nope' ... test_accuracy", "correlate", "--with", "nope"),
    case("an unknown data set to search on", 2, "no run ... dataset nope", *SEARCH, "--dataset", "nope"),
    case("an unknown data set to correlate", 2, "no run ... dataset nope", "correlate", "--dataset", "nope"),
    # data sets
    case("an unknown data set", 2, "no data set at mnist ... digits", *ON, "mnist", store=absent, process=True),
    case("an unknown data set to train on", 2, "no data set at mnist ... digits", *EVALUATE, "--dataset", "mnist"),
    case("a missing data set", 2, "cifar100 was not found ... hnas fetch", *ON, "cifar100", store=absent),
    case("a path that does not exist", 2, "no data set at ... /gone", *ON, path("gone"), store=absent),
    case("an empty folder", 2, "images holds no data set ... train-*.parquet", *ON, folder("images"), store=absent),
    case("a text file", 2, "notes.txt ... .parquet", *ON, text("notes.txt", "hello"), store=absent),
    case("one class only", 2, "images ... one class only (class0)", *ON, class_folders(8), store=absent),
    case("mixed sizes", 2, "12x12 ... 8x8 ... --image-size", *ON, class_folders(8, 12), store=absent),
    case("a truncated image", 1, "class0/0.png ... truncated ... complete image",
         *ON, class_folders(8, 8, change=lambda content: content[:-60]), store=absent),
    case("text in an image file", 1, "class0/0.png ... PNG",
         *ON, class_folders(8, 8, change=lambda content: b"hello"), store=absent),
    case("truncated Parquet", 1, "images.parquet ... complete Parquet file", *ON, parquet(half), store=absent),
    case("Parquet with damaged pages", 1, "images.parquet ... complete Parquet file",
         *ON, parquet(lambda content: content[:200] + b"\xff" * 100 + content[300:]), store=absent),
    case("Parquet without images", 2, "images.parquet has no image column ... picture",
         *ON, parquet(lambda content: content, column="picture"), store=absent),
    case("hostile pickles", 1, "batches.meta asks for ... mkdir ... refused", *ON, hostile_batches, store=absent),
    case("an image size that the space rejects", 2, NEEDS_MULTIPLE, *ON, class_folders(6, 6), store=absent),
    case("a rejected image size, training", 2, NEEDS_MULTIPLE, *EVALUATE, "--dataset", class_folders(6, 6)),
    case("a rejected image size, dry run", 2, NEEDS_MULTIPLE, *SAMPLE, "--image-size", 6, "--dry-run"),
    case("a class with a single image", 2, "needs at least 2 images ... class class0 has a single image",
         *EVALUATE, "--dataset", class_folders(8, 8, images=1)),
    # sizes
    *(case(f"batch size {size}", 2, f"--batch-size ... 2 ... 4096 ... {size}", *SAMPLE, "--batch-size", size)
      for size in (0, 1, 5000)),
    case("a batch larger than the split", 2, "batch ... digits ... 1500 ... 2000", *SAMPLE, "--batch-size", 2000),
    *(case(f"sample {n}", 2, f"cannot sample {n} of ... 1 to 15625", *ON_DIGITS, "--sample", n)
      for n in (0, -1, 20000)),
    *(case(f"channels {n}", 2, f"channels ... between 1 and 4096, got {n}", *SAMPLE, "--channels", n)
      for n in (0, -1, 100000)),
    *(case(f"cells {n}", 2, f"cells ... between 1 and 4096, got {n}", *SAMPLE, "--cells", n) for n in (0, 100000)),
    case("channels 0, training", 2, "channels ... between 1 and 4096, got 0", *EVALUATE, "--channels", 0),
    case("chunk size 0", 2, "--chunk-size ... 1 ... 0", *SAMPLE, "--chunk-size", 0),
    *(case(f"workers {n}", 2, f"--workers ... 1 and 1024 ... {n}", *SAMPLE, "--workers", n) for n in (0, -1, 100000)),
    *(case(f"image size {n}", 2, f"image size ... 4 and 1024 ... {n}", *SAMPLE, "--image-size", n)
      for n in (3, 100000)),
    case("epochs 0", 2, "epochs ... at least 1 ... 0", *EVALUATE, "--epochs", 0),
    case("batch size 1, training", 2, "batch ... at least 2 ... 1", *EVALUATE, "--batch-size", 1),
    *(case(f"learning rate {lr}", 2, "lr ... above 0", *EVALUATE, "--lr", lr) for lr in ("0", "-1", "nan", "inf")),
    *(case(f"seed {seed}, {name}", 2, f"seed ... between 0 and 2**63 - 1 ... {seed}", *arguments, "--seed", seed)
      for seed in (-1, 2**63)
      for name, arguments in {"precompute": SAMPLE, "evaluate": EVALUATE, "search": SEARCH}.items()),
    *(case(f"t {t}, {name}", 2, f"t of F ... 0 < t <= 8, got {t}", *arguments, "--t", t)
      for t in ("0", "-1", "1000", "nan")
      for name, arguments in (("search", SEARCH), ("correlate", ("correlate",)))),
    *(case(f"queries {n}", 2, f"queries must be ... 1 and 10000, got {n}", *SEARCH, "--queries", n)
      for n in (0, -1, 100000)),
    # contradictions, and things that do not exist
    case("a sample and a list", 2, "--sample ... --architectures", *SAMPLE, "--architectures", text("l", CONVOLUTION)),
    case("workers and a scheduler", 2, "--workers ... --scheduler",
         *SAMPLE, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1", store=absent),
    case("a scheduler that does not answer", 1, "no Dask scheduler answers at tcp://127.0.0.1:1 ... dask scheduler",
         *SAMPLE, "--scheduler", "tcp://127.0.0.1:1", store=absent),
    *(case(f"the scheduler address {address!r}", 2, f"{address!r} is not a valid address ... tcp://127.0.0.1:8786",
           *SAMPLE, "--scheduler", address) for address in ("here, please", "pigeon://a", "")),
    *(case(f"{name}, dry run of {command[0]}", 2, words, *command, *options, "--dry-run")
      for command in (SAMPLE, ("compare", "nasbench201", "--methods", "random"))
      for name, words, options in (
          ("workers -3", "--workers ... 1 and 1024 ... -3", ("--workers", -3)),
          ("workers and a scheduler", "--workers ... --scheduler", ("--workers", 3, "--scheduler", "tcp://127.0.0.1:1")),
          ("a scheduler without a port", "'foo' is not a valid address", ("--scheduler", "foo")),
          ("a certificate without a scheduler", "--tls-ca requires --scheduler", ("--tls-ca", "ca.pem")),
      )),
    case("a scheduler without a port, dry run of search", 2, "'foo' is not a valid address",
         *SEARCH, "--oracle", "train", "--epochs", 1, "--scheduler", "foo", "--dry-run"),
    case("an unknown run", 2, "no run ... feed", "correlate", "--run", "feed"),
    case("an unknown run to search", 2, "no run ... feed", *SEARCH, "--run", "feed"),
    case("an ambiguous run", 2, "matches 2 runs ... name one", "correlate", "--run", run_prefix, store=two_runs),
    case("an exponent that the method lacks", 2, "--t 0.5 has no effect on the method rea, only on hnas and halving",
         "search", "nasbench201", "--method", "rea", "--t", 0.5),
    case("an acquisition that the method lacks", 2, "--acquisition ucb has no effect on the method halving",
         "search", "nasbench201", "--method", "halving", "--acquisition", "ucb"),
    case("an unknown search", 2, "no search 'feed' ... FROM searches", "search", "--resume", "feed", process=True),
    case("a search outside the store", 2, "no search '../runs'", "search", "--resume", "../runs"),
    case("search without accuracies", 2, "accuracy ... hnas import", *SEARCH, store=without("imports")),
    case("search by a missing accuracy", 2, "valid_accuracy ... hnas import", *SEARCH, "--accuracy",
         "valid_accuracy", store=without("imports")),
    *(case(f"{name} on {what} store", 2, "no ... hnas precompute", *READERS[name], store=store)
      for name in ("correlate", "search") for what, store in (("an empty", empty), ("no", absent))),
    # stores
    *(case(f"{name} on a store that is a file", 2, "store' is a file ... folder", *arguments, store=a_file)
      for name, arguments in (*READERS.items(), ("precompute", SAMPLE), ("import", (*IMPORT, table("A,digits,90"))))),
    case("precompute below a file", 1, "cannot be written ... another --store", *SAMPLE, store=below_a_file),
    case("import below a file", 1, "cannot be written ... another --store",
         *IMPORT, table("A,digits,90"), store=below_a_file),
    *(case(f"an unknown store protocol, {name}", 2, "pigeon ... fsspec URL", *arguments, "--store", "pigeon://here/store")
      for name, arguments in (("info", ("info",)), ("precompute", SAMPLE))),
    *(case(f"{name} on a store of version 99", 1, "version 99 ... reads version 1", *arguments,
           store=damaged("store.json", b'{"version": 99}'))
      for name, arguments in (*READERS.items(), ("precompute", SAMPLE), ("import", (*IMPORT, table("A,digits,90"))))),
    case("truncated store.json", 1, "store.json is not valid JSON",
         "info", store=damaged("store.json", half), process=True),
    case("store.json that is a list", 1, "store.json ... JSON object", "info", store=damaged("store.json", b"[1]")),
    case("no store.json", 1, "store.json ... damaged", "info", store=without("store.json")),
    *(case(f"{name} with {what} run.json", 1, "run.json", *arguments, store=damaged("runs/*/run.json", change))
      for what, change in (("a truncated", half), ("an empty", b""), ("a list as", b"[]"))
      for name, arguments in (*READERS.items(), ("precompute", SAMPLE))),
    case("a run.json without settings", 1, "run.json ... settings",
         "correlate", store=damaged("runs/*/run.json", b'{"id": "feed"}')),
    case("a truncated search.json", 1, "search.json", "info", store=damaged("searches/*/search.json", half)),
    case("a truncated search to resume", 1, "search.json is not valid JSON",
         "search", "--resume", search_id, store=damaged("searches/*/search.json", half)),
    case("a search with unknown settings", 1, "search.json ... settings",
         "search", "--resume", search_id, store=damaged("searches/*/search.json", b'{"settings": {"a": 1}}')),
    *(case(f"{name} with truncated metrics", 1, "metrics/ ... .parquet", *arguments,
           store=damaged("runs/*/metrics/*.parquet", half))
      for name, arguments in (*READERS.items(), ("precompute", SAMPLE))),
    *(case(f"{name} with damaged metrics", 1, "cannot be read", *arguments,
           store=damaged("runs/*/metrics/*.parquet", overwritten))
      for name, arguments in (("correlate", ("correlate",)), ("search", SEARCH), ("precompute", SAMPLE))),
    case("sql with damaged metrics", 1, "", "sql", "FROM pool", store=damaged("runs/*/metrics/*.parquet", overwritten)),
    case("info with damaged accuracies", 1, "cannot be read",
         "info", store=damaged("accuracies/*/*.parquet", overwritten)),
    case("precompute with truncated requests", 1, "requests/ ... .parquet",
         *SAMPLE, store=damaged("runs/*/requests/*.parquet", half)),
    # SQL
    case("a syntax error", 2, 'syntax error at or near "SELEC" ... line 1, column 1', "sql", "SELEC 1", process=True),
    case("an unknown view", 2, "pools ... the views are ... pool", "sql", "FROM pools"),
    case("an unknown column", 2, '"kapa" ... line 1, column 8 ... "kappa"', "sql", "SELECT kapa FROM pool"),
    case("an empty query", 2, "empty", "sql", " "),
    case("a query that fails", 1, "boom", "sql", "SELECT error('boom') FROM pool"),
    case("output into a missing folder", 2, "gone ... does not exist",
         "sql", "SELECT 1", "--output", path("gone/x.csv")),
    case("output to a folder", 2, "is a folder", "sql", "SELECT 1", "--output", folder("x.csv")),
    case("output without a query", 2, "--output needs a QUERY", "sql", "--output", path("x.csv")),
    case("output, no result", 2, "no statement ... x.csv", "sql", "CREATE TABLE t (a INT)", "--output", path("x.csv")),
    case("a shell with Parquet output", 2, "'parquet' ... table, csv, json", "sql", "--format", "parquet"),
    # figures
    case("a figure of unknown kind", 2, "x.gif ... .png", "correlate", "--plot", path("x.gif")),
    case("a figure in a missing folder", 2, "x.png ... does not exist", "correlate", "--plot", path("gone/x.png")),
    # CSV
    case("an unknown importer", 2, "the importer 'nope' is unknown ... csv", "import", "nope", table("A,digits,90")),
    case("a CSV that does not exist", 2, "table.csv ... No such file", *IMPORT, path("table.csv"), process=True),
    case("a CSV that is a folder", 2, "table.csv ... directory", *IMPORT, folder("table.csv")),
    case("an empty CSV", 2, "table.csv is empty ... arch,dataset", *IMPORT, text("table.csv", "")),
    case("a CSV with a header only", 2, "table.csv has a header but no rows", *IMPORT, table()),
    case("no column arch", 2, "no column arch", *IMPORT, table("digits,90", header="dataset,test_accuracy")),
    case("no column dataset", 2, "no column dataset", *IMPORT, table("A,90", header="arch,test_accuracy")),
    case("an unknown given column", 2, "'size' ... params", "correlate", "--given", "params,size"),
    case("the target given", 2, "--given params ... other columns", "correlate", "--with", "params", "--given",
         "params"),
    case("accuracies of an unknown source to correlate", 2, "nobody", "correlate", "--source", "nobody"),
    case("a column with an invalid architecture", 2, "table.csv, line 2: ... 'conv'", "import", "columns",
         table("conv,1", header="arch,latency")),
    case("a column name that is taken", 2, "a column trace ... another name", "import", "columns",
         table("A,1", header="arch,trace")),
    case("no accuracy column", 2, "no column ... test_accuracy", *IMPORT, table("A,digits", header="arch,dataset")),
    case("an unknown column", 2, "'colour' ... the columns are",
         *IMPORT, table("A,digits,90,red", header="arch,dataset,test_accuracy,colour")),
    case("a column twice", 2, "twice", *IMPORT, table("A,digits,90,9", header="arch,dataset,test_accuracy,dataset")),
    case("too few fields", 2, "table.csv, line 3 has 2 fields ... 3", *IMPORT, table("A,digits,90", "A,digits")),
    case("too many fields", 2, "table.csv, line 2 has 4 fields ... 3", *IMPORT, table("A,digits,90,1")),
    case("a word for an accuracy", 2, "line 2: test_accuracy is 'high'", *IMPORT, table("A,digits,high")),
    *(case(f"accuracy {value}", 2, f"line 2: test_accuracy is {value} ... 0 and 100",
           *IMPORT, table(f"A,digits,{value}"))
      for value in ("120", "-1", "nan", "inf")),
    case("accuracies as fractions", 2, "fractions ... percent, 0 to 100",
         *IMPORT, table("A,digits,0.9", "A,cifar10,0.8")),
    case("no accuracy in a row", 2, "line 2 has no accuracy", *IMPORT, table("A,digits,")),
    case("no data set in a row", 2, "line 2 names no dataset", *IMPORT, table("A, ,90")),
    *(case(f"{name} {value}", 2, f"line 2: {name} is ... {value}",
           *IMPORT, table(f"A,digits,90,{value}", header=f"arch,dataset,test_accuracy,{name}"))
      for name, value in (("epochs", "0"), ("epochs", "1.5"), ("epochs", "99999999999"), ("seed", "-1"),
                          ("seed", "x"), ("seconds", "-1"), ("seconds", "inf"))),
    case("duplicate rows", 2, "line 4 repeats line 2", *IMPORT, table("A,digits,90", "A,cifar10,80", "A,digits,91")),
    case("a malformed architecture in a CSV", 2, "table.csv, line 3: ... 'nope' ... nor_conv_3x3",
         *IMPORT, table("A,digits,90", f"{UNKNOWN},digits,90")),
    case("a malformed architecture first", 2, "table.csv, line 2: ... 'conv'", *IMPORT, table("conv,digits,90")),
    case("an unknown space in a CSV", 2, "table.csv, line 2: ... 'nope' ... nasbench201",
         *IMPORT, table("A,digits,90,nope", header="arch,dataset,test_accuracy,space")),
    case("a CSV in Latin-1", 2, "table.csv is not UTF-8 text",
         *IMPORT, text("table.csv", "arch,größe\n".encode("latin1"))),
    case("a CSV in UTF-16", 2, "table.csv is not UTF-8 text", *IMPORT, text("table.csv", "arch\n".encode("utf-16"))),
    case("an open quote", 2, "table.csv is not valid CSV", *IMPORT, table('A,"digits,90')),
    case("an invalid CSV without a store", 2, "line 2", *IMPORT, table("A,digits,120"), store=absent),
    # devices
    pytest.param(
        case("CUDA without a CUDA device", 1, "device cuda ... device cpu",
             *SAMPLE, "--device", "cuda", store=absent),
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device"),
    ),
]  # fmt: skip


def _cases() -> Iterator[Any]:
    for entry in CASES:
        if isinstance(entry, Case):
            yield pytest.param(entry, id=entry.name)
        else:
            yield pytest.param(*entry.values, marks=entry.marks, id=entry.values[0].name)


def snapshot(place: Path) -> dict[str, bytes] | None:
    """The content of every file below `place` except locks, which are empty."""
    if not place.is_dir():
        return None
    return {str(file): file.read_bytes() for file in place.rglob("*") if file.is_file() and file.name != ".lock"}


def check_error(done: Outcome, status: int, *words: str) -> None:
    """Check the status, that standard output is empty, and that standard error ends with one sentence."""
    assert "Traceback" not in done.err
    assert done.out == ""
    assert done.status == status, done.err
    assert done.err.endswith("\n")
    assert done.last.startswith("hnas: ")
    assert "did not foresee" not in done.last
    assert not re.search(r"[.!?][;:]? +[A-Z]|\.;", done.last), f"more than one sentence: {done.last}"
    assert len(done.last) < 1000
    rest = done.last
    for word in words:
        assert word in rest, f"{word!r} is missing in: {done.last}"
        rest = rest[rest.index(word) + len(word) :]


@pytest.mark.parametrize("case", _cases())
def test_bad_input_gives_one_sentence_and_changes_nothing(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HNAS_DATA", raising=False)
    monkeypatch.setenv("HNAS_STORE", str(tmp_path / "no-store"))
    place = case.store(tmp_path)
    assert isinstance(place, Path)
    # Functions run now, because some of them read the store.
    arguments = [argument(tmp_path) if callable(argument) else argument for argument in case.arguments]
    if arguments[0] not in ("serch", "evaluate") and "--store" not in arguments:
        arguments += ["--store", place]
    before = snapshot(place)
    listed = set(tmp_path.iterdir())
    done = (hnas_process if case.process else hnas)(*arguments)
    check_error(done, case.status, *case.words)
    assert snapshot(place) == before
    assert set(tmp_path.iterdir()) == listed


# --- cases that do not fit the table --------------------------------------------------------------------------------


def test_a_data_set_without_a_test_split_is_accepted(tmp_path: Path) -> None:
    images = class_folders(8, 8, images=5)(tmp_path)
    done = hnas(*EVALUATE[:-1], images, "--json", "--quiet")
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["test_accuracy"] is None
    assert 0 <= found["valid_accuracy"] <= 100


def test_parquet_is_not_written_to_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as terminal:
        done = subprocess.run(
            [sys.executable, "-m", "hnas.cli", "sql", "SELECT 1", "--format", "parquet", "--store", tmp_path / "store"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=follower,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(follower)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):  # the other end closed without writing
            terminal.read(1)
    check_error(Outcome(done.returncode, "", done.stderr), 2, "Parquet is binary", "--output")


def test_a_changed_search_is_not_resumed(tmp_path: Path) -> None:
    place = filled(tmp_path)
    name = search_id(tmp_path)
    file = place / "searches" / name / "search.json"
    content = json.loads(file.read_text())
    content["settings"]["metric"] = "snip_inner"
    file.write_text(json.dumps(content))
    before = snapshot(place)
    done = hnas("search", "--resume", name, "--store", place)
    check_error(done, 1, "search.json was damaged after it was written", "restore it")
    del content["checksum"]  # as in files of an older version
    file.write_text(json.dumps(content))
    before = snapshot(place)
    done = hnas("search", "--resume", name, "--store", place)
    check_error(done, 1, "query 1 of the saved search", "start a new search")
    assert snapshot(place) == before


def test_a_damaged_batch_is_reported(tmp_path: Path) -> None:
    place = damaged("runs/*/batch.npz", half)(tmp_path)
    done = hnas_process(*SAMPLE, "--workers", 1, "--quiet", "--store", place)
    check_error(done, 1, "batch.npz")


# --- full and read-only disks ---------------------------------------------------------------------------------------


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`mount(options)` mounts a tmpfs, or remounts it with other options, and returns its path."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def _mount(options: str) -> Path:
        nonlocal mounted
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root may mount the small tmpfs of this test")
        if mounted:
            options = f"remount,{options}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
        mounted = True
        return place

    yield _mount
    if mounted:
        subprocess.run(["umount", place], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 (any other error is a bug in the test)


def test_a_full_disk_is_reported_and_changes_nothing(mount: Callable[[str], Path], tmp_path: Path) -> None:
    disk = mount("size=1m")
    place = Path(shutil.copytree(TEMPLATE[0], disk / "store"))
    (tmp_path / "made-up.csv").write_text(accuracies().replace(".5\n", ".75\n"))
    fill(disk)
    before = snapshot(disk)
    full = ("No space left on device", "free some space")
    for arguments in (
        ("import", "csv", tmp_path / "made-up.csv"),
        SAMPLE,
        (*SAMPLE, "--seed", 1),
        (*SEARCH, "--quiet"),
    ):
        done = hnas(*arguments, "--store", place)
        check_error(done, 1, *full)
        assert snapshot(disk) == before
    done = hnas("sql", "FROM range(100000)", "--output", disk / "x.csv", "--store", place)
    check_error(done, 1, "x.csv", "No space left on device")
    assert snapshot(disk) == before
    assert hnas("info", "--store", place).status == 0


def test_a_new_store_on_a_full_disk_holds_no_run(mount: Callable[[str], Path], tmp_path: Path) -> None:
    disk = mount("size=12k")
    check_error(hnas(*SAMPLE, "--store", disk / "store"), 1, "No space left on device", "free some space")
    found = json.loads(hnas("info", "--json", "--store", disk / "store").out)
    assert sum(thing["bytes"] for thing in found.pop("sizes")) == 0
    assert not any(found.values())


@pytest.fixture
def read_only(mount: Callable[[str], Path], tmp_path: Path) -> Iterator[Path]:
    """A read-only folder that contains a store."""
    if os.geteuid() == 0:  # root ignores permissions
        place = mount("size=1m")
        shutil.copytree(TEMPLATE[0], place / "store")
        yield mount("ro")
        return
    place = tmp_path / "closed"
    shutil.copytree(TEMPLATE[0], place / "store")
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    yield place
    for path in folders:
        path.chmod(0o755)


def test_a_read_only_store_can_be_read(read_only: Path, tmp_path: Path) -> None:
    place = read_only / "store"
    (tmp_path / "made-up.csv").write_text(accuracies().replace(".5\n", ".75\n"))
    before = snapshot(read_only)
    for arguments in (
        ("import", "csv", tmp_path / "made-up.csv", "--store", place),
        ("import", "csv", tmp_path / "made-up.csv", "--store", read_only / "new"),
        (*SAMPLE, "--store", place),
        (*SAMPLE, "--store", read_only / "new"),
        (*SEARCH, "--quiet", "--store", place),
    ):
        check_error(hnas(*arguments), 1, "cannot be written", "use another --store")
    done = hnas("sql", "SELECT 1", "--output", read_only / "x.csv", "--store", place)
    check_error(done, 1, "x.csv")
    assert snapshot(read_only) == before
    assert hnas("info", "--store", place).status == 0
    assert hnas("sql", "FROM pool", "--store", place).status == 0
