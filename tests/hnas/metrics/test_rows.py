"""In any layout, each row of a layer's input counts for its own sample, or the network is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics, search_spaces
from hnas.errors import UsageError
from hnas.metrics import compute, ntk
from hnas.metrics.layers import Layers
from hnas.metrics.order import Order
from hnas.metrics.owners import MixedRowsError, cotangents, rows_of
from hnas.metrics.recorder import Recorder
from tests.support.networks import CLASSES, Forward, batch, build, shake
from tests.support.references import agrees, reference_exact, reference_scalars

Network = Callable[[], nn.Module]


def make_network(forward: Callable[..., Tensor], **modules: nn.Module) -> Network:
    def build() -> nn.Module:
        return Forward(forward, **modules).double()

    with torch.random.fork_rng():
        torch.manual_seed(0)
        for module in modules.values():
            for part in module.modules():
                if hasattr(part, "reset_parameters"):
                    part.reset_parameters()
            shake(module)
    return build


def tokens(s: Forward, x: Tensor) -> Tensor:
    """Tokens (m, 16, 8) of images (m, 3, 8, 8)."""
    return s.patch(x).flatten(2).transpose(1, 2)  # type: ignore[operator, no-any-return]


def sequence_first(s, x):  # type: ignore[no-untyped-def]
    t = tokens(s, x).transpose(0, 1)
    return s.out((t + s.down(F.gelu(s.up(t)))).mean(0))


def reordered(s, x):  # type: ignore[no-untyped-def]
    back = torch.arange(len(x) - 1, -1, -1)
    return s.out(s.conv(torch.relu(s.patch(x))[back])[back].mean((2, 3)))


def reordered_in_place(s, x):  # type: ignore[no-untyped-def]
    y = s.patch(x) * 1
    y[:] = y.flip(0).clone()
    return s.out(s.conv(y).flip(0).mean((2, 3)))


def one_by_one(s, x):  # type: ignore[no-untyped-def]
    return s.out(torch.stack([torch.tanh(s.conv(i)) for i in torch.relu(s.patch(x))]).mean((2, 3)))


def linear_one_by_one(s, x):  # type: ignore[no-untyped-def]
    return torch.stack([s.out(torch.tanh(s.up(i))) for i in tokens(s, x).mean(1)])


def samples_folded_first(s, x):  # type: ignore[no-untyped-def]
    return s.out(torch.tanh(s.up(tokens(s, x).reshape(-1, 8))).view(len(x), 16, 8).mean(1))


def samples_folded_last(s, x):  # type: ignore[no-untyped-def]
    t = tokens(s, x).transpose(0, 1).reshape(-1, 8)
    return s.out(torch.tanh(s.up(t)).view(16, len(x), 8).mean(0))


def frames(s, x):  # type: ignore[no-untyped-def]
    """A convolution sees the two halves of each image as separate images, like the frames of a video."""
    halves = s.patch(x).unflatten(2, (2, 2)).transpose(1, 2)
    y = torch.tanh(s.conv(halves.flatten(0, 1)))
    return s.out(y.unflatten(0, (len(x), 2)).mean((1, 3, 4)))


def last_step(s, x):  # type: ignore[no-untyped-def]
    """A convolution sees the steps of all samples one after another, and the logits only the last of them."""
    steps = tokens(s, x).unflatten(2, (4, 2)).transpose(0, 1)
    y = torch.tanh(s.line(steps.flatten(0, 1)))
    return s.out(y.unflatten(0, (16, len(x)))[-1].flatten(1))


def unequal_shares(s, x):  # type: ignore[no-untyped-def]
    t, lengths = tokens(s, x), [1 + i % 3 for i in range(len(x))]
    rows = s.up(torch.cat([t[i, :n] for i, n in enumerate(lengths)]))
    return s.out(torch.stack([torch.tanh(part).sum(0) for part in rows.split(lengths)]))


def class_token(s, x):  # type: ignore[no-untyped-def]
    t = torch.cat([s.up.weight.new_ones(1, 1, 8).expand(len(x), -1, -1), tokens(s, x)], 1)
    return s.out(torch.tanh(s.down(torch.tanh(s.up(t)).cumsum(1)))[:, -1])


def attention(s, x):  # type: ignore[no-untyped-def]
    q, k, v = s.qkv(tokens(s, x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    t = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
    return s.out(s.up(t.transpose(1, 2).flatten(2)).mean(1))


def called_on_two_layouts(s, x):  # type: ignore[no-untyped-def]
    t = tokens(s, x)
    return s.out(torch.tanh(s.up(torch.tanh(s.up(t)).transpose(0, 1))).mean(0))


FORWARDS: list[Callable[..., Tensor]] = [
    sequence_first, reordered, reordered_in_place, one_by_one, linear_one_by_one, samples_folded_first,
    samples_folded_last, frames, last_step, unequal_shares, class_token, attention, called_on_two_layouts,
]  # fmt: skip


def network_of(forward: Callable[..., Tensor]) -> nn.Module:
    return make_network(
        forward,
        patch=nn.Conv2d(3, 8, 2, 2),
        conv=nn.Conv2d(8, 8, (1, 2)),
        line=nn.Conv1d(4, 8, 2),
        up=nn.Linear(8, 8),
        down=nn.Linear(8, 8),
        qkv=nn.Linear(8, 24),
        out=nn.Linear(8, CLASSES),
    )()


# Batch sizes equal to the sequence length, to the number of channels, and to neither.
@pytest.mark.parametrize("size", [16, 8, 7])
@pytest.mark.parametrize("forward", FORWARDS)
def test_columns_match_one_gradient_per_logit(forward: Callable[..., Tensor], size: int) -> None:
    network = network_of(forward)
    images, labels = batch((3, 8, 8), size=size)
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)


@pytest.mark.parametrize("forward", [sequence_first, reordered, one_by_one, samples_folded_last, frames])
def test_float32_agrees_with_float64(forward: Callable[..., Tensor]) -> None:
    network = network_of(forward)
    images, labels = batch((3, 8, 8), size=64)
    double = compute_metrics(network, images, labels)
    single = compute_metrics(network.float(), images.float(), labels)
    assert single.trace == pytest.approx(double.trace, rel=1e-4)
    assert float((single.ntk - double.ntk).abs().max()) < 1e-4 * float(double.ntk.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layouts_agree_under_batch_norm(dtype: torch.dtype) -> None:
    def batch_first(s, x):  # type: ignore[no-untyped-def]
        return s.out(torch.tanh(s.up(s.norm(s.patch(x)).flatten(2).transpose(1, 2))).mean(1))

    def length_first(s, x):  # type: ignore[no-untyped-def]
        return s.out(torch.tanh(s.up(s.norm(s.patch(x)).flatten(2).permute(2, 0, 1))).mean(0))

    def folded(s, x):  # type: ignore[no-untyped-def]
        return s.out(torch.tanh(s.up(s.norm(s.patch(x)).permute(0, 2, 3, 1).flatten(0, 2))).view(16, 16, 8).mean(1))

    parts = {"patch": nn.Conv2d(3, 8, 2, 2), "norm": nn.BatchNorm2d(8), "up": nn.Linear(8, 8), "out": nn.Linear(8, 5)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, labels = batch((3, 8, 8), size=16, dtype=dtype)
        first, *others = (
            compute_metrics(Forward(forward, **parts).to(dtype), images, labels)
            for forward in (batch_first, length_first, folded)
        )
    for other in others:
        assert other.columns() == pytest.approx(first.columns(), rel=1e-9 if dtype == torch.float64 else 1e-3)


def test_unbatched_convolutions_may_outnumber_the_channels() -> None:
    network = network_of(one_by_one)
    images, labels = batch((3, 8, 8), size=5)
    assert compute_metrics(network, images, labels).status == "ok"


def test_rows_shared_by_samples_are_refused_except_by_exact() -> None:
    def across_samples(s, x):  # type: ignore[no-untyped-def]
        t = s.up(tokens(s, x).transpose(0, 1))
        return s.out(torch.softmax(t @ t.transpose(1, 2), -1).matmul(t).mean(0))

    network = network_of(across_samples)
    images, labels = batch((3, 8, 8), size=16)
    with pytest.raises(UsageError, match=r"layer up returns a tensor of shape \(16, 16, 8\).*several samples.*exact"):
        compute_metrics(network, images, labels)
    exact = compute_metrics(network, images, labels, ntk="exact")
    agrees(exact, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("samples", [2, 16, 17, 300])
def test_exponents_identify_the_sample_of_a_row(samples: int, dtype: torch.dtype) -> None:
    owner = torch.randperm(2 * samples, generator=torch.Generator().manual_seed(0)) % samples
    values = torch.rand((len(owner), 3), generator=torch.Generator().manual_seed(1)).to(dtype) + 0.5
    values[1] = 0
    passes = [c[owner][:, None] * values for c in cotangents(torch.zeros(samples, dtype=dtype))]
    rows = rows_of(passes, samples, convolution=False)
    assert rows is not None
    assert rows.owner is not None
    expected = owner.clone()
    expected[1] = -1
    assert torch.equal(rows.owner, expected)
    others = [c[(owner + 1) % samples][:, None] for c in cotangents(torch.zeros(samples, dtype=dtype))]
    passes = [one + 0.25 * other for one, other in zip(passes, others, strict=True)]
    with pytest.raises(MixedRowsError):
        rows_of(passes, samples, convolution=False)


@pytest.mark.parametrize("space", ["nasbench101", "nasbench201", "darts"])
def test_networks_of_the_spaces_need_no_extra_pass(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Layers] = []
    find = compute.find_rows
    monkeypatch.setattr(compute, "find_rows", lambda layers, *rest: (seen.append(layers), find(layers, *rest)))
    of = search_spaces[space]
    images, labels = batch((3, 16, 16), dtype=torch.float32)
    for arch in of.sample(6, 3):
        cells = 3 if space == "darts" else 1
        compute_metrics(of.network(arch, classes=CLASSES, channels=4, cells=cells, seed=0), images, labels)
    assert len(seen) == 6
    assert not any(layers.doubtful for layers in seen)


@pytest.mark.parametrize("name", ["residual", "residual_in_place", "depthwise_batch_norm", "mlp", "views"])
def test_convolutional_networks_need_no_extra_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ntk, "cotangents", None)
    network, shape = build(name)
    assert compute_metrics(network, *batch(shape)).status == "ok"


M = 6
IN_ORDER: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x + x.mean(0) + 1,
    "in place": lambda x: x.clone().mul_(2).relu_().add_(x),
    "statistics": lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / x.var((0, 2, 3), keepdim=True),
    "gate": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "flatten": lambda x: x.flatten(1),
    "reshape": lambda x: x.reshape(M, -1, 2),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "transpose": lambda x: x.transpose(1, -1),
    "slice": lambda x: x[:, 1:, ::2],
    "cat": lambda x: torch.cat([x, x], -1),
    "chunk": lambda x: x.chunk(2, 1)[1],
    "pool": lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 2),
    "pad": lambda x: F.pad(x, (1, 1, 0, 2)),
}
UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "index": lambda x: x[torch.arange(M).flip(0)],
    "index of later dimensions": lambda x: x[:, [0], :, [1]],
    "flip": lambda x: x.flip(0),
    "flip of several": lambda x: torch.flip(x, (1, 0)),
    "roll": lambda x: x.roll(1, 0),
    "transpose": lambda x: x.transpose(0, -4),
    "transpose in place": lambda x: x.clone().transpose_(0, 1),
    "permute": lambda x: x.permute(1, 0, 2, 3),
    "sort": lambda x: x.sort(0)[0],
    "cat": lambda x: torch.cat([x[:3], x[3:]]),
    "cat of another order": lambda x: torch.cat([x, x.flip(0)], 1),
    "sum of another order": lambda x: x + x.flip(0),
    "in place of another order": lambda x: x.clone().add_(x.flip(0)),
    "changed": lambda x: x.clone().copy_(x.flip(0)),
    "changed, then more": lambda x: x.clone().copy_(x.flip(0)).relu_(),
    "changed through a view": lambda x: _through_a_view(x.clone()),
    "as many rows as samples": lambda x: x.mean((2, 3)).t().expand(M, -1),
    "broadcast": lambda x: x.new_ones(4, 1, 1, 1, 1) * x,
}


def _through_a_view(x: Tensor) -> Tensor:
    x.flatten(1)[:3] = 0
    return x


def recording(images: Tensor) -> Recorder:
    """Return a recorder of a network without layers that maps `images`."""
    recorder = Recorder(Layers({}, {}))
    recorder.order = Order(images)
    return recorder


@pytest.mark.parametrize("name", IN_ORDER)
def test_the_order_of_the_samples_is_known_after(name: str) -> None:
    images = torch.rand(M, M, M, M)
    with recording(images) as mode:
        result = IN_ORDER[name](images)
        assert mode.order.knows(result)


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_order_of_the_samples_is_unknown_after(name: str) -> None:
    images = torch.rand(M, M, M, M)
    with recording(images) as mode:
        result = UNKNOWN[name](images)
        assert not mode.order.knows(result)


def test_overflowing_gradients_do_not_raise() -> None:
    network = network_of(sequence_first)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1e160)
    m = compute_metrics(network, *batch((3, 8, 8)))
    assert m.status == "nonfinite"


def test_a_constant_sequence_network_is_constant() -> None:
    network = network_of(sequence_first)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    m = compute_metrics(network, *batch((3, 8, 8)))
    assert m.status == "constant"
