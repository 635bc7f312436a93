"""Scores that share the engine's passes match slow and obvious computations, and change no column."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hnas import UsageError, compute_metrics, search_spaces
from hnas.metrics import COLUMNS, queue_statistics
from hnas.metrics.signs import Signs
from hnas.metrics.statistics import STATISTICS, Statistics
from hnas.scores.compute import shared_scores
from hnas.scores.registry import scores
from tests.hnas.metrics.test_rows import attention, network_of, sequence_first
from tests.support.networks import CLASSES, Forward, batch, build
from tests.support.score_references import reference_of_signs, reference_scores, signs

SHARED = sorted(name for name in scores if scores[name].shared)


# Written out, because sampling needs the table of all architectures.
CELLS = [
    "input,conv3x3-bn-relu,maxpool3x3,output:0110001000010000",
    "input,conv3x3-bn-relu,conv1x1-bn-relu,output:0111001100010000",
    "input,conv1x1-bn-relu,conv3x3-bn-relu,conv3x3-bn-relu,output:0110100110000110000100000",
]


def agree(found: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        whole = name in ("linear_regions", "swap")
        near = value if whole else pytest.approx(value, rel=1e-8, abs=1e-12, nan_ok=True)
        assert found[name] == near or (math.isnan(value) and math.isnan(found[name])), name


def tiny(space: str, number: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a small network of a cell that is not dead, with 8 images of 8 × 8."""
    found = search_spaces[space]
    drawn = CELLS if space == "nasbench101" else [a for a in found.sample(12, 5) if found.canonical(a) != "y=0"]
    arch = drawn[number]
    network = found.network(arch, classes=10, channels=4, cells=3 if space == "darts" else 1, seed=number).double()
    generator = torch.Generator().manual_seed(number)
    images = torch.randn((8, 3, 8, 8), generator=generator, dtype=torch.float64)
    return network, images, torch.randint(0, 4, (8,), generator=generator)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("space", ["nasbench101", "nasbench201", "darts"])
def test_scores_of_cells_match_slow_computations(space: str, number: int) -> None:
    network, images, labels = tiny(space, number)
    found = compute_metrics(network, images, labels, scores=SHARED).scores
    assert sorted(found) == SHARED
    agree(found, reference_scores(network, images, labels) | reference_of_signs(signs(network, images)))


@pytest.mark.parametrize(
    "name",
    ["mlp", "residual", "residual_in_place", "depthwise_batch_norm", "groups", "conv1d_batch_norm", "tokens",
     "conv_called_twice", "weight_of_two_modules"],
)  # fmt: skip
def test_scores_of_other_networks_match_slow_computations(name: str) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    found = compute_metrics(network, images, labels, scores=SHARED).scores
    agree(found, reference_scores(network, images, labels) | reference_of_signs(signs(network, images)))


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6 in place": nn.ReLU6(inplace=True),
    "nn.LeakyReLU": nn.LeakyReLU(),
    "nn.LeakyReLU in place": nn.LeakyReLU(inplace=True),
    "nn.PReLU": nn.PReLU(),
    "torch.relu_": torch.relu_,
    "Tensor.relu": Tensor.relu,
    "F.relu6": F.relu6,
    "F.relu6 in place": partial(F.relu6, inplace=True),
    "F.leaky_relu_": F.leaky_relu_,
    "F.hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "F.hardtanh by keywords": lambda x: F.hardtanh(input=x, min_val=0.0, max_val=6.0),
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0.0, 6.0),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.Hardtanh": nn.Hardtanh(),
    "F.hardtanh": F.hardtanh,
    "F.hardtanh_": F.hardtanh_,
    "nn.Hardswish": nn.Hardswish(),
    "nn.Hardsigmoid": nn.Hardsigmoid(),
    "nn.ELU": nn.ELU(),
}


def scores_beside_a_relu(
    function: Callable[[Tensor], Tensor], *, counts: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """The sign scores of a network with a ReLU and `function`, and those expected if `function` counts, or does not."""
    module = function if isinstance(function, nn.Module) else Forward(lambda s, x: function(x))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, second, out = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, CLASSES)
    network = nn.Sequential(first, nn.ReLU(), second, module, nn.Flatten(), out).double()
    images, labels = batch((3, 8, 8))
    found = compute_metrics(network, images, labels, scores="naswot,swap,linear_regions").scores
    with torch.no_grad():
        one = torch.relu(first(images))
        values = [one, second(one)] if counts else [one]
    return dict(found), reference_of_signs(np.concatenate([(value > 0).flatten(1).numpy() for value in values], 1))


@pytest.mark.parametrize("name", RELUS)
def test_every_form_of_relu_counts(name: str) -> None:
    agree(*scores_beside_a_relu(RELUS[name], counts=True))


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_function_counts_as_a_relu(name: str) -> None:
    agree(*scores_beside_a_relu(OTHERS[name], counts=False))


def reordered(s, x):  # type: ignore[no-untyped-def]
    back = torch.arange(len(x) - 1, -1, -1)
    return s.out(s.up[1](s.conv(s.patch(x))[back])[back].mean((2, 3)))


@pytest.mark.parametrize(
    ("forward", "by_sample"),
    [(attention, lambda y: y), (sequence_first, lambda y: y.movedim(1, 0)), (reordered, lambda y: y.flip(0))],
    ids=["attention", "sequence_first", "reordered"],
)
def test_relu_rows_are_assigned_where_samples_are_not_first(forward, by_sample) -> None:  # type: ignore[no-untyped-def]
    network = network_of(forward)
    network.up = nn.Sequential(network.up, nn.ReLU())
    images, labels = batch((3, 4, 4))
    kept: list[Tensor] = []
    network.up[1].register_forward_hook(lambda module, inputs, output: kept.append(by_sample(output.detach())))
    found = compute_metrics(network, images, labels, scores="naswot,swap,linear_regions,fisher").scores
    agree(found, reference_of_signs(np.concatenate([value.flatten(1).numpy() > 0 for value in kept], 1)))
    assert found["fisher"] > 0


@pytest.mark.parametrize("rows", ["shuffled", "with rows of no sample"])
def test_fisher_adds_up_the_rows_of_a_sample_wherever_they_lie(rows: str) -> None:
    """Tokens of samples and whole samples in an order of their own, and rows that no logit depends on."""
    random = torch.Generator().manual_seed(3)
    tokens, samples = (torch.randperm(n, generator=random) for n in (24, 8))

    def forward(s: Forward, x: Tensor, *, plain: bool = False) -> Tensor:
        words = x[:, :, 0].flatten(0, 1)  # (m * 3, 4)
        if plain:
            h, c = s.up(x[:, :, 0]), s.conv(x)
        elif rows == "shuffled":
            h, c = s.up(words[tokens])[tokens.argsort()], s.conv(x[samples])[samples.argsort()]
        else:
            h, c = s.up(torch.cat([words, words[:5]]))[:24], s.conv(torch.cat([x[:2], x]))[2:]
        return s.head(torch.cat([torch.relu(h).reshape(len(x), -1), torch.relu(c).mean((2, 3))], 1))

    layers = {"up": nn.Linear(4, 6), "conv": nn.Conv2d(3, 5, 3, padding=1), "head": nn.Linear(3 * 6 + 5, CLASSES)}
    images, labels = batch((3, 4, 4), size=8)
    found = compute_metrics(Forward(forward, **layers).double(), images, labels, scores="fisher").scores
    plain = Forward(lambda s, x: forward(s, x, plain=True), **layers).double()
    agree(found, {"fisher": reference_scores(plain, images, labels)["fisher"]})


class Readers(TorchFunctionMode):
    """Counts the convolutions that read each ReLU output."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[int, tuple[Tensor, list[int]]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func is torch.relu:
            self.read[id(result)] = (result, [])
        if func is torch.conv2d and id(args[0]) in self.read:
            self.read[id(args[0])][1].append(1)
        return result


@pytest.mark.parametrize("number", range(3))
def test_a_relu_counts_once_per_reading_layer_in_nasbench201(number: int) -> None:
    network, images, labels = tiny("nasbench201", number)
    mode = Readers()
    with mode, torch.no_grad():
        network(images)
    units = sum(value[0].numel() * max(1, len(readers)) for value, readers in mode.read.values())
    assert any(len(readers) > 1 for _, readers in mode.read.values()) or number
    assert queue_statistics(network, images, labels, ["agreements"]).result()["agreements"][0, 0] == units


def test_more_than_a_hundred_classes_are_compared_in_pairs() -> None:
    network = Forward(lambda s, x: s.head(torch.tanh(x)), head=nn.Linear(12, 101)).double()
    images, labels = batch((12,))
    found = compute_metrics(network, images, labels, scores="epe_nas,jacov").scores
    agree(found, {name: reference_scores(network, images, labels)[name] for name in found})


def test_networks_without_relus_have_no_activation_scores() -> None:
    network = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, CLASSES))
    images, labels = batch((12,))
    found = compute_metrics(network, images, labels, scores="naswot,swap,linear_regions").scores
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(("images", "first", "second"), [(2, 0, 1), (3, 0, 2), (64, 7, 40)])
def test_naswot_is_minus_infinity_where_two_images_share_a_pattern(images: int, first: int, second: int) -> None:
    random = torch.Generator().manual_seed(0)
    active = torch.rand((20, images, 3000), generator=random) < 0.4
    active[:, second] = active[:, first]
    for pattern in active:
        found = naswot_of(pattern)
        assert found == reference_of_signs(pattern.numpy())["naswot"] == -math.inf


def test_naswot_is_minus_infinity_where_one_pattern_depends_on_others() -> None:
    random = torch.Generator().manual_seed(0)
    few = torch.tensor([[(i >> unit) & 1 for unit in range(5)] for i in (1, 2, 4, 8, 16, 31, 7)], dtype=torch.bool)
    parallelogram = torch.rand((8, 5000), generator=random) < 0.5
    parallelogram[1:4] = parallelogram[0]
    parallelogram[[[1], [3]], :9] ^= True
    parallelogram[[[2], [3]], 20:40] ^= True
    for pattern in (few, parallelogram):
        assert len({tuple(row) for row in pattern.tolist()}) == len(pattern)
        assert naswot_of(pattern) == reference_of_signs(pattern.numpy())["naswot"] == -math.inf
    assert math.isfinite(naswot_of(few[:6]))


def test_naswot_is_finite_where_patterns_differ_in_one_of_many_units() -> None:
    pattern = torch.rand((64, 20_000), generator=torch.Generator().manual_seed(0)) < 0.5
    pattern[1:5] = pattern[0]
    pattern[range(1, 5), range(1, 5)] ^= True
    assert naswot_of(pattern) == reference_of_signs(pattern.numpy())["naswot"] > 0


def naswot_of(active: Tensor) -> float:
    counted = Signs(len(active), active.device, agreements=True, patterns=False)
    counted.add(active.float())
    return shared_scores(["naswot"], Statistics(agreements=counted.agreements()))["naswot"]


def test_dead_cells_have_no_activation_or_correlation_scores() -> None:
    space = search_spaces["nasbench201"]
    dead = next(a for a in space.enumerate() if space.canonical(a) == "y=0")
    network = space.network(dead, classes=10, channels=4, cells=1, seed=0)
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    found = compute_metrics(network, images, labels, scores=SHARED).scores
    without = {"epe_nas", "jacov", "naswot", "linear_regions", "swap"}
    assert {name for name, value in found.items() if math.isnan(value)} == without


def test_scores_change_neither_columns_nor_network() -> None:
    network, images, labels = tiny("nasbench201", 1)
    network = network.float().eval()
    images = images.float()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    alone = compute_metrics(network, images, labels)
    beside = compute_metrics(network, images, labels, scores=SHARED)
    assert torch.equal(alone.ntk, beside.ntk)
    assert all(getattr(alone, name) == getattr(beside, name) for name in COLUMNS)
    assert (alone.scores, alone.statistics) == ({}, {})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert not images.requires_grad
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("ntk", ["summed", "exact"])
def test_scores_alone_are_bit_identical_to_those_with_columns(ntk: str) -> None:
    network, images, labels = tiny("darts", 0)
    network, images = network.float(), images.float()
    beside = compute_metrics(network, images, labels, ntk, scores=SHARED)
    for need in STATISTICS:  # one at a time, in any order
        alone = queue_statistics(network, images, labels, [need], ntk).result()
        assert list(alone) == [need]
        assert torch.equal(alone[need], beside.statistics[need])
    assert shared_scores(SHARED, beside.statistics) == beside.scores


@pytest.mark.parametrize("samples", [5, 64, 70, 150])
def test_patterns_are_counted_exactly_for_any_number_of_samples(samples: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    columns = torch.randn((samples, 40), generator=generator)
    values = columns[:, torch.randint(0, 40, (300,), generator=generator)]
    values = torch.cat([values, -values.relu() + (torch.arange(samples) == samples - 1)[:, None]], 1)
    counted = Signs(samples, values.device, agreements=True, patterns=True)
    counted.add(values[:, :100].reshape(samples, 4, 5, 5))
    counted.add(values[:, 100:])
    active = values.numpy() > 0
    assert float(counted.patterns()) == len({column.tobytes() for column in np.ascontiguousarray(active.T)})
    agreements = np.array([[(a == b).sum() for b in active] for a in active])
    assert np.array_equal(counted.agreements().numpy(), agreements)


def test_unknown_scores_and_statistics_are_refused_up_front() -> None:
    network, images, labels = tiny("nasbench201", 0)
    with pytest.raises(UsageError, match="did you mean 'naswot'"):
        compute_metrics(network, images, labels, scores="naswott")
    with pytest.raises(UsageError, match="the statistic 'sign' is unknown"):
        queue_statistics(network, images, labels, ["sign"])
