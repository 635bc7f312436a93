"""The command line: parse, call one function, render. Heavy packages are imported inside the commands."""

from __future__ import annotations

from hnas.pipeline.console import exit as ending

# isort: split
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from hnas import __version__
from hnas.errors import HnasError, UsageError, lacks_memory
from hnas.pipeline.console import completion

if TYPE_CHECKING:
    from hnas.optim.evaluations import Query
    from hnas.pipeline.store.store import Store

app = typer.Typer(
    name="hnas",
    help="Training-free neural architecture search with a memory: precompute metrics, query them, correlate, search.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


# The status that Typer returns after a KeyboardInterrupt.
_TYPERS_INTERRUPT = 130

SpaceName = Annotated[
    str,
    typer.Argument(metavar="SPACE", help="A search space, such as nasbench201.", autocompletion=completion.spaces),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="S", help="The store: a folder or URL.  [$HNAS_STORE, else data/store]"),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="D",
        help="digits, cifar10, cifar100, imagenet16-120, or a path.",
        autocompletion=completion.datasets,
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="ID", help="The run to read.  [the newest match]", autocompletion=completion.runs),
]
AverageOption = Annotated[
    bool, typer.Option("--average", help="Average over all runs that differ only in seed and batch.")
]
PartialOption = Annotated[bool, typer.Option("--partial", help="Accept an unfinished run.")]
InitOption = Annotated[
    Literal["torch", "he", "published"], typer.Option("--init", help="The distribution of the initial weights.")
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", help="Seed.")]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to compute.")]
ChannelsOption = Annotated[
    int | None, typer.Option("--channels", metavar="C", help="Channels of the first stage.  [the space's own]")
]
CellsOption = Annotated[
    int | None, typer.Option("--cells", metavar="N", help="Cells of each stage.  [the space's own]")
]
ImageSizeOption = Annotated[
    int | None, typer.Option("--image-size", metavar="N", help="Resize images to N x N pixels.  [as they are]")
]
SpaceOption = Annotated[
    str | None,
    typer.Option(
        "--space",
        metavar="SPACE",
        help="The space of ARCH.  [the first that accepts it]",
        autocompletion=completion.spaces,
    ),
]
ModelFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A model folder written by `--save`.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Hide progress.")]
TrainedChannelsOption = Annotated[
    int | None, typer.Option("--channels", metavar="C", help="Channels of the trained networks.  [the run's]")
]
TrainedCellsOption = Annotated[
    int | None, typer.Option("--cells", metavar="N", help="Cells of the trained networks.  [the run's]")
]
OracleOption = Annotated[
    str,
    typer.Option(
        "--oracle",
        metavar="ORACLE",
        help="Where performance comes from: table, train, table,train, an installed one, or 'command: ... {arch}'.",
        autocompletion=completion.oracles,
    ),
]
OracleOptionOption = Annotated[
    list[str] | None,
    typer.Option("--oracle-option", metavar="NAME=VALUE", help="A setting of an installed oracle."),
]
OracleTimeoutOption = Annotated[
    float | None,
    typer.Option("--oracle-timeout", metavar="SECONDS", help="Time limit for each command of --oracle."),
]
WarmStartOption = Annotated[
    list[str] | None,
    typer.Option(
        "--warm-start",
        metavar="WHAT",
        help="Known accuracies to start from: SOURCE[:DATASET[:EPOCHS]] of the store, or a CSV of arch,performance.",
    ),
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", metavar="N", help="Epochs of the training.  [the recipe's]")
]
RecipeOption = Annotated[
    Literal["nasbench201", "nasbench101", "darts", "hnas-darts"] | None,
    typer.Option("--recipe", help="Training recipe.  [that of evaluate's space; nasbench201 with 12 epochs]"),
]
RecipeOptionOption = Annotated[
    list[str] | None,
    typer.Option("--recipe-option", metavar="NAME=VALUE", help="A field of the recipe, such as cutout=16."),
]
SaveOption = Annotated[
    str | None, typer.Option("--save", metavar="DIR", help="Save the trained network to a model folder.")
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", metavar="N", help="Images per batch.")]
TrainedBatchSizeOption = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Images per training batch.  [the recipe's]")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Threads of a training on the CPU.  [one per core, at most 8]"),
]
SignalEpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", help="Epochs of a training, or of a table's accuracies.  [12; the fewest]"),
]
AccuracyOption = Annotated[
    str | None,
    typer.Option(
        "--accuracy",
        metavar="COLUMN",
        help="The table's column.  [validation, else test accuracy]",
        autocompletion=completion.accuracies,
    ),
]
SourceOption = Annotated[
    str | None, typer.Option("--source", metavar="NAME", help="The imported source.  [the largest]")
]
QueriesOption = Annotated[
    int | None, typer.Option("--queries", metavar="K", help="Architectures to evaluate.  [20 without --budget]")
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget", metavar="SECONDS", help="Stop after the query whose training exceeds this many seconds."),
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only architectures that satisfy a condition, such as 'kappa < 100'."),
]
MaxParamsOption = Annotated[
    float | None, typer.Option("--max-params", metavar="N", help="Only architectures with at most N parameters.")
]
MaxFlopsOption = Annotated[
    float | None, typer.Option("--max-flops", metavar="N", help="Only architectures with at most N multiply-adds.")
]
LearningRateOption = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="Initial learning rate.  [the recipe's]")
]

ParallelOption = Annotated[
    int | None, typer.Option("--parallel", metavar="N", help="Evaluations at a time; simulated for a table.  [1]")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Local worker processes.  [one per core or GPU]")
]
SchedulerOption = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS", help="An existing Dask cluster, tcp:// or tls://host:port."),
]
TLSAuthorityOption = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="The authority of a tls:// scheduler.  [Dask's own]")
]
TLSCertificateOption = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="The certificate to present to it.  [Dask's own]")
]
TLSKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key.  [in the file of the certificate]")
]


def _examples(*lines: str) -> str:
    """Return the end of a command's help. Tests parse every example with the parser, and run the quick ones."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def _version(value: bool) -> None:
    if value:
        print(f"hnas {__version__}")
        raise typer.Exit


def _store(named: str | None, *, existing: bool = False) -> Store:
    """Return the store to use; `existing` is for commands that only read. Raises `UsageError`."""
    from hnas.pipeline.store.shipped_tables import existing_store
    from hnas.pipeline.store.store import Store, store_location

    return existing_store(store_location(named), _tables()) if existing else Store(store_location(named))


def _tables() -> list[Store]:
    """Return the shipped tables, which are read with every store."""
    from hnas.pipeline.store.shipped_tables import shipped_tables

    return shipped_tables()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; allowed anywhere.")] = False,
) -> None:
    """Options of every command. `main` handles `--debug`."""


@app.command(
    epilog=_examples(
        "hnas precompute nasbench201 --dataset digits --sample 100",
        "hnas precompute darts --dataset cifar10 --sample 500 --batch-size 32 --dry-run",
    )
)
def precompute(
    space: SpaceName,
    dataset: DatasetOption = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", help="N architectures drawn uniformly.  [all]")
    ] = None,
    architectures: Annotated[
        Path | None, typer.Option("--architectures", metavar="FILE", help="The architectures in FILE, one per line.")
    ] = None,
    batch_size: BatchSizeOption = 64,
    seed: SeedOption = 0,
    batch_seed: Annotated[
        int | None, typer.Option("--batch-seed", metavar="N", help="Seed of the batch's images.  [same as --seed]")
    ] = None,
    channels: ChannelsOption = None,
    cells: CellsOption = None,
    image_size: ImageSizeOption = None,
    init: InitOption = "torch",
    ntk: Annotated[Literal["summed", "exact"], typer.Option("--ntk", help="How the NTK is computed.")] = "summed",
    keep_gram: Annotated[
        bool, typer.Option("--keep-gram", help="Keep the NTK matrices too, not only spectra.")
    ] = False,
    device: DeviceOption = "auto",
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    tls_ca: TLSAuthorityOption = None,
    tls_cert: TLSCertificateOption = None,
    tls_key: TLSKeyOption = None,
    chunk_size: Annotated[
        int | None,
        typer.Option("--chunk-size", metavar="N", help="Architectures per chunk of work.  [about a minute of work]"),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option("--scores", metavar="NAMES", help="Additional scores, comma-separated, or `all`.  [none]"),
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Compute metrics into the store.

    Stored rows are never computed again: the same command continues where an earlier one stopped.
    """
    if dataset is None:
        raise UsageError("precompute needs --dataset: digits, cifar10, cifar100, imagenet16-120, or a path")
    from hnas.pipeline.cluster.connection import check_cluster
    from hnas.pipeline.cluster.local_cluster import default_workers
    from hnas.pipeline.cluster.tls import Certificates
    from hnas.pipeline.images import open_dataset
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.precompute.driver import estimate
    from hnas.pipeline.precompute.driver import precompute as carry_out
    from hnas.pipeline.precompute.plan import make_plan
    from hnas.pipeline.precompute.progress import PrecomputeReporter
    from hnas.pipeline.precompute.report import dry_run_text, precompute_summary
    from hnas.pipeline.store.space_cache import space_cache
    from hnas.scores.registry import scores_named
    from hnas.spaces import search_spaces

    place = _store(store)
    with space_cache(place):
        plan = make_plan(
            place,
            search_spaces[space],
            open_dataset(dataset, image_size=image_size),
            sample=sample,
            architectures=architectures,
            batch_size=batch_size,
            seed=seed,
            batch_seed=batch_seed,
            channels=channels,
            cells=cells,
            ntk=ntk,
            init=init,
            chunk_size=chunk_size,
            scores=[] if scores is None else scores_named(scores),
            also=_tables(),
        )
        certificates = Certificates(tls_ca, tls_cert, tls_key)
        if dry_run:
            check_cluster(workers, scheduler, certificates)
            seconds = estimate(plan, device=device)
            expected = workers or default_workers(device)
            width = terminal_width(sys.stdout)
            print(dry_run_text(plan, seconds, workers=expected, keep_gram=keep_gram, width=width))
            return
        reporter = PrecomputeReporter(sys.stderr, quiet=quiet)
        try:
            outcome = carry_out(
                place,
                search_spaces[space],
                plan,
                workers=workers,
                scheduler=scheduler,
                certificates=certificates,
                device=device,
                keep_gram=keep_gram,
                progress=reporter,
            )
        finally:
            reporter.close()
    print(precompute_summary(plan, outcome))


@app.command(
    "import",
    epilog=_examples("hnas import csv accuracies.csv", "hnas import nasbench201 NAS-Bench-201-v1_1-096897.pth"),
)
def import_(
    source: Annotated[
        str,
        typer.Argument(metavar="KIND", help="The kind of file, as below.", autocompletion=completion.importers),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file.")],
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The name of its rows in the store.  [the file's]"),
    ] = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
) -> None:
    """Import a benchmark's accuracies, or your own columns.

    csv and parquet: a training a row, with arch, dataset, test_accuracy, ... columns: numbers of each architecture,
    such as latencies, in a .csv or .parquet file: arch, space and dataset where they matter, and any columns more.
    nasbench101: nasbench_only108.tfrecord or nasbench_full.tfrecord. nasbench201: the .pth file, v1.0 or v1.1.
    nats-bench: the folder NATS-tss-v1_0-3ffb9-simple, or the single file. suite-zero: a JSON file of
    NAS-Bench-Suite-Zero. Installed packages may add kinds.

    Each file is a source of its own, and none is averaged with another. Importing a file again changes nothing; a
    changed file of the same name replaces its rows; `hnas rm` takes them out.
    """
    from hnas.pipeline.console.streams import warn
    from hnas.pipeline.importers import import_accuracies
    from hnas.pipeline.importers.hints import hints
    from hnas.pipeline.importers.report import import_summary
    from hnas.pipeline.io.progress import ReadingReporter
    from hnas.pipeline.store.space_cache import space_cache

    place = _store(store)
    reporter = ReadingReporter(sys.stderr, quiet=quiet)
    try:
        with space_cache(place):
            done = import_accuracies(place, source, path, progress=reporter, name=name, also=_tables())
    finally:
        reporter.close()
    print(import_summary(done, path))
    for hint in hints(place, done, _tables()):
        warn(hint)


@app.command(epilog=_examples("hnas rm accuracies", "hnas rm run/194444ec57 --yes", "hnas rm 194444ec57 --dry-run"))
def rm(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A run, a search, a comparison, a supernet, an imported source, or a model's folder.",
            autocompletion=completion.removable,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove a run, a search, a comparison or an imported source from the store, or a model.

    Asks before it does, and says which searches used it. Of what lies outside the store only the folder of a model is
    removed.
    """
    from hnas.pipeline.console.streams import warn
    from hnas.pipeline.models.held import find_removable, remove_held

    place = _store(store)
    held = find_removable(place, name, _tables())
    for consequence in held.consequences:
        warn(consequence)
    if dry_run:
        from hnas.pipeline.models.held import removed_places
        from hnas.pipeline.store.footprint import footprint_text

        print(footprint_text(held.described, removed_places(place, held)))
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"rm asks before it removes the {held.described}, and here is no terminal; give --yes")
        if not typer.confirm(f"remove the {held.described}?", err=True):
            print("nothing was removed")
            return
    remove_held(place, held)
    print(f"removed: {held.described}")


@app.command(epilog=_examples("hnas fetch cifar10", "hnas fetch nasbench101 --to ~/benchmarks"))
def fetch(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="What to fetch, such as cifar10.", autocompletion=completion.fetchable),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="The target folder.  [$HNAS_DATA, else data/downloads]")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="A mirror of the file.  [where its authors publish it]")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Download a data set or a benchmark's file.

    cifar10, cifar100, nasbench101, nasbench101-full: checked against their published checksums; an interrupted download
    goes on. imagenet16-120, nasbench201, nats-bench, suite-zero have no stable link: says where they are.
    """
    from hnas.pipeline.images import data_folder
    from hnas.pipeline.io.fetch import fetch as get
    from hnas.pipeline.io.progress import ReadingReporter

    reporter = ReadingReporter(sys.stderr, quiet=quiet, verb="fetching")
    try:
        place = get(name, data_folder() if to is None else to, url=url, progress=reporter)
    finally:
        reporter.close()
    print(f"{name} is in {place}")


@app.command(
    epilog=_examples(
        "hnas search nasbench201 --dataset cifar10 --queries 20",
        "hnas search nasbench201 --dataset cifar10 --method rea --budget 12000",
        "hnas search nasbench201 --dataset cifar10 --method top --by flops --max-params 1e6",
        "hnas search nasbench201 --dataset digits --oracle train --queries 5 --epochs 3",
        "hnas search nasbench201 --oracle 'command: python train.py {arch}' --oracle-timeout 3600",
        "hnas search nasbench201 --dataset digits --oracle train --queries 8 --epochs 3 --parallel 2",
    )
)
def search(
    context: typer.Context,
    space: Annotated[
        str | None,
        typer.Argument(metavar="SPACE", help="A search space, such as nasbench201.", autocompletion=completion.spaces),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            metavar="NAME",
            help="The search method: hnas, random, rea, ...; NAME:M for its metric.",
            autocompletion=completion.methods,
        ),
    ] = "hnas",
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="M",
            help="The metric M, any column or SQL expression.  [trace for hnas]",
            autocompletion=completion.metrics,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="EXPR", help="What top and best-of rank by; same as --metric."),
    ] = None,
    oracle: OracleOption = "table",
    oracle_option: OracleOptionOption = None,
    oracle_timeout: OracleTimeoutOption = None,
    warm_start: WarmStartOption = None,
    dataset: DatasetOption = None,
    run: RunOption = None,
    average: AverageOption = False,
    partial: PartialOption = False,
    accuracy: AccuracyOption = None,
    source: SourceOption = None,
    queries: QueriesOption = None,
    budget: BudgetOption = None,
    where: WhereOption = None,
    max_params: MaxParamsOption = None,
    max_flops: MaxFlopsOption = None,
    t: Annotated[float, typer.Option("--t", metavar="T", help="F(x) = |x|^(2t).")] = 1.0,
    acquisition: Annotated[
        Literal["ucb", "ei", "poi"], typer.Option("--acquisition", help="The acquisition function.")
    ] = "ei",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="A setting of the method, such as draws=100 of best-of."),
    ] = None,
    minimise: Annotated[
        str | None,
        typer.Option("--minimise", metavar="COLUMN", help="Spread the queries over the front with this column."),
    ] = None,
    seed: SeedOption = 0,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="ID",
            help="Continue a saved search with its settings.",
            autocompletion=completion.searches,
        ),
    ] = None,
    epochs: SignalEpochsOption = None,
    recipe: RecipeOption = None,
    recipe_option: RecipeOptionOption = None,
    batch_size: TrainedBatchSizeOption = None,
    lr: LearningRateOption = None,
    channels: TrainedChannelsOption = None,
    cells: TrainedCellsOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    parallel: ParallelOption = None,
    scheduler: SchedulerOption = None,
    tls_ca: TLSAuthorityOption = None,
    tls_cert: TLSCertificateOption = None,
    tls_key: TLSKeyOption = None,
    save: SaveOption = None,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cost, and evaluate nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Search a precomputed run, with HNAS or another method.

    HNAS proposes (mu, nu) by Bayesian optimisation and evaluates the minimiser of eq. (7). The best evaluated
    architecture wins; its test accuracy is looked up where the store has it.
    """
    from hnas.threads import wait_without_spinning

    wait_without_spinning()
    from hnas.pipeline.catalog.expressions import condition
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.console.streams import warn
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.search.oracles import confirmed_oracle, own_oracle
    from hnas.pipeline.search.prepared import prepare
    from hnas.pipeline.search.progress import TrainingBar
    from hnas.pipeline.search.report import dry_run_text, query_line, search_heading, search_json, search_summary
    from hnas.pipeline.search.request import new_search
    from hnas.pipeline.search.saved import open_search
    from hnas.pipeline.search.session import cluster_of, run_search
    from hnas.pipeline.search.settings import method_of, options_of, training_of_search
    from hnas.pipeline.store.space_cache import space_cache

    if dry_run and as_json:
        raise UsageError("--dry-run prints text and no JSON; leave out one of --dry-run and --json")
    own = own_oracle(oracle, oracle_option or (), timeout=oracle_timeout, epochs=epochs)
    place = _store(store)
    connection = connect(place, _tables())
    trained: dict[str, Any] = {
        "recipe": recipe,
        "recipe_option": recipe_option or (),
        "batch_size": batch_size,
        "lr": lr,
        "threads": threads,
        "channels": channels,
        "cells": cells,
        "image_size": image_size,
    }
    training = training_of_search(
        oracle, dataset, epochs=epochs, save=save is not None, resumed=resume is not None, **trained
    )
    settings = options_of(option or []) | ({"minimise": minimise} if minimise is not None else {})
    if resume is not None:
        if warm_start:
            raise UsageError("--warm-start is for new searches and cannot be combined with --resume; leave it out")
        name, argument = method_of(method, metric=metric, by=by)
        usual = {"method": "hnas", "t": 1.0, "acquisition": "ei", "seed": 0, "average": False, "options": {}}
        asked = {"method": name, "t": t, "acquisition": acquisition, "seed": seed}
        asked |= {"average": average, "options": settings}
        sources = {setting: context.get_parameter_source(setting) for setting in asked}
        written = [setting for setting, source in sources.items() if source and source.name == "COMMANDLINE"]
        started = open_search(
            connection,
            place,
            resume,
            parallel=parallel,
            space=space,
            metric=argument,
            queries=queries,
            budget=budget,
            where=condition(where, max_params=max_params, max_flops=max_flops),
            run=run,
            accuracy=accuracy,
            source=source,
            trained={"epochs": epochs, "dataset": dataset, **trained},
            final=save is not None,
            **{setting: value for setting, value in asked.items() if value != usual[setting] or setting in written},
        )
    elif space is not None:
        name, argument = method_of(method, metric=metric, by=by)
        started = new_search(
            connection,
            space=space,
            dataset=dataset,
            run=run,
            average=average,
            method=name,
            metric=argument,
            accuracy=accuracy,
            epochs=epochs,
            source=source,
            training=None if oracle == "table" or own is not None else training,
            oracle=oracle,
            own=own,
            warm_start=warm_start or (),
            queries=20 if queries is None and budget is None else queries,
            budget=budget,
            where=condition(where, max_params=max_params, max_flops=max_flops),
            t=t,
            acquisition=acquisition,
            seed=seed,
            options=settings,
            parallel=1 if parallel is None else parallel,
        )
    else:
        raise UsageError("search needs a SPACE such as nasbench201, or --resume ID")
    evaluate = confirmed_oracle(started.settings, oracle, own)
    shown, width = not as_json and not quiet, terminal_width(sys.stdout)
    bar = TrainingBar(sys.stderr, quiet=quiet)

    def evaluated(query: Query) -> None:
        bar.evaluated(query.arch)
        if shown:
            print(query_line(query, width, percent=own is None), flush=True)

    cluster = cluster_of(
        started.settings,
        scheduler=scheduler,
        tls=(tls_ca, tls_cert, tls_key),
        device=device,
        show=bar.show,
        notice=warn,
    )
    with space_cache(place):
        if dry_run:
            prepared = prepare(
                connection, started.settings, oracle=evaluate, known=started.known, device=device, partial=partial
            )
            for remark in prepared.pool.remarks():
                warn(remark)
            print(dry_run_text(started, *prepared.estimate()))
            return
        result = run_search(
            place,
            connection,
            started,
            oracle=evaluate,
            device=device,
            cluster=cluster,
            on_start=lambda size: None if quiet else warn(search_heading(started, size)),
            on_query=evaluated,
            progress=bar,
            notice=warn,
            partial=partial,
            save=save,
            final=training,
        )
    print(search_json(result) if as_json else search_summary(result, width if shown else None))


@app.command(
    epilog=_examples(
        "hnas compare nasbench201 --dataset cifar10 --methods hnas:trace,random,rea,top:flops --epochs 12 --seeds 20",
        "hnas compare nasbench201 --dataset cifar10 --methods hnas:trace@20,rea@12000s --plot figure2.pdf",
        "hnas compare nasbench201 --dataset digits --methods hnas,random --oracle train --queries 5 --dry-run",
    )
)
def compare(
    space: SpaceName,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="LIST",
            help="NAME[:M][@BUDGET], with commas between; a budget is queries, or seconds such as 12000s.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Searches per method.")] = 20,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="METHOD", help="The method to test others against.  [the first hnas]"),
    ] = None,
    oracle: OracleOption = "table",
    oracle_option: OracleOptionOption = None,
    oracle_timeout: OracleTimeoutOption = None,
    warm_start: WarmStartOption = None,
    dataset: DatasetOption = None,
    run: RunOption = None,
    average: AverageOption = False,
    partial: PartialOption = False,
    accuracy: AccuracyOption = None,
    source: SourceOption = None,
    queries: QueriesOption = None,
    budget: BudgetOption = None,
    parallel: ParallelOption = None,
    where: WhereOption = None,
    max_params: MaxParamsOption = None,
    max_flops: MaxFlopsOption = None,
    epochs: SignalEpochsOption = None,
    recipe: RecipeOption = None,
    recipe_option: RecipeOptionOption = None,
    batch_size: TrainedBatchSizeOption = None,
    lr: LearningRateOption = None,
    channels: TrainedChannelsOption = None,
    cells: TrainedCellsOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", help="Threads of each training on the CPU.  [1]"),
    ] = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    tls_ca: TLSAuthorityOption = None,
    tls_cert: TLSCertificateOption = None,
    tls_key: TLSKeyOption = None,
    form: Annotated[
        Literal["table", "markdown", "latex", "csv", "json"],
        typer.Option("--format", help="Output format."),
    ] = "table",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw test error against the budget to FILE.")
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cost, and write nothing.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Compare search methods over many seeds.

    Prints means with deviations, intervals and tests. What the store has is not searched again: the same command goes
    on where an earlier one stopped, and more seeds add to it.
    """
    if methods is None:
        raise UsageError("compare needs --methods, a list such as hnas:trace,random,rea@12000s")
    from hnas.threads import wait_without_spinning

    wait_without_spinning()
    from hnas.pipeline.catalog.expressions import condition
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.cluster.connection import check_cluster
    from hnas.pipeline.cluster.tls import Certificates
    from hnas.pipeline.comparison.driver import compare as carry_out
    from hnas.pipeline.comparison.driver import missing, open_comparison
    from hnas.pipeline.comparison.estimate import estimate_text
    from hnas.pipeline.comparison.progress import CompareReporter
    from hnas.pipeline.comparison.report import written
    from hnas.pipeline.comparison.request import new_comparison
    from hnas.pipeline.comparison.results import Results
    from hnas.pipeline.comparison.specs import parse_specs
    from hnas.pipeline.console.streams import warn
    from hnas.pipeline.io.figure_files import check_figure
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.search.oracles import own_oracle
    from hnas.pipeline.search.settings import training_of_search
    from hnas.pipeline.store.space_cache import space_cache

    if dry_run and form in ("csv", "json"):
        raise UsageError(f"--dry-run prints text; leave out one of --dry-run and --format {form}")
    specs = parse_specs(methods)
    if plot is not None:
        check_figure(plot)
    own = own_oracle(oracle, oracle_option or (), timeout=oracle_timeout, epochs=epochs)
    training = training_of_search(
        oracle,
        dataset,
        usual_threads=1,
        recipe=recipe,
        recipe_option=recipe_option or (),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        threads=threads,
        channels=channels,
        cells=cells,
        image_size=image_size,
    )
    place = _store(store)
    connection = connect(place, _tables())
    comparison = new_comparison(
        connection,
        specs,
        seeds=seeds,
        reference=reference,
        space=space,
        dataset=dataset,
        run=run,
        average=average,
        accuracy=accuracy,
        epochs=epochs,
        source=source,
        training=training,
        oracle=oracle,
        own=own,
        warm_start=warm_start or (),
        queries=20 if queries is None and budget is None else queries,
        budget=budget,
        parallel=1 if parallel is None else parallel,
        where=condition(where, max_params=max_params, max_flops=max_flops),
    )
    with space_cache(place):
        certificates = Certificates(tls_ca, tls_cert, tls_key)
        if dry_run:
            check_cluster(workers, scheduler, certificates)
            work = open_comparison(place, connection, comparison, device=device, partial=partial, notice=warn)
            todo = missing(place, comparison)
            print(estimate_text(comparison, work, todo, workers=workers, cluster=scheduler is not None))
            return
        reporter = CompareReporter(sys.stderr, quiet=quiet)
        try:
            work = carry_out(
                place,
                connection,
                comparison,
                workers=workers,
                scheduler=scheduler,
                certificates=certificates,
                device=device,
                partial=partial,
                progress=reporter,
                notice=warn,
            )
        finally:
            reporter.close()
        # Reopened to include what was trained meanwhile.
        trained = None if work.first.trainer is None else work.first.trainer.signal
        current = connect(place, _tables()) if training else connection
        results = Results(place, current, comparison, work.pool, trained)
    print(written(results.table(), comparison, form, terminal_width(sys.stdout)))
    if plot is not None:
        from hnas.pipeline.comparison.figures import plot_curves

        curves, by_queries = results.curves()
        plot_curves(curves, results.datasets, 100 - results.optimum, plot, by_queries=by_queries)


@app.command(
    epilog=_examples(
        "ARCH='|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|none~2|'",
        'hnas evaluate "$ARCH" --dataset digits --epochs 5',
        'hnas evaluate "$ARCH" --dataset cifar10 --json',
    )
)
def evaluate(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="An architecture, in the notation of its space.")],
    dataset: DatasetOption = None,
    space: SpaceOption = None,
    epochs: EpochsOption = None,
    recipe: RecipeOption = None,
    recipe_option: RecipeOptionOption = None,
    batch_size: TrainedBatchSizeOption = None,
    lr: LearningRateOption = None,
    channels: ChannelsOption = None,
    cells: CellsOption = None,
    image_size: ImageSizeOption = None,
    init: InitOption = "torch",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    save: SaveOption = None,
    store: StoreOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Train one architecture and report its accuracy.

    The store keeps it: a training that it has is not made again, one that was stopped goes on.
    """
    if dataset is None:
        raise UsageError("evaluate needs --dataset: digits, cifar10, cifar100, imagenet16-120, or a path")
    from hnas.threads import wait_without_spinning

    wait_without_spinning()
    from hnas.pipeline.console.streams import warn
    from hnas.pipeline.search.evaluation import OWN_RECIPES
    from hnas.pipeline.search.evaluation import evaluate as train_one
    from hnas.pipeline.search.progress import TrainingBar
    from hnas.pipeline.search.report import training_heading, training_json, training_text
    from hnas.pipeline.search.settings import training_settings
    from hnas.pipeline.store.space_cache import space_cache
    from hnas.spaces import space_of

    place = _store(store)
    space = space or space_of(arch).name
    training = training_settings(
        dataset,
        recipe=recipe or OWN_RECIPES.get(space),
        recipe_option=recipe_option or (),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        threads=threads,
        channels=channels,
        cells=cells,
        image_size=image_size,
    )
    with space_cache(place):
        result = train_one(
            arch,
            training,
            space=space,
            init=init,
            seed=seed,
            device=device,
            store=place,
            on_start=lambda size: None if quiet else warn(training_heading(arch, size)),
            progress=TrainingBar(sys.stderr, quiet=quiet),
            save=save,
        )
    print(training_json(arch, result) if as_json else training_text(arch, result))


@app.command(
    epilog=_examples(
        "hnas latency nasbench201 --dataset cifar10",
        "hnas latency nasbench201 --sample 200 --batch-size 32 --max-params 1e6 --dry-run",
    )
)
def latency(
    space: SpaceName,
    dataset: DatasetOption = None,
    run: RunOption = None,
    where: WhereOption = None,
    max_params: MaxParamsOption = None,
    max_flops: MaxFlopsOption = None,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", help="N architectures drawn uniformly.  [all]")
    ] = None,
    batch_size: BatchSizeOption = 1,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="Threads on the CPU.")] = 1,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="N", help="Forward passes; their median is the latency.")
    ] = 20,
    channels: ChannelsOption = None,
    cells: CellsOption = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", metavar="N", help="Images of N x N pixels.  [the run's]")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The column's name.  [such as latency_ms_cpu1_b1]")
    ] = None,
    seed: SeedOption = 0,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cost, and write nothing.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure how long a run's networks take on this machine.

    Milliseconds of a forward pass, in a column that --where, --by, pareto and correlate take. What is measured is not
    measured again: the same command goes on where an earlier one stopped.
    """
    from hnas.pipeline.catalog.expressions import condition
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.io.progress import ReadingReporter
    from hnas.pipeline.latency.report import dry_run_text, latency_text
    from hnas.pipeline.latency.session import LatencySession, latency_pool
    from hnas.pipeline.latency.timing import latency_settings
    from hnas.pipeline.store.space_cache import space_cache

    settings = latency_settings(
        name=name,
        device=device,
        threads=threads,
        batch_size=batch_size,
        repeats=repeats,
        channels=channels,
        cells=cells,
        image_size=image_size,
    )
    place = _store(store)
    with space_cache(place):
        pool = latency_pool(
            connect(place, _tables()),
            settings,
            space=space,
            dataset=dataset,
            run=run,
            where=condition(where, max_params=max_params, max_flops=max_flops),
            sample=sample,
            seed=seed,
        )
        session = LatencySession(place, settings, pool, _tables())
        if dry_run:
            print(dry_run_text(session.settings, pool, len(session.todo), session.estimate()))
            return
        reporter = ReadingReporter(sys.stderr, quiet=quiet, verb="measuring")
        try:
            result = session.run(reporter)
        finally:
            reporter.close()
    print(latency_text(result))


@app.command(
    epilog=_examples(
        'hnas sql "SELECT arch, trace, kappa FROM pool ORDER BY kappa LIMIT 5"',
        'hnas sql "FROM pool" --output pool.parquet',
    )
)
def sql(
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="A query.  [an interactive shell]")] = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"] | None,
        typer.Option("--format", help="Output format.  [from FILE's suffix, else table]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write to FILE: .parquet, .csv, .json, or .txt for a table."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Query the store with SQL.

    Views: runs, requests, architectures, metrics, accuracies, mean_accuracies, curves, proxies, pool, mean_pool,
    spectra, grams, scores, searches, queries, incumbents, comparisons.
    """
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.console.query import run_query
    from hnas.pipeline.console.sinks import output_format, written_text
    from hnas.pipeline.console.streams import warn

    written_as = output_format(output, form)
    if output is not None and query is None:
        raise UsageError("--output needs a QUERY whose result to write")
    connection = connect(_store(store, existing=True), _tables())
    if query is None:
        from hnas.pipeline.console.shell import run_shell

        run_shell(connection, format=written_as, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
        return
    rows = run_query(connection, query, format=written_as, output=output)
    if output is not None:
        warn(written_text(rows, output))


@app.command(
    epilog=_examples(
        "hnas correlate --space nasbench201 --dataset cifar10",
        "hnas correlate --method kendall --plot correlations.pdf",
    )
)
def correlate(
    target: Annotated[
        str | None,
        typer.Option(
            "--with",
            metavar="COLUMN",
            help="Any column.  [test_accuracy, else valid_accuracy, if there is one]",
            autocompletion=completion.columns,
        ),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            "--given",
            metavar="COLUMNS",
            help="Partial correlations given these columns, such as params,flops.",
            autocompletion=completion.columns,
        ),
    ] = None,
    method: Annotated[
        Literal["spearman", "kendall"], typer.Option("--method", help="Rank correlation of each pair of columns.")
    ] = "spearman",
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", help="Epochs of the accuracies.  [as in `hnas search`]")
    ] = None,
    source: SourceOption = None,
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="SPACE", help="Runs of this space only.", autocompletion=completion.spaces),
    ] = None,
    dataset: DatasetOption = None,
    run: RunOption = None,
    average: AverageOption = False,
    partial: PartialOption = False,
    t: Annotated[float, typer.Option("--t", metavar="T", help="F(x) = |x|^(2t).")] = 1.0,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Output format.")] = "table",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the correlations to FILE.")] = None,
    store: StoreOption = None,
) -> None:
    """Correlate metrics and accuracies.

    Rank correlations of all columns with each other, and of the metrics with one column, plain and through eq. (7):
    Spearman's rho and Kendall's tau. --given tells what a metric says beyond the size of an architecture.
    """
    from hnas.pipeline.analysis.correlate import correlate as compute
    from hnas.pipeline.analysis.report import correlation_text, write_records
    from hnas.pipeline.catalog.views import connect, pick_run
    from hnas.pipeline.io.progress import status
    from hnas.pipeline.io.terminal_tables import terminal_width

    if plot is not None:
        from hnas.pipeline.analysis.figures import plot_correlations
        from hnas.pipeline.io.figure_files import check_figure

        check_figure(plot)
    connection = connect(_store(store, existing=True), _tables())
    chosen = pick_run(connection, run=run, space=space, dataset=dataset)
    with status(sys.stderr, "correlating"):
        found = compute(
            connection,
            chosen,
            target=target,
            given=[name.strip() for name in given.split(",")] if given is not None else (),
            method=method,
            epochs=epochs,
            source=source,
            t=t,
            average=average,
            partial=partial,
        )
    if form == "table":
        print(correlation_text(found, terminal_width(sys.stdout)))
    else:
        write_records(found.records(), form, sys.stdout)
    if plot is not None:
        plot_correlations(found, plot)


@app.command(
    epilog=_examples(
        "hnas reproduce table1",
        "hnas reproduce all --output paper.md --figures .",
        "hnas reproduce table3 --format latex --seeds 100",
    )
)
def reproduce(
    what: Annotated[
        Literal["table1", "table2", "table3", "figure1", "figure2", "figure3", "theorems", "all"],
        typer.Argument(metavar="WHAT", help="table1 to table3, figure1 to figure3, theorems, or all."),
    ],
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", min=1, help="Searches of each method.  [20; 10 in figure2]"),
    ] = None,
    form: Annotated[
        Literal["table", "markdown", "latex", "json"] | None,
        typer.Option("--format", help="How to write the result.  [as FILE ends, else table]"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to FILE: .txt, .md, .tex or .json.")
    ] = None,
    figure: Annotated[Path | None, typer.Option("--figure", metavar="FILE", help="Draw the figure to FILE.")] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Draw a PDF of each into the folder DIR.")
    ] = None,
    store: StoreOption = None,
    quiet: QuietOption = False,
) -> None:
    """Compute the paper's tables and figures now, beside the published numbers.

    From what the store and the tables that ship hold. What is missing is named with the command that brings it. The
    searches of table3 and figure2 are kept in the store, as `hnas compare` keeps them.
    """
    from hnas.threads import wait_without_spinning

    wait_without_spinning()
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.console.sinks import open_sink
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.reproduction.driver import figure_paths, names_of, output_format
    from hnas.pipeline.reproduction.driver import reproduce as compute
    from hnas.pipeline.reproduction.report import written
    from hnas.pipeline.store.space_cache import space_cache

    names = names_of(what)
    written_as = output_format(output, form)
    drawn = figure_paths(names, figure, figures)
    place = _store(store)
    with space_cache(place):
        found = compute(place, connect(place, _tables()), names, stderr=sys.stderr, seeds=seeds, quiet=quiet)
    with open_sink(output, sys.stdout, "table") as out:
        print(written(found, written_as, None if output is not None else terminal_width(sys.stdout)), file=out)
    if drawn:
        from hnas.pipeline.reproduction.figures import plot

        for one in found:
            plot(one, drawn[one.what])


@app.command(
    epilog=_examples(
        "hnas pareto nasbench201 --dataset cifar10 --minimise params --maximise test_accuracy",
        'hnas pareto nasbench201 --minimise flops,kappa --maximise trace --where "params < 1e6" --plot front.pdf',
    )
)
def pareto(
    space: Annotated[
        str | None,
        typer.Argument(metavar="[SPACE]", help="Runs of this space only.", autocompletion=completion.spaces),
    ] = None,
    minimise: Annotated[
        list[str] | None,
        typer.Option("--minimise", metavar="COLUMNS", help="Columns or SQL expressions, comma-separated."),
    ] = None,
    maximise: Annotated[
        list[str] | None,
        typer.Option("--maximise", metavar="COLUMNS", help="The same; test_accuracy and valid_accuracy too."),
    ] = None,
    searches: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="ID",
            help="Only what this search evaluated; `performance` is its result.",
            autocompletion=completion.searches,
        ),
    ] = None,
    dataset: DatasetOption = None,
    run: RunOption = None,
    average: AverageOption = False,
    partial: PartialOption = False,
    epochs: Annotated[
        int | None, typer.Option("--epochs", metavar="N", help="Accuracies after N epochs.  [as in `hnas search`]")
    ] = None,
    source: SourceOption = None,
    where: WhereOption = None,
    max_params: MaxParamsOption = None,
    max_flops: MaxFlopsOption = None,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Output format.")] = "table",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the front to FILE.")] = None,
    store: StoreOption = None,
) -> None:
    """Find the Pareto front of a pool, or of what searches evaluated.

    The hypervolume is the share of the box between the worst and the best of the pool that the front dominates.
    """
    from hnas.pipeline.analysis.pareto import front_runs
    from hnas.pipeline.analysis.pareto import pareto as compute
    from hnas.pipeline.analysis.report import front_text, write_records
    from hnas.pipeline.catalog.expressions import condition, split_expressions
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.io.terminal_tables import terminal_width

    if plot is not None:
        from hnas.pipeline.analysis.figures import plot_front
        from hnas.pipeline.io.figure_files import check_figure

        check_figure(plot)
    connection = connect(_store(store, existing=True), _tables())
    chosen, runs = front_runs(
        connection, run=run, space=space, dataset=dataset, searches=searches or [], average=average
    )
    found = compute(
        connection,
        chosen,
        runs=runs,
        minimise=split_expressions(minimise or []),
        maximise=split_expressions(maximise or []),
        searches=searches or [],
        where=condition(where, max_params=max_params, max_flops=max_flops),
        epochs=epochs,
        source=source,
        partial=partial,
    )
    if form == "table":
        print(front_text(found, terminal_width(sys.stdout)))
    else:
        write_records(found.records(), form, sys.stdout)
    if plot is not None:
        plot_front(found, plot)


@app.command(
    epilog=_examples("hnas report --output report.html", "hnas report --search a57a998ae7 --output search.html --open")
)
def report(
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="The HTML file to write.")] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="ID", help="Only this run.", autocompletion=completion.runs),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search", metavar="ID", help="Only this search, and its run.", autocompletion=completion.searches
        ),
    ] = None,
    comparison: Annotated[
        str | None,
        typer.Option(
            "--comparison",
            metavar="ID",
            help="Only this comparison, and its run.",
            autocompletion=completion.comparisons,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    store: StoreOption = None,
    quiet: QuietOption = False,
) -> None:
    """Write a report to look at: one HTML file that opens offline in any browser.

    Of the store: what it holds, its newest search, run and comparison. The charts tell the architecture under the
    cursor and draw its cells.
    """
    if output is None:
        raise UsageError("report needs --output FILE.html")
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.io.progress import status
    from hnas.pipeline.report.gather import gather
    from hnas.pipeline.report.page import check_page, open_page, write_page
    from hnas.pipeline.store.space_cache import space_cache

    check_page(output)
    place = _store(store, existing=True)
    with space_cache(place), status(sys.stderr, "making the report", quiet=quiet):
        found = gather(place, connect(place, _tables()), _tables(), run=run, search=search, comparison=comparison)
        write_page(found, output)
    print(f"written: {output}")
    if show:
        open_page(output)


@app.command(
    epilog=_examples("hnas predict best photos/", "hnas predict best cat.jpg dog.png --top 3 --format csv"),
)
def predict(
    folder: ModelFolder,
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Image files, and folders of them.")],
    top: Annotated[int, typer.Option("--top", metavar="K", min=1, help="The K most probable classes.")] = 1,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Output format.")] = "table",
) -> None:
    """Label images with a saved model.

    Images are resized to the size that the model was trained at. Those that cannot be read are listed at the end, with
    exit status 1; all others are labelled.
    """
    from hnas.pipeline.console.streams import warn
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.models import load
    from hnas.pipeline.models.report import unread_text, write_predictions

    model = load(folder)
    unread: list[HnasError] = []
    found = model.predict_each(images, unread.append)
    labelled = write_predictions(found, form, min(top, len(model.classes)), sys.stdout, terminal_width(sys.stdout))
    if len(unread) == 1 and not labelled:
        raise unread[0]
    for error in unread:
        warn(str(error))
    if unread:
        raise HnasError(unread_text(len(unread), labelled))


@app.command(
    epilog=_examples("hnas export best --format onnx", "hnas export best --output best.pt2"),
)
def export(
    folder: ModelFolder,
    form: Annotated[
        Literal["pt2", "onnx"] | None, typer.Option("--format", help="Program format.  [from FILE's suffix, else pt2]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The file.  [DIR.pt2 or DIR.onnx beside DIR]")
    ] = None,
) -> None:
    """Export a saved model as a program for other runtimes.

    pt2: for `torch.export.load`, where torch is installed and hnas is not. onnx: for onnxruntime and others; needs
    `pip install 'hnas[onnx]'`. Both take uint8 pixels (n, 3, S, S) and normalise them themselves.
    """
    from hnas.pipeline.models.exporting import export as carry_out

    print(f"written: {carry_out(folder, form, output)}")


@app.command(
    epilog=_examples(
        "hnas show DARTS_V2 --plot cells.svg",
        "hnas show '|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|' --json",
    )
)
def show(
    arch: Annotated[str, typer.Argument(metavar="ARCH", help="An architecture, in the notation of its space.")],
    space: SpaceOption = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw its cells to FILE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe an architecture, and draw its cells.

    Its parameters and multiply-adds are those of the benchmark's own size. Where a space has no drawing of its cells,
    the whole network is drawn.
    """
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.models.showing import architecture_json, architecture_text, describe
    from hnas.pipeline.store.space_cache import space_cache

    if plot is not None:
        from hnas.pipeline.io.figure_files import check_figure

        check_figure(plot)
    with space_cache(_store(None)):
        found = describe(arch, space)
        print(architecture_json(found) if as_json else architecture_text(found, terminal_width(sys.stdout)))
        if plot is not None:
            from hnas.pipeline.models.drawing import plot_graphs

            plot_graphs(found.graphs, plot)


@app.command(epilog=_examples("hnas info", "hnas info --json --store data/store"))
def info(
    model: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="A model folder written by `--save`.  [the store]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    store: StoreOption = None,
) -> None:
    """Describe the store, or a model.

    Of a model's folder the weights are read too, and compared with their digest.
    """
    if model is not None:
        if store is not None:
            raise UsageError(f"--store has no effect on the model {model}; leave out one of the two")
        from hnas.pipeline.models.held import model_json, model_text

        print(model_json(model) if as_json else model_text(model))
        return
    from hnas.pipeline.catalog.info import store_info
    from hnas.pipeline.catalog.report import info_json, info_text
    from hnas.pipeline.catalog.views import connect
    from hnas.pipeline.io.terminal_tables import terminal_width
    from hnas.pipeline.store.footprint import sizes

    place = _store(store, existing=True)
    held = {**store_info(connect(place, _tables())), "sizes": sizes(place)}
    print(info_json(held) if as_json else info_text(place.location, held, terminal_width(sys.stdout)))


@app.command(epilog=_examples("hnas check", "hnas check --json --store data/tables/nasbench201-cifar10"))
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    store: StoreOption = None,
    quiet: QuietOption = False,
) -> None:
    """Check the whole store, and report damage and how to repair it.

    Exit status 1 where anything is. Other commands verify only the files that they come to.
    """
    from hnas.pipeline.io.progress import status
    from hnas.pipeline.store.check import check_store
    from hnas.pipeline.store.report import check_json, check_text, damage_text

    place = _store(store, existing=True)
    with status(sys.stderr, "checking", quiet=quiet):
        report = check_store(place)
    print(check_json(report) if as_json else check_text(place.location, report))
    if report.damaged:
        raise HnasError(damage_text(place.location, report))


def main() -> None:
    """Run the command line and exit with 0 (success), 1 (failure) or 2 (usage error). Errors are one sentence."""
    from hnas.pipeline.console.streams import check_names, open_streams, results

    open_streams()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    ending.raise_interrupts()
    try:
        check_names(arguments)
        with results():
            status = app(arguments, prog_name="hnas", standalone_mode=False)
            if status == _TYPERS_INTERRUPT:
                raise KeyboardInterrupt
        ending.leave(status or 0)
    except SystemExit as done:  # from Typer, after shell completion
        ending.leave(done.code if isinstance(done.code, int) else 0)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 1, debug)
    except BrokenPipeError:
        ending.leave(1)
    except HnasError as error:
        _fail(str(error), error.exit_code, debug)
    except Exception as error:
        _fail(*_message(error), debug)


def _message(error: Exception) -> tuple[str, int]:
    """Return a sentence and an exit status for an error of the parser, a file or DuckDB, or an unexpected one."""
    from hnas.pipeline.console.parser_errors import is_parser_error, parser_sentence

    if is_parser_error(error):
        if len(sys.argv) < 2:
            print(error, end="\n\n", file=sys.stderr)  # the help
        return parser_sentence(error), UsageError.exit_code
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{str(error.filename)[:300]} cannot be used: {error.strerror}", HnasError.exit_code
    reason = str(error).strip().splitlines()
    if type(error).__module__ in ("duckdb", "_duckdb"):
        from hnas.pipeline.catalog.table_files import file_error

        if (own := file_error(error)) is not None:
            return str(own), own.exit_code
        return f"the store cannot be read: {reason[0]}; restore or remove that file", HnasError.exit_code
    if lacks_memory(error):
        sizes = "--channels, --cells, --image-size or --batch-size"
        return f"there is not enough memory for this; make {sizes} smaller, or use a larger machine", 2
    text = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
    return f"an error that hnas did not foresee: {text}; --debug shows where", HnasError.exit_code


def _fail(sentence: str, status: int, debug: bool) -> NoReturn:
    ending.ignore_interrupts()
    if debug:
        import traceback

        traceback.print_exc()
    ending.say(sentence)
    ending.leave(status)


if __name__ == "__main__":
    main()
