"""Small plans, carried out in this process as `precompute` does with workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow.parquet as pq

from hnas.metrics import COLUMNS
from hnas.pipeline.precompute.chunking import ChunkSizes
from hnas.pipeline.precompute.claims import Claims, joined
from hnas.pipeline.precompute.plan import Plan, adopted, record_request, relative_costs
from hnas.pipeline.precompute.worker import Chunk, Job, run_chunk
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces
from tests.support.contents import matching

SPACE = search_spaces["nasbench201"]
#: The size of a network that takes about 50 ms.
SIZE = {"channels": 4, "cells": 1, "batch_size": 8}
Row = tuple[str, ...]


def job_of(store: Store, plan: Plan, *, keep_gram: bool = False, token: str = "") -> Job:
    """The job that `precompute` sends to the workers of a plan."""
    place = store.root if store.local else store.location
    further = "" if plan.further is None else plan.further.digest
    return Job(place, plan.settings.id, plan.settings, "cpu", keep_gram, token, further)


@contextmanager
def claims_of(
    store: Store, plan: Plan, *, keep_gram: bool = False, costs: Mapping[str, float] | None = None
) -> Iterator[Claims]:
    """The claims of a plan, set up and closed as by `precompute`."""
    store.prepare()
    plan = adopted(store, plan)
    Run(store, plan.settings.id).create(plan.settings, plan.batch)
    record_request(store, SPACE, plan)
    costs = relative_costs(store, SPACE, plan) if costs is None else costs
    with joined(Claims(Run(store, plan.settings.id), plan, costs, keep_gram=keep_gram)) as claims:
        yield claims


def chunks_of(claims: Claims, plan: Plan) -> Iterator[Chunk]:
    """The chunks of a plan for a single worker that takes a second for each network."""
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
    """The stored rows of all parts of a run."""
    parts = []
    for path in matching(store, "runs", run, "metrics", "*.parquet"):
        with store.fs.open(path, "rb") as file:
            parts += pq.read_table(file).to_pylist()
    return parts


def exact_table(store: Store, run: str) -> dict[str, Row]:
    """The eight columns, the status and the eigenvalues by canonical key, with numbers as exact hexadecimal text."""
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
    assert len(table) == len(rows), "two rows for a canonical architecture"
    assert len({row["ntk_row"] for row in rows}) == len(rows), "two architectures share a row of ntk.zarr"
    return table
