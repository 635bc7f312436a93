"""`gradsign = Σ_k |Σ_i sign(∂ℓ_i/∂θ_k)|` over the weights θ of all Conv and Linear layers, each image i its own batch.

`ℓ_i` is the cross entropy of image i, for which batch norms compute their statistics over that image's positions.

Source: Zhang and Jia, "GradSign: Model Performance Inference with Theoretical Insights", ICLR 2022, eq. (12), and its
program (`measures/grad_conflict.py`). The program passes the images one by one; here all go in one pass. For a batch of
one image, batch norm is instance norm, so replacing batch norms by instance norms gives each layer the values and
gradients of that image alone. Images go one by one where a network couples them in another way or changes their order.
Invariant to the scale of each image's loss, and of each weight's gradients.

If the input gradient of a batch norm cancels up to rounding for a whole image and channel, it is set to zero here,
whereas the program counts the signs of the rounding errors. It cancels entirely if a global mean follows the batch
norm, as in the last cell of DARTS, because the norm subtracts the image's own mean.

Cost: a plain training step and the per-sample gradients. NaN where a batch norm has one value per channel and image, as
in a perceptron, since a batch of one image then has no statistics. Derivatives that are NaN count as zero, as in the
program.
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
from hnas.metrics.randomness import Generators
from hnas.scores.alone import Alone, NoStatisticsError, OneImage
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import forward, undisturbed


class GradSign:
    """How far the images agree on the sign of each weight's gradient."""

    columns: ClassVar[tuple[str, ...]] = ("gradsign",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return Σ_k |Σ_i sign(∂ℓ_i/∂θ_k)|."""
        images, labels = subject.images, subject.labels
        with undisturbed(subject.network, images) as (modules, generators):
            try:
                signs = _at_once(modules, images, labels, generators)
                if signs is None:
                    signs = _one_by_one(modules, images, labels, generators)
            except NoStatisticsError:
                return {"gradsign": math.nan}
        return {"gradsign": sum(float(sign.abs().nansum(dtype=torch.float64)) for sign in signs)}


class _DisorderError(Exception):
    """A layer's rows are not the images in their order."""


def _at_once(modules: Modules, images: Tensor, labels: Tensor, generators: Generators) -> list[Tensor] | None:
    """Return Σ_i sign(∂ℓ_i/∂θ) of each layer, or None where the images cannot share one pass."""
    try:
        done = forward(modules, images, generators, Alone)
    except NoStatisticsError:  # unless a batch norm's rows are several for each image
        return None
    middle = len(images) // 2  # coupled with earlier and with later images, whichever the network couples
    alone = forward(modules, images[middle : middle + 1], generators, OneImage).logits[0].detach()
    logits, layers, passes = done.logits, done.recorder.layers, done.recorder.passes
    if not bool((logits[middle] - alone).abs().max() <= math.sqrt(torch.finfo(alone.dtype).eps) * alone.abs().max()):
        return None
    signs = _Signs()
    if logits.requires_grad:
        try:
            find_rows(layers, passes, logits.gather(1, labels[:, None])[:, 0])
            loss = F.cross_entropy(logits, labels, reduction="sum")
            passes.run(signs, loss, layers.weights, keep_graph=False)
        except (UsageError, _DisorderError):
            return None
    return signs.signs + [rows.sign().sum(0) for rows in signs.shared.values()]


def _one_by_one(modules: Modules, images: Tensor, labels: Tensor, generators: Generators) -> list[Tensor]:
    """Return Σ_i sign(∂ℓ_i/∂θ) of each layer, with one pass per image."""
    signs: dict[int, Tensor] = {}
    for image, label in zip(images[:, None], labels[:, None], strict=True):
        done = forward(modules, image, generators, OneImage)
        loss = F.cross_entropy(done.logits, label)
        if not loss.requires_grad:
            continue
        gradients = done.recorder.passes.run(BackwardPass(), loss, done.recorder.layers.weights, keep_graph=False)
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                signs[place] = signs.get(place, 0) + gradient.sign()
    return list(signs.values())


class _Signs(BackwardPass):
    """Collects Σ_i sign(∂ℓ_i/∂θ) at each call, but the gradients themselves for weights with several calls."""

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
