"""Own time of every search method: all but the oracle, over the shipped table and over all cells of NAS-Bench-101.

    python benchmarks/methods.py [--queries 20] [--seeds 3] [--methods hnas,rea]

The 423,624 cells have metrics drawn from a log-normal distribution, since nobody has computed them all. Seconds are
processor time of a whole search in memory, the median over seeds, after one that is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from hnas.errors import UsageError
from hnas.optim.algorithm import search
from hnas.optim.methods.registry import methods
from hnas.optim.pools import ArrayPool
from hnas.pipeline.catalog.pool import RunPool
from hnas.pipeline.catalog.views import connect, pick_run
from hnas.pipeline.store.shipped_tables import shipped_tables
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces

_COLUMNS = ("grad_norm", "snip", "grasp", "trace", "kappa", "params", "flops")
_ARGUMENTS = {"top": "flops", "best-of": "-kappa"}


def main() -> None:
    """Print a row of a Markdown table for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join([*methods, "regressor:forest"]))
    options = parser.parse_args()
    pools = {"NAS-Bench-201": shipped(), "NAS-Bench-101": drawn()}
    print(f"| method | {' | '.join(f'{len(pool.archs):,} of {name}' for name, pool in pools.items())} |")
    print("| --- |" + " --- |" * len(pools))
    for name in options.methods.split(","):
        method = name if name not in _ARGUMENTS else f"{name}:{_ARGUMENTS[name]}"
        cells = [seconds(pool, method, options.queries, options.seeds) for pool in pools.values()]
        print(f"| {method} | {' | '.join(cells)} |", flush=True)


def shipped() -> ArrayPool:
    """The pool of the table of NAS-Bench-201 that ships."""
    connection = connect(Store("memory://nothing"), shipped_tables())
    pool = RunPool(connection, pick_run(connection, space="nasbench201").name)
    columns = {name: pool.column(name) for name in _COLUMNS}
    return ArrayPool(pool.archs, columns, [str(number) for number in pool.classes], search_spaces["nasbench201"])


def drawn() -> ArrayPool:
    """All cells of NAS-Bench-101 with made-up metrics."""
    space = search_spaces["nasbench101"]
    archs = list(space.enumerate())
    random = np.random.default_rng(0)
    columns = {name: np.exp(random.normal(2, 1, len(archs))) for name in _COLUMNS}
    return ArrayPool(archs, columns, space=space)


def seconds(pool: ArrayPool, method: str, queries: int, seeds: int) -> str:
    """The processor time of a search of `queries`, or a dash where the pool cannot serve the method."""
    rising = dict(zip(pool.archs, np.argsort(np.argsort(pool.column("trace"))) * 90 / len(pool.archs), strict=True))

    def oracle(arch: str, epochs: int | None = None) -> float:
        return rising[arch]

    times = []
    for seed in range(seeds + 1):
        begun = time.process_time()
        try:
            search(pool, oracle, method=method, queries=queries, seed=seed, epochs=12)
        except UsageError:
            return "-"
        times.append(time.process_time() - begun)
    return f"{statistics.median(times[1:]):.2f} s"


if __name__ == "__main__":
    main()
