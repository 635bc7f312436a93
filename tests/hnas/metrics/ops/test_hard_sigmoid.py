"""The engine's hard sigmoid against torch's, and GraSP behind it against autograd on the same function as a clamp."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics
from hnas.metrics import compute
from hnas.metrics.ops.hard_sigmoid import hard_sigmoid
from tests.support.networks import Forward, batch, head, shake
from tests.support.references import agrees, reference_exact, reference_scalars, reference_summed

Activation = Callable[[Tensor], Tensor]


def clamped(x: Tensor) -> Tensor:
    """The hard sigmoid by functions that torch can differentiate twice."""
    return (x / 6 + 0.5).clamp(0, 1)


def plain(activation: Activation) -> nn.Module:
    def forward(s: Forward, x: Tensor) -> Tensor:
        y = torch.tanh(s.conv(activation(4 * s.norm(s.stem(x)))))  # type: ignore[operator]
        return s.head(activation(3 * y))  # type: ignore[operator, no-any-return]

    return made_of(forward)


def overwritten(activation: Activation) -> nn.Module:
    """The result of the hard sigmoid, which its derivative depends on, is changed afterwards."""

    def forward(s: Forward, x: Tensor) -> Tensor:
        y = activation(s.conv(torch.tanh(4 * s.norm(s.stem(x)))))  # type: ignore[operator]
        y.mul_(3.0).sub_(1.0)
        return s.head(torch.tanh(y))  # type: ignore[operator, no-any-return]

    return made_of(forward)


def squeezed_and_excited(activation: Activation) -> nn.Module:
    """MobileNetV3's gate: a product of two values of the network, so autograd differentiates it twice."""

    def forward(s: Forward, x: Tensor) -> Tensor:
        y = F.hardswish(s.norm(s.stem(x)))  # type: ignore[operator]
        return s.head(y * activation(s.conv(y.mean((2, 3), keepdim=True))))  # type: ignore[operator, no-any-return]

    return made_of(forward)


def made_of(forward: Callable[[Forward, Tensor], Tensor]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        stem, norm, conv = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        network = Forward(forward, stem=stem, norm=norm, conv=conv, head=head(4))
        shake(network)
    return network.double()


ACTIVATIONS: dict[str, Activation] = {
    "function": F.hardsigmoid,
    "keyword": lambda x: F.hardsigmoid(input=x),
    "module": nn.Hardsigmoid(),
    "in place": nn.Hardsigmoid(inplace=True),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("build", [plain, overwritten])
def test_all_columns_match_autograd_from_one_pass_of_tangents(
    build: Callable[[Activation], nn.Module], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = batch((3, 8, 8))
    reference = build(clamped)
    monkeypatch.setattr(compute, "by_autograd", None)  # it would be called for operations without a rule
    found = compute_metrics(build(ACTIVATIONS[name]), images, labels)
    agrees(found, reference_scalars(reference, images, labels), reference_summed(reference, images, labels), 1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_all_columns_match_autograd_where_it_differentiates_twice(name: str) -> None:
    images, labels = batch((3, 8, 8))
    network, reference = squeezed_and_excited(ACTIVATIONS[name]), squeezed_and_excited(clamped)
    found = compute_metrics(network, images, labels, ntk="exact")
    agrees(found, reference_scalars(reference, images, labels), reference_exact(reference, images, labels), 1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("inplace", [False, True])
def test_values_and_gradients_match_torch(dtype: torch.dtype, inplace: bool) -> None:
    edges = torch.tensor([-3.0, 3.0, torch.inf, -torch.inf], dtype=dtype)
    values = torch.cat([torch.linspace(-5, 5, 1001, dtype=dtype), edges])
    found = []
    for function in (hard_sigmoid, F.hardsigmoid):
        x = values.clone().requires_grad_()
        given = x * 1
        y = function(given, inplace)
        assert (y is given) == inplace
        found.append((y, *torch.autograd.grad(y.square().sum(), x)))
    for ours, torchs in zip(*found, strict=True):
        # In float64 too, torch multiplies by 1/6 rounded to float32.
        torch.testing.assert_close(ours, torchs, rtol=2e-7, atol=1e-7)
