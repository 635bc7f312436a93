"""Fixtures for all tests: a small data set, plans on it, a filled store, one thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from hnas.pipeline.cluster import tls
from hnas.pipeline.images import ImageDataset, open_dataset
from hnas.pipeline.precompute.plan import Plan, make_plan
from hnas.pipeline.store.store import Store
from hnas.spaces.nasbench101 import enumeration
from tests.support.runs import SIZE, SPACE, fill

# Test stores have only their own rows, except in tests about the shipped tables.
os.environ["HNAS_TABLES"] = ""

# No test depends on how fast the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files marked `slow` first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    return open_dataset("digits")


@pytest.fixture(scope="session")
def small_plan(digits: ImageDataset) -> Callable[..., Plan]:
    """`small_plan(store, sample=20, chunk_size=4, …)`: a plan on digits with networks of `SIZE`."""

    def plan(store: Store, **options: Any) -> Plan:
        return make_plan(store, SPACE, digits, **{**SIZE, "chunk_size": 4, **options})

    return plan


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, small_plan: Callable[..., Plan]) -> tuple[Store, Plan]:
    """A read-only store with a finished run of 20 architectures, and its plan."""
    store = Store(str(tmp_path_factory.mktemp("filled") / "store"))
    plan = small_plan(store, sample=20)
    fill(store, plan)
    return store, plan


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a silent server with a tenth of the usual timeout."""
    connect = tls.socket.create_connection
    monkeypatch.setattr(tls.socket, "create_connection", lambda place, timeout: connect(place, timeout=timeout / 10))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """More threads do not speed up small networks, and slow them down when other processes use the cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _one_enumeration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Enumerate NAS-Bench-101 once for all of pytest's processes."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    file, compute = shared / enumeration.CACHED, enumeration.compute_table

    def computed() -> enumeration.Table:
        with FileLock(shared / "nasbench101.lock"):
            if not file.exists():
                file.write_bytes(enumeration._packed(compute()))
        table = enumeration._unpacked(file.read_bytes())
        assert table is not None
        return table

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enumeration, "compute_table", computed)
        yield


@pytest.fixture(autouse=True, scope="session")
def _store_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary default store, which receives the trainings, instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HNAS_STORE", str(tmp_path_factory.mktemp("default") / "store"))
        yield
