"""Where the time of one network's eight columns goes: multiply-adds by kind, and operators as measured.

    python benchmarks/cost.py [--data PATH] [--space NAME] [--seed 1]

For one random network of each space: the multiply-adds that its forward pass needs, those that each part of the
metrics needs by the cost model (see docs/benchmarks.md), and the operators that torch's profiler saw in one call, on
one thread. The ratio of multiply-adds to those of a plain training step is what the metrics would take if convolutions
were all of both.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import torch
from metrics import SPACES, batch, networks
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from hnas import compute_metrics
from hnas.allocator import keep_freed_memory
from hnas.metrics.layers import Call
from hnas.metrics.ntk import Gram

GROUPS = {
    "convolutions": ("convolution",),
    "products (per-sample gradients, Θ₀)": ("bmm", "addmm", "aten::mm", "dot"),
    "copies": ("copy_", "clone", "cat"),
    "reductions": ("sum", "mean", "norm", "max_pool", "avg_pool"),
    "entry by entry": ("mul", "add", "sub", "div", "rsqrt", "threshold", "clamp", "relu", "neg", "fill", "zero"),
}


class Counted(Gram):
    """Θ₀, counting for each layer the multiply-adds of a forward pass and of the layer's products."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.forward = 0
        self.gram = 0
        COUNTED.append(self)

    def add(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Count, then add."""
        positions = gy.numel() // (gy.shape[1] if call.map.convolution else gy.shape[-1])
        self.forward += positions * call.layer.weight.numel()
        self.gram += 3 * len(x) ** 2 // 4 * call.layer.weight.numel()
        super().add(call, x, gy)


COUNTED: list[Counted] = []


def main() -> None:
    """Print the model and the profile of one network of each space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--space", action="append", choices=SPACES)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    images, labels = batch(options.data, options.batch_size)
    for name in options.space or SPACES:
        ((arch, network),) = networks(name, 1, options.seed)
        compute_metrics(network, images, labels)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            compute_metrics(network, images, labels)
        print(f"\n{name}  {arch}")
        model(network, images, labels)
        operators(seen)


def model(network: torch.nn.Module, images: Tensor, labels: Tensor) -> None:
    """Print the multiply-adds of each part, in millions for the whole batch and in forward passes."""
    from hnas.metrics import ntk

    original, ntk.Gram = ntk.Gram, Counted  # type: ignore[misc]
    try:
        compute_metrics(network, images, labels)
    finally:
        ntk.Gram = original  # type: ignore[misc]
    counted = COUNTED.pop()
    parts = {
        "forward": 1, "gradient": 2, "Θ₀: input gradients": 1, "Θ₀: per-sample gradients": 1, "GraSP: W p, W q": 2,
        "GraSP: G x, G p": 2,
    }  # fmt: skip
    for part, passes in parts.items():
        print(f"  {part:<28}{passes * counted.forward / 1e6:10,.0f} M  {passes:5.2f}")
    share = counted.gram / counted.forward
    print(f"  {'Θ₀: products, float64':<28}{counted.gram / 1e6:10,.0f} M  {share:5.2f}")
    total = sum(parts.values()) + share
    print(f"  {'all':<28}{total * counted.forward / 1e6:10,.0f} M  {total:5.2f}, {total / 3:.2f} plain steps")


def operators(seen: Any) -> None:
    """Print the share of each group of operators in the time of the call, and the largest operators."""
    groups: dict[str, float] = defaultdict(float)
    events = seen.key_averages()
    for event in events:
        group = next((g for g, names in GROUPS.items() if any(part in event.key for part in names)), "other")
        groups[group] += event.self_cpu_time_total
    total = sum(groups.values())
    for group, time in sorted(groups.items(), key=lambda item: -item[1]):
        print(f"  {group:<40}{time / total:6.1%}  {time / 1e3:7.0f} ms")
    largest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:8]
    print(
        "  largest: "
        + ", ".join(f"{e.key.removeprefix('aten::')} {e.self_cpu_time_total / total:.0%}" for e in largest)
    )


if __name__ == "__main__":
    main()
