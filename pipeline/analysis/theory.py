"""The figures of the page on the theory, drawn from numbers that `hnas.theory` computes on the spot."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from hnas.pipeline.io.figure_files import check_figure, lighten, save_figure
from hnas.theory import connections, descent, generalisation, topology
from hnas.theory.networks import Dense, condition_number

_COLOURS = ("#0072B2", "#D55E00", "#009E73")


def plot_theory(folder: Path) -> tuple[Path, ...]:
    """Draw theorem1.svg, theorem2.svg and theorem3.svg to `folder`, in some 20 s, and return their paths.

    Raises `UsageError` where the folder does not exist, `HnasError` where writing fails.
    """
    drawings = {"theorem1": _theorem1, "theorem2": _theorem2, "theorem3": _theorem3}
    paths = tuple(folder / f"{name}.svg" for name in drawings)
    for path, draw in zip(paths, drawings.values(), strict=True):
        check_figure(path)
        with mpl.rc_context({"svg.hashsalt": "hnas"}):
            save_figure(draw(), path)
    return paths


def _theorem1() -> Figure:
    """The ratio of both sides of each inequality against the width: median and range over the networks."""
    measured = connections.study(seed=0)
    widths = sorted({network.width for network in measured})
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    lighten(axes)
    for i, (name, colour) in enumerate(zip(("gradient norm", "SNIP", "GraSP"), _COLOURS, strict=True)):
        ratios = [np.array([n.connection.ratios[i] for n in measured if n.width == width]) for width in widths]
        alive = [values[values > 0] for values in ratios]
        medians = np.array([np.median(values) for values in alive])
        ranges = np.abs(np.array([[values.min(), values.max()] for values in alive]).T - medians)
        axes.errorbar(
            np.array(widths) * 1.06 ** (i - 1), medians, ranges, fmt="o-", color=colour, label=name, capsize=3
        )
    axes.axhline(1, color="0.3", linewidth=1, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.set_xlabel("width of the two hidden layers")
    axes.set_ylabel("M / (C M_Trace)")
    axes.legend(frameon=False, fontsize=8)
    return figure


def _theorem2() -> Figure:
    """The gap against κ/M with the fitted bound, and real training errors beside the kernel's prediction."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = panels = figure.subplots(1, 2)
    for panel in panels:
        lighten(panel)
    trained = generalisation.train(seed=0, noise=0.25)
    fitting, testing = generalisation.random_halves(len(trained.kappa), 0)
    unit = (trained.kappa / trained.trace).numpy()
    constant = generalisation.theorem2(trained, fitting, testing).constant
    for name, half, marker, colour in (("fitted on", fitting, "o", "0.6"), ("tested on", testing, "s", _COLOURS[0])):
        left.plot(
            unit[half], trained.gap[half], marker, color=colour, markersize=4, label=f"networks the constant is {name}"
        )
    ends = np.array([unit.min(), unit.max()])
    left.plot(ends, constant * ends, color=_COLOURS[1], label=f"c κ/M, c = {constant:.1e}")
    left.axhline(0.5, color="0.3", linewidth=1, linestyle="--", label="½: vacuous above")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("κ / M_Trace")
    left.set_ylabel("largest L_g − L_S along training")
    left.legend(frameon=False, fontsize=7)
    times = (0, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200)
    for width, colour in zip((8, 32, 128), _COLOURS, strict=True):
        network = Dense((6, width), "tanh", 0.5)
        weights = network.draw(torch.Generator().manual_seed(0), 1)
        run = descent.descend(network, weights, generalisation.sphere_task(0, noise=0.25, tests=1), times)
        right.plot(times, run.training[0], "o", color=colour, markersize=4, label=f"width {width}")
        right.plot(times, descent.linear_training_error(run)[0], color=colour, linewidth=1)
    right.plot(times, descent.rate_bound(run)[0], "--", color="0.3", linewidth=1, label="½ (1 − η M² / (m κ))²ᵗ")
    right.set_xscale("symlog", linthresh=1)
    right.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    right.set_ylim(bottom=0)
    right.set_xlabel("step t")
    right.set_ylabel("training error L_S")
    right.legend(frameon=False, fontsize=7)
    return figure


def _theorem3() -> Figure:
    """κ of the deep architecture for two inputs against its depth: median, quartiles, and what the spread predicts."""
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    lighten(axes)
    depths = (1, 2, 4, 6, 8)
    generator = torch.Generator().manual_seed(0)
    for n, colour in zip((16, 64, 128), _COLOURS, strict=True):
        quartiles = []
        for depth in depths:
            x = topology.orthonormal(n, 2, generator)
            weights = torch.randn(200, depth, n, n, generator=generator, dtype=torch.float64)
            kappa = condition_number(topology.deep_kernel(weights, x))
            quartiles.append(torch.quantile(kappa, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).numpy())
        low, median, high = np.array(quartiles).T
        axes.errorbar(depths, median, (median - low, high - median), fmt="o", color=colour, capsize=3, label=f"n = {n}")
        axes.plot(depths, [topology.deep_median_kappa(n, depth) for depth in depths], color=colour, linewidth=1)
    axes.axhline(1, color="0.3", linewidth=1, linestyle="--", label="wide: κ = 1")
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 3, 5], ["1", "2", "3", "5"])
    axes.minorticks_off()
    axes.set_xlabel("depth L")
    axes.set_ylabel("κ(Θ'₀), two inputs")
    axes.legend(frameon=False, fontsize=8)
    return figure
