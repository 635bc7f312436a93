"""Table 2: width and depth of published DARTS-style cells, and their M_Trace and κ.

Width and depth are counted on the genotypes. M_Trace and κ come from the store's runs that have all seven cells. If
there is no such run, they are measured now, on networks small enough to take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import torch

from hnas import compute_metrics
from hnas.errors import HnasError
from hnas.optim.objective import Array
from hnas.pipeline.analysis.ranks import spearman
from hnas.pipeline.images import ImageDataset, open_dataset, training_batch
from hnas.pipeline.reproduction.measured import DATASET
from hnas.pipeline.reproduction.published import TABLE_2
from hnas.pipeline.reproduction.results import Missing, Reproduction, Row, Section, Value, Verdict, equal_verdict
from hnas.spaces import search_spaces
from hnas.spaces.darts.published import depth, genotype, width

_COLUMNS = ("width", "depth", "M_Trace", "κ")
#: The size of the networks that are measured where the store has none: about half a second each.
_SMALL = {"channels": 8, "cells": 5}
_BATCH, _SEEDS = 32, 3
_AT_FULL_SIZE = Missing(
    f"the cells at 16 channels and 5 cells, 64 images of {DATASET}, with several initialisations",
    (
        f"printf '%s\\n' {' '.join(TABLE_2)} > cells.txt",
        "for seed in 0 1 2 3 4; do "
        f"hnas precompute darts --dataset {DATASET} --architectures cells.txt --seed $seed; done",
    ),
    "about three minutes on two cores",
)


@dataclass(frozen=True)
class _Numbers:
    """M_Trace and κ by cell, each (seeds,), of the networks `what`; `full` if they have the paper's size and data."""

    trace: dict[str, Array]
    kappa: dict[str, Array]
    what: str
    full: bool


def compute(connection: duckdb.DuckDBPyConnection) -> Reproduction:
    """Table 2. Deterministic on one kind of processor for the same store and $HNAS_DATA."""
    found = _stored(connection) or _measured()
    rows = tuple(_row(name, found) for name in TABLE_2)
    missing = () if found.full else (_AT_FULL_SIZE,)
    notes = (
        f"M_Trace and κ: {found.what}; ± is the deviation over initialisations and batches.",
        "The genotypes of WIDE and DEEP are not published; here they are rewired DARTS cells with the same operations, "
        "see docs/definitions.md.",
        *_ranking(found),
    )
    heading = "normal cells; width in units of a node's channels"
    section = Section(heading, "table 2", "cell", _COLUMNS, rows)
    return Reproduction("table2", "Table 2: topology, M_Trace and κ of published cells", (section,), missing, notes)


def _stored(connection: duckdb.DuckDBPyConnection) -> _Numbers | None:
    """The numbers of the newest runs that have all cells and agree in network size, data set and batch size, or None.

    Only runs with torch's default weights count, which the published program uses in this space.
    """
    space = search_spaces["darts"]
    keys = {space.canonical(name): name for name in TABLE_2}
    rows = connection.execute(
        "SELECT r.dataset, r.channels, r.cells, r.batch_size, run, m.canonical, m.trace, m.kappa, r.created "
        "FROM metrics AS m JOIN runs AS r USING (run) "
        "WHERE r.space = 'darts' AND r.init = 'torch' AND list_contains($keys, m.canonical) "
        "ORDER BY r.created DESC, run",
        {"keys": list(keys)},
    ).fetchall()
    groups: dict[tuple[object, ...], dict[str, dict[str, tuple[float, float]]]] = {}
    for *size, run, canonical, trace, kappa, _ in rows:
        groups.setdefault(tuple(size), {}).setdefault(run, {})[keys[canonical]] = (trace, kappa)
    for (dataset, channels, cells, batch), runs in groups.items():
        whole = [numbers for numbers in runs.values() if len(numbers) == len(TABLE_2)]
        if whole:
            trace, kappa = (
                {name: np.array([numbers[name][k] for numbers in whole]) for name in TABLE_2} for k in (0, 1)
            )
            sentences = f"{channels} channels and {cells} cells, {batch} images of {dataset}"
            what = f"{_count(len(whole))} of {sentences}, from the store"
            return _Numbers(trace, kappa, what, (dataset, channels, cells, batch) == (DATASET, 16, 5, 64))
    return None


def _count(runs: int) -> str:
    return "one initialisation" if runs == 1 else f"{runs} initialisations"


def _measured() -> _Numbers:
    """The numbers of small networks on CIFAR-10 if it is available, else on digits."""
    space, dataset = search_spaces["darts"], _images()
    trace: dict[str, list[float]] = {name: [] for name in TABLE_2}
    kappa: dict[str, list[float]] = {name: [] for name in TABLE_2}
    for seed in range(_SEEDS):
        batch = training_batch(dataset, _BATCH, seed)
        images, labels = torch.from_numpy(batch.images), torch.from_numpy(batch.labels)
        for name in TABLE_2:
            network = space.network(name, classes=len(dataset.classes), seed=seed, **_SMALL)
            found = compute_metrics(network, images, labels)
            trace[name].append(found.trace)
            kappa[name].append(found.kappa)
    what = (
        f"measured now, {_SEEDS} initialisations of {_SMALL['channels']} channels and {_SMALL['cells']} cells, "
        f"{_BATCH} images of {dataset.name}; the paper's networks are larger, so compare the order only"
    )
    arrays = [{name: np.array(values) for name, values in of.items()} for of in (trace, kappa)]
    return _Numbers(arrays[0], arrays[1], what, full=False)


def _images() -> ImageDataset:
    try:
        return open_dataset(DATASET)
    except HnasError:
        return open_dataset("digits")


def _row(name: str, found: _Numbers) -> Row:
    cell, published = genotype(name).normal, TABLE_2[name]
    sentences = [
        Value(width(cell), published=published.width, verdict=_exact(width(cell), published.width), form=".1f"),
        Value(depth(cell), published=published.depth, verdict=_exact(depth(cell), published.depth), form=".0f"),
        _number(found.trace[name], published.trace, found),
        _number(found.kappa[name], published.kappa, found),
    ]
    remark = f"of {published.nodes} nodes" + ("" if published.drawn else "; genotype not published")
    return Row(published.name, tuple(sentences), remark)


def _exact(ours: float, published: float) -> Verdict:
    return "reached" if ours == published else "not reached"


def _number(values: Array, published: tuple[float, float], found: _Numbers) -> Value:
    """The mean over initialisations; within if it is at most two combined deviations from the published mean."""
    mean, spread = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None
    theirs, deviation = published
    if not found.full:
        return Value(
            mean,
            spread=spread,
            of=len(values),
            published=theirs,
            published_spread=deviation,
            verdict="not comparable",
            form=".0f",
        )
    margin = 2 * float(np.hypot(spread or 0.0, deviation))
    verdict = equal_verdict(mean, theirs, mean - margin, mean + margin, digits=0)
    reason = "" if verdict != "not reached" else "it depends on the cell's operations, which the paper does not print"
    return Value(mean, None, None, spread, len(values), theirs, deviation, verdict, reason, form=".0f")


def _ranking(found: _Numbers) -> list[str]:
    """Sentences on the cells with the least and the most, and on how well the ranking agrees with the published one."""
    sentences = []
    for label, values, place in (("M_Trace", found.trace, "trace"), ("κ", found.kappa, "kappa")):
        means = {name: float(numbers.mean()) for name, numbers in values.items()}
        printed = {name: getattr(cell, place)[0] for name, cell in TABLE_2.items()}
        rho = spearman(np.array(list(means.values())), np.array(list(printed.values()), dtype=float))
        extremes = [f"{TABLE_2[end(means, key=lambda name: means[name])].name}" for end in (min, max)]
        published_extremes = [f"{TABLE_2[end(printed, key=lambda name: printed[name])].name}" for end in (min, max)]
        sentences.append(
            f"{label}: {extremes[0]} has the least and {extremes[1]} the most (published: {published_extremes[0]} and "
            f"{published_extremes[1]}); the ranking of the seven correlates with the published one by ρ = {rho:.2f}."
        )
    return sentences
