"""The scores that share the engine's passes, by straightforward computation: hooks, autograd, loops over samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hnas.spaces.dag.forward import again
from tests.support.references import distinct, measured, reference_summed, training_copy

RELUS = {"relu", "relu_", "leaky_relu", "leaky_relu_", "relu6", "prelu"}


class Rectified(TorchFunctionMode):
    """Keeps a copy of the output of each ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is again or func.__name__ in RELUS or (func is F.hardtanh and kwargs["min_val"] == 0):  # nn.ReLU6
            self.values.append(result.detach().clone())
        return result


def signs(network: nn.Module, images: Tensor) -> np.ndarray:
    """Whether each unit of all ReLUs is active (m, units), for networks with the samples in the first dimension."""
    mode = Rectified()
    with mode, torch.no_grad():
        training_copy(network)(images.clone())
    return np.concatenate([np.zeros((len(images), 0), bool)] + [v.flatten(1).numpy() > 0 for v in mode.values], 1)


def reference_of_signs(active: np.ndarray) -> dict[str, float]:
    if not active.shape[1]:
        return dict.fromkeys(("naswot", "linear_regions", "swap"), math.nan)
    samples = range(len(active))
    agreements = [[float((active[i] == active[j]).sum()) for j in samples] for i in samples]
    # K = A Aᵀ, where A holds the signs and their complements, which span the same space as the signs and ones.
    regular = np.linalg.matrix_rank(np.column_stack([active, np.ones(len(active))])) == len(active)
    return {
        "naswot": float(np.linalg.slogdet(np.array(agreements))[1]) if regular else -math.inf,
        "linear_regions": float(len({row.tobytes() for row in active})),
        "swap": float(len({column.tobytes() for column in np.ascontiguousarray(active.T)})),
    }


def reference_fisher(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    network = training_copy(network)
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def probe(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added = torch.zeros_like(output, requires_grad=True)
        calls.append((module, output.detach().clone(), added))
        return output + added

    for module in measured(network):
        module.register_forward_hook(probe)
    loss = F.cross_entropy(network(images.clone()), labels)
    gradients = torch.autograd.grad(loss, [added for *_, added in calls], allow_unused=True)
    total = 0.0
    for (module, z, _), gradient in zip(calls, gradients, strict=True):
        if gradient is None:
            continue
        channel = -1 if isinstance(module, nn.Linear) else 1
        for c in range(z.shape[channel]):
            products = (z * gradient).select(channel, c)
            each = [float(products[i].sum()) for i in range(len(images))]
            total += module.weight[c].numel() * sum(value**2 for value in each) / (2 * len(images))
    return total


def reference_of_correlations(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    images = images.clone().requires_grad_()
    logits = training_copy(network)(images.clone())
    rows = torch.autograd.grad(sum(logits.flatten()), images)[0].flatten(1).numpy()
    correlations = np.corrcoef(rows)
    values = np.linalg.eigvalsh(correlations)
    sums = []
    for label in sorted(set(labels.tolist())):
        members = [i for i, other in enumerate(labels.tolist()) if other == label]
        total = sum(math.log(abs(correlations[i, j]) + 1e-5) for i in members for j in members)
        sums.append(total / len(members) if logits.shape[1] > 100 else total)
    pairs = sum(abs(a - b) for a in sums for b in sums) / len(sums)
    return {
        "jacov": -sum(math.log(v + 1e-5) + 1 / (v + 1e-5) for v in values),
        "epe_nas": pairs if logits.shape[1] > 100 else sum(map(abs, sums)),
    }


def reference_scores(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """All these scores except those of the ReLU signs."""
    copied = training_copy(network)
    weights = distinct([layer.weight for layer in measured(copied)])
    loss = F.cross_entropy(copied(images.clone()), labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    reached = [(w.detach(), g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    return {
        "l2_norm": sum(float(w.detach().square().sum().sqrt()) for w in weights),
        "plain": sum(float((w * g).sum()) for w, g in reached),
        "nasi": sum(float((g * g).sum()) for _, g in reached),
        "knas": float(reference_summed(network, images, labels).mean()),
        "fisher": reference_fisher(network, images, labels),
        **reference_of_correlations(network, images, labels),
    }
