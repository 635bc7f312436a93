"""`hnas reproduce`: the tables and figures by name, and the files they go to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import duckdb

from hnas.errors import UsageError, unknown
from hnas.pipeline.comparison.progress import CompareReporter
from hnas.pipeline.io.figure_files import check_figure
from hnas.pipeline.io.progress import status
from hnas.pipeline.reproduction import figure1, figure2, table1, table2, table3, theory
from hnas.pipeline.reproduction.report import FORMATS
from hnas.pipeline.reproduction.results import Reproduction
from hnas.pipeline.store.store import Store

#: What can be reproduced, in the order of the paper.
NAMES = ("table1", "table2", "table3", "figure1", "figure2", "figure3", "theorems")
_COMPUTED: dict[str, Callable[[duckdb.DuckDBPyConnection], Reproduction]] = {
    "table1": table1.compute,
    "table2": table2.compute,
    "figure1": figure1.compute,
    "figure3": theory.architectures,
    "theorems": theory.theorems,
}
#: The ones that need searches, with the default number of searches of each method.
_SEARCHED = {"table3": (table3.compute, 20), "figure2": (figure2.compute, 10)}
SUFFIXES = {".txt": "table", ".md": "markdown", ".tex": "latex", ".json": "json"}


def names_of(what: str) -> tuple[str, ...]:
    """The tables and figures that `what` names: one, or `all`. Raises `UsageError` for an unknown name."""
    if what == "all":
        return NAMES
    if what not in NAMES:
        raise unknown("what to reproduce", what, (*NAMES, "all"))
    return (what,)


def reproduce(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    names: Sequence[str],
    *,
    stderr: TextIO,
    seeds: int | None = None,
    quiet: bool = False,
) -> list[Reproduction]:
    """Compute the tables and figures `names`, and show the progress on `stderr` unless `quiet`.

    `seeds` is the number of searches of each method: by default, 20 in Table 3 and 10 in Figure 2.
    """
    made = []
    for name in names:
        if name in _SEARCHED:
            compute, default_seeds = _SEARCHED[name]
            reporter = CompareReporter(stderr, quiet=quiet)
            try:
                made.append(compute(store, connection, seeds=seeds or default_seeds, progress=reporter))
            finally:
                reporter.close()
        else:
            with status(stderr, f"computing {name}", quiet=quiet):
                made.append(_COMPUTED[name](connection))
    return made


def output_format(output: Path | None, form: str | None) -> str:
    """The format of a result: `form` if given, else the one that the suffix of `output` names, else a table.

    Raises `UsageError` where the suffix contradicts `form`, or is unknown and `form` is not given.
    """
    by_suffix = None if output is None else SUFFIXES.get(output.suffix.lower())
    if form is not None and by_suffix not in (None, form):
        raise UsageError(f"--output {output} is a {by_suffix} file, but --format says {form}; drop one of the two")
    if output is not None and form is None and by_suffix is None:
        raise UsageError(
            f"the suffix of --output {output} names no format; end it with {', '.join(SUFFIXES)}, or give "
            f"--format {'|'.join(FORMATS)}"
        )
    return form or by_suffix or "table"


def figure_paths(names: Sequence[str], figure: Path | None, figures: Path | None) -> dict[str, Path]:
    """The file for the figure of each of `names`: `figure` if there is one name, or PDF files in the folder `figures`.

    Raises `UsageError` for both, for one file and several names, for a folder that does not exist, and for a file that
    cannot be a figure.
    """
    if figure is not None and figures is not None:
        raise UsageError("--figure names a file and --figures a folder; give one of the two")
    if figure is not None and len(names) > 1:
        raise UsageError(f"--figure {figure} names one file for {len(names)} figures; give --figures DIR")
    paths = {}
    if figure is not None:
        paths = {names[0]: figure}
    elif figures is not None:
        if not figures.is_dir():
            raise UsageError(f"--figures {figures} is not a folder; create it first")
        paths = {name: figures / f"{name}.pdf" for name in names}
    for path in paths.values():
        check_figure(path, "--figure")
    return paths
