"""The result of `hnas latency` as text."""

from __future__ import annotations

import statistics

from hnas.pipeline.io.progress import duration
from hnas.pipeline.io.terminal_tables import described
from hnas.pipeline.latency.session import LatencyPool, LatencyResult
from hnas.pipeline.latency.timing import LatencySettings


def pool_text(pool: LatencyPool) -> str:
    """Describe which networks are measured."""
    archs, classes = len(pool.archs), len(pool.order)
    return f"{archs:,} architectures of {pool.space.name} on {pool.dataset}, {classes:,} distinct networks"


def dry_run_text(settings: LatencySettings, pool: LatencyPool, todo: int, seconds: float) -> str:
    """Describe what a measurement would take."""
    rows = [
        ["networks", f"{pool_text(pool)}; {todo:,} to measure"],
        ["images", f"{settings.batch_size} of {pool.image_size} x {pool.image_size} pixels"],
        ["device", str(settings)],
        ["column", f"{settings.column}, of the source {settings.source}"],
        ["time", f"about {duration(seconds)}"],
    ]
    return described(rows) + "\nnothing was written"


def latency_text(result: LatencyResult) -> str:
    """Return the column, its minimum, median and maximum, and the drift of the machine."""
    values, settings = list(result.latencies.values()), result.settings
    rows = [
        ["column", f"{settings.column}, of the source {settings.source}"],
        ["networks", f"{pool_text(result.pool)}; {result.measured:,} measured now"],
        ["device", str(settings)],
        ["latency", f"{min(values):.3g} to {max(values):.3g} ms, median {statistics.median(values):.3g} ms"],
    ]
    if result.drift is not None:
        least, most = result.drift
        count = len(result.pool.references)
        again = f"{count} networks" if count > 1 else "one network"
        rows.append(["drift", f"{least:+.1%} to {most:+.1%} of {again} measured again"])
    return described(rows)
