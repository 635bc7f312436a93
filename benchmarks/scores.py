"""What the scores that share the passes of the eight columns add to them, in plain training steps of the same network.

    python benchmarks/scores.py [--data PATH] [--space NAME] [--networks 40] [--threads 1] [--repeats 3] [--each]

Steps, columns, and columns with all shared scores alternate in one process, and each network counts with its fastest
repeat of each, in processor time. `--each` times every score for itself beside the columns too.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch
from metrics import SPACES, batch, networks, spread, step, timed

from hnas import compute_metrics
from hnas.allocator import keep_freed_memory
from hnas.scores.registry import scores


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
    parser.add_argument("--each", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    images, labels = batch(options.data, options.batch_size)
    shared = sorted(name for name in scores if scores[name].shared)
    asked = {"all": shared, **({name: [name] for name in shared} if options.each else {})}
    summaries = []
    for space in options.space or SPACES:
        added: dict[str, list[float]] = {what: [] for what in asked}
        for arch, network in networks(space, options.networks, options.seed):
            calls = {"step": partial(step, network, images, labels)}
            for what, names in ({"columns": []} | asked).items():
                calls[what] = partial(compute_metrics, network, images, labels, scores=names)
            for call in calls.values():
                call()
            rounds = [
                {what: timed(call, time.process_time) for what, call in calls.items()} for _ in range(options.repeats)
            ]
            best = {what: min(times[what] for times in rounds) for what in calls}
            for what in asked:
                added[what].append((best[what] - best["columns"]) / best["step"])
            print(
                f"{best['step'] * 1e3:6.0f} ms a step, columns {best['columns'] / best['step']:5.2f} steps, "
                f"scores {added['all'][-1]:5.2f}  {arch}",
                flush=True,
            )
        summaries += [f"{space}, {what}: {spread(values)}" for what, values in added.items()]
    print("", *summaries, sep="\n")


if __name__ == "__main__":
    main()
