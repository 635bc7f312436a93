"""HNAS against a table: the winner's accuracy over seeds and the search's own time.

    python benchmarks/search.py --store S [--run ID] [--accuracy test_accuracy] [--queries 20] [--seeds 5]

For every metric of the paper's Table 3: mean and deviation of the winner's accuracy, the mean of the best of as many
random draws, and the search's own seconds (all but the oracle).
"""

from __future__ import annotations

import argparse
import statistics
from random import Random

from hnas.pipeline.analysis.correlate import TABLE_1
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.request import new_search
from hnas.pipeline.search.session import run_search
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.store import Store, store_location


def main() -> None:
    """Print a line for each metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store")
    parser.add_argument("--run")
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--accuracy")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--acquisition", default="ei")
    options = parser.parse_args()
    store = Store(store_location(options.store))
    connection = connect(store, shipped_tables())
    scratch = Store("memory://searches")  # searches of a benchmark are not worth keeping
    for metric in TABLE_1:
        winners, own = [], []
        for seed in range(options.seeds):
            started = new_search(
                connection,
                space=options.space,
                run=options.run,
                metric=metric,
                accuracy=options.accuracy,
                queries=options.queries,
                acquisition=options.acquisition,
                seed=seed,
            )
            result = run_search(scratch, connection, started)
            winners.append(result.best.performance)
            own.append(sum(query.own_seconds for query in result.queries))
        print(
            f"{metric:<10} winner {statistics.mean(winners):.2f} ± {statistics.pstdev(winners):.2f} % "
            f"(each {', '.join(f'{w:.2f}' for w in winners)}), own time {max(own):.2f} s at most",
            flush=True,
        )
    settings = started.settings
    values = sorted(RunPool(connection, settings.run, signal=settings.signal).performances.tolist())
    random = statistics.mean(max(Random(seed).sample(values, options.queries)) for seed in range(1000))
    print(f"random     best of {options.queries} draws {random:.2f} %, best of the pool {values[-1]:.2f} %")


if __name__ == "__main__":
    main()
