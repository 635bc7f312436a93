"""Results of `hnas search` and `hnas evaluate` as text and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.cells import cell_len

from hnas.optim.methods.registry import parallel_of
from hnas.pipeline.catalog.report import left_out_lines
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.progress import duration, durations
from hnas.pipeline.io.terminal_tables import LEAST_TEXT, cut, described
from hnas.pipeline.store.run import run_or_mean

if TYPE_CHECKING:
    # Imported only for types: some of these load torch, which the table oracle does not need.
    from hnas.optim.evaluations import Query
    from hnas.pipeline.search.estimate import TrainingEstimate, TrainingSize
    from hnas.pipeline.search.prepared import SearchSize
    from hnas.pipeline.search.request import StartedSearch
    from hnas.pipeline.search.session import SearchResult
    from hnas.pipeline.search.settings import SearchSettings
    from hnas.training import TrainingResult


#: The query that shows the failures of a search.
FAILED = "FROM queries WHERE search = '{}' AND failure IS NOT NULL"


def training_text(arch: str, result: TrainingResult) -> str:
    """Return the result of one training as text."""
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
    """Return the result of one training as JSON."""
    return json.dumps({"arch": arch, **asdict(result)}, indent=2)


def size_text(size: TrainingSize) -> str:
    """Describe the size of a training, of one network or of the candidates of a search."""
    least, most = size.parameters
    parameters = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    where = _plural(size.threads, "thread") if size.device == "cpu" else size.device
    return (
        f"{parameters} parameters ({_plural(size.channels, 'channel')}, {_plural(size.cells, 'cell')}, "
        f"{size.image_size} x {size.image_size} pixels), {_plural(size.epochs, 'epoch')} of {size.images:,} images in "
        f"batches of {size.batch_size}, {where}{f', recipe {size.recipe}' if size.recipe else ''}"
    )


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def training_heading(arch: str, size: TrainingSize) -> str:
    """Describe what `evaluate` is about to train."""
    return f"training {arch} of {size.space}: {size_text(size)}"


def query_line(query: Query, width: int | None = None, *, percent: bool = True) -> str:
    """Return one line for a query of a search, cut to `width`; `percent` says whether performance is in percent."""
    reached = f"{query.performance:>6.2f} %" if percent else f"{query.performance:<10.6g}"
    number, performance = f"{query.query:>3}  ", f"performance {reached if query.failure is None else '  failed'}  "
    details = ""
    if query.mu is not None and query.nu is not None:
        details += f"mu {query.mu:<9.3g} nu {query.nu:<9.3g} "
    if query.objective is not None:
        details += f"objective {query.objective:<10.4g} "
    if query.epochs is not None:
        details += f"{_plural(query.epochs, 'epoch'):>10}  "
    if width is None:
        return number + details + performance + printable(query.arch)
    if width < len(number + details + performance) + LEAST_TEXT:
        details = ""
    return cut(number + details + performance + printable(query.arch), width)


def search_heading(started: StartedSearch, size: SearchSize) -> str:
    """Describe the scope of a search: its candidates, signal, trainings, cost, and what an average leaves out."""
    settings = started.settings
    where = f" under {printable(settings.where)}" if settings.where else ""
    lines = [
        f"{'resuming' if started.name else 'searching'} {size.candidates:,} architectures of "
        f"{run_or_mean(settings.run, settings.runs)} ({settings.space} on {settings.dataset}){where} with "
        f"{_method(settings)}, oracle {printable(settings.oracle)}{_at_a_time(settings)}",
        *left_out_lines(size.left_out),
        *([f"each query is a training: {size_text(size.training)}"] if size.training is not None else []),
        *(_known_lines(size.training) if size.training is not None else []),
    ]
    if settings.own is not None and settings.own.timeout is not None:
        lines.append(f"an evaluation that takes longer than {settings.own.timeout:g} s is stopped")
    if settings.warm is not None:
        count = _plural(settings.warm.architectures, "architecture")
        lines.append(f"warm start: {count} known by {' and '.join(map(printable, settings.warm.sources))}")
    if settings.images is not None:
        lines.append(
            f"{settings.method} looks at the images of {printable(settings.images)}; the accuracy of what it ends with "
            "is for the report alone"
        )
    elif size.signal is not None:
        lines.append(f"guided by {size.signal}")
        if size.signal.accuracy == "test_accuracy":
            lines.append("no validation accuracy guides it: the winner is chosen by the test accuracy that is reported")
    return "\n".join(lines)


def _at_a_time(settings: SearchSettings) -> str:
    if settings.parallel == 1:
        return ""
    waits = {
        "asynchronous": "",
        "generations": " (this method waits for the end of each generation)",
        "sequential": " (but this method asks for one after another)",
    }
    return f", {settings.parallel} at a time{waits[parallel_of(settings.method)]}"


def _known_lines(size: TrainingSize) -> list[str]:
    """Return lines about trainings besides their size."""
    lines = [] if size.asked else ["the networks are as large as those of the run; --channels and --cells change that"]
    return lines + (
        [f"the store has {_plural(size.known, 'training')} like these, not made again"] if size.known else []
    )


# Operations per second of a GPU in training: NAS-Bench-201's networks averaged 0.9e12 in its 12-epoch table.
_GPU_OPERATIONS = 1e12
_EXTRAPOLATED = (
    "extrapolated from the operations at 1 TFLOP/s, as NAS-Bench-201 was trained; nothing is measured on one"
)


def dry_run_text(started: StartedSearch, size: SearchSize, trained: TrainingEstimate | None) -> str:
    """Describe what a search would take: its evaluations, and if they train, their time and memory."""
    settings = started.settings
    limits = [f"{settings.queries:,} queries"] if settings.queries is not None else []
    limits += [f"{settings.budget:,.0f} s"] if settings.budget is not None else []
    rows = [["evaluations", " or ".join(limits) + (" at most" if len(limits) > 1 else "")]]
    if size.queries is not None and (settings.budget is None or size.trainings is None):  # not by an estimate of time
        rows = [["evaluations", f"{size.queries:,} quer{'y' if size.queries == 1 else 'ies'}"]]
    if size.supernet is not None:
        rows = [["supernet", f"about {duration(size.supernet)}, by the time of a step"]]
    elif settings.own is not None:
        rows.append(["time", "unknown: an oracle of one's own takes what it takes"])
    elif trained is not None and size.queries and size.trainings:
        turns = -(-size.queries // settings.parallel)
        # Some methods stop trainings early.
        whole = [all_of_them / one for all_of_them, one in zip(size.trainings, trained.seconds, strict=True)]
        rows += [
            [
                "a step",
                f"{trained.step[0]:.2g} to {trained.step[1]:.2g} s here, measured; a training has {trained.steps:,}",
            ],
            ["a training", f"{durations(trained.seconds)}, from the smallest to the largest network"],
            ["time", f"{durations(s * turns / size.queries for s in size.trainings)}{_at_a_time(settings)}"],
            ["memory", f"about {trained.memory / 2**30:.1f} GiB for the largest network"],
        ]
        if size.training is not None and size.training.device == "cpu":
            hours = [n * each / _GPU_OPERATIONS / 3600 for n, each in zip(whole, trained.operations, strict=True)]
            rows.append(["on a GPU", f"{hours[0]:.2g} to {hours[1]:.2g} h, {_EXTRAPOLATED}"])
    elif size.cost is not None:
        rows.append(["cost", f"{size.cost:,.0f} s charged: trainings and scores, looked up"])
        rows.append(["time", "seconds: nothing is trained"])
    else:
        rows.append(["cost", "unknown: the accuracies come without seconds"])
        rows.append(["time", "seconds: nothing is trained"])
    return "\n".join([search_heading(started, size), described(rows), "nothing was evaluated or written"])


def _method(settings: SearchSettings) -> str:
    return f"HNAS, M = {settings.metric}" if settings.method == "hnas" else printable(settings.spec)


def search_summary(result: SearchResult, width: int | None = None) -> str:
    """Return the winner and the cost of the search; if `width` cut the lines of queries, also how to see them whole."""
    winner, settings = result.best, result.settings
    own, oracle = sum(q.own_seconds for q in result.queries), sum(q.seconds for q in result.queries)
    percent = settings.own is None
    cut_short = width is not None and any(cell_len(query_line(q, percent=percent)) > width for q in result.queries)
    column = settings.accuracy.replace("valid_", "validation ").replace("_", " ")
    signal = f" after {_plural(settings.signal.epochs, 'epoch')}" if settings.signal and settings.signal.epochs else ""
    at = f", mu {winner.mu:.3g}, nu {winner.nu:.3g}" if winner.mu is not None and winner.nu is not None else ""
    reached = f"{winner.performance:.2f} % {column}{signal}" if percent else f"performance {winner.performance:g}"
    failed = sum(query.failure is not None for query in result.queries)
    lines = [
        f"best: {printable(winner.arch)}",
        f"      {reached}, query {winner.query} of {len(result.queries)}{at}",
    ]
    if result.test and settings.accuracy == "test_accuracy":
        lines.append("      guided by test accuracy, so that of the winner is the best of many and not an estimate")
    tables: dict[tuple[str, int | None], list[str]] = {
        (table.source, table.epochs): [] for table in result.reported if table.dataset in result.test
    }
    for table in result.reported:
        if table.dataset in result.test:
            tables[table.source, table.epochs].append(f"{result.test[table.dataset]:.2f} % on {table.dataset}")
    for (source, epochs), values in tables.items():
        after = f" after {_plural(epochs, 'epoch')}" if epochs is not None else ""
        lines.append(f"      test accuracy{after}: {', '.join(values)} ({printable(source)})")
    charged = f", {duration(result.cost)} charged" if result.cost else ""
    if settings.parallel > 1 and result.elapsed:
        charged += f", {duration(result.elapsed)} with {settings.parallel} at a time"
    lines.append(f"      search {result.search}: {own:.2f} s of its own, {oracle:.2f} s in the oracle{charged}")
    if failed:
        lines.append(
            f'      {_plural(failed, "evaluation")} failed: `hnas sql "{FAILED.format(result.search)}"` says why'
        )
    if "minimise" in settings.options:
        front = f"--minimise '{printable(str(settings.options['minimise']))}' --maximise performance"
        lines.append(f"      `hnas pareto --search {result.search} {front}` shows the front")
    if cut_short:
        lines.append(f"      `hnas search --resume {result.search} --json` shows the queries whole")
    return "\n".join(lines)


def search_json(result: SearchResult) -> str:
    """Return the winner and all queries as JSON."""
    return json.dumps(result.as_dict(), indent=2)
