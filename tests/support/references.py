"""The eight columns by straightforward computation: autograd, double backward, per-sample loops, `torch.func`.

These share no code with the engine. They work on a copy of the network in training mode with dropout off, and
differentiate with respect to the parameters of its modules.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.metrics import COLUMNS, Metrics

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def training_copy(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d | nn.AlphaDropout):
            module.eval()
    return network.requires_grad_()


def measured(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, LAYERS)]


def distinct(tensors: list[Tensor | None]) -> list[Tensor]:
    return list({id(t): t for t in tensors if t is not None}.values())


def weights_and_biases(network: nn.Module) -> list[Tensor]:
    layers = measured(network)
    return distinct([layer.weight for layer in layers] + [layer.bias for layer in layers])


def reference_scalars(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    """The six columns of g and Hg, and `rounding`, the size of the terms that cancel in the two inner products."""
    network = training_copy(network)
    weights = distinct([layer.weight for layer in measured(network)])
    loss = F.cross_entropy(network(images.clone()), labels)
    first = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    reached = [(w, g) for w, g in zip(weights, first, strict=True) if g is not None]
    half_square = sum((g * g).sum() for _, g in reached) / 2
    second = torch.autograd.grad(half_square, [w for w, _ in reached], allow_unused=True)
    products = [(w * g).detach() for w, g in reached]
    hessian = [(w * h).detach() for (w, _), h in zip(reached, second, strict=True) if h is not None]
    norms = [float(g.detach().norm()) for _, g in reached]
    grasp = -sum(float(h.sum()) for h in hessian)
    inner = sum(float(p.sum()) for p in products)
    return {
        "grad_norm": sum(norms),
        "grad_norm_l2": math.sqrt(sum(n * n for n in norms)),
        "snip": sum(float(p.abs().sum()) for p in products),
        "snip_inner": abs(inner),
        "grasp": grasp,
        "grasp_abs": abs(grasp),
        "rounding": sum(float(h.abs().sum()) for h in hessian),
    }


def reference_summed(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Θ₀ from one backward pass of Σ_i f_{y_i}(x_i), then one autograd call for each layer call and sample."""
    network = training_copy(network)
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def probe(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # The gradient of the added zeros equals that of the output, with or without in-place operations.
        added = torch.zeros_like(output, requires_grad=True)
        calls.append((module, inputs[0].detach().clone(), added))
        return output + added

    hooks = [module.register_forward_hook(probe) for module in measured(network)]
    target = network(images.clone()).gather(1, labels[:, None]).sum()
    for hook in hooks:
        hook.remove()
    output_gradients = torch.autograd.grad(target, [added for _, _, added in calls], allow_unused=True)
    rows: dict[int, list[Tensor]] = {}
    for (module, x, _), gy in zip(calls, output_gradients, strict=True):
        if gy is None:
            continue
        owned = {name: p for name, p in (("weight", module.weight), ("bias", module.bias)) if p is not None}
        for i in range(len(images)):
            leaves = {name: p.detach().clone().requires_grad_() for name, p in owned.items()}
            y = torch.func.functional_call(module, leaves, (x[i : i + 1],))
            for p, g in zip(
                owned.values(), torch.autograd.grad((y * gy[i : i + 1]).sum(), leaves.values()), strict=True
            ):
                row = rows.setdefault(id(p), [torch.zeros(p.numel(), dtype=p.dtype) for _ in images])
                row[i] += g.flatten()
    jacobian = torch.cat([torch.stack(row) for row in rows.values()], 1).double()
    return jacobian @ jacobian.t()


def reference_exact(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Θ₀ from a backward pass of each f_{y_i}(x_i) with respect to every weight and bias."""
    network = training_copy(network)
    leaves = weights_and_biases(network)
    target = network(images.clone()).gather(1, labels[:, None])[:, 0]
    rows = []
    for value in target:
        gradients = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(leaves, gradients, strict=True)]
            )
        )
    jacobian = torch.stack(rows).double()
    return jacobian @ jacobian.t()


def reference_jacrev(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Θ₀ from `torch.func.jacrev` of the labelled logits."""
    network = training_copy(network)
    leaves = {id(p) for p in weights_and_biases(network)}
    parameters = {name: p.detach() for name, p in network.named_parameters() if id(p) in leaves}

    def labelled(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(network, parameters, (images,)).gather(1, labels[:, None])[:, 0]

    jacobian = torch.cat([j.flatten(1) for j in torch.func.jacrev(labelled)(parameters).values()], 1)
    return (jacobian @ jacobian.t()).detach()


def kappa_of(ntk: Tensor) -> float:
    eigenvalues = np.linalg.eigvalsh(ntk.numpy())
    return float(eigenvalues[-1] / eigenvalues[0])


def same_matrix(ours: Tensor, reference: Tensor, rel: float) -> None:
    assert ours.shape == reference.shape
    assert ours.dtype == torch.float64
    assert float((ours - reference).abs().max()) <= rel * float(reference.abs().max())


def agrees(m: Metrics, scalars: dict[str, float], ntk: Tensor, rel: float) -> None:
    """Check that every number of `m` is within `rel` of the reference."""
    eps = 1e-15 if rel < 1e-6 else 1e-7
    for column in ("grad_norm", "grad_norm_l2", "snip"):
        assert getattr(m, column) == pytest.approx(scalars[column], rel=rel, abs=0), column
    # The inner products cancel (to zero under batch norm), so they are accurate to the rounding of their terms.
    assert m.snip_inner == pytest.approx(scalars["snip_inner"], rel=rel, abs=1e3 * eps * scalars["snip"])
    floor = max(1e3 * eps * scalars["rounding"], rel * scalars["grad_norm_l2"] ** 2)
    assert m.grasp == pytest.approx(scalars["grasp"], rel=rel, abs=floor)
    assert m.grasp_abs == pytest.approx(scalars["grasp_abs"], rel=rel, abs=floor)
    same_matrix(m.ntk, ntk, rel)
    assert m.trace == pytest.approx(math.sqrt(float(ntk.trace()) / len(ntk)), rel=rel)
    kappa = kappa_of(ntk)
    assert 1 < kappa < 1e6, "the condition number is not tested by this case"
    assert m.kappa == pytest.approx(kappa, rel=max(rel, 1e2 * eps * kappa))
    assert m.status == "ok"


def check_invariants(m: Metrics) -> None:
    """Check what holds for the result of any network."""
    values = m.columns()
    assert tuple(values) == COLUMNS
    assert all(type(value) is float for value in values.values())
    assert not math.isnan(m.kappa)
    assert m.kappa >= 1
    assert m.ntk.dtype == m.eigenvalues.dtype == torch.float64
    if m.status == "nonfinite":
        assert m.kappa == math.inf
        return
    assert all(math.isfinite(value) for name, value in values.items() if name != "kappa")
    assert m.grad_norm >= m.grad_norm_l2 * (1 - 1e-12)
    assert m.grasp_abs == abs(m.grasp)
    assert m.snip >= m.snip_inner * (1 - 1e-12)
    assert torch.equal(m.ntk, m.ntk.t())
    assert torch.equal(m.eigenvalues, m.eigenvalues.sort().values)
    assert float(m.eigenvalues[0]) >= -1e-12 * float(m.eigenvalues[-1])
    assert float(m.eigenvalues.sum()) == pytest.approx(float(m.ntk.trace()), rel=1e-10)
    assert m.trace == pytest.approx(math.sqrt(float(m.ntk.trace()) / len(m.ntk)), rel=1e-12)
