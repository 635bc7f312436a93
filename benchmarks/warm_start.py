"""What a warm start gains on another data set: the winner, and the query that found it, by the number of known values.

    python benchmarks/warm_start.py --store S --known SOURCE:DATASET --target SOURCE:DATASET [--methods hnas,rea]

The store needs accuracies of both, see `hnas import`. Searches are guided by the test accuracies of the target. Of the
known data set they are told the accuracies (validation, where the store has it) of so many random architectures, drawn
anew for each seed. Methods that begin with short trainings are told the same at each length.
"""

from __future__ import annotations

import argparse

import numpy as np

from hnas.optim.algorithm import best, search
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.signals import choose_signal
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.store import Store, store_location

#: The longest training of methods that begin with short ones.
_EPOCHS = 12


def main() -> None:
    """Print a row of a Markdown table for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store")
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--known", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--methods", default="hnas,regressor,rea,local-search")
    parser.add_argument("--counts", default="0,50,200")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    connection = connect(Store(store_location(options.store)), shipped_tables())
    pool = RunPool(connection, pick_run(connection, space=options.space, dataset=options.dataset).name)
    columns = []
    for text, accuracy in ((options.known, None), (options.target, "test_accuracy")):
        source, _, dataset = text.partition(":")
        signal = choose_signal(connection, options.space, dataset, source=source, accuracy=accuracy)
        if signal is None:
            parser.error(f"the store has no accuracies on {dataset}")
        columns.append(pool.accuracies(signal))
    known, target = columns
    table = dict(zip(pool.archs, target.tolist(), strict=True))
    counts = [int(count) for count in options.counts.split(",")]
    print(f"| method | {' | '.join(map(str, counts))} |\n|{' --- |' * (1 + len(counts))}")
    for method in options.methods.split(","):
        cells = [method]
        for count in counts:
            winners = []
            for seed in range(options.seeds):
                drawn = np.random.default_rng([seed, 7]).choice(len(known), count, replace=False)
                told = {pool.archs[i]: float(known[i]) for i in drawn} or None
                queries = search(
                    pool, lambda arch, _=None: table[arch], method=method, queries=options.queries, seed=seed,
                    epochs=_EPOCHS, known=told,
                )  # fmt: skip
                winner = best(queries)
                found = next(query.query for query in queries if query.arch == winner.arch)
                winners.append((winner.performance, found))
            performance, query = np.array(winners).T
            cells.append(f"{performance.mean():.2f} ± {performance.std():.2f} ({query.mean():.1f})")
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
