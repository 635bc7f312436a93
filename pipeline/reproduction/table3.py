"""Table 3: test accuracy of each method's winners on NAS-Bench-201, guided by CIFAR-10 validation after 12 epochs.

As published, HNAS evaluates 20 architectures, and the multi-trial methods evaluate as many as 12,000 s allow. Tabular
searches run now. Searches that train a supernet take hours; they are read from the store if `hnas compare` has made
them.

The verdict allows for the errors of both means: of ours over seeds, whose interval is printed, and of the published
one, the deviation over the root of the number of searches (five for HNAS, 500 for the multi-trial methods).
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
#: Tabular methods with their budgets, by their name in `TABLE_3`.
_TABULAR = {
    **{name: f"{name}@20" for name in ("hnas:grad_norm", "hnas:snip", "hnas:grasp", "hnas:trace")},
    **{name: f"{name}@12000s" for name in ("random", "rea", "reinforce")},
}
#: Methods that rank by the score of their name, and the time that the scores of the whole space take.
_SCORED = {
    "naswot": "at most 1 h 30 min on two cores",
    "gradsign": "1 to 2 h on two cores",
    "knas": "at most 1 h 30 min on two cores",
}
#: Methods that train a supernet or measure networks on images, and the time of one search; see docs/paper.md.
_TRAINED = {
    "te-nas": "0.4 to 1 h a search on one core",
    "nasi": "0.3 to 0.6 h a search on one core",
    "darts": "78 h a search on one core, or about 2 h on a GPU",
    "darts-second": "206 h a search on one core, or about 4 h on a GPU",
    "gdas": "19 h a search on one core, or about half an hour on a GPU",
    "enas": "75 h a search on one core, or about 2 h on a GPU",
    "drnas": "39 h a search on one core, or about 1 h on a GPU",
}
_TRAINED_SEEDS = 4
_HNAS_REASON = "after twelve epochs another of the queried cells is ahead: see docs/paper.md, Table 3"
_REASONS = {
    "resnet": "the benchmark's mean over its trainings of this cell; its authors print another number",
    "hnas:grasp": "the published protocol on the same table finds 92.9 with GraSP: see docs/paper.md, Table 3",
    "naswot": "one draw of weights and 64 images for all searches, not 128 and a draw for each: see docs/paper.md",
    **dict.fromkeys(("hnas:grad_norm", "hnas:snip", "hnas:trace"), _HNAS_REASON),
}
_REASON = "the published rule on this table with this signal: see docs/paper.md, Beside its rivals"

_NOT: Verdict = "not computed"
_OTHER: Verdict = "not comparable"  # the paper's costs come from another table of seconds


def compute(
    store: Store,
    connection: duckdb.DuckDBPyConnection,
    *,
    seeds: int,
    progress: Callable[[Progress], None],
) -> Reproduction:
    """Table 3 from `seeds` searches of each random method, which are kept in the store as those of `compare` are."""
    title = "Table 3: test accuracy on NAS-Bench-201"
    if (lacking := searches.missing_data(connection)) is not None:
        return Reproduction("table3", title, missing=(lacking,))
    methods = dict(_TABULAR)
    missing = _add_available(connection, methods)
    results, work = searches.run_searches(store, connection, list(methods.values()), seeds=seeds, progress=progress)
    rows = _rows(list(methods), results)
    for name, takes in _TRAINED.items():
        if (stored := searches.stored_searches(store, connection, name, work)) is not None:
            rows |= _rows([name], stored)
        else:
            call = searches.command(connection, work.first.settings.run, [name], _TRAINED_SEEDS)
            missing.append(Missing(f"searches of {TABLE_3[name].name}", (call,), takes))
    table = results.table()
    ordered = tuple(rows.get(name, _unknown(rival)) for name, rival in TABLE_3.items())
    notes = (
        f"{table.heading}.",
        "HNAS evaluates 20 architectures, the multi-trial methods as many as 12,000 s allow. ± is the deviation over "
        "seeds; the interval is of the mean, and the verdict allows for the error of the published mean as well.",
        f"The published accuracies of ResNet come from {TABLE_3['resnet'].source}.",
        *table.notes,
    )
    section = Section(f"up to {seeds} searches of each method", "table 3", "method", _COLUMNS, ordered)
    return Reproduction("table3", title, (section,), tuple(missing), notes)


def _add_available(connection: duckdb.DuckDBPyConnection, methods: dict[str, str]) -> list[Missing]:
    """Add to `methods` those whose scores or curves the store has; return what the others lack."""
    settings = searches.new(connection, ["random"], seeds=1).methods[0]
    pool = RunPool(connection, settings.run, signal=settings.signal)
    missing = []
    for name, takes in _SCORED.items():
        if pool.complete(name):
            methods[name] = name
        else:
            call = f"hnas precompute {searches.SPACE} --dataset {settings.dataset} --scores {name}"
            missing.append(Missing(f"the score of {TABLE_3[name].name}", (call,), takes))
    if pool.knows(1):
        methods["bohb"] = "bohb@12000s"
    else:
        missing.append(Missing("the learning curves that BOHB reads", *IMPORT[searches.SPACE]))
    return missing


def _rows(names: list[str], results: Results) -> dict[str, Row]:
    """The rows of the methods `names`, given in the order of the comparison, and of ResNet and the optimum."""
    compared = dict(zip(names, results.table().rows[len(results.manual) :], strict=False))
    rows = {name: _row(name, list(row.cells), row.cost, row.seeds, results) for name, row in compared.items()}
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
    """A row that was not computed: published numbers only."""
    values = [
        None if accuracy is None else Value(None, published=accuracy[0], published_spread=accuracy[1], verdict=_NOT)
        for accuracy in rival.accuracies
    ]
    cost = None if rival.cost is None else Value(None, published=rival.cost, verdict=_NOT, form=".0f")
    return Row(rival.name, (*values, cost), "not computed")
