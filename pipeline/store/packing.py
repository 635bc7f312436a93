"""Packs a finished run into a table for distribution: a few files instead of some per chunk, without the images.

    python -m hnas.pipeline.store.packing STORE RUN TARGET

The tables in `data/tables` are made this way from stores that `hnas precompute` writes.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa

from hnas.errors import HnasError, UsageError, did_you_mean
from hnas.metrics import COLUMNS
from hnas.pipeline.store.ntk_arrays import NTKArrays
from hnas.pipeline.store.requests import write_missing
from hnas.pipeline.store.run import Run
from hnas.pipeline.store.scores import copy_scores
from hnas.pipeline.store.store import Store, digest
from hnas.spaces import search_spaces

# Bytes per file of `ntk.zarr`.
_BLOCK_BYTES = 900_000


def pack(run: Run, target: Store, *, block: int | None = None, whole: bool = True) -> int:
    """Copy `run` into another store `target` and return its number of rows.

    `block` is the number of rows per block of its `ntk.zarr`, by default as many as fit into 0.9 MB. Unless `whole`, an
    incomplete run is copied as it is.

    All numbers, including scores, are bit-identical. The batch and the images beside it, whose digests are in
    `run.json`, and Gram matrices are not copied. The target receives the whole run or nothing.

    Raises `UsageError` if there is no such run, the target already has it, or requested rows are missing, and
    `HnasError` if a file is damaged, the space is not installed, or the target cannot be written.
    """
    source, copy = run.store, Run(target, run.name)
    source.check_version()
    if not run.recorded:
        raise UsageError(
            f"{source.location} has no run {run.name}; `hnas info --store {source.location}` lists its runs"
            f"{did_you_mean(run.name, source.names('runs'))}"
        )
    record = run.read_record()
    space = search_spaces[run.settings_in(record).space]
    if copy.exists():
        raise UsageError(f"{target.location} already has a run {run.name}; remove it, or name another target")
    requests = run.requests()
    names = ["canonical", *COLUMNS, "status", "seconds", "ntk_row"]
    metrics = source.read_tables(names, *run.place("metrics"))
    classes = list(dict.fromkeys(requests.values()))
    places = {name: i for i, name in enumerate(metrics["canonical"].to_pylist())} if metrics else {}
    missing = sum(name not in places for name in classes)
    if not places or (missing and whole):
        raise UsageError(
            f"run {run.name} of {source.location} lacks {missing} of the {len(classes)} requested rows; "
            "the same `hnas precompute` completes it"
        )
    assert metrics is not None
    classes = [name for name in classes if name in places]
    metrics = metrics.take([places[name] for name in classes])
    eigenvalues = _eigenvalues(run.ntk, metrics)
    rows = pa.array(np.arange(len(classes), dtype=np.int32))
    metrics = metrics.set_column(names.index("ntk_row"), "ntk_row", rows)

    requested = tuple(requests.items())
    target.prepare()
    write_missing(target, requested, space, "architectures", space.name)
    try:
        write_missing(target, requested, None, *copy.place("requests"))
        arrays = copy.ntk
        block = block or max(1, _BLOCK_BYTES // eigenvalues[0].nbytes)
        arrays.prepare(eigenvalues.shape[1], len(classes), block=block, gram=False)
        arrays.write(0, eigenvalues, None)
        copy.write_part(metrics, digest(*classes) + ".parquet")
        copy_scores(run, copy, classes)
        copy.write_record(copy.listing_parts({**record, "requests": []}))
    except BaseException:
        if copy.exists():
            target.fs.rm(copy.path(), recursive=True)
        raise
    return len(classes)


def _eigenvalues(arrays: NTKArrays, metrics: pa.Table) -> np.ndarray:
    """Return the spectra (n, m) of the rows of `metrics`. Raises `HnasError` if one is missing.

    Zarr reads a missing file as NaN, which is a valid spectrum only for a network whose numbers overflowed.
    """
    stored = arrays.read()
    rows = metrics["ntk_row"].to_numpy()
    there = rows < len(stored)
    spectra = stored[np.where(there, rows, 0)]
    overflowed = np.array(metrics["status"].to_pylist()) == "nonfinite"
    lost = ~there | (np.isnan(spectra).any(1) & ~overflowed)
    if lost.any():
        raise HnasError(
            f"{arrays.path} has no eigenvalues of {int(lost.sum())} architectures of its run; it was damaged after it "
            "was written, restore it, or remove the run and precompute it again"
        )
    return spectra


def main(arguments: list[str]) -> None:
    """Pack the run given by the three arguments."""
    if len(arguments) != 3:
        print(f"hnas: packing needs the three arguments STORE RUN TARGET, got {len(arguments)}", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    store, run, target = arguments
    try:
        rows = pack(Run(Store(store), run), Store(target))
    except HnasError as error:
        print(f"hnas: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"run {run}: {rows} rows packed into {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
