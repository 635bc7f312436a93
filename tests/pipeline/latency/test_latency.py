"""Latencies of a pool's networks: measured once per class, resumable, and a column like any other."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

from hnas.errors import UsageError
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.images import open_dataset
from hnas.pipeline.io.dataset_names import SIDES
from hnas.pipeline.latency import session
from hnas.pipeline.latency.session import LatencyPool, LatencySession, latency_pool
from hnas.pipeline.latency.timing import WARM_UP, latency_settings, milliseconds
from hnas.pipeline.store.locks import locked
from hnas.pipeline.store.store import Store
from tests.support.command_line import Outcome, hnas
from tests.support.contents import snapshot
from tests.support.processes import HNAS, running, wait_until
from tests.support.stores import make_store

pytestmark = pytest.mark.slow

#: A pass takes about a millisecond.
SIZE = ("--channels", 4, "--cells", 1, "--name", "ms", "--device", "cpu")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("pristine"))


@pytest.fixture(scope="module")
def timed(pristine: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome]:
    """A store with the latencies of its architectures, and the output of measuring them."""
    place = copied(pristine, tmp_path_factory.mktemp("measured"))
    return place, measure(place)


@pytest.fixture
def store(pristine: Store, tmp_path: Path) -> Store:
    return copied(pristine, tmp_path)


@pytest.fixture
def measured(timed: tuple[Store, Outcome], tmp_path: Path) -> Store:
    return copied(timed[0], tmp_path)


def copied(store: Store, folder: Path) -> Store:
    return Store(shutil.copytree(store.root, folder / "store"))


def measure(store: Store, *options: object, repeats: int = 2) -> Outcome:
    return hnas("latency", "nasbench201", *SIZE, "--repeats", repeats, "-q", *options, "--store", store.location)


def column(store: Store) -> dict[str, tuple[str, float]]:
    """Canonical form and latency by architecture."""
    rows = connect(store).execute("SELECT arch, canonical, ms FROM pool WHERE ms IS NOT NULL").fetchall()
    return {arch: (canonical, ms) for arch, canonical, ms in rows}


def pool_of(store: Store, *, seed: int = 0, sample: int | None = None) -> LatencyPool:
    return latency_pool(connect(store), latency_settings(device="cpu"), space="nasbench201", seed=seed, sample=sample)


def test_each_class_is_measured_once_for_all_its_members(timed: tuple[Store, Outcome]) -> None:
    store, done = timed
    assert done.status == 0, done.err
    found = column(store)
    assert len(found) == 60
    classes = {canonical for canonical, _ in found.values()}
    assert len(classes) == len(set(found.values())) < 60
    assert f"60 architectures of nasbench201 on digits, {len(classes)} distinct networks" in done.out
    assert "drift" in done.out
    assert all(ms > 0 for _, ms in found.values())


def test_the_column_works_like_any_other(measured: Store) -> None:
    median = sorted(ms for _, ms in column(measured).values())[30]
    for arguments in (
        ("search", "nasbench201", "--where", f"ms < {median}", "--queries", 2, "-q"),
        ("search", "nasbench201", "--method", "top", "--by", "-ms", "--queries", 2, "-q"),
        ("pareto", "nasbench201", "--minimise", "ms", "--maximise", "test_accuracy"),
        ("correlate", "--with", "ms"),
        ("latency", "nasbench201", *SIZE[:4], "--repeats", 1, "--where", f"ms < {median}", "-q"),
    ):
        done = hnas(*arguments, "--store", measured.location)
        assert done.status == 0, done.err
    assert "latency_ms_" in done.out


def test_a_repeat_measures_only_what_is_missing(store: Store) -> None:
    assert measure(store, "--sample", 10).status == 0
    first = column(store)
    assert len(first) == 10
    before = snapshot(Path(store.root))
    assert "; 0 measured now" in measure(store, "--sample", 10).out
    assert snapshot(Path(store.root)) == before
    assert measure(store).status == 0
    found = column(store)
    assert len(found) == 60
    assert first.items() <= found.items()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_measurement_resumes(store: Store, how: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [*map(str, SIZE), "--repeats", "300", "--store", store.location]
    with running(str(HNAS), "latency", "nasbench201", *options) as process:
        wait_until(lambda: bool(parts(store)), process)
        process.send_signal(how)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    if how is signal.SIGINT:
        assert err.rstrip().rpartition("\n")[2].startswith("hnas: interrupted: ")
        assert err.rstrip().endswith("networks are measured and kept; run the same command again to resume")
    kept = {
        canonical: ms
        for path in parts(store)
        for canonical, ms in zip(*(pq.read_table(path)[name].to_pylist() for name in ("canonical", "ms")), strict=True)
    }
    assert kept
    assert "ms" not in [name for name, *_ in connect(store).execute("DESCRIBE pool").fetchall()]
    monkeypatch.setattr(session, "milliseconds", lambda network, images, _: milliseconds(network, images, 1))
    # A smaller pool in between neither measures again nor loses the values of other networks.
    assert measure(store, "--sample", 3, repeats=300).status == 0
    done = measure(store, repeats=300)
    assert done.status == 0, done.err
    found = dict(column(store).values())
    assert len(column(store)) == 60
    assert kept.items() <= found.items()
    assert not parts(store)


def parts(store: Store) -> list[Path]:
    return [path for path in Path(store.root, "latency").glob("*/*.parquet") if path.exists()]


def test_the_seed_shuffles_the_order_of_networks(store: Store) -> None:
    orders = [list(pool_of(store, seed=seed).order) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) != orders[0]
    assert set(pool_of(store, sample=5).archs) < set(pool_of(store, sample=9).archs)


def test_the_references_are_the_smallest_middle_and_largest(store: Store) -> None:
    pool = pool_of(store)
    params = [pool.space.describe(pool.order[canonical])["params"] for canonical in pool.references]
    every = [pool.space.describe(arch)["params"] for arch in pool.order.values()]
    assert (params[0], params[-1]) == (min(every), max(every))
    assert params == sorted(params)


def test_a_dry_run_writes_nothing(store: Store) -> None:
    before = snapshot(Path(store.root))
    done = measure(store, "--dry-run")
    assert done.status == 0, done.err
    assert "nothing was written" in done.out
    assert snapshot(Path(store.root)) == before


def test_passes_are_timed_after_the_warm_up_without_gradients() -> None:
    seen = []

    class Recorder(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.training, torch.is_inference_mode_enabled()))
            return images

    assert milliseconds(Recorder(), torch.zeros(1), 7) > 0
    assert seen == [(False, True)] * (WARM_UP + 7)


def test_default_names_contain_device_batch_and_given_sizes() -> None:
    assert latency_settings(device="cpu").column == "latency_ms_cpu1_b1"
    other = latency_settings(device="cpu", threads=2, batch_size=32, channels=8, image_size=32)
    assert other.column == "latency_ms_cpu2_b32_c8_s32"
    assert other.source != latency_settings(device="cpu").source


def test_a_run_with_other_images_is_measured_again(measured: Store) -> None:
    named = latency_settings(name="ms", device="cpu", repeats=2, channels=4, cells=1)
    pool = pool_of(measured)
    assert LatencySession(measured, named, pool).todo == []
    larger = replace(pool, image_size=16)
    with pytest.raises(UsageError, match="has a column ms, but so does the source latency-"):
        LatencySession(measured, named, larger)
    unnamed = latency_settings(device="cpu", repeats=2, channels=4, cells=1)
    again = LatencySession(measured, unnamed, larger)
    assert len(again.todo) == len(pool.order)
    assert again.settings == latency_settings(device="cpu", repeats=2, channels=4, cells=1, image_size=16)
    assert again.settings.column == "latency_ms_cpu1_b1_c4_n1_s16"
    assert LatencySession(measured, unnamed, replace(pool, dataset="mine")).settings.image_size == 8


@pytest.mark.parametrize("dataset", ["digits", "cifar10"])
def test_the_size_of_a_data_sets_images_is_known(dataset: str) -> None:
    place = dataset if dataset == "digits" else Path(os.environ.get("HNAS_TEST_DATA", "/nonexistent"), dataset)
    if place != "digits" and not Path(place).exists():
        pytest.skip(f"HNAS_TEST_DATA is unset or has no {dataset}: the real images are needed")
    assert open_dataset(str(place)).size == SIDES[dataset]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--repeats", 3), "has a column ms, but so does the source latency-"),
        (("--name", "params"), "has a column params, but so does the view"),
        (("--name", "dataset"), "--name dataset is a column of every table"),
        (("--name", "Läuft"), "must be a letter a to z"),
        (("--sample", 0), "--sample must be at least 1, got 0"),
        (("--batch-size", 0), "--batch-size must be between 1 and 4,096, got 0"),
        (("--threads", 0), "threads must be between 1 and 1024, got 0"),
        (("--channels", 0, "--name", "other"), "channels of a NAS-Bench-201 network"),
        (("--where", "params < 0"), "has no architecture to measure"),
        (("--run", "ffffffffff"), "the store has no run"),
    ],
)
def test_bad_input_gives_one_sentence_and_changes_nothing(
    measured: Store, options: tuple[object, ...], message: str
) -> None:
    before = column(measured)
    done = measure(measured, *options)
    assert done.status == 2, done.err
    assert message in done.last
    assert column(measured) == before


def test_a_second_command_on_the_same_measurement_is_rejected(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    real = locked

    def spy(place: Store, *folder: str, busy: str | None = None) -> object:
        folders.append(folder)
        return real(place, *folder, busy=busy)

    monkeypatch.setattr(session, "locked", spy)
    assert measure(store, "--sample", 1).status == 0
    with locked(store, *folders[0]):
        done = measure(store)
        rm = hnas("rm", folders[0][1].rpartition("-")[0], "--yes", "--store", store.location)
    assert rm.status == 1
    assert "a latency measures the source" in rm.last
    assert done.status == 1
    assert "another latency measures ms of nasbench201" in done.last


def test_a_failing_network_gives_one_sentence_and_keeps_the_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(network: nn.Module, images: Tensor, repeats: int) -> float:
        calls.append(network)
        if len(calls) == 5:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return milliseconds(network, images, repeats)

    monkeypatch.setattr(session, "milliseconds", failing)
    done = measure(store)
    assert done.status == 1
    assert "does not run at 8 x 8 pixels (Kernel size can't be greater" in done.last
    assert len(parts(store)) == 1
    monkeypatch.undo()
    assert measure(store).status == 0
    assert len(column(store)) == 60
