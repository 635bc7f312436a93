"""GraSP from one pass of tangents equals GraSP from a double backward, for many kinds of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics
from hnas.metrics import recorder
from hnas.metrics.tape import Tape
from hnas.spaces import search_spaces
from tests.support.networks import CLASSES, Forward, batch, build, head, shake

pytestmark = pytest.mark.slow

# These networks contain operations without a rule, so autograd differentiates them twice.
TWICE = {"group_norm", "tokens"}
NETWORKS = [
    "mlp", "residual", "residual_without_norm", "residual_in_place", "group_norm", "plain_batch_norm",
    "mlp_batch_norm", "conv1d_batch_norm", "conv3d_batch_norm", "groups", "depthwise", "depthwise_batch_norm",
    "padding_same_even_kernels", "padding_circular", "even_kernels_and_strides", "one_channel", "tokens",
    "linear_called_twice", "conv_called_twice", "weight_of_two_modules_with_their_own_biases",
    "weight_of_convolutions_of_several_geometries", "views", "views_after_batch_norm",
]  # fmt: skip


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Both:
    """The columns with `grasp` from tangents and from a double backward, and the function without a rule, if any."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        tapes: list[Tape] = []

        class Kept(Tape):
            def __init__(self) -> None:
                super().__init__()
                tapes.append(self)

        class Refused(Tape):
            def __init__(self) -> None:
                super().__init__()
                self.incomplete = "everything"

        monkeypatch.setattr(recorder, "Tape", Kept)
        self.direct = compute_metrics(network, images, labels)
        monkeypatch.setattr(recorder, "Tape", Refused)
        self.twice = compute_metrics(network, images, labels)
        self.incomplete = tapes[0].incomplete

    def agree(self, relative: float = 1e-9) -> bool:
        """Whether the two have equal columns."""
        other = self.twice.columns()
        return all(value == pytest.approx(other[name], rel=relative) for name, value in self.direct.columns().items())


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Both]:
    return lambda *arguments: Both(monkeypatch, *arguments)


@pytest.mark.parametrize("name", NETWORKS)
def test_tangents_and_double_backward_agree(name: str, both: Callable[..., Both]) -> None:
    network, shape = build(name)
    found = both(network, *batch(shape))
    assert found.agree()
    assert (found.incomplete is not None) == (name in TWICE)


@pytest.mark.parametrize("space", ["nasbench101", "nasbench201", "darts"])
def test_all_operations_of_the_spaces_have_rules(space: str, both: Callable[..., Both]) -> None:
    of = search_spaces[space]
    images, labels = batch((3, 16, 16))
    for arch in of.sample(6, 3):
        network = of.network(arch, classes=CLASSES, channels=4, cells=3 if space == "darts" else 1, seed=0)
        shake(network)
        found = both(network.double(), images, labels)
        assert found.incomplete is None
        # In a scale-invariant network, GraSP is the small remainder of much larger terms that cancel.
        assert found.direct.grasp == pytest.approx(found.twice.grasp, rel=1e-7, abs=1e-9)


def made_of(forward: Callable[[Forward, Tensor], Tensor], **layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        layers = {"conv": nn.Conv2d(3, 4, 3, padding=1), "norm": nn.BatchNorm2d(4), "head": head(4), **layers}
        network = Forward(forward, **layers)
        shake(network)
    return network.double()


def pooled(s: Forward, x: Tensor) -> Tensor:
    return s.head(F.max_pool2d(s.norm(s.conv(x)), 3, stride=2, padding=1))  # type: ignore[operator, no-any-return]


def pooled_by_averages(s: Forward, x: Tensor) -> Tensor:
    y = F.avg_pool2d(s.norm(s.conv(x)), kernel_size=3, stride=1, padding=1, count_include_pad=False)  # type: ignore[operator]
    y = F.avg_pool2d(F.avg_pool2d(torch.relu(y), (3, 2), (2, 1), ceil_mode=True), 2, divisor_override=3)
    return s.head(y)  # type: ignore[operator, no-any-return]


def pooled_without_channels(s: Forward, x: Tensor) -> Tensor:
    """A pooling over three dimensions, the first of which torch takes for the channels."""
    y = s.norm(s.conv(x)).mean(1)  # type: ignore[operator]
    return s.head(F.max_pool2d(y, 2)[:, None].expand(-1, 4, -1, -1))  # type: ignore[operator, no-any-return]


def layer_read_twice(s: Forward, x: Tensor) -> Tensor:
    """Batch norm is not the only reader of the convolution, whose output is added later."""
    y = s.conv(x)  # type: ignore[operator]
    return s.head(torch.relu(s.norm(y)) + y)  # type: ignore[operator, no-any-return]


def normalised_twice(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    return s.head(s.norm(y) + 2 * s.norm(y).abs_())  # type: ignore[operator, no-any-return]


def norm_of_a_sum(s: Forward, x: Tensor) -> Tensor:
    return s.head(torch.relu(s.norm(s.conv(x) + s.other(x))))  # type: ignore[operator, no-any-return]


def joined(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    first, second = y.chunk(2, dim=1)
    return s.head(torch.cat([F.pad(second, (1, -1)), torch.ones(1, 2, 8, 8, dtype=x.dtype) - first / 3], 1))  # type: ignore[operator, no-any-return]


def shifted(s: Forward, x: Tensor) -> Tensor:
    """Constants on either side, numbers and tensors, before and after the first layer."""
    y = 1.5 + s.norm(s.conv((x - 0.25) / torch.full((3, 1, 1), 0.5, dtype=x.dtype)))  # type: ignore[operator]
    y = torch.add(y, torch.ones(4, 1, 1, dtype=x.dtype), alpha=2) - 0.5
    y = torch.add(y, x2=0.5)  # type: ignore[call-overload]  # NumPy's name
    return s.head(torch.relu(y * 2) * 0.5 + y.mean((2, 3), keepdim=True))  # type: ignore[operator, no-any-return]


def across_the_batch(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    return s.head(torch.relu(y - y.mean(0, keepdim=True) + y.flip(0)))  # type: ignore[operator, no-any-return]


def in_place(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    y += s.other(x)  # type: ignore[operator]
    y.mul_(0.5).add_(1.0)
    return s.head(F.relu_(y))  # type: ignore[operator, no-any-return]


def in_place_on_a_view(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    y[:, :2].mul_(3.0)
    return s.head(y)  # type: ignore[operator, no-any-return]


def in_place_beside_a_view(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    part = y[:, 2:]
    y.mul_(3.0)
    return s.head(torch.cat([y[:, :2], part], 1))  # type: ignore[operator, no-any-return]


def rectified_beside_a_view(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    part = y[:, 2:]
    y = F.relu(y, inplace=True)
    return s.head(torch.cat([y[:, :2], part * 2], 1))  # type: ignore[operator, no-any-return]


def rectified_before_a_view(s: Forward, x: Tensor) -> Tensor:
    """An in-place ReLU on a tensor that has no views yet and is not read again is harmless."""
    y = s.norm(s.conv(x))  # type: ignore[operator]
    first = y[:, 1:].mean((2, 3), keepdim=True)
    y = F.relu(y + first.mean(1, keepdim=True), inplace=True)
    y[:, :2].add_(1.0)
    return s.head(torch.relu_(s.other(x)) + first.mean())  # type: ignore[operator, no-any-return]


def returned_as_they_are(s: Forward, x: Tensor) -> Tensor:
    """Functions that return their input itself."""
    y = s.norm(s.conv(x))  # type: ignore[operator]
    z = torch.relu(y.contiguous(memory_format=torch.channels_last))
    return s.head(z.contiguous(memory_format=torch.channels_last).flatten(1, 1) + y)  # type: ignore[operator, no-any-return]


def assigned_and_returned(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    y[:, 0] = 0.0
    return s.head(torch.tanh(y.contiguous(memory_format=torch.channels_last)))  # type: ignore[operator, no-any-return]


def assigned(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    y[:, 0] = 0.0
    y[:, 1:3] = torch.tanh(s.other(x))[:, 1:3]  # type: ignore[operator]
    return s.head(torch.tanh(y))  # type: ignore[operator, no-any-return]


def detached_in_place(s: Forward, x: Tensor) -> Tensor:
    y = s.other(x)  # type: ignore[operator]
    y.detach_()
    return s.head(torch.tanh(s.conv(x)) + y)  # type: ignore[operator, no-any-return]


def scaled_without_gradients(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    with torch.no_grad():
        y.div_(y.norm())
    return s.head(y + torch.tanh(s.other(x)))  # type: ignore[operator, no-any-return]


def changed_after_its_activation(s: Forward, x: Tensor) -> Tensor:
    """Autograd needs only the output of a sigmoid, so its input may be overwritten."""
    y = s.conv(x)  # type: ignore[operator]
    gate = torch.sigmoid(y)
    y += s.other(x)  # type: ignore[operator]
    return s.head(torch.cat([gate[:, :2], y[:, 2:]], 1))  # type: ignore[operator, no-any-return]


def rounded(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    return s.head(torch.tanh(y) + torch.div(y, 0.1, rounding_mode="floor"))  # type: ignore[operator, no-any-return]


def compared_with_prototypes(s: Forward, x: Tensor) -> Tensor:
    """Logits from a weight that belongs to no layer."""
    return F.linear(s.conv(x).mean((2, 3)), s.prototypes.weight)  # type: ignore[operator, union-attr, arg-type]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return 2 * gradient


def doubled_at_the_end(s: Forward, x: Tensor) -> Tensor:
    """Logits from a custom autograd function."""
    return Doubled.apply(s.head(torch.tanh(s.conv(x))))  # type: ignore[operator, no-any-return, no-untyped-call]


def normalised_beside_the_end(s: Forward, x: Tensor) -> Tensor:
    """A norm reads the logits, but nothing reads the norm."""
    logits = s.last(torch.tanh(s.conv(x) + s.other(x)).mean((2, 3)))  # type: ignore[operator]
    s.last_norm(logits)  # type: ignore[operator]
    return logits  # type: ignore[no-any-return]


def activated(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    y = F.gelu(y, approximate="tanh") + F.elu(y, 0.7) + torch.sigmoid(y).sqrt() + F.hardtanh(y)
    return s.head(F.leaky_relu(y, negative_slope=0.1) + y.square().exp().log())  # type: ignore[operator, no-any-return]


def stopped(s: Forward, x: Tensor) -> Tensor:
    """Detached values and flags."""
    y = s.norm(s.conv(x))  # type: ignore[operator]
    with torch.no_grad():
        scale = torch.relu(s.other(x)) + 1 + y.mean()  # type: ignore[operator]
    return s.head(y * (y > 0) * scale + y.detach())  # type: ignore[operator, no-any-return]


def differentiated_on_the_way(s: Forward, x: Tensor) -> Tensor:
    """Backward passes within the forward pass, through nonlinear operations; their results are constants."""
    y = s.conv(x)  # type: ignore[operator]
    z = torch.tanh(s.norm(s.other(x) + y) * 2)  # type: ignore[operator]
    (slope,) = torch.autograd.grad(z.square().sum(), y, retain_graph=True)
    return s.head(z + slope)  # type: ignore[operator, no-any-return]


def in_a_named_tuple(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    return s.head(torch.cat(Pair(y[:, :2], y[:, 2:] * 2), 1))  # type: ignore[operator, no-any-return]


def gated(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    return s.head(y * torch.sigmoid(y.mean((2, 3), keepdim=True)))  # type: ignore[operator, no-any-return]


def multiplied(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    return s.head(y * y)  # type: ignore[operator, no-any-return]


def multiplied_by_name(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    return s.head(torch.mul(input=y, other=s.other(x)))  # type: ignore[operator, no-any-return]


def added_with_a_factor_between(s: Forward, x: Tensor) -> Tensor:
    """The deprecated form of `torch.add(a, b, alpha=3.0)`."""
    return s.head(torch.add(torch.tanh(s.conv(x)), 3.0, torch.tanh(s.other(x))))  # type: ignore[operator, call-overload, no-any-return]


def added_with_a_factor_in_a_tensor(s: Forward, x: Tensor) -> Tensor:
    factor = torch.tensor(3.0, dtype=x.dtype)
    return s.head(torch.tanh(s.conv(x)).sub(torch.tanh(s.other(x)), alpha=factor))  # type: ignore[operator, arg-type, no-any-return]


def complex_on_the_way(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x) * (0.6 + 0.8j) + s.other(x) * (1 - 0.3j)  # type: ignore[operator]
    return s.head(y.abs())  # type: ignore[operator, no-any-return]


def divided(s: Forward, x: Tensor) -> Tensor:
    y = s.norm(s.conv(x))  # type: ignore[operator]
    return s.head(1 / (3 + torch.relu(y)))  # type: ignore[operator, no-any-return]


def padded_with_ones(s: Forward, x: Tensor) -> Tensor:
    return s.head(F.pad(s.conv(x), (1, 1, 1, 1), value=1.0))  # type: ignore[operator, no-any-return]


def linear_before_a_norm_of_positions(s: Forward, x: Tensor) -> Tensor:
    """The norm's channels are not those of the linear map, so the map's bias is not constant in them."""
    return s.end(torch.tanh(s.of_rows(s.rows(x.flatten(2)))).flatten(1))  # type: ignore[operator, no-any-return]


def linear_before_a_norm_of_maps(s: Forward, x: Tensor) -> Tensor:
    return s.end(torch.tanh(s.of_maps(s.columns(x))).mean(3).flatten(1)[:, :15])  # type: ignore[operator, no-any-return]


def linear_with_a_bias_of_each_sample(s: Forward, x: Tensor) -> Tensor:
    y = F.linear(x.flatten(1), s.all.weight, x[:, 0, 0, :7] * 2)  # type: ignore[union-attr, arg-type, index]
    z = torch.tanh(s.of_vectors(y))  # type: ignore[operator]
    return s.end(torch.cat([z, 2 * z, z[:, :1]], 1))  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize(
    "forward",
    [linear_before_a_norm_of_positions, linear_before_a_norm_of_maps, linear_with_a_bias_of_each_sample],
)
def test_a_norm_cancels_only_what_is_constant_in_its_channels(
    forward: Callable[..., Tensor], both: Callable[..., Both]
) -> None:
    maps, norms = {"rows": nn.Linear(64, 5), "columns": nn.Linear(8, 6), "all": nn.Linear(192, 7)}, {
        "of_rows": nn.BatchNorm1d(3), "of_maps": nn.BatchNorm2d(3), "of_vectors": nn.BatchNorm1d(7)
    }  # fmt: skip
    found = both(made_of(forward, **maps, **norms, end=nn.Linear(15, CLASSES)), *batch((3, 8, 8)))
    assert found.agree()
    assert found.incomplete is None


def norm_scaled_by_the_network(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    return s.head(F.batch_norm(y, None, None, y.mean((0, 2, 3)) + 2, None, training=True))  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize(
    "forward",
    [
        pooled,
        pooled_by_averages,
        layer_read_twice,
        norm_of_a_sum,
        joined,
        shifted,
        across_the_batch,
        in_place,
        rectified_before_a_view,
        returned_as_they_are,
        normalised_beside_the_end,
        activated,
        stopped,
        differentiated_on_the_way,
    ],
)
def test_the_tape_is_complete(forward: Callable[..., Tensor], both: Callable[..., Both]) -> None:
    more = {"other": nn.Conv2d(3, 4, 1), "last": nn.Linear(4, CLASSES), "last_norm": nn.BatchNorm1d(CLASSES)}
    found = both(made_of(forward, **more), *batch((3, 8, 8)))
    assert found.agree()
    assert found.incomplete is None


@pytest.mark.parametrize(
    "forward",
    [
        pooled_without_channels,
        normalised_twice,
        in_place_on_a_view,
        in_place_beside_a_view,
        rectified_beside_a_view,
        assigned,
        assigned_and_returned,
        detached_in_place,
        scaled_without_gradients,
        changed_after_its_activation,
        rounded,
        compared_with_prototypes,
        doubled_at_the_end,
        in_a_named_tuple,
        gated,
        multiplied,
        multiplied_by_name,
        added_with_a_factor_between,
        added_with_a_factor_in_a_tensor,
        complex_on_the_way,
        divided,
        padded_with_ones,
    ],
)
def test_operations_without_rules_fall_back_to_double_backward(
    forward: Callable[..., Tensor], both: Callable[..., Both]
) -> None:
    more = {"other": nn.Conv2d(3, 4, 1), "prototypes": nn.Embedding(CLASSES, 4)}
    found = both(made_of(forward, **more), *batch((3, 8, 8)))
    assert found.agree()
    assert found.incomplete is not None


def test_an_in_place_sum_keeps_its_dtype(both: Callable[..., Both]) -> None:
    def forward(s: Forward, x: Tensor) -> Tensor:
        y = s.conv(x)  # type: ignore[operator]
        y += torch.linspace(0, 1, 8, dtype=torch.float64)
        return s.head(torch.tanh(s.other(y)))  # type: ignore[operator, no-any-return]

    found = both(made_of(forward, other=nn.Conv2d(4, 4, 1)).float(), *batch((3, 8, 8), dtype=torch.float32))
    assert found.incomplete is None
    assert found.agree(1e-4)


def test_a_norm_with_computed_factors_has_no_rule() -> None:
    network = made_of(norm_scaled_by_the_network)
    images, labels = batch((3, 8, 8))
    weights = [m.weight.requires_grad_() for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    loss = F.cross_entropy(network(images.clone()), labels)
    first = torch.autograd.grad(loss, weights, create_graph=True)
    second = torch.autograd.grad(sum((g * g).sum() for g in first) / 2, weights)
    expected = -sum(float((w * h).detach().sum()) for w, h in zip(weights, second, strict=True))
    assert compute_metrics(network, images, labels).grasp == pytest.approx(expected, rel=1e-8)


def test_the_replay_frees_values_of_the_forward_pass_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """During the replay only values that are still to be read are alive, and none at its end."""
    held: list[int] = []
    original = Tape.replay

    def replay(self: Tape, *arguments: object) -> object:
        steps = self._steps
        result = original(self, *arguments)  # type: ignore[arg-type]
        held.append(len(self._steps))
        assert len(steps) > 10
        return result

    monkeypatch.setattr(Tape, "replay", replay)
    network, shape = build("residual")
    compute_metrics(network, *batch(shape))
    assert held == [0]
