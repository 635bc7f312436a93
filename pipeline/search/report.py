"""Results of `hnas search` and `hnas evaluate` as people read them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.cells import cell_len

from hnas.pipeline.catalog.report import left_out_lines
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.progress import duration
from hnas.pipeline.io.terminal_tables import LEAST_TEXT, cut, described
from hnas.pipeline.store.run import run_or_mean

if TYPE_CHECKING:
    # Only their types: some load torch, which the table oracle never needs.
    from hnas.optim.algorithm import Query
    from hnas.pipeline.search.session import SearchResult, SearchSize, StartedSearch
    from hnas.pipeline.search.training import TrainingSize
    from hnas.training import TrainingResult


def training_text(arch: str, result: TrainingResult) -> str:
    """The outcome of one training."""
    rows = [
        ["architecture", arch],
        ["parameters", f"{result.parameters:,}"],
        ["epochs", f"{result.epochs}, {duration(result.seconds)}"],
        ["train", f"{result.train_accuracy:.2f} %, loss {result.train_loss:.4f}"],
    ]
    if result.valid_accuracy is not None:
        rows.append(["validation", f"{result.valid_accuracy:.2f} %"])
    if result.test_accuracy is not None:
        rows.append(["test", f"{result.test_accuracy:.2f} %"])
    return described(rows)


def training_json(arch: str, result: TrainingResult) -> str:
    """The outcome of one training, for programs."""
    return json.dumps({"arch": arch, **asdict(result)}, indent=2)


def size_text(size: TrainingSize) -> str:
    """The size of a training, of one network or of any of a search."""
    least, most = size.parameters
    parameters = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    where = _plural(size.threads, "thread") if size.device == "cpu" else size.device
    return (
        f"{parameters} parameters ({_plural(size.channels, 'channel')}, {_plural(size.cells, 'cell')}, "
        f"{size.image_size} x {size.image_size} pixels), {_plural(size.epochs, 'epoch')} of {size.images:,} images in "
        f"batches of {size.batch_size}, {where}"
    )


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def training_heading(arch: str, size: TrainingSize) -> str:
    """What `evaluate` is going to train."""
    return f"training {arch} of {size.space}: {size_text(size)}"


def query_line(query: Query, width: int | None = None) -> str:
    """One line for each query of a search, as it is made; `width` cuts it."""
    number, performance = f"{query.query:>3}  ", f"performance {query.performance:>6.2f} %  "
    found = f"mu {query.mu:<9.3g} nu {query.nu:<9.3g} objective {query.objective:<10.4g} "
    if width is None:
        return number + found + performance + printable(query.arch)
    if width < len(number + found + performance) + LEAST_TEXT:
        found = ""
    return cut(number + found + performance + printable(query.arch), width)


def search_heading(started: StartedSearch, size: SearchSize) -> str:
    """What the search works on and trains, what of an average it leaves out, whether it looks at test accuracies."""
    settings = started.settings
    lines = [
        f"{'resuming' if started.name else 'searching'} {size.candidates:,} architectures of "
        f"{run_or_mean(settings.run, settings.runs)} "
        f"({settings.space} on {settings.dataset}) with M = {settings.metric}, oracle {settings.oracle}",
        *left_out_lines(size.left_out),
        *([f"each query is a training: {size_text(size.training)}"] if size.training is not None else []),
    ]
    if settings.oracle == "table" and settings.accuracy == "test_accuracy":
        lines.append("no validation accuracy is imported: the search is guided by test accuracy")
    return "\n".join(lines)


def search_summary(result: SearchResult, width: int | None = None) -> str:
    """The winner and what the search cost; where `width` cut the lines of queries, how to see them whole."""
    winner = result.best
    own, oracle = sum(q.own_seconds for q in result.queries), sum(q.seconds for q in result.queries)
    cut_short = width is not None and any(cell_len(query_line(query)) > width for query in result.queries)
    column = "validation accuracy" if result.settings.accuracy == "valid_accuracy" else "test accuracy"
    return (
        f"best: {printable(winner.arch)}\n"
        f"      {winner.performance:.2f} % {column}, query {winner.query} of {len(result.queries)}, "
        f"mu {winner.mu:.3g}, nu {winner.nu:.3g}\n"
        f"      search {result.search}: {own:.2f} s of its own, {oracle:.2f} s in the oracle"
    ) + (f"\n      `hnas search --resume {result.search} --json` shows the queries whole" if cut_short else "")


def search_json(result: SearchResult) -> str:
    """The winner and all queries, for programs."""
    return json.dumps(result.as_dict(), indent=2)
