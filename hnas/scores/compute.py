"""All metrics of one network: the eight columns, Θ₀, and any scores."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from hnas.devices import full_float32
from hnas.errors import UsageError, check_seed
from hnas.metrics import Metrics, queue_metrics
from hnas.metrics.compute import check_labels
from hnas.metrics.inputs import checked_batch, checked_further, checked_network
from hnas.metrics.statistics import Statistics
from hnas.scores.protocol import Build, OwnScore, SharedScore, Subject
from hnas.scores.registry import scores as registry
from hnas.scores.registry import scores_named
from hnas.scores.undisturbed import left_alone


def compute_metrics(
    network: nn.Module,
    images: Any,
    labels: Any,
    ntk: str = "summed",
    scores: str | Iterable[str] = (),
    *,
    further: tuple[Any, Any] | None = None,
    build: Build | None = None,
    seed: int = 0,
) -> Metrics:
    """Compute the eight columns of `network` on the batch `images` (m, …), `labels` (m,), tensors or arrays.

    Labels are class indices. Any module with Conv1d/2d/3d (any stride, padding, dilation, groups, bias) and Linear
    layers works, on the device and in the precision of its parameters. Batch norm uses batch statistics, and nothing is
    random. The network is restored afterwards: weights, gradients, hooks, modes, running statistics. Only a weight that
    its forward pass changes in place stays changed.

    `ntk="summed"` back-propagates `Σ_i f_{y_i}(x_i)` once and forms each sample's gradient from its own activations, at
    the cost of one more backward pass; the published numbers are computed this way. `ntk="exact"` back-propagates each
    `f_{y_i}(x_i)` through the batch statistics in m backward passes, for study. The two agree where the batch does not
    couple.

    On CUDA everything is computed in full float32, without TF32.

    `scores` are names from `hnas.scores.registry` as a string such as `"naswot,fisher"`, a list of names, or `"all"`;
    the `scores` of the result hold their columns. Scores that share the engine's passes cost little; the files of the
    others state their cost. `further`, `build` and `seed` are those of `hnas.scores.protocol.Subject`; a score is NaN
    if it needs one that is missing. The images and labels of `further` may be what those of the batch may be.

    GraSP comes from one pass of two tangents (`hnas.metrics.grasp`). Autograd differentiates the network twice if some
    operation has no tangent rule, which gives the same value with more time and memory.

    Cost: about one forward, two input-gradient, one weight-gradient, one per-sample and four further convolution
    passes. Memory: one set of activations, the gradients at the outputs of batch norms, and the per-sample gradients of
    the largest layer. A layer whose input does not have the samples first costs two or three further input-gradient
    passes of the network, which assign its rows to samples (`hnas.metrics.owners`).

    Raises `UsageError` for an unknown score, for a seed that is no whole number, and for a network, images or labels
    that cannot be measured, and `HnasError` with torch's reason where the network fails on the images.

    >>> import torch
    >>> from hnas import compute_metrics, initialise
    >>> network = initialise(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), seed=0)
    >>> images = torch.eye(4, 12).view(4, 3, 2, 2)
    >>> metrics = compute_metrics(network, images, torch.tensor([0, 0, 1, 1]), scores="naswot")
    >>> metrics.ntk
    tensor([[2., 1., 0., 0.],
            [1., 2., 0., 0.],
            [0., 0., 2., 1.],
            [0., 0., 1., 2.]], dtype=torch.float64)
    >>> round(metrics.kappa, 6), sorted(metrics.columns())[:3], list(metrics.scores)
    (3.0, ['grad_norm', 'grad_norm_l2', 'grasp'], ['naswot'])
    """
    names = _names(scores)
    check_seed(seed)
    own = [name for name in names if not registry[name].shared]
    wanted = needs(names) if further is None else needs(names) | {"classes"}
    if own or further is not None:
        with torch.inference_mode(False):
            modules = checked_network(network)
            images, labels = checked_batch(modules, images, labels)
            further = None if further is None else checked_further(modules, further, images)
    with full_float32():
        metrics = queue_metrics(network, images, labels, ntk, wanted).result()
    if further is not None:
        check_labels(further[1], int(metrics.statistics["classes"]), "further ")
    values = shared_scores(names, metrics.statistics)
    if own:
        modes = {module: module.training for module in network.modules()}
        try:
            for module in modes:
                module.training = True  # not by `train`, which may be the network's own
            with full_float32():
                values |= own_scores(own, Subject(network, images, labels, further, build, seed))
        finally:
            for module, mode in modes.items():
                module.training = mode
    return replace(metrics, scores=values) if names else metrics


def _names(scores: str | Iterable[str]) -> list[str]:
    """Return the names of scores, sorted and without duplicates. Raises `UsageError`."""
    if isinstance(scores, str):
        return scores_named(scores) if scores else []
    listed = list(scores) if isinstance(scores, Iterable) else [scores]
    for name in listed:
        if not isinstance(name, str):
            raise UsageError(f"scores must be names such as 'naswot' or a list of them, got {name!r:.100}")
    return scores_named(",".join(listed)) if listed else []


def needs(names: Collection[str]) -> frozenset[str]:
    """Return the statistics that the shared scores among `names` read."""
    chosen = (registry[name] for name in names)
    return frozenset(need for score in chosen if score.shared for need in cast("SharedScore", score).needs)


def shared_scores(names: Collection[str], seen: Statistics) -> dict[str, float]:
    """Return the columns of the shared scores among `names`; `seen` has at least the statistics in their `needs`."""
    numbers: dict[str, float] = {}
    for name in names:
        score = registry[name]
        if score.shared:
            numbers |= cast("SharedScore", score)(seen)
    return numbers


def own_scores(names: Collection[str], subject: Subject) -> dict[str, float]:
    """Return the columns of the scores called `names`, which all run their own passes."""
    numbers: dict[str, float] = {}
    for name in names:
        numbers |= own_score(cast("OwnScore", registry[name]), subject)
    return numbers


def own_score(score: OwnScore, subject: Subject) -> dict[str, float]:
    """Return the columns of one score that runs its own passes. Raises `HnasError` if it changes the subject."""
    with torch.inference_mode(False), left_alone(subject):
        return score(subject)
