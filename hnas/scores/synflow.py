"""`synflow = Σ |θ ⊙ ∂R/∂θ|`, R the sum of the logits for an image of ones, with absolute weights and no batch norms.

Every parameter p is replaced by |p|, and the network is computed in float64; θ are the weights of all Conv and Linear
layers.

Source: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020, section 6; without batch norm as in Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost Proxies for
Lightweight NAS", ICLR 2021. Invariant to the images and labels, to the signs of weights, and to a factor moved from one
layer to the next. Equals the value of the latter's program (`measures/synflow.py`), which requires two-dimensional
convolutions and batch norms; norms other than batch norm stay in place, there and here.

Cost: a forward and a backward pass of one image in float64. `inf` where the sum exceeds 1.8e308, the maximum of
float64, which takes hundreds of wide layers; no logarithm is taken. NaN for a network that cannot be computed in
float64, and where R is NaN, as with a mask of −inf, which becomes +inf.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.errors import HnasError
from hnas.metrics.inputs import errors_named
from hnas.metrics.layers import Layers, Modules
from hnas.metrics.randomness import Generators
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, deterministic, replaced, tensors_of, undisturbed


class SynFlow:
    """Synaptic flow, without batch norm."""

    columns: ClassVar[tuple[str, ...]] = ("synflow",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Return Σ |θ ⊙ ∂R/∂θ|."""
        network, images = subject.network, subject.images
        ones = torch.ones_like(images[:1], dtype=torch.float64)
        with undisturbed(network, ones) as (modules, generators):

            def flow() -> float:
                return _flow(network, modules, generators, ones.clone())

            return {"synflow": deterministic(modules, images, generators, flow)}


def _flow(network: nn.Module, modules: Modules, generators: Generators, ones: Tensor) -> float:
    values = {id(tensor): _absolute(tensor) for tensor in tensors_of(modules)}
    try:
        with errors_named(network, ones), replaced(modules, values), _WithoutBatchNorms(generators):
            out = network(ones)
    except HnasError:
        return math.nan
    if not out.requires_grad:
        return 0.0
    flow = out.sum()
    if math.isinf(flow.detach()):  # the sum might be NaN: an unread value has an infinite size and the gradient 0
        return math.inf
    weights = [values[weight] for weight in Layers.of(modules).by_weight]
    total = torch.zeros((), dtype=torch.float64, device=ones.device)
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is not None:
            total += (weight.detach() * gradient).abs().sum()
    return float(total)


def _absolute(value: Tensor) -> Tensor:
    """Return |value| in float64, a leaf if it is a parameter, and a copy of what is not floating-point.

    A buffer is no leaf, because the network may update it in place.
    """
    if not value.is_floating_point():
        return value.detach().clone()
    return value.detach().double().abs().requires_grad_(isinstance(value, nn.Parameter))


class _WithoutBatchNorms(Functions):
    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.batch_norm:
            return args[0] if args else kwargs["input"]
        return super().call(func, args, kwargs)
