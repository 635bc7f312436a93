"""What one network's eight columns cost, in plain training steps of the same network.

    python benchmarks/metrics.py [--data PATH] [--space NAME] [--networks 40] [--threads 1] [--repeats 3]
                                 [--authors CHECKOUT]

A plain step is forward, cross entropy and backward, in torch's default layout and as users write it. Steps and metrics
alternate in one process, and each network counts with its fastest repeat, so that the ratio is steady on a machine
whose speed is not. `--data` is a data set as `hnas precompute` takes it; without it the images are noise of CIFAR's
size, which costs the same.

`--authors` is a checkout of github.com/shuyao95/HNAS (see authors.py). Its five measure functions are then timed on the
same network, batch and threads, in the same alternation, and their values held against ours in float64.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import authors
import torch
import torch.nn.functional as F

from hnas import compute_metrics, search_spaces
from hnas.allocator import keep_freed_memory
from hnas.pipeline.images import open_dataset, training_batch

SPACES = ("nasbench101", "nasbench201", "darts")


def batch(data: str | None, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (m, 3, S, S) and labels (m,)."""
    if data is None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn((size, 3, 32, 32), generator=generator)
        return images, torch.randint(0, 10, (size,), generator=generator)
    drawn = training_batch(open_dataset(data), size, 0)
    return torch.from_numpy(drawn.images), torch.from_numpy(drawn.labels)


def timed(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call by `clock`."""
    begun = clock()
    call()
    return clock() - begun


def step(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """A plain training step: forward, cross entropy and backward, without the update."""
    F.cross_entropy(network(images), labels).backward()
    network.zero_grad(set_to_none=True)


def networks(name: str, count: int, seed: int) -> Iterator[tuple[str, torch.nn.Module]]:
    """`count` random networks of a space at its own size; none whose output does not depend on its input."""
    space = search_spaces[name]
    live = (arch for arch in space.sample(2 * count, seed) if space.canonical(arch) != "y=0")
    for arch in islice(live, count):
        yield arch, space.network(arch, classes=10, channels=space.channels, cells=space.cells, seed=0).train()


def spread(ratios: list[float]) -> str:
    """The median and, of two networks or more, the quartiles."""
    if len(ratios) < 2:
        return f"ratio {ratios[0]:.2f}"
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"median ratio {median:.2f} (quartiles {low:.2f}, {high:.2f})"


def main() -> None:
    """Print a line for each network, and a summary for each space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--space", action="append", choices=SPACES)
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--authors", metavar="CHECKOUT")
    options = parser.parse_args()
    try:
        published = authors.load(options.authors) if options.authors else {}
    except authors.NoCheckoutError as error:
        sys.exit(str(error))
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    images, labels = batch(options.data, options.batch_size)
    summaries = []
    for name in options.space or SPACES:
        ratios, seconds, their_ratios, apart = [], [], [], []
        print("step_ms  metrics_ms  ratio  " + ("authors_ms  ratio  " if published else "") + "architecture")
        for arch, network in networks(name, options.networks, options.seed):
            calls: list[Callable[[], object]] = [
                partial(step, network, images, labels),
                partial(compute_metrics, network, images, labels),
            ]
            for call in calls:
                call()
            if published:
                calls.append(partial(authors.all_of, published, network, images, labels))
                apart.append(authors.differences(published, network, images, labels))
            rounds = [[timed(call) for call in calls] for _ in range(options.repeats)]
            plain, full, *rest = (min(values) for values in zip(*rounds, strict=True))
            ratios.append(full / plain)
            seconds.append(full)
            their_ratios += [published_time / plain for published_time in rest]
            beside = "".join(f"{other * 1e3:10.0f}  {other / plain:5.2f}  " for other in rest)
            print(f"{plain * 1e3:7.0f}  {full * 1e3:10.0f}  {full / plain:5.2f}  {beside}{arch}", flush=True)
        summaries.append(
            f"{name}: {spread(ratios)} over {len(ratios)} networks, batch "
            f"{options.batch_size}, {options.threads} thread(s); mean {statistics.mean(seconds):.2f} s a network"
        )
        if published:
            summaries.append(f"{name}, the authors' functions: {spread(their_ratios)}; {authors.describe(apart)}")
    print("", *summaries, sep="\n")


if __name__ == "__main__":
    main()
