"""Results as people read them: tables and lines on standard output."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from rich.cells import cell_len

from hnas.pipeline.console.progress import duration
from hnas.pipeline.io.printable import printable
from hnas.pipeline.io.terminal_tables import LEAST_TEXT, cut, described, table

if TYPE_CHECKING:
    # Only their types: some load torch or SciPy, which many commands never need.
    from hnas.optim.algorithm import Query
    from hnas.pipeline.analysis.correlate import Correlations
    from hnas.pipeline.importers import Imported
    from hnas.pipeline.precompute.plan import Plan
    from hnas.pipeline.search.session import SearchResult, StartedSearch
    from hnas.pipeline.search.training import TrainingSize
    from hnas.pipeline.store.check import Report
    from hnas.training import TrainingResult


def dry_run_text(plan: Plan, seconds: float | None, *, workers: int, keep_gram: bool, width: int | None = None) -> str:
    """What `precompute` would do: the plan, the time on `workers` processes of this machine, and the bytes."""
    settings = plan.settings
    m = settings.batch_size
    row_bytes = 200 + 8 * m + (8 * m * m if keep_gram else 0)
    rows = [
        ["run", settings.id],
        ["space", f"{settings.space}, {settings.channels} channels, {settings.cells} cells, seed {settings.seed}"],
        ["batch", f"{m} images of {settings.dataset}, {settings.image_size} x {settings.image_size}: {settings.batch}"],
        ["asked for", f"{len(plan.requested):,} architectures, {plan.done + len(plan.todo):,} canonical"],
        ["in the store", f"{plan.done:,}"],
        ["to compute", f"{len(plan.todo):,} in {_chunks_text(plan)}"],
    ]
    if seconds is not None:
        share = seconds / min(workers, plan.most_chunks)
        rows.append(["time", f"about {duration(share)} with {workers} worker{'s' if workers > 1 else ''}"])
        rows.append(["size", f"about {max(1, row_bytes * len(plan.todo) // 1000):,} kB"])
    return described(rows, width) + "\nnothing was written"


def _chunks_text(plan: Plan) -> str:
    if plan.chunk_size is None and plan.todo:
        return "chunks of a minute or less"
    return f"{plan.most_chunks:,} chunks"


def precompute_summary(plan: Plan, computed: int) -> str:
    """What the run holds now, and how many rows this command computed."""
    total = plan.done + len(plan.todo)
    return (
        f"run {plan.settings.id}: {total:,} canonical architectures stand for the {len(plan.requested):,} asked for; "
        f"{computed:,} computed now"
    ) + (f", {beside:,} by others meanwhile" if (beside := len(plan.todo) - computed) else "")


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


def info_text(place: str, held: dict[str, list[dict[str, Any]]], width: int | None = None) -> str:
    """What a store holds, as tables."""
    lines = [f"store {printable(place)}"]
    for name, rows in held.items():
        lines += ["", name]
        if not rows:
            lines.append("  none")
            continue
        texts = [any(isinstance(row[key], str) for row in rows) for key in rows[0]]
        cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
        lines.append(table(cells, texts=texts, width=width, remedy="`hnas info --json` has all"))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def check_text(place: str, report: Report) -> str:
    """What a check found, one line for each damaged place and each remark."""
    lines = [f"store {place}: {report.files:,} files read"]
    if report.unsealed:
        lines[0] += f", {report.unsealed:,} of them without a checksum (an older hnas wrote them)"
    lines += [f"damaged: {finding.path}: {finding.what}; {finding.mend}" for finding in report.damaged]
    lines += [f"note: {remark}" for remark in report.remarks]
    if not report.damaged:
        lines.append("nothing is damaged")
    return "\n".join(printable(line) for line in lines)


def import_summary(done: Imported, path: Path) -> str:
    """What an import did, and what the file holds."""
    state = "imported" if done.changed else "already in the store"
    more = "".join(
        f", {count:,} {what}"
        for count, what in ((done.curves, "points of curves"), (done.proxies, "scores of proxies"))
        if count
    )
    counts = f"{done.rows:,} rows of {done.architectures:,} architectures{more}"
    name = "" if done.source in (done.kind, printable(path.absolute().stem)) else f", as the source {done.source}"
    replaced = "; they replace its earlier rows" if done.replaced else ""
    return f"{state}: {counts} from {printable(str(path))}{name}{replaced}"


def query_line(query: Query, width: int | None = None) -> str:
    """One line for each query of a search, as it is made; `width` cuts it."""
    number, performance = f"{query.query:>3}  ", f"performance {query.performance:>6.2f} %  "
    found = f"mu {query.mu:<9.3g} nu {query.nu:<9.3g} objective {query.objective:<10.4g} "
    if width is None:
        return number + found + performance + query.arch
    if width < len(number + found + performance) + LEAST_TEXT:
        found = ""
    return cut(number + found + performance + query.arch, width)


def _left_out(count: int) -> list[str]:
    return [f"left out: {count:,} architectures that are not in all of these runs"] if count else []


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


def search_heading(started: StartedSearch, candidates: int, left_out: int = 0, size: TrainingSize | None = None) -> str:
    """What the search works on and trains, what of an average it leaves out, whether it looks at test accuracies."""
    from hnas.pipeline.store.run import run_or_mean

    settings = started.settings
    lines = [
        f"{'resuming' if started.name else 'searching'} {candidates:,} architectures of "
        f"{run_or_mean(settings.run, settings.runs)} "
        f"({settings.space} on {settings.dataset}) with M = {settings.metric}, oracle {settings.oracle}",
        *_left_out(left_out),
        *([f"each query is a training: {size_text(size)}"] if size is not None else []),
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
        f"best: {winner.arch}\n"
        f"      {winner.performance:.2f} % {column}, query {winner.query} of {len(result.queries)}, "
        f"mu {winner.mu:.3g}, nu {winner.nu:.3g}\n"
        f"      search {result.search}: {own:.2f} s of its own, {oracle:.2f} s in the oracle"
    ) + (f"\n      `hnas search --resume {result.search} --json` shows the queries whole" if cut_short else "")


def correlation_text(found: Correlations, width: int | None = None) -> str:
    """Both tables for people."""
    from hnas.pipeline.store.run import run_or_mean

    label = {"spearman": "Spearman's rho", "kendall": "Kendall's tau"}[found.method]
    run = found.run
    what = run_or_mean(run["run"], found.runs)
    lines = [f"{what}: {run['space']} on {run['dataset']}, {found.n:,} architectures, {label}"]
    lines += [*_left_out(found.left_out), ""]
    short = {name: name.replace("accuracy", "acc") for name in found.names}
    rows = [["", *(short[name] for name in found.names)]]
    for i, name in enumerate(found.names):
        rows.append([short[name], *(_number(found.matrix[i, j]) for j in range(len(found.names)))])
    remedy = "`--format csv` has all"
    lines.append(table(rows, texts=[True, *[False] * len(found.names)], width=width, remedy=remedy))
    if found.table_1:
        rows = [[f"with {found.target}", "realizable", "non-realizable", "mu", "nu"]]
        for row in found.table_1:
            values = [
                _number(row.realizable),
                _number(row.non_realizable),
                _number(row.mu, ".3g"),
                _number(row.nu, ".4g"),
            ]
            rows.append([row.metric, *values])
        lines += ["", table(rows, texts=[True] + [False] * 4, width=width, remedy=remedy)]
    elif found.target is None:
        lines += ["", "no accuracies of these architectures are in the store; `hnas import` adds them"]
    return "\n".join(lines)


def _number(value: float, form: str = ".2f") -> str:
    return "n/a" if np.isnan(value) else f"{value:{form}}"


def write_records(records: list[dict[str, Any]], form: str, out: TextIO) -> None:
    """Records as a JSON array or as CSV with a header; what is not known is null or empty."""
    if form == "json":
        json.dump(records, out, indent=2)
        out.write("\n")
        return
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)


def written_text(rows: int, output: Path) -> str:
    """How many rows of a result are in which file."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'} written to {output}"


def warn(text: str) -> None:
    """A remark for people, on standard error."""
    print(printable(text, lines=True), file=sys.stderr, flush=True)
