"""Scores of networks unlike those of the spaces: random, checkpointed, compiled, or under other defaults of torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hnas import UsageError, compute_metrics
from hnas.metrics.ops import pooling
from hnas.scores.protocol import Subject
from hnas.scores.registry import scores
from tests.support import networks
from tests.support.networks import CLASSES, Forward
from tests.support.references import training_copy

MAPS = ("gradsign", "knas_program", "meco", "synflow", "zen", "zico")
IMAGES = (3, 8, 8)


class DropPath(nn.Module):
    """Stochastic depth, drawn from torch's generator or from its own."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.generator = torch.Generator() if own else None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + self.conv(x)
        kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype).bernoulli_(0.5, generator=self.generator)
        return x + 2 * kept * self.conv(x)


def maps(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *modules, networks.head(6))


def sequences(module: nn.Module, after: Callable[[Any], Tensor]) -> nn.Module:
    """A network of images (m, C, H, W) whose rows of maps are the entries of a sequence (m, H W, 6)."""

    def forward(s: Any, x: Tensor) -> Tensor:
        return s.out(torch.tanh(after(s.module(s.first(x.flatten(2).transpose(1, 2))))).mean(1))

    return Forward(forward, first=nn.Linear(3, 6), module=module, out=nn.Linear(6, CLASSES))


RANDOM: dict[str, Callable[[], nn.Module]] = {
    "transformer": lambda: sequences(nn.TransformerEncoderLayer(6, 2, 12, 0.5, batch_first=True), lambda y: y),
    "lstm": lambda: sequences(nn.LSTM(6, 6, 2, dropout=0.5, batch_first=True), lambda y: y[0]),
    "rrelu": lambda: maps(nn.RReLU(), nn.Conv2d(6, 6, 1)),
    "drop_path": lambda: maps(DropPath(own=False), nn.ReLU()),
    "drop_path_of_its_own": lambda: maps(DropPath(own=True), nn.ReLU()),
}


def subject(network: nn.Module, shape: tuple[int, ...] = IMAGES, **others: Any) -> Subject:
    return Subject(network, *networks.batch(shape, size=6), networks.batch(shape, size=6, seed=2), **others)


def computed(network: nn.Module, names: tuple[str, ...], shape: tuple[int, ...] = IMAGES) -> dict[str, float]:
    given = subject(network, shape)
    return compute_metrics(given.network, given.images, given.labels, scores=names, further=given.further).scores


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().train()


def same(found: dict[str, float], expected: dict[str, float]) -> bool:
    return found == pytest.approx(expected, rel=1e-12, abs=0, nan_ok=True)


@pytest.mark.parametrize("kind", list(RANDOM))
def test_scores_are_those_of_the_network_without_its_randomness(kind: str) -> None:
    names = [name for name in MAPS if name != "meco" or kind not in ("transformer", "lstm")]  # no maps with channels
    network = drawn(RANDOM[kind])
    still = copy.deepcopy(network)
    for module in still.modules():
        if isinstance(module, (nn.Dropout, nn.RReLU, DropPath)):
            module.eval()
        if isinstance(module, nn.LSTM | nn.MultiheadAttention):
            module.dropout = 0.0
    expected = {name: scores[name](subject(still))[name] for name in names}  # type: ignore[operator]
    with torch.random.fork_rng():
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = [torch.get_rng_state(), *(m.generator.get_state() for m in network.modules() if generator_of(m))]
            assert same({name: scores[name](subject(network))[name] for name in names}, expected)  # type: ignore[operator]
            after = [torch.get_rng_state(), *(m.generator.get_state() for m in network.modules() if generator_of(m))]
            assert all(map(torch.equal, before, after)), "all generators are restored"
    assert all(module.training for module in network.modules())


def generator_of(module: nn.Module) -> torch.Generator | None:
    return getattr(module, "generator", None)


@pytest.mark.parametrize("name", ["knas_program", "meco", "synflow", "zen"])
def test_a_network_that_stays_random_has_no_score(name: str) -> None:
    network = drawn(lambda: Forward(lambda s, x: s.net(x + torch.rand_like(x)), net=maps(nn.ReLU())))
    with pytest.raises(UsageError, match="draws random numbers by rand_like"):
        scores[name](subject(network))  # type: ignore[operator]


def test_te_nas_of_a_space_with_random_layers_is_deterministic() -> None:
    class Small(nn.Module):
        smallest = 1, 1

        def __init__(self, channels: int) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, channels, 3)
            inner = nn.Sequential(nn.Dropout(0.5), nn.ReLU(), nn.Conv2d(channels, channels, 1), nn.RReLU(), nn.ReLU())
            self.first_cell = Forward(lambda s, x: s.inner(x[:, :channels]), inner=inner)
            self.head = networks.head(channels)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(F.dropout(self.first_cell(self.stem(x)), training=self.training))
            return out

    def build(channels: int = 3, cells: int = 1) -> nn.Module:
        return Small(channels)

    network = drawn(build)
    found = []
    with torch.random.fork_rng():
        for seed in (1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            found.append(scores["te_nas"](subject(network, build=build)))  # type: ignore[operator]
            assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert all(map(math.isfinite, found[0].values()))


@pytest.mark.parametrize("kind", ["reentrant", "not_reentrant", "compiled"])
def test_checkpointed_and_compiled_networks_have_the_scores_of_the_plain_one(kind: str) -> None:
    plain = drawn(lambda: maps(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()))
    expected = computed(plain, MAPS)
    network: nn.Module

    if kind == "compiled":
        network = torch.compile(plain, backend="eager")
    else:

        def forward(s: Any, x: Tensor) -> Tensor:
            return s.out(checkpoint(s.inner, s.first(x), use_reentrant=kind == "reentrant"))

        network = Forward(forward, first=plain[0], inner=plain[1:-1], out=plain[-1])  # type: ignore[index]
    found = computed(network, MAPS)
    if kind != "compiled":  # which has the same modules around the layers
        assert found.pop("meco") != expected.pop("meco")
    assert same(found, expected)


def signs(network: nn.Module, given: Subject) -> float:
    """GradSign by a loop over batches of one image."""
    network, total = training_copy(network), 0.0
    weights = [p for p in network.parameters() if p.dim() > 1]
    sums = [torch.zeros_like(p) for p in weights]
    for image, label in zip(given.images.split(1), given.labels.split(1), strict=True):
        found = torch.autograd.grad(F.cross_entropy(network(image), label), weights)
        for each, g in zip(sums, found, strict=True):
            each += torch.where(g.abs() > 1e-12 * g.abs().max(), g.sign(), 0)
    for each in sums:
        total += float(each.abs().sum())
    return total


def folded(norm: nn.Module) -> nn.Module:
    """Frames (m, 4, …) folded with the batch for a batch norm, of maps or of vectors."""

    def forward(s: Any, x: Tensor) -> Tensor:
        frames = x.flatten(0, 1)
        y = s.norm(s.conv(frames) if isinstance(norm, nn.BatchNorm2d) else s.conv(frames).mean((2, 3)))
        y = torch.tanh(y.flatten(2).mean(2) if y.dim() == 4 else y)
        return s.out(y.unflatten(0, (len(x), -1)).select(1, 0))

    return Forward(forward, conv=nn.Conv2d(3, 6, 3), norm=norm, out=nn.Linear(6, CLASSES))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.BatchNorm1d])
def test_gradsign_where_a_batch_norm_reads_several_rows_of_an_image(norm: type[nn.Module]) -> None:
    network = drawn(lambda: folded(norm(6)))
    given = subject(network, (4, *IMAGES))
    assert scores["gradsign"](given)["gradsign"] == signs(network, given)  # type: ignore[operator]


@pytest.mark.parametrize("turned", [False, True])
def test_gradsign_where_images_depend_only_on_those_before_or_after(turned: bool) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.net(x)
        return y.flip(0).cumsum(0).flip(0) if turned else y.cumsum(0)

    network = drawn(lambda: Forward(forward, net=maps(nn.ReLU())))
    given = subject(network)
    assert scores["gradsign"](given)["gradsign"] == signs(network, given)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["gradsign", "meco", "zen"])
def test_a_network_that_differentiates_in_its_forward_pass(name: str) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        y = s.first(x)
        probe = y.detach().requires_grad_()
        (slope,) = torch.autograd.grad(probe.sin().sum(), probe)
        return s.net(slope)

    network = drawn(lambda: Forward(forward, first=nn.Conv2d(3, 3, 1), net=maps(nn.ReLU())))
    cosine = Forward(lambda s, x: s.net(s.first(x).detach().cos()), first=network.first, net=network.net)
    found, expected = (scores[name](subject(each))[name] for each in (network, cosine))  # type: ignore[operator]
    assert found == pytest.approx(expected, rel=1e-12)


def test_synflow_is_nan_with_a_mask_of_minus_infinity() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        rows = s.first(x.flatten(2).transpose(1, 2))
        return s.out((s.mask + rows @ rows.transpose(1, 2)).softmax(-1).mean(1))

    network = drawn(lambda: Forward(forward, first=nn.Linear(3, 6), out=nn.Linear(64, CLASSES)))
    network.register_buffer("mask", torch.full((64, 64), -torch.inf, dtype=torch.float64).triu(1))
    assert math.isnan(computed(network, ("synflow",))["synflow"])


def test_synflow_of_a_network_that_updates_a_buffer_in_place() -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        s.average.mul_(0.9).add_(x.mean().detach(), alpha=0.1)
        return s.net(x)

    network = drawn(lambda: Forward(forward, net=maps(nn.ReLU())))
    network.register_buffer("average", torch.zeros((), dtype=torch.float64))
    assert computed(network, ("synflow",)) == computed(network.net, ("synflow",))  # type: ignore[arg-type]


def test_scores_do_not_depend_on_the_defaults_of_torch() -> None:
    names = (*MAPS, "linear_regions", "naswot", "swap")
    network = maps(nn.AvgPool2d(3, 1, 1), nn.ReLU())
    given = [value.float() if value.is_floating_point() else value for value in networks.batch(IMAGES)]
    further = tuple(value.float() if value.is_floating_point() else value for value in networks.batch(IMAGES, seed=2))

    def found() -> dict[str, float]:
        return compute_metrics(network, *given, scores=names, further=further).scores  # type: ignore[arg-type]

    expected = found()
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            assert found() == expected
        finally:
            torch.set_default_dtype(torch.float32)
    pooling._constants.cache_clear()  # type: ignore[attr-defined]
    with torch.device("meta"):
        assert found() == expected


def test_sign_scores_of_a_relu_of_one_number_an_image() -> None:
    def of(one: Callable[[Any, Tensor], Tensor]) -> dict[str, float]:
        network = drawn(lambda: Forward(one, first=nn.Linear(12, 1), out=nn.Linear(1, CLASSES)))
        return computed(network, ("linear_regions", "naswot", "swap"), (12,))

    column = of(lambda s, x: s.out(F.relu(s.first(x))))
    assert column["swap"] == 1
    assert of(lambda s, x: s.out(F.relu(s.first(x).squeeze(1))[:, None])) == column


def test_zen_of_a_linear_layer_called_by_keywords() -> None:
    def by_keywords(s: Any, x: Tensor) -> Tensor:
        return F.linear(input=torch.relu(s.first(x)), weight=s.out.weight, bias=s.out.bias)

    network = drawn(lambda: Forward(by_keywords, first=nn.Linear(12, 6), out=nn.Linear(6, CLASSES)))
    plain = Forward(lambda s, x: s.out(torch.relu(s.first(x))), first=network.first, out=network.out)
    assert computed(network, ("zen",), (12,)) == computed(plain, ("zen",), (12,))


def test_the_networks_own_train_is_not_called() -> None:
    class Trained(nn.Sequential):
        def train(self, loader: Any) -> Any:  # type: ignore[override]
            raise AssertionError("a fit to a loader")

    network = drawn(lambda: maps(nn.Dropout(), nn.ReLU()))
    modes = [module.training for module in network.modules()]
    trained = Trained(*network)  # type: ignore[arg-type, misc]
    assert computed(trained, ("meco", "synflow")) == computed(network, ("meco", "synflow"))
    assert [module.training for module in trained.modules()] == modes
