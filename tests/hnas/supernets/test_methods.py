"""Supernet searches as methods over a pool: their result, their cost, and the requests they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from hnas import ArrayPool, Search, UsageError, search, search_spaces
from hnas.optim.evaluations import Evaluation
from hnas.optim.methods.registry import methods
from tests.support.cells_bench import SPACE, pool_of
from tests.support.written_out import tiny_images

SMALL = {"supernet_epochs": 1, "channels": 2, "cells": 1, "batch_size": 16}
OPTIONS: dict[str, dict[str, Any]] = {
    "darts": SMALL,
    "enas": {**SMALL, "controller_steps": 1, "controller_samples": 1, "candidates": 2, "valid_batch": 8},
    "nasi": {"channels": 2, "cells": 1, "samples": 1, "batch_size": 4},
}


@pytest.fixture(scope="module")
def everything() -> ArrayPool:
    return pool_of(list(SPACE.enumerate()))


@pytest.mark.parametrize("method", OPTIONS)
def test_a_supernet_ends_with_one_architecture_and_costs_its_own_time(everything: ArrayPool, method: str) -> None:
    queries = search(
        everything,
        lambda arch: Evaluation(90.0, 1e6),
        method=method,
        queries=5,
        seed=1,
        images=tiny_images(),
        **OPTIONS[method],
    )
    assert len(queries) == 1
    assert everything.position(queries[0].arch) is not None
    assert queries[0].performance == 90.0
    assert 0 < queries[0].cost <= queries[0].own_seconds < 1e3


SUPERNETS = ["darts", "darts-second", "drnas", "enas", "gdas", "nasi", "te-nas"]


@pytest.mark.parametrize("method", SUPERNETS)
def test_supernets_need_nasbench201_and_images(everything: ArrayPool, method: str) -> None:
    assert methods[method].needs_images  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"{method} needs training images"):
        Search(everything, method).ask()
    darts = search_spaces["darts"]
    archs = darts.sample(3, 0)
    with pytest.raises(
        UsageError, match=f"{method} has a supernet only for nasbench201 and cannot search the space darts"
    ):
        Search(ArrayPool(archs, {}, space=darts), method)
    with pytest.raises(UsageError, match=f"{method} has no option colour; it has .*channels, cells.*, threads$"):
        Search(everything, method, colour=1)
    with pytest.raises(UsageError, match=f"the method {method} takes no argument"):
        Search(everything, f"{method}:trace")
