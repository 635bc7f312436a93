"""How long a search of a full-size store waits for its first solution of eq. (7), and for each further one.

    python benchmarks/open_store.py [--space nasbench101] [--architectures 423624] [--seeds 3] [--store S]

Makes a store as a precompute of the whole of NAS-Bench-101 and an import of its accuracies leave it, with random
numbers, and runs the table search on it in a process of its own. Prints seconds from the start of the process to each
stage, and the processor's seconds until then, for the fastest of three.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from hashlib import md5
from pathlib import Path

import numpy as np
import pyarrow as pa

from hnas.metrics.columns import COLUMNS
from hnas.pipeline.importers.protocol import Rows
from hnas.pipeline.importers.writing import TableWriters
from hnas.pipeline.store.run import RunSettings
from hnas.pipeline.store.schema import SCHEMAS
from hnas.pipeline.store.store import Store

# What `hnas search` does, up to the queries, with a clock.
SEARCH = """
import sys, time
begun = float(sys.argv[4])  # when the process was asked for
stages = []
def stage(name):
    stages.append((name, time.time() - begun, time.process_time()))
from hnas import cli
from hnas.pipeline.search import report
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.search.request import new_search
from hnas.pipeline.store.store import Store
stage("imports")
connection = connect(Store(sys.argv[1]))
stage("store open")
from hnas.optim.objective import SearchRange
started = new_search(connection, space=sys.argv[2], metric="trace")
stage("run and accuracy chosen")
pool = started.pool.candidates(started.settings.accuracy, with_accuracy=True)
stage("pool made")
reach = SearchRange.of(*pool.terms(), 1.0)
mu, nu = reach.point(0.0, 0.5)
solution = pool.solve(mu=mu, nu=nu, t=1.0)
stage("first solution")
further, points = [], []
for k in range(int(sys.argv[3])):
    pool.take(solution.arch)
    t0 = time.perf_counter()
    mu, nu = reach.point(3 - 6 * k / 20, k / 20)
    t1 = time.perf_counter()
    solution = pool.solve(mu=mu, nu=nu, t=1.0)
    further.append(time.perf_counter() - t1)
    points.append(t1 - t0)
import json
heavy = ("torch", "scipy.stats", "sklearn", "bayes_opt", "pandas", "dask", "zarr")
heavy = [name for name in heavy if name in sys.modules]
print(json.dumps({"stages": stages, "further": further, "points": points, "heavy": heavy, "n": len(pool)}))
"""


def fill(store: Store, space: str, n: int, seeds: int) -> None:
    """A run of `n` architectures with their accuracies from `seeds` trainings each."""
    random = np.random.default_rng(0)
    archs = pa.array([md5(str(k).encode()).hexdigest() for k in range(n)])
    settings = RunSettings(
        space=space, dataset="cifar10", batch="0" * 16, batch_size=64, classes=10, image_size=32, channels=128, cells=3,
        seed=0, ntk="summed", dtype="float32", engine=1,
    )  # fmt: skip
    run = settings.id
    store.prepare()
    store.write_json(
        {"id": run, "created": "2024-01-01T00:00:00", "settings": asdict(settings)}, "runs", run, "run.json"
    )
    store.write_table(pa.table({"arch": archs, "canonical": archs}), "runs", run, "requests", "0.parquet")
    numbers = {name: np.exp(3 * random.standard_normal(n)) for name in COLUMNS}
    metrics = pa.table({"canonical": archs, **numbers, "status": ["ok"] * n, "seconds": np.ones(n, np.float32)})
    for part in range(0, n, 10_000):
        store.write_table(metrics.slice(part, 10_000), "runs", run, "metrics", f"{part}.parquet")
    static = {"params": np.arange(n), "flops": np.arange(n)}
    store.write_table(pa.table({"arch": archs, "canonical": archs, **static}), "architectures", space, "0.parquet")
    of = pa.array(random.permutation(np.repeat(np.arange(n), seeds)))
    columns = {
        "space": pa.repeat(space, len(of)), "arch": archs.take(of), "dataset": pa.repeat("cifar10", len(of)),
        "epochs": pa.repeat(pa.scalar(108, pa.int32()), len(of)), "seed": pa.array(np.arange(len(of)) % seeds),
    }  # fmt: skip
    columns |= {name: pa.array(100 * random.random(len(of))) for name in SCHEMAS["accuracies"].names[5:]}
    with TableWriters(store, space, space, "nasbench.tfrecord", "0") as writers:
        writers.write(Rows("accuracies", pa.RecordBatch.from_pydict(columns, schema=SCHEMAS["accuracies"])))
        writers.keep(writers.finish([]), None)


def main() -> None:
    """Make the store where there is none, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="nasbench101")
    parser.add_argument("--architectures", type=int, default=423_624)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--store")
    parser.add_argument("--queries", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = options.store or str(Path(folder) / "store")
        if not Path(place).exists():
            fill(Store(place), options.space, options.architectures, options.seeds)
        command = [sys.executable, "-c", SEARCH, place, options.space, str(options.queries)]
        runs = [
            json.loads(subprocess.run([*command, repr(time.time())], check=True, stdout=subprocess.PIPE).stdout)
            for _ in range(3)
        ]
    best = min(runs, key=lambda run: run["stages"][-1][1])
    before = 0.0
    for name, at, cpu in best["stages"]:
        print(f"{name:<26} {at:6.3f} s  (+{at - before:.3f}), {cpu:.3f} s of processor time")
        before = at
    for name in ("further", "points"):
        print(f"{name:<26} {1e3 * np.median(best[name]):6.1f} ms in the median, {1e3 * max(best[name]):.1f} ms at most")
    print(f"{best['n']:,} candidates; imported on the way: {', '.join(best['heavy']) or 'nothing heavy'}")


if __name__ == "__main__":
    main()
