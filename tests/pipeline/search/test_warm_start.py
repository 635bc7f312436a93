"""`--warm-start`: performances from the store or a file, kept with the search so that it resumes without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hnas.pipeline.catalog.views import connect
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.stores import make_store

SEARCH = ("search", "nasbench201", "--method", "rea", "--queries", 6, "--option", "population=3", "--json")
COMPARE = ("compare", "nasbench201", "--methods", "rea,local-search", "--queries", 3, "--seeds", 2, "--workers", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run on digits with guiding accuracies, and reversed ones on another data set."""
    store = make_store(tmp_path_factory.mktemp("warm"), architectures=20)
    rows = connect(store).execute("SELECT arch, valid_accuracy FROM mean_accuracies").fetchall()
    lines = [f"{arch},cifar100,{epochs},{(100 - accuracy) / 2}" for arch, accuracy in rows for epochs in (4, 12)]
    file = Path(store.root).parent / "other.csv"
    file.write_text("\n".join(["arch,dataset,epochs,valid_accuracy", *lines]) + "\n")
    assert hnas("import", "csv", file, "--store", store.root, "--quiet").status == 0
    return store


def archs(out: str) -> list[str]:
    return [query["arch"] for query in json.loads(out)["queries"]]


def worst(store: Store) -> list[str]:
    query = "SELECT arch FROM accuracies WHERE dataset = 'digits' ORDER BY valid_accuracy LIMIT 3"
    return [arch for (arch,) in connect(store).execute(query).fetchall()]


def test_a_warm_start_survives_the_removal_of_its_source(store: Store) -> None:
    place = ("--store", store.root)
    done = hnas(*SEARCH, "--warm-start", "other:cifar100:12", *place)
    assert "warm start: 20 architectures known by validation accuracy after 12 epochs on cifar100 (other)" in done.err
    assert archs(done.out)[:3] == worst(store)
    found = json.loads(done.out)
    assert found["best"]["performance"] > 50  # measured by this search, on its own scale
    name = found["search"]
    file = Path(store.root, "searches", name, "queries.parquet")
    store.write_table(store.read_table(None, *file.parts[-3:]).slice(0, 2), *file.parts[-3:])
    assert hnas("rm", "other", "--yes", *place).status == 0
    again = hnas("search", "--resume", name, "--json", *place)
    assert "leave it out" in hnas("search", "--resume", name, "--warm-start", "other.csv", *place).last
    assert "begun with queries" in hnas("search", "--resume", name, "--queries", "999", *place).last
    assert archs(again.out) == archs(done.out)
    assert "warm.parquet" not in hnas("check", *place).out
    warm = file.with_name("warm.parquet")
    content = warm.read_bytes()
    other = Path(store.root, "searches", "warm.parquet")
    store.write_table(store.read_table(None, *warm.parts[-3:]).slice(1), "searches", "warm.parquet")
    for damage in (content[:50], other.read_bytes(), None):
        warm.unlink() if damage is None else warm.write_bytes(damage)
        done = hnas("search", "--resume", name, *place)
        assert (done.status, "warm.parquet" in done.last) == (1, True)
        assert "warm.parquet" in hnas("check", *place).out
    warm.write_bytes(content)
    other.unlink()
    assert hnas("rm", name, "--yes", *place).status == 0
    assert not warm.exists()


def test_a_file_of_performances_works_for_searches_and_comparisons(store: Store, tmp_path: Path) -> None:
    best, *others = worst(store)
    file = tmp_path / "known.csv"
    file.write_text("note,arch,performance\n" + "".join(f"x, {arch},{k}\n" for k, arch in enumerate([*others, best])))
    assert archs(hnas(*SEARCH, "--warm-start", file, "--store", store.root).out)[0] == best
    done = hnas(*COMPARE, "--warm-start", file, "--store", store.root, "--quiet")
    assert done.status == 0, done.err
    query = "SELECT DISTINCT arch FROM queries WHERE query = 1 AND search LIKE '%-_-_'"
    assert connect(store).execute(query).fetchall() == [(best,)]
    cold = hnas(*COMPARE, "--store", store.root, "--quiet")
    assert len(store.folders("comparisons")) == 2, cold.err


@pytest.mark.parametrize(
    ("warm", "words"),
    [
        ("nosuch", "of nosuch on digits; the store has csv"),
        ("csv:cifar100:3", "the store has no accuracies of nasbench201 on cifar100"),
        ("csv:digits:3", "after 3 epochs of csv on digits"),
        ("csv:digits:x", "has the invalid number of epochs 'x'"),
        ("csv:digits:9:9", "give SOURCE, SOURCE:DATASET or SOURCE:DATASET:EPOCHS"),
        ("", "give SOURCE, SOURCE:DATASET or SOURCE:DATASET:EPOCHS"),
        ("gone.csv", "gone.csv cannot be read: No such file"),
        ("/dev/zero.csv", "cannot be read"),
        ("header", "needs arch and performance"),
        ("number", "line 2 has the performance 'nan'"),
        ("arch", "line 2"),
        ("twice", "line 3 repeats an architecture"),
        ("one", "needs two known candidates with different values"),
        ("bytes", "is not valid CSV"),
    ],
)
def test_an_invalid_warm_start_gives_one_sentence(warm: str, words: str, store: Store, tmp_path: Path) -> None:
    arch = worst(store)[0]
    files = {
        "header": b"arch,accuracy\n",
        "number": f"arch,performance\n{arch},nan\n".encode(),
        "arch": b"arch,performance\nno cell,3\n",
        "twice": f"arch,performance\n{arch},3\n{arch},4\n".encode(),
        "one": f"arch,performance\n{arch},3\n".encode(),
        "bytes": b"arch,performance\n\xff\xfe\n",
    }
    if warm in files:
        (tmp_path / "x.csv").write_bytes(files[warm])
        warm = str(tmp_path / "x.csv")
    done = hnas(*SEARCH, "--warm-start", warm, "--store", store.root)
    assert (done.status, done.out) == (2, ""), done
    assert words in done.last
