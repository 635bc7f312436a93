"""Estimates the cost of a comparison from a small part of it, for `hnas compare --dry-run`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from threadpoolctl import threadpool_limits

from hnas.pipeline.cluster.local_cluster import default_workers
from hnas.pipeline.comparison.request import Comparison
from hnas.pipeline.comparison.worker import Opened
from hnas.pipeline.io.memory import peak_memory
from hnas.pipeline.io.progress import durations
from hnas.pipeline.io.terminal_tables import described
from hnas.pipeline.search.prepared import Prepared
from hnas.pipeline.store.comparisons import Part


@dataclass(frozen=True)
class Estimate:
    """Minimum and maximum seconds of all processes together, the cost charged to budgets, and bytes per process."""

    seconds: tuple[float, float]
    cost: tuple[float, float]
    memory: int


def estimate(work: Opened, todo: Sequence[Part]) -> Estimate:
    """Estimate the parts `todo` from one search of each method, or one step of the smallest and largest training.

    Writes nothing. Raises the errors of a search.
    """
    counts = Counter(dict.fromkeys(range(len(work.settings)), 0))
    for part in todo:
        counts[part.k] += len(part.seeds)
    if work.settings[0].own is not None:
        return Estimate((math.nan, math.nan), (math.nan, math.nan), peak_memory())
    if work.first.trainer is not None:
        _, trained = work.first.estimate()
        assert trained is not None
        takes, charged = [0.0, 0.0], [0.0, 0.0]
        for k, count in counts.items():
            for bound, training in enumerate(sorted(trained.seconds) if count else ()):
                seconds, cost = _trainings(work.prepared(k), training)
                takes[bound] += count * seconds
                charged[bound] += count * cost
        return Estimate((takes[0], takes[1]), (charged[0], charged[1]), trained.memory)
    seconds = cost = 0.0
    for k, count in counts.items():
        if count and work.prepared(k).looking is not None:
            size, _ = work.prepared(k).estimate()
            seconds += count * (size.supernet or 0.0)
            cost += count * (size.supernet or 0.0)
        elif count:
            begun = time.perf_counter()
            with threadpool_limits(1):
                queries = work.prepared(k).run((), lambda _: None)
            seconds += count * (time.perf_counter() - begun)
            cost += count * sum(query.cost for query in queries)
    return Estimate((seconds, seconds), (cost, cost), peak_memory())


def _trainings(prepared: Prepared, seconds: float) -> tuple[float, float]:
    """Return the time and the charged cost of one search whose trainings take `seconds` each."""
    if prepared.looking is not None:
        size, _ = prepared.estimate()
        supernet = size.supernet or 0.0
        return supernet + seconds, supernet
    rehearsed = prepared.rehearse(seconds)
    return rehearsed.trainings, rehearsed.charged


def estimate_text(
    comparison: Comparison, work: Opened, todo: Sequence[Part], *, workers: int | None = None, cluster: bool = False
) -> str:
    """Describe the cost of a comparison with `workers` local workers, the default, or one worker of a `cluster`."""
    estimated = estimate(work, todo)
    if workers is None:
        trained = work.settings[0].evaluates
        workers = 1 if cluster else default_workers(work.job.device if trained else "cpu")
    count = sum(len(part.seeds) for part in todo)
    settings = comparison.methods[0]
    by = settings.signal or f"{settings.training.epochs if settings.training else 0} epochs of training"
    by = by if settings.own is None else settings.oracle
    share = tuple(value / max(1, min(workers, len(todo))) for value in estimated.seconds)
    known = settings.own is None
    takes = f"about {durations(share)}" if known else "unknown: an oracle of one's own takes what it takes,"
    rows = [
        [
            "comparison",
            f"{comparison.name}, {len(comparison.labels)} methods by {comparison.seeds} seeds, guided by {by}",
        ],
        ["searches", f"{count:,} to make, {comparison.searches - count:,} are stored"],
        ["time", f"{takes} with {workers} worker{'' if workers == 1 else 's'}"],
        ["memory", f"about {estimated.memory / 2**30:.1f} GiB in each"],
    ]
    if known:
        how = "real" if settings.training else "looked up"
        rows.append(["cost", f"about {durations(estimated.cost)} charged: trainings and scores, {how}"])
    return described(rows) + "\nnothing was written"
