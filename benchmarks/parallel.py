"""What several evaluations at a time lose, on a table whose seconds order the answers, and gain, in trainings.

    python benchmarks/parallel.py table --store S [--methods hnas,rea] [--parallel 1,4] [--seeds 100]
    python benchmarks/parallel.py trainings [--parallel 1,2] [--epochs 8] [--queries 4] [--pairs 2]

`table` needs accuracies with seconds that guide a search, and test accuracies: of the winner after 20 queries, the mean
and its standard error over seeds, and the time that the queries take. `trainings` runs `hnas search --oracle train
--threads 1` on digits with each number at a time in turn, of `queries` trainings and of three times as many, each in a
new store: the wall and processor seconds of the others, by their number, are those of a training. On a machine with
other work processor seconds say more: with the cores to itself, N at a time makes N times (processor seconds of one at
a time / those of N at a time) as many trainings an hour.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from hnas.optim.algorithm import best, search
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import reported
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.request import new_search
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.store import Store, store_location

HNAS = [sys.executable, "-m", "hnas.cli"]


def main() -> None:
    """Print a row of a Markdown table for each method, or each number at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("table", "trainings"))
    parser.add_argument("--store")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--methods", default="hnas,random,rea,regressor")
    parser.add_argument("--parallel")
    parser.add_argument("--queries", type=int)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=2)
    options = parser.parse_args()
    if options.what == "table":
        table(options)
    else:
        trainings(options)


def table(options: argparse.Namespace) -> None:
    """The winner's test accuracy, and the time of the search."""
    connection = connect(Store(store_location(options.store)), shipped_tables())
    settings = new_search(connection, space="nasbench201", dataset=options.dataset).settings
    pool = RunPool(connection, settings.run, signal=settings.signal)
    (signal,) = [found for found in reported(connection, settings.space) if found.dataset == options.dataset]
    test = pool.accuracies(signal)
    print("| method | at a time | test accuracy | seconds | share |\n| --- | --- | --- | --- | --- |")
    for method in options.methods.split(","):
        alone = 0.0
        for parallel in map(int, (options.parallel or "1,4").split(",")):
            found, times = [], []
            for seed in range(options.seeds):
                queries = search(
                    pool, pool.evaluate, method=method, queries=options.queries or 20, seed=seed, parallel=parallel
                )
                found.append(test[pool.position(best(queries).arch) or 0])
                times.append(max(query.elapsed or 0.0 for query in queries))
            error = np.std(found) / np.sqrt(len(found))
            seconds = statistics.mean(times)
            alone = alone or seconds
            row = (method, str(parallel), f"{np.mean(found):.3f} ± {error:.3f}", f"{seconds:,.0f}")
            print(f"| {' | '.join(row)} | {seconds / alone:.2f} |", flush=True)


def trainings(options: argparse.Namespace) -> None:
    """Wall and processor seconds of a training with each number at a time."""
    numbers = list(map(int, (options.parallel or "1,2").split(",")))
    found: dict[int, list[tuple[float, float]]] = {number: [] for number in numbers}
    for pair in range(options.pairs):
        for number in numbers if pair % 2 == 0 else numbers[::-1]:
            few, many = (searched(number, count * (options.queries or 4), options.epochs) for count in (1, 3))
            more = 2 * (options.queries or 4)
            found[number].append(((many[0] - few[0]) / more, (many[1] - few[1]) / more))
    print("| at a time | wall seconds | processor seconds | trainings an hour on idle cores |")
    print("| --- | --- | --- | --- |")
    wall, least = ({number: min(pair[k] for pair in pairs) for number, pairs in found.items()} for k in (0, 1))
    for number in numbers:
        gain = number * least[numbers[0]] / least[number] / numbers[0]
        print(f"| {number} | {wall[number]:.2f} | {least[number]:.2f} | x {gain:.2f} |", flush=True)


def searched(parallel: int, queries: int, epochs: int) -> tuple[float, float]:
    """The wall and processor seconds of a search with so many trainings, `parallel` at a time."""
    with tempfile.TemporaryDirectory() as store:
        place = ["nasbench201", "--dataset", "digits", "--store", store, "--quiet"]
        size = ["--sample", "60", "--channels", "8", "--cells", "2", "--batch-size", "16"]
        subprocess.run([*HNAS, "precompute", *place, *size], check=True, stdout=subprocess.DEVNULL)
        asked = ["--oracle", "train", "--method", "random", "--epochs", str(epochs), "--threads", "1"]
        command = [*HNAS, "search", *place, *asked, "--queries", str(queries), "--parallel", str(parallel)]
        before, begun = used(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun, used() - before


def used() -> float:
    """The processor seconds of all commands so far, with their workers."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
