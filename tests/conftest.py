"""What the tests of precomputation, the store and the catalog share: small plans, stores filled here, exact tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from hnas.metrics import COLUMNS
from hnas.pipeline.images import ImageDataset, open_dataset
from hnas.pipeline.precompute.chunking import ChunkSizes
from hnas.pipeline.precompute.claims import Claims, joined
from hnas.pipeline.precompute.plan import Plan, adopted, make_plan, record_request, relative_costs
from hnas.pipeline.precompute.worker import Chunk, Job, run_chunk
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.run import open_run
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces

HNAS = Path(sys.executable).with_name("hnas")
SPACE = search_spaces["nasbench201"]
#: A network that is measured in some 50 ms.
SIZE = {"channels": 4, "cells": 1, "batch_size": 8}

Row = tuple[str, ...]


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
    """A store with a finished run of 20 architectures, and its plan. To be read only."""
    store = Store(str(tmp_path_factory.mktemp("filled") / "store"))
    plan = small_plan(store, sample=20)
    fill(store, plan)
    return store, plan


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and lose much where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def _torch_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def job_of(store: Store, plan: Plan, *, keep_gram: bool = False, token: str = "") -> Job:
    """What `precompute` sends to the workers of a plan."""
    return Job(store.root if store.local else store.location, plan.settings.id, plan.settings, "cpu", keep_gram, token)


@contextmanager
def claims_of(
    store: Store, plan: Plan, *, keep_gram: bool = False, costs: Mapping[str, float] | None = None
) -> Iterator[Claims]:
    """What `precompute` does with a plan before it has any work done, and when all is done."""
    store.prepare()
    plan = adopted(store, plan)
    open_run(store, plan.settings, plan.batch)
    record_request(store, SPACE, plan)
    costs = relative_costs(store, SPACE, plan) if costs is None else costs
    with joined(Claims(store, plan, costs, keep_gram=keep_gram)) as claims:
        yield claims


def chunks_of(claims: Claims, plan: Plan) -> Iterator[Chunk]:
    """The chunks of a plan as one worker gets them whose every network takes a second."""
    sizes = ChunkSizes(plan.chunk_size, claims.block)
    while chunks := claims.claim(sizes.budget(claims.free_cost, claims.commands)):
        (chunk,) = chunks
        yield chunk
        sizes.learn(len(chunk.members), claims.cost(chunk), len(chunk.members))


def fill(store: Store, plan: Plan, *, keep_gram: bool = False, costs: Mapping[str, float] | None = None) -> str:
    """Carry out a plan in this process, as `precompute` does with Dask, and return the run's name."""
    with claims_of(store, plan, keep_gram=keep_gram, costs=costs) as claims:
        for chunk in chunks_of(claims, plan):
            assert run_chunk(job_of(store, plan, keep_gram=keep_gram, token=claims.token), chunk).rows
            claims.done([chunk])
    return plan.settings.id


def metrics_of(store: Store, run: str) -> list[dict[str, Any]]:
    """The rows of all parts of a run as they are stored."""
    parts = []
    for path in store.glob("runs", run, "metrics", "*.parquet"):
        with store.fs.open(path, "rb") as file:
            parts += pq.read_table(file).to_pylist()
    return parts


def exact_table(store: Store, run: str) -> dict[str, Row]:
    """By canonical key: the eight columns, the status and the eigenvalues, each number written to its last bit."""
    eigenvalues = NTKArrays(store, run).read()
    rows = metrics_of(store, run)
    table = {
        row["canonical"]: (
            *(row[name].hex() for name in COLUMNS),
            row["status"],
            *(value.hex() for value in eigenvalues[row["ntk_row"]].tolist()),
        )
        for row in rows
    }
    assert len(table) == len(rows), "two rows of one canonical architecture"
    assert len({row["ntk_row"] for row in rows}) == len(rows), "two architectures at one row of ntk.zarr"
    return table


def snapshot(folder: Path | str, pattern: str = "**/*") -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was written, and what it holds."""
    root = Path(folder)
    found = (path for path in root.glob(pattern) if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def precompute_command(store: Path | str, *options: str) -> list[str]:
    """`hnas precompute` on digits with networks of `SIZE`."""
    size = [f"--{name.replace('_', '-')}={value}" for name, value in SIZE.items()]
    return [str(HNAS), "precompute", "nasbench201", "--dataset=digits", *size, f"--store={store}", *options]


def hnas(*command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command line to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
