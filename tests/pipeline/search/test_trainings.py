"""Stored trainings are not repeated, and interrupted ones resume bit-identically."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from hnas import load
from hnas.errors import HnasError, UsageError
from hnas.optim.evaluations import Query
from hnas.pipeline.catalog.info import store_info
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.images import Split, open_dataset
from hnas.pipeline.io import aside
from hnas.pipeline.search import training as trained
from hnas.pipeline.search.evaluation import evaluate
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.saved import open_search
from hnas.pipeline.search.session import SearchResult, run_search
from hnas.pipeline.search.settings import TrainingSettings, training_settings
from hnas.pipeline.search.training import Trainer
from hnas.pipeline.store.check import check_store
from hnas.pipeline.store.footprint import sizes
from hnas.pipeline.store.removal import find_held, remove
from hnas.pipeline.store.store import Store
from hnas.pipeline.store.trainings import FOLDER, Trainings, trained_sources
from hnas.spaces import search_spaces
from hnas.training import DivergedError
from tests.support.command_line import ARCHS, CONVOLUTION, hnas
from tests.support.contents import snapshot
from tests.support.processes import HNAS, running, wait_until
from tests.support.stores import make_store

pytestmark = pytest.mark.slow

SPACE = search_spaces["nasbench201"]
TRAINING = TrainingSettings(epochs=2, batch_size=256, lr=0.1, threads=1, images="digits", channels=2, cells=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, architectures=12, accuracies=False)


@pytest.fixture(scope="module")
def looked_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A store with a search of three queries of a table, and its name."""
    store = make_store(tmp_path_factory.mktemp("looked-up"), architectures=12)
    connection = connect(store)
    result = run_search(store, connection, new_search(connection, space="nasbench201", dataset="digits", queries=3))
    return store, result.search


@pytest.fixture
def trained_epochs() -> Iterator[list[int]]:
    """Records the epochs of each training actually made."""
    epochs: list[int] = []
    real = trained.train

    def counted(*arguments, recipe, **options):
        epochs.append(recipe.epochs)
        return real(*arguments, recipe=recipe, **options)

    with mock.patch.object(trained, "train", counted):
        yield epochs


def searched(
    store: Store,
    training: TrainingSettings = TRAINING,
    save: str | None = None,
    on_query: Callable[[Query], None] = lambda query: None,
    **options,
) -> SearchResult:
    connection = connect(store)
    started = new_search(connection, space="nasbench201", dataset="digits", training=training, **options)
    return run_search(store, connection, started, save=save, on_query=on_query)


def trainer(store: Store, training: TrainingSettings = TRAINING, **options) -> Trainer:
    return Trainer(SPACE, training, channels=2, cells=1, store=store, **options)


def test_repeating_a_search_reuses_stored_trainings(store: Store, trained_epochs: list[int]):
    first = searched(store, queries=3)
    assert trained_epochs == [2, 2, 2]
    again = searched(store, queries=4)
    assert trained_epochs == [2, 2, 2, 2]
    assert [(q.arch, q.performance, q.cost) for q in again.queries[:3]] == [
        (q.arch, q.performance, q.cost) for q in first.queries
    ]
    assert first.test == {"digits": evaluate(first.best.arch, TRAINING, store=store).test_accuracy}
    assert trained_epochs == [2, 2, 2, 2]
    connection = connect(store)
    (source,) = trained_sources(store)
    rows = connection.sql("SELECT source, epochs, seed, count(*) FROM accuracies GROUP BY ALL").fetchall()
    assert rows == [(source, 2, 0, 4)]
    curves = connection.sql("SELECT epoch, lr, min(loss) > 0, min(seconds) > 0 FROM curves GROUP BY ALL").fetchall()
    assert sorted(curves) == [(1, 0.1, True, True), (2, 0.05, True, True)]
    assert [row["rows"] for row in store_info(connection)["accuracies"]] == [4]
    table = new_search(connection, space="nasbench201", dataset="digits")
    assert table.settings.signal is not None
    assert (table.settings.signal.source, table.settings.signal.epochs) == (source, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.05}, {"batch_size": 128}, {"epochs": 3}, {"channels": 3}, {"cells": 2}, {"image_size": 12},
        {"options": {"cutout": 2}}, {"options": {"valid": 0.3}}, {"threads": 2},
    ],
    ids=str,
)  # fmt: skip
def test_another_setting_is_another_training(store: Store, trained_epochs: list[int], change: dict):
    first = trainer(store).train(CONVOLUTION)
    other = trainer(store, replace(TRAINING, **change)).train(CONVOLUTION)
    assert len(trained_epochs) == 2
    assert trainer(store).train(CONVOLUTION) == first
    assert trainer(store, replace(TRAINING, **change)).train(CONVOLUTION) == other
    assert len(trained_epochs) == 2


def test_only_trainings_on_the_same_scale_are_reused(store: Store, trained_epochs: list[int]):
    values = [trainer(store, seed=seed)(CONVOLUTION) for seed in (1, 2)]
    trained_epochs.clear()
    found = trainer(store, replace(TRAINING, threads=2), alike=True)(CONVOLUTION)
    assert found.performance == pytest.approx(sum(value.performance for value in values) / 2)
    assert found.cost == pytest.approx(sum(value.cost for value in values) / 2)
    assert trained_epochs == []
    for other in ({"epochs": 1}, {"lr": 0.05}, {"channels": 3}):
        trainer(store, replace(TRAINING, **other), alike=True)(CONVOLUTION)
    assert trained_epochs == [1, 2, 2]
    trainer(store)(CONVOLUTION)
    assert trained_epochs == [1, 2, 2, 2], "without the table a training from another seed is another training"
    assert searched(store, queries=2, oracle="table,train").settings.oracle == "table,train"


def test_a_diverging_training_counts_as_chance(store: Store, trained_epochs: list[int]):
    wild = replace(TRAINING, lr=1e30)
    said: list[str] = []
    connection = connect(store)
    started = new_search(connection, space="nasbench201", dataset="digits", training=wild, queries=2)
    result = run_search(store, connection, started, notice=said.append)
    assert [query.performance for query in result.queries] == [10.0, 10.0]
    assert len(said) == 2
    assert all("diverged in epoch 1 of 2" in line and "chance, 10.00 %" in line for line in said)
    assert result.test == {}
    assert trained_epochs == [2, 2]
    with pytest.raises(DivergedError, match="diverged in epoch 1 of 2, according to the store"):
        evaluate(result.best.arch, wild, store=store)
    assert trained_epochs == [2, 2]
    rows = connect(store).sql("SELECT valid_accuracy, test_accuracy, seconds > 0 FROM accuracies").fetchall()
    assert rows == [(None, None, True)] * 2


def command(store: Path, *more: str, epochs: int = 6) -> list[str]:
    size = ["--channels", "8", "--cells", "1", "--threads", "1", "--image-size", "16"]
    return [
        str(HNAS), "evaluate", CONVOLUTION, "--dataset", "digits", "--epochs", str(epochs), *size,
        "--store", str(store), "--json", "--quiet", *more,
    ]  # fmt: skip


def bits(text: str) -> dict:
    record = json.loads(text)
    for entry in (record, *record["curve"]):
        del entry["seconds"]
    return record


def checkpoints(store: Path) -> list[Path]:
    return sorted(store.glob(f"{FOLDER}/*/*.checkpoint"))


def test_kills_during_a_training_cost_at_most_an_epoch(tmp_path: Path):
    undisturbed = hnas(*command(tmp_path / "undisturbed")[1:])
    assert undisturbed.status == 0, undisturbed.err
    store, draws = tmp_path / "store", random.Random(17)
    seen: list[tuple[int, int]] = []

    def epochs_done() -> int:
        found = [place.stat() for place in checkpoints(store)]
        return found[0].st_mtime_ns if found else 0

    for kill in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        before = epochs_done()
        with running(*command(store)) as process:
            wait_until(lambda before=before, process=process: epochs_done() != before or process.poll() is not None)
            time.sleep(draws.random() * 0.2)
            process.send_signal(kill)
            process.wait(timeout=60)
        seen.append((before, epochs_done()))
        if not checkpoints(store):
            break
    assert seen[0][0] == 0
    assert all(after != before for before, after in seen), "an attempt finished no further epoch"
    finished = hnas(*command(store)[1:])
    assert finished.status == 0, finished.err
    assert bits(finished.out) == bits(undisturbed.out)
    assert checkpoints(store) == []
    assert check_store(Store(str(store))).damaged == []


def test_two_concurrent_commands_make_a_training_once(tmp_path: Path):
    with running(*command(tmp_path / "store")) as first, running(*command(tmp_path / "store")) as second:
        outputs = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    # The seconds are equal too, since they were measured only once.
    assert json.loads(outputs[0][0]) == json.loads(outputs[1][0])
    assert len(list((tmp_path / "store" / "accuracies").glob("*/*.parquet"))) == 1


def interrupted_after(store: Store, epochs: int) -> None:
    """Interrupt a training after this many epochs."""

    def progress(_: int) -> Callable[[int, int, float], None]:
        def advance(done: int, total: int, loss: float) -> None:
            if done > total * epochs // TRAINING.epochs:
                raise KeyboardInterrupt

        return advance

    with pytest.raises(KeyboardInterrupt):
        trainer(store, progress=progress).train(CONVOLUTION)


def test_a_damaged_checkpoint_restarts_and_never_runs_code(store: Store):
    expected = trainer(store).train(CONVOLUTION)
    remove(store, find_held(store, trained_sources(store)[0]))
    interrupted_after(store, 1)
    (place,) = checkpoints(Path(store.root))
    content = place.read_bytes()
    place.write_bytes(content[:-100] + b"\0" + content[-99:])
    assert replace(trainer(store).train(CONVOLUTION), seconds=0) == replace(expected, seconds=0)
    assert checkpoints(Path(store.root)) == []


def test_check_and_rm_handle_trainings(tmp_path: Path):
    store = Store(str(tmp_path / "plain"))
    interrupted_after(store, 1)
    (source,) = trained_sources(store)
    report = check_store(store)
    assert not report.damaged
    assert any("is an unfinished training" in remark for remark in report.remarks)
    trainer(store).train(ARCHS[1])
    held = find_held(store, source)
    assert (held.kind, held.described) == ("source", f"source {source}, 1 training made here")
    remove(store, held)
    assert not any(store.names(folder, source) for folder in ("accuracies", "curves", FOLDER))
    trainer(store).train(ARCHS[1])
    (name,) = store.files("accuracies", source)
    place = Path(store.path("accuracies", source, name))
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(HnasError, match="delete it, and the architecture is trained again"):
        trainer(store).train(ARCHS[1])
    assert [finding.path for finding in check_store(store).damaged] == [str(place)]


def test_a_training_whose_curve_is_missing_is_made_again(tmp_path: Path, trained_epochs: list[int]):
    store = Store(str(tmp_path / "plain"))
    trainer(store).train(CONVOLUTION)
    (source,) = trained_sources(store)
    (name,) = store.files("curves", source)
    place = Path(store.path("curves", source, name))
    expected = store.read_table(["epoch", "loss"], "curves", source, name)
    place.unlink()
    (finding,) = check_store(store).damaged
    assert (finding.path, finding.what) == (str(place), "it is missing")
    assert len(trainer(store).train(CONVOLUTION).curve) == 2
    assert trained_epochs == [2, 2]
    assert store.read_table(["epoch", "loss"], "curves", source, name) == expected
    assert check_store(store).damaged == []


def test_a_damaged_checkpoint_is_reported(tmp_path: Path):
    store = Store(str(tmp_path / "plain"))
    interrupted_after(store, 1)
    (place,) = checkpoints(Path(store.root))
    place.write_bytes(place.read_bytes()[:-1])
    assert [finding.path for finding in check_store(store).damaged] == [str(place)]


def test_recipes_and_sizes_from_the_command_line_are_reported(tmp_path: Path):
    small = ("--dataset", "digits", "--channels", "2", "--cells", "1", "--threads", "1", "--store", tmp_path / "store")
    options = ("--recipe-option", "epochs=1", "--recipe-option", "auxiliary=0", "--recipe-option", "drop_path=0")
    done = hnas("evaluate", CONVOLUTION, *small, "--recipe", "darts", *options, "--recipe-option", "cutout=3", "--json")
    assert done.status == 0, done.err
    assert ", recipe darts" in done.err
    assert "1 epoch of 1,500 images in batches of 96" in done.err
    assert json.loads(done.out)["valid_accuracy"] is None
    for option, words in (
        (("--recipe-option", "cutout=3"), "has no drop path"),
        (("--recipe-option", "cutout=16"), "a cutout of 16 pixels leaves nothing of images of 8 x 8"),
        (("--epochs", "2"), "epochs is 2 by its option and 1 by --recipe-option; give it once"),
    ):
        wrong = hnas("evaluate", CONVOLUTION, *small, "--recipe", "darts", "--recipe-option", "epochs=1", *option)
        assert wrong.status == 2
        assert words in wrong.err
    wrong = hnas("evaluate", CONVOLUTION, *small, "--recipe-option", "speed=1")
    assert (wrong.status, wrong.err.startswith("hnas: the field of a recipe 'speed' is unknown; choose from")) == (
        2,
        True,
    )


def test_settings_without_a_recipe_match_earlier_versions():
    plain = training_settings("digits", usual_epochs=12)
    assert plain == TrainingSettings(epochs=12, batch_size=256, lr=0.1, images="digits")
    assert list(plain.as_dict()) == ["epochs", "batch_size", "lr", "threads", "images", "image_size"]
    own = training_settings("digits", recipe="hnas-darts", recipe_option=["cutout=8"], lr=0.2, usual_epochs=12)
    assert (own.epochs, own.batch_size, own.lr, own.options) == (10, 576, 0.2, {"cutout": 8})
    assert TrainingSettings(**own.as_dict()) == own


def rebuilt_accuracy(folder: Path, images: Split) -> float:
    """The accuracy in percent of a saved model after loading."""
    model = load(folder)
    found = model.predict(images.images(np.arange(len(images))).transpose(0, 2, 3, 1))
    return 100 * float(np.mean([model.classes.index(one.label) for one in found] == images.labels))


def test_the_winner_is_retrained_only_if_its_weights_are_gone(store: Store, trained_epochs: list[int], tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    result = searched(store, queries=3, save=str(first))
    assert trained_epochs == [2, 2, 2]
    assert load(first).info.arch == result.best.arch
    assert load(first).info.provenance["search"] == result.search
    assert load(first).info.accuracies["valid_accuracy"] == result.best.performance
    assert rebuilt_accuracy(first, open_dataset("digits").test) == pytest.approx(result.test["digits"])
    again = searched(store, queries=3, save=str(first))
    assert (trained_epochs, again.best.arch) == ([2, 2, 2], result.best.arch)
    searched(store, queries=3, save=str(second))
    assert trained_epochs == [2, 2, 2, 2], "a training other than the winner's was repeated"
    assert (second / "weights.safetensors").read_bytes() == (first / "weights.safetensors").read_bytes()


def test_the_winner_of_a_table_is_trained_once_and_saved(tmp_path: Path, trained_epochs: list[int]):
    store = make_store(tmp_path, architectures=12)
    connection = connect(store)
    started = new_search(connection, space="nasbench201", dataset="digits", queries=3)
    folder = str(tmp_path / "model")
    result = run_search(store, connection, started, save=folder, final=TRAINING)
    assert trained_epochs == [2]
    assert load(folder).info.arch == result.best.arch
    with pytest.raises(UsageError, match="exists and is not an hnas model"):
        run_search(store, connection, started, save=store.root, final=TRAINING)
    with pytest.raises(UsageError, match="say how to train its winner"):
        run_search(store, connection, started, save=folder)


def test_evaluate_saves_its_network_even_if_its_result_is_stored(tmp_path: Path):
    small = ("--dataset", "digits", "--channels", "2", "--cells", "1", "--epochs", "1", "--threads", "1", "--json")
    folders = [tmp_path / "one", tmp_path / "two"]
    outcomes = [
        hnas("evaluate", CONVOLUTION, *small, "--store", tmp_path / "store", "--save", folder) for folder in folders
    ]
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes
    assert outcomes[0].out == outcomes[1].out
    one, two = ((folder / "weights.safetensors").read_bytes() for folder in folders)
    assert one == two
    record = json.loads(outcomes[0].out)
    assert load(folders[1]).info.accuracies["test_accuracy"] == record["test_accuracy"]


def test_a_search_continued_elsewhere_loses_no_query(tmp_path: Path):
    store = make_store(tmp_path, architectures=12)
    connection = connect(store)
    settings = new_search(connection, space="nasbench201", dataset="digits", queries=4)

    def stop(query: Query) -> None:
        if query.query == 2:
            raise KeyboardInterrupt

    with pytest.raises(HnasError, match="interrupted: 2 of 4"):
        run_search(store, connection, settings, on_query=stop)
    (name,) = store.names("searches")
    both = [open_search(connection, store, name) for _ in range(2)]
    whole = run_search(store, connection, both[0])
    with pytest.raises(HnasError, match=f"has continued the search {name} in the meantime; resume it again"):
        run_search(store, connection, both[1])
    assert run_search(store, connection, open_search(connection, store, name)).queries == whole.queries
    for asked, words in (({"queries": 9}, "begun with queries 4, not 9"), ({"space": "darts"}, "begun with space nas")):
        with pytest.raises(UsageError, match=words):
            open_search(connection, store, name, **asked)
    assert open_search(connection, store, name, queries=4, space="nasbench201").name == name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--epochs", 9], "begun with epochs 10, not 9"),
        (["--run", "0123456789"], "begun with run "),
        (["--source", "mine"], "begun with source csv, not 'mine'"),
        (["--accuracy", "test_accuracy"], "begun with accuracy valid_accuracy, not 'test_accuracy'"),
        (["--dataset", "cifar10"], "begun with dataset digits, not 'cifar10'"),
        (["--average"], "begun without average; omit the option to resume"),
        (["--option", "draws=5"], "begun without options; omit the option to resume"),
        (["--oracle", "train"], "resumes with --oracle table"),
    ],
    ids=lambda value: value[0].strip("-") if isinstance(value, list) else "",
)
def test_a_resumed_search_rejects_other_options(looked_up: tuple[Store, str], given, words):
    store, name = looked_up
    before = snapshot(store.root)
    done = hnas("search", "--resume", name, *given, "--store", store.root)
    assert (done.status, done.out) == (2, "")
    assert words in done.last
    assert snapshot(store.root) == before


def test_a_resumed_search_accepts_its_own_options(looked_up: tuple[Store, str]):
    store, name = looked_up
    (run,) = store.names("runs")
    own = ("--run", run[:6], "--accuracy", "valid_accuracy", "--dataset", "digits", "--seed", 0, "--source", "csv")
    assert hnas("search", "--resume", name, *own, "--store", store.root).status == 0


def test_a_resumed_search_rejects_other_trainings(tmp_path: Path):
    store = make_store(tmp_path, architectures=12)
    options = ("--oracle", "train", "--epochs", 1, "--batch-size", 64, "--threads", 1)
    begun = hnas("search", "nasbench201", *options, "--queries", 1, "--method", "random", "--json", "--store", tmp_path)
    resume = ("search", "--resume", json.loads(begun.out)["search"], "--store", tmp_path, "--oracle", "train")
    assert hnas(*resume, *options[2:]).status == 0
    for given, words in (
        (("--epochs", 2), "begun with epochs 1, not 2"),
        (("--lr", 0.5), "begun with lr 0.1, not 0.5"),
        (("--recipe-option", "cutout=4"), "begun without cutout; omit the option to resume"),
    ):
        done = hnas(*resume, *given)
        assert (done.status, words in done.last) == (2, True), done
    assert len(store.names("searches")) == 1


def test_a_running_search_is_locked_and_not_removed(tmp_path: Path):
    store = make_store(tmp_path, architectures=12)
    connection = connect(store)
    tried: list[str] = []

    def meanwhile(query: Query) -> None:
        if query.query > 1:
            return
        (name,) = store.names("searches")
        assert [(row["complete"], row["busy"]) for row in sizes(store) if row["kind"] == "search"] == [("no", "yes")]
        for attempt in (
            lambda: remove(store, find_held(store, name)),
            lambda: run_search(store, connection, open_search(connection, store, name)),
        ):
            with pytest.raises(
                HnasError, match=rf"is using the search {name}; stop it, or wait until it ends"
            ) as error:
                attempt()
            tried.append(str(error.value))

    result = run_search(
        store, connection, new_search(connection, space="nasbench201", dataset="digits", queries=2), on_query=meanwhile
    )
    assert len(tried) == 2
    assert [(row["complete"], row["busy"]) for row in sizes(store) if row["kind"] == "search"] == [("yes", "no")]
    assert not any("searches" in finding.path for finding in check_store(store).damaged)
    remove(store, find_held(store, result.search))
    assert store.names("searches") == []


def test_two_searches_cannot_save_models_in_one_folder(tmp_path: Path):
    (tmp_path / "store").mkdir()
    store = make_store(tmp_path / "store", architectures=12, accuracies=False)
    model = tmp_path / "model"
    errors: list[str] = []

    def meanwhile(query: Query) -> None:
        if query.query == 1:
            with pytest.raises(HnasError, match=r"another search keeps its model in .*model; name another") as no:
                searched(store, queries=1, save=str(model), seed=1)
            errors.append(str(no.value))
            searched(store, queries=1, save=str(tmp_path / "other"), seed=1)

    result = searched(store, queries=2, save=str(model), on_query=meanwhile)
    assert len(errors) == 1
    assert load(model).info.provenance["search"] == result.search
    assert sorted(place.name for place in tmp_path.iterdir()) == ["model", "other", "store"]
    again = searched(store, queries=1, save=str(model), seed=1)  # the folder is free again
    assert load(model).info.provenance["search"] == again.search


class Killed(BaseException):
    """Ends the process immediately."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, bytes]:
    """A search of three queries, and the weights of its winner."""
    place = tmp_path_factory.mktemp("undisturbed")
    result = searched(make_store(place, architectures=12, accuracies=False), queries=3, save=str(place / "model"))
    return result, (place / "model/weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("owner", "step", "call", "trainings"),
    [
        (aside, "_exchange", 1, 4),
        (Trainings, "keep", 2, 4),
        (Store, "write_table", 2, 4),
        (Trainings, "forget_state", 2, 3),
    ],
    ids=["saving the model", "keeping the training", "between its tables", "forgetting its state"],
)
def test_a_search_killed_while_saving_resumes_to_the_same_model(
    undisturbed,
    store: Store,
    trained_epochs: list[int],
    tmp_path: Path,
    owner: Any,
    step: str,
    call: int,
    trainings: int,
):
    real, calls = getattr(owner, step), []

    def killed(*arguments, **options):
        calls.append(step)
        if len(calls) == call:
            raise Killed
        return real(*arguments, **options)

    model = str(tmp_path / "model")
    with mock.patch.object(owner, step, killed), pytest.raises(Killed):
        searched(store, queries=3, save=model)
    if names := store.names("searches"):
        found = run_search(store, connect(store), open_search(connect(store), store, names[0]), save=model)
    else:
        found = searched(store, queries=3, save=model)
    expected, weights = undisturbed
    assert len(trained_epochs) == trainings
    assert [(q.arch, q.performance) for q in found.queries] == [(q.arch, q.performance) for q in expected.queries]
    assert Path(model, "weights.safetensors").read_bytes() == weights
    assert checkpoints(Path(store.root)) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
