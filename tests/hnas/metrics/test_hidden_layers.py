"""Layers that run again in the backward pass, or unseen, count as in a training step or are refused."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import checkpoint as checkpoints
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from hnas import compute_metrics
from hnas.errors import UsageError
from tests.support.networks import CLASSES, Forward, batch
from tests.support.references import agrees, measured, reference_exact, reference_scalars, training_copy


class Again(torch.autograd.Function):
    """x + f(x), keeping only x, as reversible blocks do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: nn.Module, *parameters: Tensor) -> Tensor:
        ctx.f, ctx.parameters = f, parameters
        ctx.save_for_backward(x)
        return x + f(x).detach()

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = torch.autograd.grad(ctx.f(x), [x, *ctx.parameters], gy, allow_unused=True)
        return gy + found[0], None, *found[1:]


class WithGraph(Again):
    """The same, with gradients enabled in its forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: nn.Module, *parameters: Tensor) -> Tensor:
        with torch.enable_grad():
            return Again.forward(ctx, x, f, *parameters)


class Matmul(torch.autograd.Function):
    """A linear map with a weight taken from the module."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module) -> Tensor:
        ctx.module = module
        return x @ module.weight.t()  # type: ignore[operator, union-attr]

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Any, ...]:
        return gy @ ctx.module.weight, None


def plain(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return s.out((x + s.block(x)).mean((2, 3)))  # type: ignore[operator, no-any-return]


def network_of(forward: Callable[..., Tensor]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh(), nn.BatchNorm2d(6))
        return Forward(forward, stem=nn.Conv2d(3, 6, 3), block=block, out=nn.Linear(6, CLASSES)).double()


def reentrant(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return s.out((x + checkpoint(s.block, x, use_reentrant=True)).mean((2, 3)))  # type: ignore[operator, no-any-return]


def not_reentrant(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return s.out((x + checkpoint(s.block, x, use_reentrant=False)).mean((2, 3)))  # type: ignore[operator, no-any-return]


def in_segments(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return s.out((x + checkpoint_sequential(s.block, 2, x, use_reentrant=False)).mean((2, 3)))  # type: ignore[operator, no-any-return]


def whole(s: Forward, x: Tensor) -> Tensor:
    return checkpoint(plain, s, x, use_reentrant=False)  # type: ignore[no-any-return]


@pytest.mark.parametrize("mode", ["summed", "exact"])
@pytest.mark.parametrize("forward", [reentrant, not_reentrant, in_segments, whole])
def test_checkpointing_changes_no_value(forward: Callable[..., Tensor], mode: str) -> None:
    images, labels = batch((3, 8, 8))
    expected = compute_metrics(network_of(plain), images, labels, ntk=mode)
    found = compute_metrics(network_of(forward), images, labels, ntk=mode)
    assert found.columns() == expected.columns()
    assert torch.equal(found.ntk, expected.ntk)


def test_checkpointing_still_works_afterwards_and_in_other_threads() -> None:
    """Measuring runs a checkpointed function once, while training in another thread runs it twice."""
    runs = []

    def counted(x: Tensor) -> Tensor:
        runs.append(threading.get_ident())
        return x * x

    def train() -> None:
        x = torch.ones(3, requires_grad=True)
        checkpoint(counted, x, use_reentrant=False).sum().backward()
        checkpoint(counted, x, use_reentrant=True).sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, torch.full((3,), 4.0))

    def forward(s: Forward, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(train).result()
        return not_reentrant(s, x)

    names = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")
    before = [getattr(checkpoints, name) for name in names]
    assert compute_metrics(network_of(forward), *batch((3, 8, 8))).status == "ok"
    assert [getattr(checkpoints, name) for name in names] == before
    assert len(runs) == 4
    train()
    assert len(runs) == 8


def again(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return s.out(Again.apply(x, s.block, *s.block.parameters()).mean((2, 3)))  # type: ignore[operator, no-any-return, union-attr]


def with_graph(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return s.out(WithGraph.apply(x, s.block, *s.block.parameters()).mean((2, 3)))  # type: ignore[operator, no-any-return, union-attr]


def by_hand(s: Forward, x: Tensor) -> Tensor:
    return Matmul.apply(plain_features(s, x), s.out)  # type: ignore[no-any-return, no-untyped-call]


def plain_features(s: Forward, x: Tensor) -> Tensor:
    x = s.stem(x)  # type: ignore[operator]
    return (x + s.block(x)).mean((2, 3))  # type: ignore[operator, no-any-return]


def of_another_thread(s: Forward, x: Tensor) -> Tensor:
    features = plain_features(s, x)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(s.out, features).result()  # type: ignore[arg-type]


def unseen_by_torch(s: Forward, x: Tensor) -> Tensor:
    features = plain_features(s, x)
    with torch._C.DisableTorchFunction():
        return s.out(features)  # type: ignore[operator, no-any-return]


@torch.jit.script
def scripted(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, weight)


def of_a_scripted_function(s: Forward, x: Tensor) -> Tensor:
    return scripted(plain_features(s, x), s.out.weight)  # type: ignore[union-attr, no-any-return]


def bias_added_by_hand(s: Forward, x: Tensor) -> Tensor:
    return F.linear(plain_features(s, x), s.out.weight) + s.out.bias  # type: ignore[union-attr, arg-type]


def equilibrium(s: Forward, x: Tensor) -> Tensor:
    """A hook solves for the gradient at a fixed point, which runs the layer backwards again."""
    u = s.stem(x)  # type: ignore[operator]
    z = torch.tanh(s.block[0](u) + u)  # type: ignore[index]
    start = z.detach().requires_grad_()
    step = torch.tanh(s.block[0](start) + u)  # type: ignore[index]
    if z.requires_grad:
        z.register_hook(lambda g: g + 0.1 * torch.autograd.grad(step, start, g, retain_graph=True)[0])
    return s.out(z.mean((2, 3)) + 0 * step.mean((2, 3)))  # type: ignore[operator, no-any-return]


def replaced(s: Forward, x: Tensor) -> Tensor:
    s.out.weight.data = torch.renorm(s.out.weight.data, 2, 0, 0.1)  # type: ignore[operator, union-attr]
    return plain(s, x)


@pytest.mark.parametrize("mode", ["summed", "exact"])
@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (again, r"layer block\.0 is called inside the autograd function Again"),
        (with_graph, r"layer block\.0 is called inside the autograd function WithGraph"),
        (by_hand, "the weight of layer out must be used only in convolutions and linear maps, but t uses it"),
        (of_another_thread, "a parameter of layer out reaches the logits other than by"),
        (unseen_by_torch, "a parameter of layer out reaches the logits other than by"),
        (of_a_scripted_function, "a parameter of layer out reaches the logits other than by"),
        (bias_added_by_hand, "a parameter of layer out reaches the logits other than by"),
        (replaced, "it replaces that of layer out"),
    ],
)
def test_an_unseen_layer_is_refused(forward: Callable[..., Tensor], what: str, mode: str) -> None:
    network = network_of(forward)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    with pytest.raises(UsageError, match=what):
        compute_metrics(network, *batch((3, 8, 8)), ntk=mode)
    assert all(torch.equal(p, before[name]) and p.requires_grad for name, p in network.named_parameters())


def test_a_layer_that_runs_again_in_a_hook_is_refused() -> None:
    with pytest.raises(UsageError, match=r"layer block\.0 runs again in the backward pass"):
        compute_metrics(network_of(equilibrium), *batch((3, 8, 8)))


@pytest.mark.parametrize("script", [torch.jit.script, lambda module: torch.jit.trace(module, torch.ones(2, 12))])
def test_scripted_layers_are_refused_by_name(script: Callable[..., Any]) -> None:
    network = nn.Sequential(nn.Linear(12, 12), script(nn.Sequential(nn.Tanh(), nn.Linear(12, 8))), nn.Linear(8, 5))
    with pytest.raises(UsageError, match=r"layer 1\.1 is part of a scripted or traced module"):
        compute_metrics(network, *batch((12,), dtype=torch.float32))


class OwnConv(nn.Conv2d):
    pass


FREEZE: Callable[..., Any] = torch.jit.freeze


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (torch.jit.script, r"0\.0"),
        (lambda module: torch.jit.trace(module, torch.ones(2, 3, 8, 8)), r"0\.0"),
        (lambda module: FREEZE(torch.jit.script(module.eval())), "0"),
    ],
)
def test_scripted_subclasses_of_layers_are_refused(script: Callable[..., Any], name: str) -> None:
    part = script(nn.Sequential(OwnConv(3, 4, 3), nn.ReLU()))
    with pytest.raises(UsageError, match=f"layer {name} is part of a scripted or traced module"):
        compute_metrics(nn.Sequential(part, nn.Flatten(), nn.Linear(144, 5)), *batch((3, 8, 8), dtype=torch.float32))


@pytest.mark.parametrize("script", [torch.jit.script, lambda module: FREEZE(torch.jit.script(module.eval()))])
def test_scripted_modules_without_layers_are_measured(script: Callable[..., Any]) -> None:
    images, labels = batch((3, 8, 8), dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, up, last = nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 4, 1), nn.Linear(144, CLASSES)
    expected = compute_metrics(nn.Sequential(first, up, nn.Tanh(), nn.Flatten(), last), images, labels)
    part = script(nn.Sequential(up, nn.Tanh()))
    assert compute_metrics(nn.Sequential(first, part, nn.Flatten(), last), images, labels).columns() == pytest.approx(
        expected.columns(), rel=1e-3
    )


def test_compiled_modules_count_like_uncompiled_ones() -> None:
    def network() -> list[nn.Module]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return [nn.Conv2d(3, 4, 3), nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Linear(144, CLASSES))]

    images, labels = batch((3, 8, 8), dtype=torch.float32)
    first, second = network()
    expected = compute_metrics(nn.Sequential(first, second), images, labels)
    compiled: Any = torch.compile(second, backend="eager")
    assert compute_metrics(nn.Sequential(first, compiled), images, labels).columns() == expected.columns()


def straight_through(s: Forward, x: Tensor) -> Tensor:
    """In a training step, the block gets no gradient here."""
    x = s.stem(x)  # type: ignore[operator]
    with torch.no_grad():
        y = s.block(x)  # type: ignore[operator]
    return s.out((x + y).mean((2, 3)))  # type: ignore[operator, no-any-return]


def doubled(s: Forward, x: Tensor) -> Tensor:
    y = torch.tanh(s.stem(x))  # type: ignore[operator]
    if y.requires_grad:
        y.register_hook(lambda g: 2 * g)
    return s.out(torch.tanh(s.block[0](y)).mean((2, 3)))  # type: ignore[operator, index, no-any-return]


def cast(s: Forward, x: Tensor) -> Tensor:
    x = s.block[0](s.stem(x)).mean((2, 3))  # type: ignore[operator, index]
    return F.linear(x, s.out.weight.to(x.dtype), s.out.bias)  # type: ignore[union-attr, arg-type, operator]


def sized_like_a_weight(s: Forward, x: Tensor) -> Tensor:
    x = s.block[0](s.stem(x)).mean((2, 3))  # type: ignore[operator, index]
    return s.out(x + s.out.weight.new_ones(6) * s.out.weight.detach().std())  # type: ignore[operator, union-attr, no-any-return]


@pytest.mark.parametrize("forward", [straight_through, doubled, cast, sized_like_a_weight])
def test_uses_that_autograd_sees_are_measured(forward: Callable[..., Tensor]) -> None:
    network = network_of(forward)
    if forward is straight_through:
        network.block[2] = nn.Identity()  # type: ignore[operator, index]
    images, labels = batch((3, 8, 8))
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)


class Energy(nn.Module):
    """Logits are the negative slope of a scalar function of the features, or of the images themselves."""

    def __init__(self, *, of_images: bool, detached: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 1))
            self.out = nn.Linear(12, CLASSES)
        self.of_images, self.detached = of_images, detached

    def forward(self, x: Tensor) -> Tensor:
        z = x.requires_grad_() if self.of_images else x.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(self.body(z).sum(), z, create_graph=True)
        return self.out(torch.tanh(z * self.body(z)) + (slope.detach() if self.detached else slope))  # type: ignore[no-any-return]


@pytest.mark.parametrize("of_images", [False, True])
def test_a_derivative_of_the_forward_pass_is_measured_by_exact_and_refused_by_summed(of_images: bool) -> None:
    network = Energy(of_images=of_images).double()
    images, labels = batch((12,))
    with pytest.raises(UsageError, match=r'derivative of layer body\.\d that the forward pass takes.*ntk="exact"'):
        compute_metrics(network, images, labels)
    expected = reference_scalars(network, images, labels), reference_exact(network, images, labels)
    plain = compute_metrics(network, images, labels, ntk="exact")
    agrees(plain, *expected, 1e-8)
    scored = compute_metrics(network, images, labels, ntk="exact", scores="jacov,epe_nas,gradsign")
    assert scored.columns() == pytest.approx(plain.columns(), rel=1e-12)
    signs = sum(reference_signs(network, *pair) for pair in zip(images, labels, strict=True))
    assert scored.scores["gradsign"] == float(abs(signs).sum())


def reference_signs(network: nn.Module, image: Tensor, label: Tensor) -> Tensor:
    """The signs of the gradient of one image's loss for the weights of all layers."""
    network = training_copy(network)
    weights = [layer.weight for layer in measured(network)]
    gradients = torch.autograd.grad(F.cross_entropy(network(image[None]), label[None]), weights)
    return torch.cat([gradient.flatten() for gradient in gradients]).sign()


def test_a_derivative_that_the_logits_do_not_depend_on_is_harmless() -> None:
    network = Energy(of_images=False, detached=True).double()
    images, labels = batch((12,))
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)
