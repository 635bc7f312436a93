"""Results of `hnas precompute` as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hnas.pipeline.io.progress import duration
from hnas.pipeline.io.terminal_tables import described

if TYPE_CHECKING:
    from hnas.pipeline.precompute.driver import Outcome
    from hnas.pipeline.precompute.plan import Plan

# Bytes of a score value and its seconds, as compressed by Parquet.
_SCORE_BYTES = 12


def dry_run_text(plan: Plan, seconds: float | None, *, workers: int, keep_gram: bool, width: int | None = None) -> str:
    """Describe what `precompute` would do: the plan, the time on `workers` processes of this machine, and the bytes."""
    settings = plan.settings
    m = settings.batch_size
    lacking = dict(plan.lacking)
    row_bytes = 200 + 8 * m + (8 * m * m if keep_gram else 0)
    size = row_bytes * lacking["metrics"] + sum(_SCORE_BYTES * lacking[score.key] for score in plan.scores)
    rows = [
        ["run", settings.id],
        ["space", f"{settings.space}, {settings.channels} channels, {settings.cells} cells"],
        ["weights", f"{settings.init}, seed {settings.seed}"],
        ["batch", f"{m} images of {settings.dataset}, {settings.image_size} x {settings.image_size}: {settings.batch}"],
        ["asked for", f"{len(plan.requested):,} architectures, {plan.done + len(plan.todo):,} canonical"],
        ["in the store", f"{plan.done:,}"],
        ["to compute", f"{len(plan.todo):,} in {_chunks_text(plan)}"],
        *([["lacking", _lacking_text(plan)]] if plan.scores else []),
    ]
    if seconds is not None:
        share = seconds / min(workers, plan.most_chunks)
        rows.append(["time", f"about {duration(share)} with {workers} worker{'s' if workers > 1 else ''}"])
        rows.append(["size", f"about {max(1, size // 1000):,} kB"])
    return described(rows, width) + "\nnothing was written"


def _lacking_text(plan: Plan) -> str:
    """Return how many classes lack the metrics and each of the scores."""
    return ", ".join(f"{what.partition('@')[0]} {count:,}" for what, count in plan.lacking)


def _chunks_text(plan: Plan) -> str:
    if plan.chunk_size is None and plan.todo:
        return "chunks of a minute or less"
    return f"{plan.most_chunks:,} chunks"


def precompute_summary(plan: Plan, outcome: Outcome) -> str:
    """Return what the run now holds, and how many rows this command and others have computed."""
    total = plan.done + len(plan.todo)
    text = (
        f"run {plan.settings.id}: {total:,} canonical architectures stand for the {len(plan.requested):,} asked for; "
        f"{outcome.computed:,} computed now"
    )
    if plan.scores:
        text += f" (with the scores {', '.join(score.name for score in plan.scores)})"
    if outcome.elsewhere:
        text += f", {outcome.elsewhere:,} by others meanwhile"
    if outcome.without_gram:
        text += (
            f"\n{outcome.without_gram:,} rows of the run were computed without --keep-gram and have no matrices; "
            f"`hnas rm run/{plan.settings.id}` and then the same command compute them again"
        )
    return text
