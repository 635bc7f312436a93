"""Searches on a supernet from the command line: images, stored state, and cost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hnas.pipeline.search import supernets
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from hnas.spaces.nasbench201.space import NASBench201
from hnas.supernets.darts import DARTS
from hnas.supernets.methods import DARTSMethod
from hnas.supernets.training import SupernetRecipe, WeightSharing
from tests.support.command_line import Outcome, hnas
from tests.support.stores import make_store


@dataclass(frozen=True)
class Small(SupernetRecipe):
    """Seconds on one core."""

    supernet_epochs: int = 2
    channels: int = 2
    cells: int = 1
    batch_size: int = 20
    most_images: int = 40


def small_store(folder: Path) -> Store:
    folder.mkdir()
    return make_store(folder, architectures=12)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with twelve architectures that make up the whole space here, so DARTS ends with one of them."""
    made = small_store(tmp_path / "store")
    archs = made.read_table(["arch"], "accuracies", "csv", "made-up.parquet")["arch"].to_pylist()

    class Ends(DARTS):
        recipe_class = Small

        def standing(self) -> tuple[int, ...]:
            return search_spaces["nasbench201"].encode(archs[int(1e7 * float(self.alphas.sum().detach())) % 12])

    monkeypatch.setattr(NASBench201, "size", 12)
    monkeypatch.setattr(DARTSMethod, "search_class", Ends)
    return made


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the supernet epochs trained from now on."""
    seen: list[int] = []
    plain = WeightSharing._one_epoch

    def counted(self: WeightSharing, progress: Any) -> None:
        seen.append(self.epoch)
        plain(self, progress)

    monkeypatch.setattr(WeightSharing, "_one_epoch", counted)
    return seen


def search(store: Store, *arguments: str, method: str = "darts") -> Outcome:
    given = ["--method", method, "--option", "threads=1", "--store", store.root]
    return hnas("search", "nasbench201", *given, *arguments)


def winner(done: Outcome) -> tuple[str, float]:
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert len(found["queries"]) == 1
    return found["best"]["arch"], found["cost"]


def test_a_supernet_is_stored_and_not_trained_twice(store: Store, epochs: list[int]) -> None:
    first = search(store, "--json")
    assert "darts looks at the images of digits" in first.err
    assert epochs == [0, 1]
    assert winner(search(store, "--json")) == winner(first)
    assert epochs == [0, 1]
    (name,) = store.folders("supernets")
    settings = store.read_json("supernets", name, "supernet.json")["settings"]
    assert (settings["method"], settings["dataset"], settings["recipe"]["channels"]) == ("darts", "digits", 2)
    search(store, "--json", "--seed", "1")
    assert epochs == [0, 1] * 2
    assert len(store.folders("supernets")) == 2
    assert "supernets" not in hnas("check", "--store", store.root).out
    assert hnas("rm", name, "--yes", "--store", store.root).out == f"removed: supernet {name}, nasbench201 on digits\n"
    assert len(store.folders("supernets")) == 1


def test_an_interrupted_supernet_resumes_from_its_last_epoch(
    store: Store, epochs: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed, _ = winner(search(small_store(tmp_path / "other"), "--json"))
    plain: Callable[..., Any] = supernets.StateFile.save

    def interrupted(self: supernets.StateFile, state: dict[str, Any]) -> None:
        plain(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(supernets.StateFile, "save", interrupted)
        done = search(store, "--json")
    assert done.status != 0
    assert "the state of the supernet is stored; run the same command again to resume" in done.err
    epochs.clear()
    assert winner(search(store, "--json"))[0] == undisturbed
    assert epochs == [1]


def test_a_damaged_state_is_reported_and_started_anew(store: Store, epochs: list[int]) -> None:
    winner(search(store, "--json"))
    (name,) = store.folders("supernets")
    Path(store.path("supernets", name, "state.checkpoint")).write_bytes(b"00000000damaged")
    done = hnas("check", "--store", store.root)
    assert done.status == 1
    assert "the same search starts it anew" in done.out + done.err
    winner(search(store, "--json"))
    assert epochs == [0, 1] * 2


def test_training_the_supernets_result_is_not_charged(store: Store) -> None:
    _, cost = winner(search(store, "--json"))
    assert 0 < cost < 100  # a training costs 100 s in the table
    dry = search(store, "--dry-run")
    assert "supernet" in dry.out
    assert "by the time of a step" in dry.out
    compared = hnas(
        "compare", "nasbench201", "--methods", "darts,random", "--seeds", "1", "--queries", "3", "--workers", "1",
        "--format", "csv", "--store", store.root,
    )  # fmt: skip
    assert compared.status == 0, compared.err
    (row,) = (row for row in csv.DictReader(io.StringIO(compared.out)) if row["method"] == "darts")
    assert float(row["queries"]) == 1
    assert 0 < float(row["cost"]) < 100


def test_nothing_is_trained_if_the_table_lacks_a_possible_result(
    store: Store, monkeypatch: pytest.MonkeyPatch, epochs: list[int]
) -> None:
    monkeypatch.setattr(NASBench201, "size", 13)
    done = search(store)
    assert done.status == 2
    assert "may end with any of the 13 architectures of nasbench201" in done.err
    assert epochs == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--option", "supernet_epochs=0"], "supernet_epochs must be a whole number of at least 1, got 0"),
        (["--option", "colour=3"], "the method darts has no option colour"),
        (["--option", "images=x"], "every search has its own images"),
        (["--option", "supernet_epoch=3"], "it has supernet_epochs, channels, cells"),
        (["--metric", "trace"], "the method darts takes no argument"),
        (["--where", "params > 5"], "may end with any architecture of nasbench201, also one that violates params > 5"),
        (["--max-params", "1e9"], "may end with any architecture of nasbench201"),
        (["--option", "most_images=2"], "a supernet search needs at least 2 images in each half"),
    ],
    ids=["value", "unknown", "images", "misspelt", "metric", "where", "limit", "few"],
)
def test_invalid_supernet_requests_are_rejected(store: Store, arguments: list[str], sentence: str) -> None:
    done = search(store, *arguments)
    assert done.status == 2
    assert sentence in done.err
    assert not store.exists("supernets")
