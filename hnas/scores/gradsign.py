"""`gradsign = Σ_k |Σ_i sign(∂ℓ_i/∂θ_k)|` over the weights θ of all Conv and Linear layers, each image i a batch alone.

`ℓ_i` is the cross entropy of image i, for which a batch norm takes its statistics over that image's positions.

Source: Zhang and Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022, eq. (12), and its
program (`measures/grad_conflict.py`), in which each image has passes of its own; here all take one. With one image in
the batch a batch norm is an instance norm, so instance norms in their place send each layer what each image alone would
send it. Where a network couples its images in another way, or changes their order, each is passed by itself. Invariant
to the scale of each image's loss, and of each weight's gradients.

What a batch norm sends back is zero where it cancels but for rounding, of an image and channel as a whole; the program
counts the signs of what is left. Behind a global mean of what a batch norm returned, as in the last cell of DARTS, all
of it cancels: an image's own mean is what the norm takes off.

Cost: a plain training step and the gradients of single samples. NaN where a batch norm has one value a channel of an
image, as in a perceptron: a batch of one image has no statistics. Derivatives that are NaN count zero, as there.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.errors import UsageError
from hnas.metrics.layers import Call, Modules
from hnas.metrics.ntk import find_rows
from hnas.metrics.passes import BackwardPass
from hnas.scores.alone import Alone, NoStatisticsError
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import forward, undisturbed


class GradSign:
    """How far the images agree on the sign of each weight's gradient."""

    columns: ClassVar[tuple[str, ...]] = ("gradsign",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Σ_k |Σ_i sign(∂ℓ_i/∂θ_k)|."""
        images, labels = subject.images, subject.labels
        with undisturbed(subject.network, images) as modules:
            try:
                signs = _at_once(modules, images, labels)
                if signs is None:
                    signs = _one_by_one(modules, images, labels)
            except NoStatisticsError:
                return {"gradsign": math.nan}
        return {"gradsign": sum(float(sign.abs().nansum(dtype=torch.float64)) for sign in signs)}


class _DisorderError(Exception):
    """The rows of a layer are not those of the images in their order."""


def _at_once(modules: Modules, images: Tensor, labels: Tensor) -> list[Tensor] | None:
    """Σ_i sign(∂ℓ_i/∂θ) of each layer, or None where the images cannot take one pass."""
    done = forward(modules, images, Alone)
    with torch.no_grad():
        first = forward(modules, images[:1], Alone).logits[0]
    logits, layers, passes = done.logits, done.recorder.layers, done.recorder.passes
    if not bool((logits[0] - first).abs().max() <= math.sqrt(torch.finfo(first.dtype).eps) * first.abs().max()):
        return None
    found = _Signs()
    if logits.requires_grad:
        try:
            find_rows(layers, passes, logits.gather(1, labels[:, None])[:, 0])
            loss = F.cross_entropy(logits, labels, reduction="sum")
            passes.run(found, loss, layers.weights, keep_graph=False)
        except (UsageError, _DisorderError):
            return None
    return found.signs + [rows.sign().sum(0) for rows in found.shared.values()]


def _one_by_one(modules: Modules, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Σ_i sign(∂ℓ_i/∂θ) of each layer, by a pass of each image."""
    signs: dict[int, Tensor] = {}
    for image, label in zip(images[:, None], labels[:, None], strict=True):
        done = forward(modules, image, Alone)
        loss = F.cross_entropy(done.logits, label)
        if not loss.requires_grad:
            continue
        gradients = done.recorder.passes.run(BackwardPass(), loss, done.recorder.layers.weights, keep_graph=False)
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                signs[place] = signs.get(place, 0) + gradient.sign()
    return list(signs.values())


class _Signs(BackwardPass):
    """Collects Σ_i sign(∂ℓ_i/∂θ) at each call, and the gradients themselves of weights that are called again."""

    def __init__(self) -> None:
        super().__init__(wanted=())
        self.signs: list[Tensor] = []
        self.shared: dict[int, Tensor] = {}

    def visit(self, call: Call, x: Tensor, gy: Tensor) -> None:
        """Add the call. Raises `_DisorderError`."""
        if call.rows is None or call.rows.owner is not None:
            raise _DisorderError
        if call.rows.dimension:
            x, gy = (value.movedim(call.rows.dimension, 0) for value in (x, gy))
        layer = call.layer
        rows = call.map.weight_gradients(x, gy, layer.weight, in_order=layer.calls > 1)
        if layer.calls == 1:
            self.signs.append(rows.sign_().sum(0))
        else:
            self.shared[id(layer)] = self.shared[id(layer)] + rows if id(layer) in self.shared else rows
