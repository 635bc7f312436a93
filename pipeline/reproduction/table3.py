"""Table 3: test accuracy of what each method finds on NAS-Bench-201, guided by CIFAR-10 validation after 12 epochs.

HNAS evaluates 20 architectures, the multi-trial methods as many as 12,000 s allow, as published. Searches of tables are
made now; those that train a supernet take hours and are read from the store where `hnas compare` has made them.

The verdict allows for both means: ours over seeds, whose interval is printed, and the published one, whose error is its
deviation over the root of its searches (five of HNAS, 500 of the multi-trial methods).
"""

from __future__ import annotations

from collections.abc import Callable
from math import hypot, sqrt

import duckdb
import numpy as np

from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.comparison.driver import Progress
from hnas.pipeline.comparison.results import Results
from hnas.pipeline.comparison.table import Cell
from hnas.pipeline.reproduction import searches
from hnas.pipeline.reproduction.measured import IMPORT
from hnas.pipeline.reproduction.published import DATASETS, TABLE_3, Rival
from hnas.pipeline.reproduction.results import Missing, Reproduction, Row, Section, Value, Verdict, accuracy_verdict
from hnas.pipeline.store.store import Store

_COLUMNS = (*DATASETS, "cost (s)")
#: Methods whose queries are looked up, with their budgets, by their name in `TABLE_3`.
_TABULAR = {
    **{name: f"{name}@20" for name in ("hnas:grad_norm", "hnas:snip", "hnas:grasp", "hnas:trace")},
    **{name: f"{name}@12000s" for name in ("random", "rea", "reinforce")},
}
#: Those that rank by a score, which a store may lack, and how long all scores of the space take.
_SCORED = {
    "naswot": (("naswot",), "at most 1 h 30 min of two cores"),
    "gradsign": (("gradsign",), "half an hour of two cores"),
    "knas": (("knas", "gram_mean"), "at most 1 h 30 min of two cores"),
}
#: Searches of supernets or at images, and how long one takes; see docs/paper.md.
_LOOKING = {
    "te-nas": "0.4 h of one core a search",
    "nasi": "0.3 h of one core a search",
    "darts": "78 h of one core a search, or about 2 h of a GPU",
    "darts-second": "206 h of one core a search, or about 4 h of a GPU",
    "gdas": "19 h of one core a search, or about half an hour of a GPU",
    "enas": "75 h of one core a search, or about 2 h of a GPU",
    "drnas": "39 h of one core a search, or about 1 h of a GPU",
}
_SEEDS_OF_LOOKING = 4
_REASON_OF_HNAS = "twelve epochs prefer another of the cells that were queried: see docs/paper.md, Table 3"
_REASONS = {
    "resnet": "the benchmark's mean over its trainings of that cell; its authors print another one",
    "hnas:grasp": "the published protocol over the same table finds 92.9 with GraSP: see docs/paper.md, Table 3",
    **dict.fromkeys(("hnas:grad_norm", "hnas:snip", "hnas:trace"), _REASON_OF_HNAS),
}
_REASON = "the published rule over this table, guided by this signal: see docs/paper.md, Beside its rivals"

_NOT: Verdict = "not computed"
_OTHER: Verdict = "not comparable"  # the paper's costs are of another table of seconds


def compute(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    *,
    seeds: int,
    progress: Callable[[Progress], None],
) -> Reproduction:
    """Table 3 with `seeds` searches of each method that varies. The searches are kept in the store, as by `compare`."""
    title = "Table 3: test accuracy on NAS-Bench-201"
    if (lack := searches.lacking(connection)) is not None:
        return Reproduction("table3", title, missing=(lack,))
    methods = dict(_TABULAR)
    missing = _beside(connection, methods)
    results, work = searches.made(store, connection, list(methods.values()), seeds=seeds, progress=progress)
    rows = _rows(list(methods), results)
    for name, takes in _LOOKING.items():
        if (found := searches.kept(store, connection, name, work)) is not None:
            rows |= _rows([name], found)
        else:
            call = searches.command([name], _SEEDS_OF_LOOKING)
            missing.append(Missing(f"searches of {TABLE_3[name].name}", (call,), takes))
    table = results.table()
    ordered = tuple(rows.get(name, _unknown(rival)) for name, rival in TABLE_3.items())
    notes = (
        f"{table.heading}.",
        "HNAS evaluates 20 architectures, the multi-trial methods as many as 12,000 s allow. ± is the deviation over "
        "seeds; the interval is that of the mean, and the verdict allows for the error of the published mean too.",
        f"The published accuracies of ResNet are those of {TABLE_3['resnet'].source}.",
        *table.notes,
    )
    section = Section(f"up to {seeds} searches of each method", "table 3", "method", _COLUMNS, ordered)
    return Reproduction("table3", title, (section,), tuple(missing), notes)


def _beside(connection: duckdb.DuckDBPyConnection, methods: dict[str, str]) -> list[Missing]:
    """Add to `methods` those whose scores or curves the store has; what the others miss."""
    settings = searches.new(connection, ["random"], seeds=1).methods[0]
    pool = RunPool(connection, settings.run, signal=settings.signal)
    missing = []
    for name, (scores, takes) in _SCORED.items():
        if any(score in pool.columns and not np.isnan(pool.column(f'"{score}"')).any() for score in scores):
            methods[name] = name
        else:
            call = f"hnas precompute {searches.SPACE} --dataset {settings.dataset} --scores {scores[0]}"
            missing.append(Missing(f"the score of {TABLE_3[name].name}", (call,), takes))
    if pool.knows(1):
        methods["bohb"] = "bohb@12000s"
    else:
        missing.append(Missing("the learning curves that BOHB reads", *IMPORT[searches.SPACE]))
    return missing


def _rows(names: list[str], results: Results) -> dict[str, Row]:
    """The rows of the methods `names`, in the order in which they were compared, and those of architectures by hand."""
    found = dict(zip(names, results.table().rows[len(results.manual) :], strict=False))
    rows = {name: _row(name, list(row.cells), row.cost, row.seeds, results) for name, row in found.items()}
    for name, values in (("resnet", results.manual.get("ResNet")), ("optimum", results.optimum)):
        if values is not None:
            cells = [None if np.isnan(value) else Cell(float(value)) for value in values]
            rows[name] = _row(name, cells, None, None, results)
    return rows


def _row(name: str, cells: list[Cell | None], cost: float | None, seeds: int | None, results: Results) -> Row:
    rival, by_dataset = TABLE_3[name], dict(zip(results.datasets, cells, strict=True))
    values = [_value(name, rival, k, by_dataset.get(dataset), seeds) for k, dataset in enumerate(DATASETS)]
    spent = None if cost is None else Value(cost, of=seeds, published=rival.cost, verdict=_OTHER, form=".0f")
    return Row(rival.name, (*values, spent))


def _value(name: str, rival: Rival, k: int, cell: Cell | None, seeds: int | None) -> Value | None:
    if cell is None:
        return None
    low, high = cell.interval or (None, None)
    published, spread = rival.accuracies[k] or (None, None)
    if published is None:
        return Value(cell.mean, low, high, cell.deviation, seeds)
    theirs = 1.96 * spread / sqrt(rival.runs) if spread is not None and rival.runs is not None else spread or 0.0
    below, above = (cell.mean if bound is None else bound for bound in (low, high))
    below, above = (cell.mean + sign * hypot(bound - cell.mean, theirs) for sign, bound in ((-1, below), (1, above)))
    verdict = accuracy_verdict(cell.mean, published, below, above)
    reason = _REASONS.get(name, _REASON) if verdict == "not reached" else ""
    return Value(cell.mean, low, high, cell.deviation, seeds, published, spread, verdict, reason)


def _unknown(rival: Rival) -> Row:
    """A row that was not computed: the published numbers alone."""
    values = [
        None if accuracy is None else Value(None, published=accuracy[0], published_spread=accuracy[1], verdict=_NOT)
        for accuracy in rival.accuracies
    ]
    cost = None if rival.cost is None else Value(None, published=rival.cost, verdict=_NOT, form=".0f")
    return Row(rival.name, (*values, cost), "not computed")
