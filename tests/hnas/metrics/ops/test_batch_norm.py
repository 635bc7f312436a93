"""The engine's batch norm against torch's in float64: values, first and second derivatives, accuracy in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.metrics.ops import batch_norm as norms
from hnas.metrics.passes import Passes


def batch_norm(*args, **kwargs) -> Tensor:
    return norms.batch_norm(*args, **kwargs, passes=Passes())[0]


SHAPES = {
    "images": (5, 4, 3, 7),
    "channels_last": (5, 4, 3, 7),
    "rows": (6, 4),
    "sequences": (5, 4, 9),
    "volumes": (3, 4, 2, 3, 5),
    "one_channel": (5, 1, 3, 3),
    "one_pixel": (5, 4, 1, 1),
}


def inputs(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x with channels of different mean and spread, scale, shift, and a cotangent."""
    generator = torch.Generator().manual_seed(3)
    shape = SHAPES[name]
    channels = (1, shape[1], *(1 for _ in shape[2:]))
    spread = torch.linspace(0.1, 3.0, shape[1], dtype=torch.float64).view(channels)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * spread + 2 * spread
    gy = torch.randn(shape, generator=generator, dtype=torch.float64)
    if name == "channels_last":
        x, gy = (t.contiguous(memory_format=torch.channels_last) for t in (x, gy))
    scale = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.5
    shift = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    return x, scale, shift, gy


def close(ours: Tensor, torchs: Tensor, rel: float = 1e-10) -> None:
    assert ours.shape == torchs.shape
    assert float((ours - torchs).detach().abs().max()) <= rel * float(torchs.detach().abs().max())


def twice_differentiated(norm, x: Tensor, scale: Tensor | None, shift: Tensor | None, gy: Tensor) -> list[Tensor]:
    """Return y, x̄, and the gradients with respect to x and ȳ of a function of x̄ with a generic cotangent."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    gy = gy.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = norm(x, scale, shift)
    (gx,) = torch.autograd.grad(y, x, gy, create_graph=True)
    v = torch.cos(torch.arange(x.numel(), dtype=torch.float64)).view(x.shape)
    to_x, to_gy = torch.autograd.grad((gx * v + gx**2).sum(), [x, gy])
    return [y, gx, to_x, to_gy]


@pytest.mark.parametrize("affine", ["affine", "scale", "shift", "plain"])
@pytest.mark.parametrize("name", SHAPES)
def test_values_and_both_derivatives_match_torch(name: str, affine: str) -> None:
    x, scale, shift, gy = inputs(name)
    eps = 1e-3
    with_scale = scale if affine in ("affine", "scale") else None
    with_shift = shift if affine in ("affine", "shift") else None
    ours = twice_differentiated(
        lambda x, w, b: batch_norm(x, None, None, w, b, True, 0.1, eps), x, with_scale, with_shift, gy
    )
    theirs = twice_differentiated(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, eps), x, with_scale, with_shift, gy
    )
    for mine, reference in zip(ours, theirs, strict=True):
        close(mine, reference)


def test_second_derivatives_flow_through_value_and_gradient() -> None:
    # As in the engine, the loss and the gradient both depend on x, and one last pass differentiates both.
    x, scale, shift, _ = inputs("channels_last")

    def last(norm) -> Tensor:
        leaf = x.clone().requires_grad_()
        y = norm(leaf * 1.5, None, None, scale, shift, True, 0.1, 1e-5)
        (gradient,) = torch.autograd.grad(torch.tanh(y).sum(), leaf, create_graph=True)
        (result,) = torch.autograd.grad((gradient**2).sum() + (y**3).sum(), leaf)
        return result

    close(last(batch_norm), last(F.batch_norm))


def test_backward_skips_an_input_without_gradient() -> None:
    x, scale, shift, _ = inputs("images")
    assert not batch_norm(x, None, None, scale, shift, True).requires_grad


def test_running_statistics_are_unchanged() -> None:
    x, scale, shift, _ = inputs("images")
    mean, var = torch.full((4,), 0.25), torch.full((4,), 0.75)
    batch_norm(x.float(), mean, var, scale.float(), shift.float(), True, 0.5, 1e-5)
    assert torch.equal(mean, torch.full((4,), 0.25))
    assert torch.equal(var, torch.full((4,), 0.75))


def test_running_statistics_are_used_when_not_training() -> None:
    x, scale, shift, _ = inputs("images")
    mean, var = torch.rand(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 1
    close(
        batch_norm(x, mean, var, scale, shift, False, 0.1, 1e-5),
        F.batch_norm(x, mean, var, scale, shift, False, 0.1, 1e-5),
    )


@pytest.mark.parametrize("name", ["images", "channels_last", "rows", "sequences", "volumes"])
def test_output_may_be_changed_in_place(name: str) -> None:
    # Most residual networks use `nn.ReLU(inplace=True)` after a batch norm, and `out += identity`.
    x, scale, shift, gy = inputs(name)

    def gradient(norm, in_place: bool) -> Tensor:
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = norm(leaf * 1, None, None, scale, shift, True, 0.1, 1e-5)
        if in_place:
            y += leaf
            y = F.relu(y, inplace=True)
        else:
            y = F.relu(y + leaf)
        (first,) = torch.autograd.grad(y, leaf, gy, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), leaf)
        return second

    close(gradient(batch_norm, in_place=True), gradient(F.batch_norm, in_place=False))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_float32_statistics_of_many_values_are_accurate_to_a_millionth(layout: torch.memory_format) -> None:
    # 65,536 values per channel. Torch's own channels-last kernel is off by 2e-5 here, the reason for ours.
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand((64, 4, 32, 32), generator=generator) + 3).contiguous(memory_format=layout)
    exact = F.batch_norm(x.double(), None, None, training=True)
    ours = batch_norm(x, None, None, training=True).double()
    # The mean of the output is minus the error of the mean, in units of the deviation √(1/12); x itself is off by 2e-7.
    off = (ours - exact).mean((0, 2, 3)).abs().max() * (1 / 12) ** 0.5
    assert float(off) < 1e-6
    spread = ours.var((0, 2, 3), unbiased=False) / exact.var((0, 2, 3), unbiased=False)
    assert float((spread - 1).abs().max()) < 2e-6


def test_one_value_per_channel_is_refused_as_in_torch() -> None:
    x = torch.randn(1, 4, 1, 1)
    with pytest.raises(ValueError, match="more than one value"):
        batch_norm(x, None, None, training=True)
    with pytest.raises(ValueError, match="more than 1 value"):
        nn.BatchNorm2d(4)(x)
