"""Averages over runs that differ only in seed and batch: which runs they are, and which architectures all of them have.

The means themselves are SQL: the view `mean_pool`, and `mean_run_pool.sql` for a search.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from hnas.errors import HnasError, UsageError
from hnas.pipeline.catalog.views import sql


def group_of(connection: duckdb.DuckDBPyConnection, run: str) -> list[str]:
    """The names of the runs that differ from `run` in seed and batch only and have rows, `run` among them, sorted.

    Raises `UsageError` where there is no other to average with.
    """
    found = [name for (name,) in connection.execute(sql("group_of_run"), {"run": run}).fetchall()]
    if len(found) < 2 or run not in found:
        raise UsageError(
            f"--average has nothing to average run {run} with: no other run in the store differs from it in seed and "
            "batch only; the same `hnas precompute` with another --seed makes one"
        )
    return found


def left_out(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> int:
    """The number of architectures that some but not all of `runs` have: a mean over them leaves these out."""
    return int(connection.execute(sql("left_out"), {"runs": list(runs)}).fetchall()[0][0]) if runs else 0


def check_runs(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> None:
    """Raise `HnasError` where the store no longer has one of `runs`, whose mean a saved search goes on with."""
    having = {name for (name,) in connection.execute("SELECT run FROM runs").fetchall()}
    missing = [run for run in runs if run not in having]
    if missing:
        raise HnasError(
            f"the search averages over the runs {', '.join(runs)}, and the store has no {', '.join(missing)} any more; "
            "restore it, or begin a new search"
        )
