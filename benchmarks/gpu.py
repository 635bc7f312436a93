"""What the metrics cost on a GPU, and how to fill it: networks a second, device memory, workers and streams.

    python benchmarks/gpu.py [--device cuda|cpu] [--data PATH] [--space NAME] [--networks 32] [--all]
                             [--workers 1 2 4] [--streams 1 2 4] [--authors CHECKOUT]

Everything goes through what a worker of `hnas precompute` calls, in its chunks of 16: building a network counts, the
start of the process and the first network do not. Printed are

* for each space, networks a second, the peak of the device's memory, and how often the host waited inside a network;
* the time for the live cells of NAS-Bench-201, extrapolated from the sample unless `--all` computes every one;
* the same cells by several processes on the one device, and by one process with as many threads, each with a CUDA
  stream of its own: which of the two fills a GPU that small networks leave idle;
* with `--authors`, a checkout of github.com/shuyao95/HNAS (see authors.py), their five functions on the same networks.

Processes share a GPU's cores only under NVIDIA's MPS; start it before (`nvidia-cuda-mps-control -d`) to measure that.
`--device cpu` runs the same program where there is no GPU: its figures say nothing about one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import authors
import torch
import torch.nn.functional as F
from host_reads import HostReads
from metrics import SPACES, batch, timed

from hnas import compute_metrics, search_spaces
from hnas.devices import numerics
from hnas.metrics import ENGINE_VERSION
from hnas.pipeline.precompute.worker import Job, Tensors, batch_tensors, measure, measure_all, prepare_process
from hnas.pipeline.store.run import RunSettings

CHUNK = 16
START_SECONDS = 300


def job_for(name: str, options: argparse.Namespace) -> Job:
    """What `hnas precompute` would send its workers; it has no store."""
    space = search_spaces[name]
    settings = RunSettings(
        space=name,
        dataset=options.data or "noise",
        batch="",
        batch_size=options.batch_size,
        classes=10,
        image_size=32,
        channels=options.channels or space.channels,
        cells=options.cells or space.cells,
        seed=0,
        ntk="summed",
        dtype="float32",
        engine=ENGINE_VERSION,
    )
    return Job("", settings.id, settings, options.device, keep_gram=False)


def chosen(name: str, count: int, seed: int) -> list[str]:
    """`count` architectures of a space, none whose output does not depend on its input."""
    space = search_spaces[name]
    return [arch for arch in space.sample(2 * count, seed) if space.canonical(arch) != "y=0"][:count]


def live_cells() -> list[str]:
    """One architecture of each class of NAS-Bench-201 that computes something."""
    space = search_spaces["nasbench201"]
    classes: dict[str, str] = {}
    for arch in space.enumerate():
        classes.setdefault(space.canonical(arch), arch)
    del classes["y=0"]
    return list(classes.values())


def in_chunks(job: Job, architectures: Sequence[str], batch: Tensors) -> None:
    """Measure them as a worker does."""
    for start in range(0, len(architectures), CHUNK):
        measure_all(job, architectures[start : start + CHUNK], batch)


def settle(device: str) -> None:
    """Wait for what the device has to do."""
    if device == "cuda":
        torch.cuda.synchronize()


class Waits:
    """How often the host waited for the device: as torch's operations tell, and on CUDA as torch's own check tells."""

    def __init__(self) -> None:
        self.operations = 0
        self.warned: int | None = None

    def __str__(self) -> str:
        told = "" if self.warned is None else f" (torch's check saw {self.warned})"
        return f"{self.operations} waits for the device inside a network{told}"


@contextmanager
def counting_waits(device: str) -> Iterator[Waits]:
    """Count them within."""
    waits = Waits()
    with warnings.catch_warnings(record=True) as told, HostReads() as reads:
        warnings.simplefilter("always")
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
                waits.warned = sum("synchronizing CUDA operation" in str(one.message) for one in told)
            waits.operations = len(reads.found)


def memory(device: str) -> str:
    """The most device memory since the last reset: what tensors took, and what torch held for them."""
    if device != "cuda":
        return "no device memory on the CPU"
    used, held = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return f"{used / 2**20:,.0f} MiB of device memory in tensors at most, {held / 2**20:,.0f} MiB held"


def space_line(name: str, options: argparse.Namespace, images: Any, labels: Any) -> str:
    """A space's networks a second, memory and waits."""
    from hnas.metrics import queue_metrics

    job = job_for(name, options)
    on_device = batch_tensors(job, (images, labels))
    architectures = chosen(name, options.networks, options.seed)
    measure(job, architectures[0], on_device)
    network = search_spaces[name].network(
        architectures[0], classes=10, channels=job.settings.channels, cells=job.settings.cells, seed=0
    )
    network = network.to(options.device)
    settle(options.device)
    with counting_waits(options.device) as waits:
        queue_metrics(network, *on_device[:2])
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = timed(lambda: in_chunks(job, architectures, on_device))
    return (
        f"{name}: {rate(len(architectures), seconds)} over {len(architectures)} networks; {memory(options.device)}; "
        f"{waits}"
    )


def rate(count: int, seconds: float) -> str:
    """Networks a second, and milliseconds for each."""
    return f"{count / seconds:.2f} networks/s ({seconds / count * 1e3:.0f} ms each)"


def serve(job: Job, architectures: list[str], images: Any, labels: Any, start: Any, finished: Any) -> None:
    """One of several processes: get ready, wait for the others, work."""
    prepare_process(job.device)
    on_device = batch_tensors(job, (images, labels))
    measure(job, architectures[0], on_device)
    start.wait(START_SECONDS)
    in_chunks(job, architectures, on_device)
    finished.put(len(architectures))


def with_processes(count: int, job: Job, architectures: list[str], images: Any, labels: Any) -> float:
    """Seconds in which `count` processes on the one device measure all architectures; their start is not counted."""
    context = multiprocessing.get_context("spawn")
    start, finished = context.Barrier(count + 1), context.Queue()
    workers = [
        context.Process(target=serve, args=(job, architectures[i::count], images, labels, start, finished), daemon=True)
        for i in range(count)
    ]
    for worker in workers:
        worker.start()
    start.wait(START_SECONDS)
    begun = time.perf_counter()
    done = sum(finished.get(timeout=3600) for _ in workers)
    seconds = time.perf_counter() - begun
    for worker in workers:
        worker.join()
    assert done == len(architectures)
    return seconds


def with_streams(count: int, job: Job, architectures: list[str], images: Any, labels: Any) -> float:
    """Seconds in which one process with `count` threads, each with its own CUDA stream, measures all architectures."""
    on_device = batch_tensors(job, (images, labels))
    measure(job, architectures[0], on_device)
    settle(job.device)

    def share(index: int) -> None:
        stream: AbstractContextManager[object] = nullcontext()
        if job.device == "cuda":
            stream = torch.cuda.stream(torch.cuda.Stream())
        with stream:
            in_chunks(job, architectures[index::count], on_device)

    with ThreadPoolExecutor(count) as pool:
        return timed(lambda: list(pool.map(share, range(count))))


def live_line(job: Job, options: argparse.Namespace, images: Any, labels: Any) -> tuple[str, list[str]]:
    """The time for all live cells of NAS-Bench-201, and the cells that were computed for it."""
    every = live_cells()
    cells = every if options.all else random.Random(options.seed).sample(every, min(options.networks, len(every)))
    on_device = batch_tensors(job, (images, labels))
    measure(job, cells[0], on_device)
    seconds = timed(lambda: in_chunks(job, cells, on_device))
    whole = seconds / len(cells) * len(every)
    source = "all computed" if options.all else f"extrapolated from {len(cells)} drawn at random"
    return f"the {len(every):,} live cells of NAS-Bench-201: {whole:.0f} s by one process, {source}", cells


def authors_line(published: dict[str, authors.Measure], job: Job, cells: list[str], images: Any, labels: Any) -> str:
    """The authors' functions and ours in plain steps, each network with the fastest of three rounds."""
    on_device = batch_tensors(job, (images, labels))
    ours, theirs, apart = 0.0, 0.0, []
    for arch in cells:
        network = search_spaces["nasbench201"].network(
            arch, classes=10, channels=job.settings.channels, cells=job.settings.cells, seed=0
        )
        network = network.to(job.device).train()

        def step(network: torch.nn.Module = network) -> None:
            F.cross_entropy(network(on_device[0]), on_device[1]).backward()
            network.zero_grad(set_to_none=True)
            settle(job.device)

        def own(network: torch.nn.Module = network) -> None:
            compute_metrics(network, *on_device[:2])

        def published_ones(network: torch.nn.Module = network) -> None:
            authors.all_of(published, network, *on_device[:2])
            settle(job.device)

        apart.append(authors.differences(published, network, *on_device[:2]))
        rounds = [[timed(call) for call in (step, own, published_ones)] for _ in range(3)]
        plain, own_time, their_time = (min(values) for values in zip(*rounds, strict=True))
        ours += own_time / plain / len(cells)
        theirs += their_time / plain / len(cells)
    return (
        f"the authors' functions: {theirs:.2f} plain steps a network, ours one by one {ours:.2f}, means over "
        f"{len(cells)} cells; {authors.describe(apart)}"
    )


def main() -> None:
    """Print the device, then a line for each figure as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--data")
    parser.add_argument("--space", action="append", choices=SPACES)
    parser.add_argument("--networks", type=int, default=32)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--channels", type=int)
    parser.add_argument("--cells", type=int)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--authors", metavar="CHECKOUT")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; --device cpu runs the same program on the CPU")
    if min([options.networks, *options.workers, *options.streams]) < 1:
        sys.exit("--networks, --workers and --streams take numbers of 1 or more")
    try:
        published = authors.load(options.authors) if options.authors else {}
    except authors.NoCheckoutError as error:
        sys.exit(str(error))
    images, labels = (tensor.numpy() for tensor in batch(options.data, options.batch_size))
    job = job_for("nasbench201", options)
    prepare_process(options.device)
    how = numerics(options.device)
    print(
        f"{how.device}: {how.name}, torch {torch.__version__}, TF32 {'on' if how.tf32 else 'off'}, "
        f"deterministic {'yes' if how.deterministic else 'no'}, batch {options.batch_size}"
    )
    for name in options.space or SPACES:
        print(space_line(name, options, images, labels), flush=True)
    line, cells = live_line(job, options, images, labels)
    print(line, flush=True)
    shared = cells[: max([options.networks, *options.workers, *options.streams])]
    for count in options.workers:
        seconds = with_processes(min(count, len(shared)), job, shared, images, labels)
        print(f"{count} processes on one device: {rate(len(shared), seconds)}", flush=True)
    for count in options.streams:
        seconds = with_streams(count, job, shared, images, labels)
        print(f"one process, {count} threads with a stream each: {rate(len(shared), seconds)}", flush=True)
    if published:
        print(authors_line(published, job, cells[: min(8, len(cells))], images, labels), flush=True)


if __name__ == "__main__":
    main()
