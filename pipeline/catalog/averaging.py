"""Averages over runs that differ only in seed and batch: finding the runs and the architectures they have in common.

The means themselves are computed in SQL: by the view `mean_pool`, and by `mean_run_pool.sql` for a search.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog.views import sql


def group_of(connection: duckdb.DuckDBPyConnection, run: str) -> list[str]:
    """Return the runs with rows that differ from `run` only in seed and batch, including `run`, sorted.

    Raises `UsageError` if there is no other run to average with.
    """
    names = [name for (name,) in connection.execute(sql("group_of_run"), {"run": run}).fetchall()]
    if len(names) < 2 or run not in names:
        raise UsageError(
            f"--average has no other run to average with run {run}: no other run in the store differs from it only in "
            "seed and batch; run the same `hnas precompute` with another --seed to create one"
        )
    return names


def left_out(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> int:
    """Return the number of architectures that some but not all of `runs` have, which a mean over them leaves out."""
    return int(connection.execute(sql("left_out"), {"runs": list(runs)}).fetchall()[0][0]) if runs else 0


def check_runs(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> None:
    """Raise `HnasError` if the store no longer has one of `runs`, over which a saved search averages."""
    stored = {name for (name,) in connection.execute("SELECT run FROM runs").fetchall()}
    missing = [run for run in runs if run not in stored]
    if missing:
        raise HnasError(
            f"the search averages over the runs {', '.join(runs)}, but the store no longer has {', '.join(missing)}; "
            "restore it, or start a new search"
        )
