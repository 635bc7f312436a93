"""`synflow = Σ |θ ⊙ ∂R/∂θ|`, R the sum of the logits of an image of ones through the network of the weights' sizes.

The network has |p| for every parameter p and no batch norms, and is computed in float64; θ are the weights of all Conv
and Linear layers.

Source: Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow", NeurIPS 2020, section 6; without batch norm as in Abdelfattah, Mehrotra, Dudziak, Lane, "Zero-Cost Proxies for
Lightweight NAS", ICLR 2021. Invariant to the images and labels, to the signs of weights, and to a factor that goes from
one layer to the next. The same number as the program of the latter (`measures/synflow.py`), in which a network must
have two-dimensional convolutions and batch norms; there it stays on what norms other than batch norm do, as here.

Cost: a forward and a backward pass of one image in float64. `inf` where the sum exceeds float64's 1.8e308, which takes
a network of hundreds of wide layers; the logarithm is not taken. NaN for a network that cannot be computed in float64.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.errors import HnasError
from hnas.metrics.inputs import told
from hnas.metrics.layers import Layers
from hnas.scores.protocol import Subject
from hnas.scores.undisturbed import Functions, replaced, tensors_of, undisturbed


class SynFlow:
    """Synaptic flow, without batch norm."""

    columns: ClassVar[tuple[str, ...]] = ("synflow",)
    version: ClassVar[int] = 1
    shared: ClassVar[bool] = False

    def __call__(self, subject: Subject) -> dict[str, float]:
        """Σ |θ ⊙ ∂R/∂θ|."""
        ones = torch.ones_like(subject.images[:1], dtype=torch.float64)
        with undisturbed(subject.network, ones) as modules:
            values = {id(tensor): _size(tensor) for tensor in tensors_of(modules)}
            try:
                with told(subject.network, ones), replaced(modules, values), _WithoutBatchNorms():
                    out = subject.network(ones)
            except HnasError:
                return {"synflow": math.nan}
            weights = [values[weight] for weight in Layers.of(modules).by_weight]
            total = torch.zeros((), dtype=torch.float64, device=ones.device)
            if out.requires_grad:
                gradients = torch.autograd.grad(out.sum(), weights, allow_unused=True)
                for weight, gradient in zip(weights, gradients, strict=True):
                    if gradient is not None:
                        total += (weight.detach() * gradient).abs().sum()
        value = float(total)
        return {"synflow": value if math.isfinite(value) else math.inf}


def _size(value: Tensor) -> Tensor:
    """|value| in float64, a leaf of its own; of what is no floating-point number a copy."""
    if not value.is_floating_point():
        return value.detach().clone()
    return value.detach().double().abs().requires_grad_()


class _WithoutBatchNorms(Functions):
    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.batch_norm:
            return args[0] if args else kwargs["input"]
        return super().call(func, args, kwargs)
