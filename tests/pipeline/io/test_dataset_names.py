"""All spellings of a data set are imported, computed, correlated and searched under one name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hnas.errors import UsageError
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.images import open_dataset
from hnas.pipeline.importers import import_accuracies
from hnas.pipeline.io.dataset_names import KNOWN, canonical_dataset
from hnas.pipeline.precompute.plan import make_plan
from hnas.pipeline.search.request import new_search
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store
from tests.support.command_line import hnas
from tests.support.contents import query
from tests.support.runs import SIZE, SPACE, fill
from tests.support.stores import make_store

SPELLINGS = {
    "CIFAR-10": "cifar10", "CIFAR10": "cifar10", "cifar_10": "cifar10", "Cifar 10": "cifar10", " cifar10 ": "cifar10",
    "cifar100": "cifar100", "CIFAR-100": "cifar100", "ImageNet16-120": "imagenet16-120",
    "ImageNet16_120": "imagenet16-120", "imagenet-16-120": "imagenet16-120", "Digits": "digits",
    "CIFAR10-valid": "cifar10-valid", "ImageNet16-120-ori-test": "imagenet16-120-ori-test", "SVHN": "svhn",
    "My-Images": "my-images", "my_images": "my_images", "ImageNet16": "imagenet16", "cifar10x": "cifar10x",
    "Größe": "größe", "it's": "it's", "": "",
}  # fmt: skip


def test_python_and_sql_apply_the_same_rule(tmp_path: Path) -> None:
    connection = connect(Store(str(tmp_path)))
    for name, expected in (SPELLINGS | {known: known for known in KNOWN}).items():
        assert canonical_dataset(name) == expected
        assert canonical_dataset(expected) == expected
        assert connection.execute("SELECT canonical_dataset(?)", [name]).fetchall() == [(expected,)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a run on digits and no accuracies, for tests that add them."""
    folder = tmp_path_factory.mktemp("run") / "store"
    folder.mkdir()
    return make_store(folder, architectures=12, accuracies=False)


def accuracies(store: Store, path: Path, dataset: str) -> Path:
    """Write a table of test accuracies of the run's architectures, as CSV or Parquet by the suffix."""
    archs = [arch for (arch,) in query(store, "SELECT arch FROM requests ORDER BY arch")]
    columns = {"arch": archs, "dataset": [dataset] * len(archs), "test_accuracy": [50.0 + i for i in range(len(archs))]}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("suffix", "spelling"), [("csv", "Digits"), ("parquet", "DIGITS")])
def test_accuracies_are_found_under_any_spelling(run: Store, tmp_path: Path, suffix: str, spelling: str) -> None:
    done = hnas("import", suffix, accuracies(run, tmp_path / f"t.{suffix}", spelling), "--store", run.root)
    assert (done.status, done.err) == (0, "")
    assert query(run, "SELECT DISTINCT dataset FROM accuracies") == [("digits",)]
    for view in ("pool", "mean_pool"):
        assert query(run, f"SELECT count(test_accuracy) FROM {view}") == [(12,)]
    for dataset in ("Digits", "digits", "DIGITS"):
        done = hnas("correlate", "--dataset", dataset, "--format", "json", "--store", run.root)
        assert done.status == 0, done.err
        assert "test_accuracy" in done.out
        done = hnas("search", "nasbench201", "--dataset", dataset, "--queries", 2, "--json", "--store", run.root)
        assert done.status == 0, done.err
        assert json.loads(done.out)["best"]["performance"] > 50


def test_suite_zero_spellings_are_recognised(tmp_path: Path) -> None:
    entries = {"(1, 1, 1, 1, 1, 1)": {"val_accuracy": 90.0}}
    (tmp_path / "a.json").write_text(json.dumps({"nasbench201": {"CIFAR-10": entries}}))
    (tmp_path / "b.json").write_text(json.dumps({"ImageNet16_120": entries}))
    store = Store(str(tmp_path / "store"))
    for name in ("a", "b"):
        import_accuracies(store, "suite-zero", tmp_path / f"{name}.json")
    assert query(store, "SELECT dataset FROM accuracies ORDER BY 1") == [("cifar10",), ("imagenet16-120",)]


def test_data_sets_without_a_run_are_reported_in_one_line(run: Store, tmp_path: Path) -> None:
    path = accuracies(run, tmp_path / "other.csv", "Digit")
    for state in ("imported", "already in the store"):
        done = hnas("import", "csv", path, "--store", run.root)
        assert done.status == 0
        assert done.out.startswith(state)
        assert done.err == (
            "no run of nasbench201 in the store has the data set digit; its runs have digits; did you mean digits?\n"
        )
    done = hnas("import", "csv", accuracies(run, tmp_path / "good.csv", "digits"), "--store", run.root)
    assert (done.status, done.err) == (0, "")
    # Without any runs, the accuracies simply came first.
    done = hnas("import", "csv", path, "--store", tmp_path / "new")
    assert (done.status, done.err) == (0, "")


def test_a_named_data_set_is_opened_by_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_dataset("Digits").name == "digits"
    data, here = tmp_path / "data", tmp_path / "here"
    here.mkdir()
    for kind in ("cat", "dog"):
        for place, colour in ((data / "cifar10", "red"), (here / "CIFAR100", "blue")):
            (place / kind).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(place / kind / "1.png")
    monkeypatch.setenv("HNAS_DATA", str(data))
    monkeypatch.chdir(here)
    assert open_dataset("CIFAR-10").name == open_dataset("cifar_10").name == "cifar10"
    # A file or folder at that path takes precedence.
    assert open_dataset("CIFAR100").train.images([0])[0, :, 0, 0].tolist() == [0, 0, 255]
    with pytest.raises(UsageError, match=r"the data set imagenet16-120 was not found"):
        open_dataset("ImageNet16-120")


def test_a_run_on_a_folder_of_another_spelling_finds_its_accuracies(tmp_path: Path) -> None:
    """The data set's name is part of the run's name, so it keeps its spelling but is the same data set."""
    images = tmp_path / "CIFAR-10"
    for kind, level in (("cat", 0), ("dog", 100)):
        (images / kind).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (8, 8), (level + 9 * i, level, 9 * i)).save(images / kind / f"{i}.png")
    store = Store(str(tmp_path / "store"))
    run = fill(store, make_plan(store, SPACE, open_dataset(str(images)), sample=3, **SIZE))
    arch = query(store, "SELECT min(arch) FROM requests")[0][0]
    row = {"space": "nasbench201", "arch": arch, "dataset": "cifar10", "valid_accuracy": 77.0}
    store.write_table(pa.Table.from_pylist([row], schema=SCHEMAS["accuracies"]), "accuracies", "mine", "a.parquet")
    for view in ("pool", "mean_pool"):
        assert query(store, f"SELECT dataset, valid_accuracy FROM {view} WHERE valid_accuracy = 77") == [
            ("cifar-10", 77.0)
        ]
    connection = connect(Store(store.location))
    assert pick_run(connection, dataset="CIFAR10").name == run
    assert new_search(connection, space="nasbench201").settings.signal.accuracy == "valid_accuracy"
