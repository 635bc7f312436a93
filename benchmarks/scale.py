"""What scheduling costs: simulated chunks through the driver, a kill and the way back, start-up, and real networks.

    python benchmarks/scale.py chunks [--chunks 100000] [--workers 2]
    python benchmarks/scale.py kill [--chunks 100000] [--at 50000]
    python benchmarks/scale.py startup [--workers 2]
    python benchmarks/scale.py networks --data PATH [--sample 120] [--workers 2 1]

`chunks` and `kill` carry out a plan with `precompute` itself, where a worker's part of a chunk of one architecture is
to sleep. `chunks` prints chunks a second and the driver's memory on the way (the scheduler is in the driver's process).
`kill` has each chunk leave a part in the store, kills the driver, and prints how long the same command needs until its
first chunk is done. `networks` computes real metrics: the share of the workers' time inside the metric engine, and the
time of several workers against one. `startup` is what passes before a worker begins its first chunk.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa

from hnas.metrics.columns import COLUMNS
from hnas.pipeline.catalog.views import connect
from hnas.pipeline.images import open_dataset
from hnas.pipeline.precompute.driver import Progress, precompute
from hnas.pipeline.precompute.plan import Plan, make_plan
from hnas.pipeline.precompute.worker import Chunk, Done, Job
from hnas.pipeline.store.store import Store
from hnas.spaces import search_spaces

SECONDS = 0.001


class Simulated:
    """A space of `size` architectures that are only names; the networks are those of one cell."""

    name, channels, cells = "simulated", 1, 1

    def __init__(self, size: int) -> None:
        self.size = size

    def enumerate(self) -> Iterator[str]:
        """The names in order."""
        return (f"architecture {k}" for k in range(self.size))

    def canonical(self, arch: str) -> str:
        """Each is its own class."""
        return arch

    def network(self, arch: str, **size: int) -> object:
        """One network for all."""
        cell = "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|"
        return search_spaces["nasbench201"].network(cell, **size)

    def describe(self, arch: str) -> dict[str, int]:
        """Some are twice as expensive as others."""
        return {"params": 1, "flops": 1 + hash(arch) % 2}


def sleep(job: Job, chunk: Chunk) -> Done:
    """A worker's part without any work."""
    time.sleep(SECONDS)
    return Done(len(chunk.members), SECONDS)


def sleep_and_store(job: Job, chunk: Chunk) -> Done:
    """The same with a part in the store."""
    rows = len(chunk.members)
    table = pa.table(
        {
            "canonical": [canonical for canonical, _ in chunk.members],
            **{name: [1.0] * rows for name in COLUMNS},
            "status": ["ok"] * rows,
            "seconds": pa.array([SECONDS] * rows, pa.float32()),
            "ntk_row": pa.array(range(chunk.ntk_row, chunk.ntk_row + rows), pa.int32()),
        }
    )
    Store(job.store).write_table(table, "runs", job.run, "metrics", chunk.part)
    return Done(rows, SECONDS)


def simulated_plan(store: Store, chunks: int) -> tuple[Simulated, Plan]:
    """A plan of so many chunks of one architecture."""
    space = Simulated(chunks)
    return space, make_plan(store, space, open_dataset("digits"), batch_size=8, chunk_size=1)


def megabytes() -> float:
    """The resident memory of this process."""
    return float(psutil.Process().memory_info().rss) / 1e6


def chunks(options: argparse.Namespace) -> None:
    """Chunks a second, and memory."""
    marks = [0.01, 0.1, 0.5, 1.0]

    def report(progress: Progress) -> None:
        while marks and progress.done >= marks[0] * progress.total:
            print(
                f"{marks.pop(0):5.0%}  {progress.done:7,} chunks  {progress.rate:6.0f}/s  {megabytes():6.0f} MB",
                flush=True,
            )

    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder + "/store")
        space, plan = simulated_plan(store, options.chunks)
        begun = time.perf_counter()
        precompute(store, space, plan, workers=options.workers[0], progress=report, task=sleep)
        print(f"{time.perf_counter() - begun:.1f} s from the start of the workers to their end")


def store_parts(options: argparse.Namespace) -> None:
    """What `kill` kills: a part for each chunk, and a word when it starts, when it is at work, and when at `--at`."""
    print("begun", flush=True)
    store = Store(options.store)
    space, plan = simulated_plan(store, options.chunks)
    print(f"planned {plan.done}", flush=True)

    begun = []

    def report(progress: Progress) -> None:
        if progress.done and not begun:
            begun.append(progress)
            print("first", flush=True)
        if progress.done >= options.at:
            print("reached", flush=True)
            time.sleep(600)

    precompute(store, space, plan, workers=options.workers[0], progress=report, task=sleep_and_store)


def kill(options: argparse.Namespace) -> None:
    """Seconds from the start of a command to its first chunk, in a store of many parts after a kill."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "store-parts", f"--store={folder}/store", f"--chunks={options.chunks}"]
        for at in (options.at, 1):
            begun = time.perf_counter()
            with subprocess.Popen([*command, f"--at={at}"], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                for line in process.stdout:
                    print(f"{time.perf_counter() - begun:7.2f} s  {line.strip()}", flush=True)
                    if line.strip() == "reached":
                        os.kill(process.pid, signal.SIGKILL)


def startup(options: argparse.Namespace) -> None:
    """Seconds from `precompute` to the first network that a worker measured."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder + "/store")
        space = search_spaces["nasbench201"]
        count = 4 * options.workers[0]
        plan = make_plan(store, space, open_dataset("digits"), sample=count, batch_size=8, channels=4, cells=1)
        begun = time.perf_counter()

        def report(progress: Progress) -> None:
            what = f"{progress.done} networks measured" if progress.done else "workers started, plan written"
            print(f"{time.perf_counter() - begun:6.2f} s  {what}", flush=True)

        precompute(store, space, plan, workers=options.workers[0], progress=report)
        print(f"{time.perf_counter() - begun:6.2f} s  workers ended")


def networks(options: argparse.Namespace) -> None:
    """Several workers against one on real networks."""
    space = search_spaces["nasbench201"]
    walls = []
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder + "/store")
            plan = make_plan(store, space, open_dataset(options.data), sample=options.sample)
            began: list[float] = []

            def report(progress: Progress, began: list[float] = began) -> None:
                began.append(time.perf_counter())

            begun = time.perf_counter()
            precompute(store, space, plan, workers=workers, progress=report)
            whole, wall = time.perf_counter() - begun, began[-1] - began[0]
            rows = connect(store).execute("SELECT sum(seconds), count(*) FROM metrics").fetchall()[0]
            parts = len(list(Path(folder).glob("store/runs/*/metrics/*.parquet")))
            walls.append(wall)
            print(
                f"{workers} worker(s): {rows[1]} networks in {parts} chunks, {wall:.1f} s ({whole:.1f} s with start "
                f"and end), {rows[0] / (workers * wall):.1%} of the workers' time in the metric engine",
                flush=True,
            )
    if len(walls) == 2:
        print(f"{max(walls) / min(walls):.2f} times as fast")


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benchmarks = {"chunks": chunks, "kill": kill, "store-parts": store_parts, "startup": startup, "networks": networks}
    parser.add_argument("benchmark", choices=benchmarks)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--at", type=int, default=50_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--sample", type=int, default=120)
    parser.add_argument("--store")
    options = parser.parse_args()
    benchmarks[options.benchmark](options)


if __name__ == "__main__":
    main()
