"""All numbers of one network: the eight columns, Θ₀, and any scores."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from hnas.metrics import Metrics, queue_metrics
from hnas.metrics.inputs import checked_batch, checked_network
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
    further: tuple[Tensor, Tensor] | None = None,
    build: Build | None = None,
    seed: int = 0,
) -> Metrics:
    """All eight columns of `network` on the batch `images` (m, …), `labels` (m,) class indices, tensors or arrays.

    Works on any module with Conv1d/2d/3d (any stride, padding, dilation, groups, bias) and Linear layers, on the
    device and in the precision of its parameters. Batch norm uses the batch's statistics, and nothing is random. The
    network comes back as it was: weights, gradients, hooks, modes, running statistics.

    `ntk="summed"` back-propagates `Σ_i f_{y_i}(x_i)` once and forms each sample's gradient from its own activations:
    what the published numbers rest on, one extra backward pass. `ntk="exact"` back-propagates each `f_{y_i}(x_i)`
    through the batch statistics: m backward passes, for study. The two agree where the batch does not couple.

    `scores` are names of `hnas.scores.registry`, such as `"naswot,fisher"`, a list of them, or `"all"`; the result's
    `scores` has their columns. Those that share the passes cost little, others what their files say. `further`, `build`
    and `seed` are what `hnas.scores.protocol.Subject` says; a score that needs what there is not is NaN.

    GraSP comes from one pass of two tangents (`hnas.metrics.grasp`); a network with operations that have no rule for it
    is differentiated twice by autograd, to the same number in more time and memory.

    Cost: about one forward, two input-gradient, one weight-gradient, one per-sample and four further convolution
    passes; memory: one set of activations, the gradients at what batch norms return, and the per-sample gradients of
    the largest layer.

    A layer whose input does not have the samples along its first dimension costs two or three further input-gradient
    passes of the network, which find out which rows are whose (`hnas.metrics.owners`).

    Raises `UsageError` for a network, images or labels that cannot be measured and for an unknown score, with the
    reason in one sentence, and `HnasError` with torch's own where the network fails on the images.

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
    names = scores_named(scores if isinstance(scores, str) else ",".join(scores)) if scores else []
    metrics = queue_metrics(network, images, labels, ntk, needs(names)).result()
    found = shared_scores(names, metrics.statistics)
    own = [name for name in names if not registry[name].shared]
    if own:
        images, labels = checked_batch(checked_network(network), images, labels)
        modes = {module: module.training for module in network.modules()}
        try:
            network.train()
            found |= own_scores(own, Subject(network, images, labels, further, build, seed))
        finally:
            for module, mode in modes.items():
                module.training = mode
    return replace(metrics, scores=found) if names else metrics


def needs(names: Collection[str]) -> frozenset[str]:
    """The statistics that those of the scores read that share the engine's passes."""
    found = (registry[name] for name in names)
    return frozenset(need for score in found if score.shared for need in cast("SharedScore", score).needs)


def shared_scores(names: Collection[str], seen: Statistics) -> dict[str, float]:
    """The columns of those of the scores that share the engine's passes, from at least the statistics they need."""
    numbers: dict[str, float] = {}
    for name in names:
        score = registry[name]
        if score.shared:
            numbers |= cast("SharedScore", score)(seen)
    return numbers


def own_scores(names: Collection[str], subject: Subject) -> dict[str, float]:
    """The columns of the scores of these names, which have passes of their own."""
    numbers: dict[str, float] = {}
    for name in names:
        numbers |= own_score(cast("OwnScore", registry[name]), subject)
    return numbers


def own_score(score: OwnScore, subject: Subject) -> dict[str, float]:
    """The columns of a score with passes of its own, whatever it does to the subject."""
    with left_alone(subject):
        return score(subject)
