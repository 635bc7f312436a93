"""A finished run as a table to hand on: a few files instead of some for each chunk, and without the batch of images.

    python -m pipeline.packing STORE RUN TARGET

How the tables in `data/tables` are made of the stores that `hnas precompute` writes.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

from hnas.errors import HnasError, UsageError
from hnas.metrics import COLUMNS
from hnas.spaces import search_spaces
from pipeline.ntk import NTKArrays
from pipeline.plan import write_missing
from pipeline.runs import read_settings
from pipeline.store import Store, digest

# Bytes of a file of `ntk.zarr`.
_BLOCK_BYTES = 900_000


def pack(source: Store, run: str, target: Store) -> int:
    """Copy `run` of `source` into `target`, another store, and return its number of rows.

    Every number is the stored one to the last bit; rows are in the order in which their classes were asked for. Not
    copied are the batch, whose digest is in `run.json`, and Gram matrices.

    Raises `UsageError` where the target has the run, or the run lacks rows that were asked for; `HnasError` where
    there is no such run or a file of it is damaged.
    """
    settings = read_settings(source, run)
    if target.exists("runs", run):
        raise UsageError(f"{target.location} has a run {run} already; remove it, or name another target")
    requests = source.read_tables(["arch", "canonical"], "runs", run, "requests", "*.parquet")
    names = ["canonical", *COLUMNS, "status", "seconds", "ntk_row"]
    metrics = source.read_tables(names, "runs", run, "metrics", "*.parquet")
    classes = list(dict.fromkeys(requests["canonical"].to_pylist())) if requests else []
    places = {name: i for i, name in enumerate(metrics["canonical"].to_pylist())} if metrics else {}
    missing = sum(name not in places for name in classes)
    if not classes or missing:
        raise UsageError(
            f"run {run} of {source.location} lacks {missing} of the {len(classes)} rows that were asked for; "
            "the same `hnas precompute` completes it"
        )
    assert requests is not None
    assert metrics is not None
    metrics = metrics.take([places[name] for name in classes])
    eigenvalues = NTKArrays(source, run).read()[metrics["ntk_row"].to_numpy()]
    rows = pa.array(np.arange(len(classes), dtype=np.int32))
    metrics = metrics.set_column(names.index("ntk_row"), "ntk_row", rows)

    target.prepare()
    space = search_spaces[settings.space]
    requested = tuple(zip(requests["arch"].to_pylist(), requests["canonical"].to_pylist(), strict=True))
    known = target.read_tables(["arch"], "architectures", space.name, "*.parquet")
    write_missing(target, known, requested, space, "architectures", space.name)
    write_missing(target, None, requested, None, "runs", run, "requests")
    arrays = NTKArrays(target, run)
    arrays.prepare(eigenvalues.shape[1], len(classes), block=max(1, _BLOCK_BYTES // eigenvalues[0].nbytes), gram=False)
    arrays.write(0, eigenvalues, None)
    target.write_json(source.read_json("runs", run, "run.json"), "runs", run, "run.json")
    target.write_table(metrics, "runs", run, "metrics", digest(*classes) + ".parquet")
    return len(classes)


def main(arguments: list[str]) -> None:
    """Pack the run of a store that the three arguments name."""
    if len(arguments) != 3:
        sys.exit("usage: python -m pipeline.packing STORE RUN TARGET")
    store, run, target = arguments
    try:
        rows = pack(Store(store), run, Store(target))
    except HnasError as error:
        sys.exit(f"error: {error}")
    print(f"run {run}: {rows} rows packed into {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
