"""The hypervolume of `hnas search --minimise` beside random search's, on columns of one's own.

    python benchmarks/pareto.py --store S --columns edgegpu_latency,params [--queries 20] [--seeds 20]

The store needs accuracies that can guide a search and the columns: `hnas import columns`. For each column: mean and
deviation over seeds of the hypervolume (of performance and the column) that the evaluated architectures have.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np

from hnas.optim.algorithm import search
from hnas.pipeline.analysis.pareto import hypervolume
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.request import new_search
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.store import Store, store_location


def main() -> None:
    """Print a row of a Markdown table for each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store")
    parser.add_argument("--space", default="nasbench201")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--columns", required=True)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    connection = connect(Store(store_location(options.store)), shipped_tables())
    settings = new_search(connection, space=options.space, dataset=options.dataset).settings
    pool = RunPool(connection, settings.run, signal=settings.signal)
    print("| column | hnas --minimise | hnas | random | all |\n| --- | --- | --- | --- | --- |")
    for column in options.columns.split(","):
        points = np.column_stack([pool.column(column), pool.performances])
        points = points[np.isfinite(points).all(axis=1)]
        cells = [column]
        for method, named in (("hnas", {"minimise": column}), ("hnas", {}), ("random", {})):
            found = []
            for seed in range(options.seeds):
                queries = search(pool, pool.evaluate, method=method, queries=options.queries, seed=seed, **named)
                rows = [pool.position(query.arch) or 0 for query in queries]
                front = np.column_stack([pool.column(column)[rows], pool.performances[rows]])
                found.append(hypervolume(front[np.isfinite(front).all(axis=1)], points, [False, True]))
            cells.append(f"{statistics.mean(found):.3f} ± {statistics.pstdev(found):.3f}")
        print(f"| {' | '.join(cells)} | {hypervolume(points, points, [False, True]):.3f} |", flush=True)


if __name__ == "__main__":
    main()
