"""NAS-Bench-201: strings, classes and networks, against the benchmark's own full network, rebuilt slowly here."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hnas import UsageError, initialise
from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS, format_arch, parse_arch
from hnas.spaces.nasbench201.space import NASBench201

SPACE = NASBench201()
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
CONV = "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
FULL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
KERNEL = {"nor_conv_1x1": 1, "nor_conv_3x3": 3}

architectures = st.lists(st.sampled_from(OPERATIONS), min_size=6, max_size=6).map(
    lambda names: format_arch(dict(zip(EDGES, names, strict=True)))
)


@pytest.fixture(scope="module")
def everything() -> list[str]:
    return list(SPACE.enumerate())


@pytest.fixture(scope="module")
def classes(everything: list[str]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for arch in everything:
        members[SPACE.canonical(arch)].append(arch)
    return members


@pytest.fixture(scope="module")
def suite_zero() -> dict[str, dict[str, float]]:
    """The 491 rows of NAS-Bench-Suite-Zero by architecture string."""
    folder = os.environ.get("HNAS_TEST_DATA")
    if not folder:
        pytest.skip("HNAS_TEST_DATA is unset; it names the folder with nasbench201/zc_nasbench201.json")
    names = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
    edges = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
    rows = json.loads((Path(folder) / "nasbench201" / "zc_nasbench201.json").read_text())["nasbench201"]["cifar10"]
    return {
        format_arch(dict(zip(edges, (names[int(n)] for n in re.findall(r"\d", code)), strict=True))): row
        for code, row in rows.items()
    }


# The benchmark's own network, with an operation on every edge, with or without effect.


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def reference_operation(name: str, channels: int) -> nn.Module:
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Sequential(nn.ReLU(), *conv_bn(channels, channels, KERNEL[name]))


class ReferenceCell(nn.Module):
    def __init__(self, arch: str, channels: int) -> None:
        super().__init__()
        self.operations = nn.ModuleDict(
            {f"{i}->{j}": reference_operation(name, channels) for (i, j), name in parse_arch(arch).items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for j in (1, 2, 3):
            nodes.append(torch.stack([self.operations[f"{i}->{j}"](nodes[i]) for i in range(j)]).sum(0))
        return nodes[3]


class ReferenceBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.ReLU(), *conv_bn(channels, 2 * channels, 3, stride=2))
        self.second = nn.Sequential(nn.ReLU(), *conv_bn(2 * channels, 2 * channels, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class ReferenceNetwork(nn.Module):
    def __init__(self, arch: str, *, classes: int = 10, channels: int = 16, cells: int = 5) -> None:
        super().__init__()
        self.stem = conv_bn(3, channels, 3)
        self.stages = nn.ModuleList(
            nn.ModuleList(ReferenceCell(arch, c) for _ in range(cells)) for c in (channels, 2 * channels, 4 * channels)
        )
        self.blocks = nn.ModuleList(ReferenceBlock(c) for c in (channels, 2 * channels))
        self.head = nn.BatchNorm2d(4 * channels)
        self.classifier = nn.Linear(4 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for depth in range(3):
            for cell in self.stages[depth]:
                x = cell(x)
            if depth < 2:
                x = self.blocks[depth](x)
        return self.classifier(F.adaptive_avg_pool2d(F.relu(self.head(x)), 1).flatten(1))


def copy(source: nn.Module, target: nn.Module) -> None:
    """Copy Conv-BN, BN, Conv or Linear parameters between modules that hold them in the same order."""
    for theirs, ours in zip(source.parameters(), target.parameters(), strict=True):
        ours.data.copy_(theirs.data)


def redraw_scales(network: nn.Module, seed: int) -> None:
    """Draw batch norm scales, so that a mixed-up batch norm shows; shifts stay zero, as at initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)


def canonical_network(arch: str, **sizes: int) -> nn.Module:
    network = SPACE.network(arch, **sizes).double()
    redraw_scales(network, 1)
    return network


def assignments(kinds: list[str], arch: str) -> Iterator[list[str]]:
    """Yield all assignments of the layers of a canonical cell to convolutions of the full cell of the same kind."""
    names = {"conv1x1": "nor_conv_1x1", "conv3x3": "nor_conv_3x3"}
    edges = {f"{i}->{j}": name for (i, j), name in parse_arch(arch).items() if name in KERNEL}
    for chosen in permutations(edges, len(kinds)):
        if all(edges[edge] == names[kind] for edge, kind in zip(chosen, kinds, strict=True)):
            yield list(chosen)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-10 * (1 + b.abs().max()))


def matches(network: nn.Module, arch: str) -> list[list[str]]:
    """Yield the assignments under which the full cell of `arch` equals the first cell of `network`."""
    ours = network.stages[0][0]
    channels = network.head.num_features // 4
    theirs = ReferenceCell(arch, channels).double()
    own = [parameter.detach().clone() for parameter in theirs.parameters()]
    x = torch.randn(2, channels, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found = []
    with torch.no_grad():
        expected = ours(x)
        for edges in assignments([layer.kind for layer in ours.cell.layers], arch):
            for parameter, value in zip(theirs.parameters(), own, strict=True):
                parameter.copy_(value)
            for layer, edge in zip(ours.layers, edges, strict=True):
                copy(layer, theirs.operations[edge])
            if close(theirs(x), expected):
                found.append(edges)
    return found


def assert_same_function(network: nn.Module, arch: str, edges: list[str], **sizes: int) -> None:
    reference = ReferenceNetwork(arch, **sizes).double()
    copy(network.stem, reference.stem)
    for ours, theirs in zip(network.stages, reference.stages, strict=True):
        for our_cell, their_cell in zip(ours, theirs, strict=True):
            for layer, edge in zip(our_cell.layers, edges, strict=True):
                copy(layer, their_cell.operations[edge])
    for ours, theirs in zip(network.reductions, reference.blocks, strict=True):
        copy(ours.conv_a, theirs.first)
        copy(ours.conv_b, theirs.second)
        copy(ours.shortcut, theirs.shortcut)
    copy(network.head, reference.head)
    copy(network.classifier, reference.classifier)
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        ours, theirs = network(images), reference(images)
    assert torch.allclose(ours, theirs, rtol=1e-8, atol=1e-9), f"{arch}: off by {(ours - theirs).abs().max():.3g}"


# Architecture strings.


def test_all_15625_strings_are_enumerated_once_in_a_fixed_order(everything: list[str]) -> None:
    assert len(everything) == len(set(everything)) == SPACE.size == 15625
    assert list(SPACE.enumerate()) == everything


def test_every_string_survives_parse_and_format(everything: list[str]) -> None:
    assert all(format_arch(parse_arch(arch)) == arch for arch in everything)


@given(st.lists(st.sampled_from(OPERATIONS), min_size=6, max_size=6))
def test_every_choice_of_operations_survives_format_and_parse(names: list[str]) -> None:
    operations = dict(zip(EDGES, names, strict=True))
    assert parse_arch(format_arch(operations)) == operations


def test_strings_are_read_as_the_benchmark_writes_them() -> None:
    assert parse_arch("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|") == {
        (0, 1): "nor_conv_3x3",
        (0, 2): "skip_connect",
        (1, 2): "none",
        (0, 3): "avg_pool_3x3",
        (1, 3): "nor_conv_1x1",
        (2, 3): "none",
    }


MALFORMED = {
    "empty": ("", "1 nodes"),
    "not an architecture": ("resnet18", "1 nodes"),
    "a node too few": ("|none~0|+|none~0|none~1|", "2 nodes"),
    "a node too many": (DEAD + "+|none~0|", "4 nodes"),
    "no bar at the start": ("none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 .*begin and end"),
    "no bar at the end": ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2", "node 3 .*begin and end"),
    "an empty node": ("|none~0|++|none~0|none~1|none~2|", "node 2 .*begin and end"),
    "a lone bar": ("|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 .*begin and end"),
    "an input too few": ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2 .*1 inputs; it needs 2"),
    "an input too many": ("|none~0|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "node 1 .*2 inputs; it needs 1"),
    "an empty input": ("|none~0|+|none~0||none~1|+|none~0|none~1|none~2|", "node 2 .*3 inputs"),
    "no source": ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "input 0 of node 1 .*'none'; it must end with '~0'"),
    "a wrong source": ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "input 0 of node 1 .*'~0'"),
    "sources out of order": ("|none~0|+|none~1|none~0|+|none~0|none~1|none~2|", "input 0 of node 2 .*'none~1'"),
    "a source twice": ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "input 1 of node 2 .*'~1'"),
    "a source in another script": ("|none~٠|+|none~0|none~1|+|none~0|none~1|none~2|", "input 0 of node 1"),
    "two tildes": ("|none~0~0|+|none~0|none~1|+|none~0|none~1|none~2|", "'none~0~0'"),
    "an unknown operation": (
        "|max_pool_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "'max_pool_3x3' .*choose from none",
    ),
    "no operation": ("|~0|+|none~0|none~1|+|none~0|none~1|none~2|", "operation '' .*unknown"),
    "capitals": ("|None~0|+|none~0|none~1|+|none~0|none~1|none~2|", "operation 'None' .*unknown"),
    "a space inside": ("|none ~0|+|none~0|none~1|+|none~0|none~1|none~2|", "operation 'none ' .*unknown"),
}


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("method", ["canonical", "describe", "network"])
def test_malformed_strings_are_refused_naming_the_fault(method: str, kind: str) -> None:
    arch, message = MALFORMED[kind]
    with pytest.raises(UsageError, match=message):
        getattr(SPACE, method)(arch)


@pytest.mark.parametrize(
    "arch",
    [
        "x" * 100_000,
        "|none~0|+" + "x" * 100_000 + "+|none~0|none~1|none~2|",
        "|" + "x" * 100_000 + "~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~" + "x" * 100_000 + "|+|none~0|none~1|+|none~0|none~1|none~2|",
    ],
    ids=["nothing right", "node", "operation", "source"],
)
def test_a_huge_malformed_string_gives_a_short_message(arch: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arch(arch)
    assert len(str(caught.value)) < 1000


@given(st.text(alphabet="|+~012 noneskip_cav", max_size=80))
def test_any_text_is_an_architecture_or_raises_usage_error(text: str) -> None:
    try:
        operations = parse_arch(text)
    except UsageError:
        return
    assert format_arch(operations) == text.strip()


# Classes.


def test_there_are_5260_classes_of_which_one_is_dead(classes: dict[str, list[str]]) -> None:
    assert len(classes) == 5260
    assert len(classes[SPACE.canonical(DEAD)]) == 341


def test_keys_do_not_depend_on_earlier_calls(everything: list[str]) -> None:
    some = random.Random(0).sample(everything, 500)
    forward = [SPACE.canonical(arch) for arch in some]
    assert [NASBench201().canonical(arch) for arch in reversed(some)] == forward[::-1]


def test_members_of_a_class_are_the_same_function_up_to_weight_names(classes: dict[str, list[str]]) -> None:
    rng = random.Random(7)
    several = [members for members in classes.values() if len(members) > 1]
    sizes = {"classes": 3, "channels": 3, "cells": 2}
    for members in [classes[SPACE.canonical(DEAD)], *rng.sample(several, 30)]:
        first, *others = rng.sample(members, min(3, len(members)))
        network = canonical_network(first, **sizes)
        for arch in (first, *others):
            found = matches(network, arch)
            assert found, f"no assignment of the weights makes {arch} equal to {first}"
            assert_same_function(network, arch, found[0], **sizes)


def test_the_canonical_network_matches_the_benchmark(everything: list[str]) -> None:
    sizes = {"classes": 5, "channels": 4, "cells": 1}
    for arch in random.Random(11).sample(everything, 30):
        network = canonical_network(arch, **sizes)
        found = matches(network, arch)
        assert found, arch
        assert_same_function(network, arch, found[0], **sizes)


def test_architectures_of_different_keys_differ_under_every_assignment(everything: list[str]) -> None:
    """Without poolings: averaging is linear, which the canonical form deliberately ignores."""
    rng = random.Random(5)
    without = [arch for arch in everything if "avg_pool" not in arch]
    tried = 0
    while tried < 60:
        one = rng.choice(without)
        operations = parse_arch(one)
        operations[rng.choice(EDGES)] = rng.choice([name for name in OPERATIONS if name != "avg_pool_3x3"])
        other = format_arch(operations)  # one edge away: the nearest cells are the easiest to confuse
        if SPACE.canonical(one) == SPACE.canonical(other):
            continue
        tried += 1
        network = canonical_network(one, channels=3, cells=1)
        assert not matches(network, other), f"{one} and {other} are the same function"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # conv(a) + conv(b) with a = conv(x), b = conv(x), and with a used twice
        (
            "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|",
            "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        ),
        # a + b and 2a
        (
            "|nor_conv_1x1~0|+|nor_conv_1x1~0|none~1|+|none~0|skip_connect~1|skip_connect~2|",
            "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|skip_connect~1|skip_connect~2|",
        ),
        # conv(pool(x)) and pool(conv(x))
        (
            "|avg_pool_3x3~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
            "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|avg_pool_3x3~1|none~2|",
        ),
    ],
)
def test_cells_with_different_weights_have_different_keys(one: str, other: str) -> None:
    assert SPACE.canonical(one) != SPACE.canonical(other)
    assert matches(canonical_network(one, channels=3, cells=1), one)
    assert not matches(canonical_network(one, channels=3, cells=1), other)
    assert not matches(canonical_network(other, channels=3, cells=1), one)


# Size.


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("seed", range(4))
def test_params_match_the_benchmarks_network(everything: list[str], seed: int) -> None:
    with torch.device("meta"):
        for arch in random.Random(seed).sample(everything, 5):
            assert SPACE.describe(arch)["params"] == count(ReferenceNetwork(arch))
            small = {"classes": 7, "channels": 8, "cells": 2}
            assert SPACE.describe(arch, **small)["params"] == count(ReferenceNetwork(arch, **small))


@pytest.mark.parametrize("arch", [DEAD, CONV, FULL])
@pytest.mark.parametrize(
    ("sizes", "image"),
    [({"classes": 10, "channels": 16, "cells": 5}, 32), ({"classes": 7, "channels": 8, "cells": 2}, 16)],
)
def test_flops_are_the_multiply_adds_counted_by_torch(arch: str, sizes: dict[str, int], image: int) -> None:
    network = ReferenceNetwork(arch, **sizes).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, image, image))
    assert SPACE.describe(arch, **sizes, image_size=image)["flops"] == counter.get_total_flops() / 2


def test_params_match_the_published_ones_of_491_architectures(suite_zero: dict[str, dict[str, float]]) -> None:
    assert len(suite_zero) == 491
    assert {arch: SPACE.describe(arch)["params"] for arch in suite_zero} == {
        arch: round(row["params"] * 1e6) for arch, row in suite_zero.items()
    }


def test_flops_explain_the_published_ones_of_491_architectures(suite_zero: dict[str, dict[str, float]]) -> None:
    """The published count adds batch norm and ReLU of a cell's convolutions, poolings, and the rest of the network."""
    outputs = 5 * sum((16 << stage) * (32 >> stage) ** 2 for stage in range(3))
    wrong = {}
    for arch, row in suite_zero.items():
        number = Counter(parse_arch(arch).values())
        convolutions = number["nor_conv_1x1"] + number["nor_conv_3x3"]
        extra = 3 * outputs * convolutions + 9 * outputs * number["avg_pool_3x3"] + 160_832
        ours, theirs = SPACE.describe(arch)["flops"] + extra, round(row["flops"] * 1e6)
        if ours != theirs:
            wrong[arch] = ours - theirs
    assert not wrong


def test_every_architecture_has_the_same_columns_of_integers(everything: list[str]) -> None:
    for arch in everything[::97]:
        columns = SPACE.describe(arch)
        assert list(columns) == ["params", "flops"]
        assert all(type(value) is int for value in columns.values())


# The network.


def test_networks_contain_only_live_layers(everything: list[str]) -> None:
    fixed = 1 + 2 * 3  # the stem; two 3×3 convolutions and a shortcut for each reduction
    for arch in [DEAD, FULL, *random.Random(3).sample(everything, 40)]:
        network = SPACE.network(arch, channels=2, cells=2)
        key = SPACE.canonical(arch)
        live = key.count("=conv")
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert len(convolutions) == fixed + 3 * 2 * live, key
        kernels = Counter(conv.kernel_size[0] for conv in convolutions)
        assert kernels[1] == 2 + 6 * key.count("=conv1x1")


def test_layers_without_effect_are_omitted() -> None:
    idle = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|none~2|"
    assert SPACE.canonical(idle) == SPACE.canonical(CONV)
    assert count(SPACE.network(idle)) == count(SPACE.network(CONV)) == SPACE.describe(CONV)["params"]
    assert SPACE.describe(idle)["params"] > SPACE.describe(CONV)["params"]


def test_gradients_reach_every_weight_of_a_live_network(everything: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    live = [arch for arch in everything if SPACE.canonical(arch) != "y=0"]
    for arch in [FULL, *random.Random(2).sample(live, 40)]:
        network = SPACE.network(arch, classes=4, channels=4, cells=1).double()
        F.cross_entropy(network(images), labels).backward()
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                assert module.weight.grad is not None, f"{name} of {arch} has no gradient"
                assert module.weight.grad.norm() > 1e-9, f"the gradient of {name} of {arch} is zero"


def test_dead_networks_have_constant_logits() -> None:
    logits = SPACE.network(DEAD, channels=4, cells=1)(torch.randn(5, 3, 8, 8))
    assert logits.shape == (5, 10)
    assert torch.equal(logits, logits[:1].expand(5, -1))


@pytest.mark.parametrize(("classes", "channels", "cells", "size"), [(10, 16, 5, 32), (120, 4, 1, 16), (1, 1, 2, 4)])
def test_logits_have_a_row_for_each_image(classes: int, channels: int, cells: int, size: int) -> None:
    network = SPACE.network(FULL, classes=classes, channels=channels, cells=cells)
    assert network(torch.randn(2, 3, size, size)).shape == (2, classes)


@pytest.mark.parametrize("size", [1, 2, 6, 30, 33])
def test_images_that_cannot_be_halved_twice_are_refused(size: int) -> None:
    network = SPACE.network(CONV, channels=2, cells=1)
    with pytest.raises(UsageError, match=f"multiple of 4, got {size} pixels"):
        network(torch.zeros(2, 3, size, size))
    with pytest.raises(UsageError, match=f"multiple of 4, got {size} pixels"):
        SPACE.describe(CONV, image_size=size)


def test_images_whose_height_alone_is_odd_are_refused() -> None:
    network = SPACE.network(CONV, channels=2, cells=1)
    with pytest.raises(UsageError, match="multiple of 4"):
        network(torch.zeros(2, 3, 30, 32))


@pytest.mark.parametrize("what", ["classes", "channels", "cells"])
@pytest.mark.parametrize("value", [0, -1, 10**6])
def test_impossible_sizes_are_refused_by_name(what: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"^{what}.* and 4096, got {value}$"):
        SPACE.network(CONV, **{what: value})


# Weights.


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@settings(max_examples=15)
@given(arch=architectures, seed=st.integers(0, 2**40), before=architectures, torch_seed=st.integers(0, 2**31))
def test_weights_depend_only_on_class_and_seed(arch: str, seed: int, before: str, torch_seed: int) -> None:
    small = {"channels": 3, "cells": 1, "seed": seed}
    first = weights(SPACE.network(arch, **small))
    state = torch.random.get_rng_state()
    torch.manual_seed(torch_seed)
    SPACE.network(before, **small)
    second = weights(SPACE.network(arch, **small))
    torch.random.set_rng_state(state)
    assert same(first, second)


def test_members_of_a_class_have_the_same_weights(classes: dict[str, list[str]]) -> None:
    several = [members for members in classes.values() if len(members) > 3]
    for members in random.Random(1).sample(several, 10):
        one, other = (weights(SPACE.network(arch, channels=3, cells=1, seed=5)) for arch in (members[0], members[-1]))
        assert same(one, other)


def test_drawing_weights_does_not_advance_global_generators() -> None:
    torch.manual_seed(17)
    expected = torch.rand(4)
    torch.manual_seed(17)
    np.random.seed(3)
    random.seed(3)
    states = np.random.get_state()[1].tolist(), random.getstate()
    SPACE.network(FULL, channels=4, cells=1)
    assert torch.equal(torch.rand(4), expected)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states


def test_weights_do_not_depend_on_torchs_default_dtype() -> None:
    small = {"channels": 3, "cells": 1}
    expected = SPACE.network(CONV, **small).stem.conv.weight.detach()
    torch.set_default_dtype(torch.float64)
    try:
        found = SPACE.network(CONV, **small).stem.conv.weight.detach()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.float(), expected)


def test_architectures_share_the_weights_of_equal_layers() -> None:
    residual = "|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|skip_connect~2|"
    assert (SPACE.canonical(CONV), SPACE.canonical(residual)) == ("a=conv3x3(x);y=a", "a=conv3x3(x);y=x+a")
    one, other = (weights(SPACE.network(arch, channels=4, cells=2)) for arch in (CONV, residual))
    assert same(one, other)
    narrow = weights(SPACE.network(FULL, channels=4, cells=2))
    assert torch.equal(narrow["stem.conv.weight"], one["stem.conv.weight"])
    assert torch.equal(narrow["classifier.bias"], one["classifier.bias"])


def test_no_two_layers_of_a_network_share_their_weights() -> None:
    network = SPACE.network(FULL, channels=4, cells=2)
    tensors = [m.weight.detach().flatten()[:16] for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    firsts = {tuple(tensor.tolist()) for tensor in tensors}
    assert len(firsts) == len(tensors) == 7 + 6 * 4 + 1


def test_different_seeds_draw_different_weights_in_every_layer() -> None:
    one, other = (weights(SPACE.network(FULL, channels=4, cells=1, seed=seed)) for seed in (0, 1))
    drawn = [name for name in one if "conv" in name or "shortcut" in name or name.startswith("classifier")]
    drawn = [name for name in drawn if one[name].ndim != 1 or name == "classifier.bias"]
    drawn = [name for name in drawn if "norm" not in name]
    assert len(drawn) == 7 + 3 * 4 + 2
    assert not [name for name in drawn if torch.equal(one[name], other[name])]


def test_weights_are_uniform_within_one_over_the_root_of_the_fan_in() -> None:
    network = SPACE.network(FULL, classes=300, channels=32, cells=1)
    for name, module in network.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        unit = module.weight.detach().double().flatten().numpy() * math.sqrt(module.weight[0].numel())
        n = unit.size
        assert 1 - 20 / n < np.abs(unit).max() <= 1 + 1e-6, name
        assert abs(unit.mean()) < 5 * math.sqrt(1 / 3 / n), name
        assert abs((unit**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45 / n), name
        assert stats.kstest(unit, "uniform", (-1, 2)).pvalue > 1e-4, name
    bias = network.classifier.bias.detach().numpy() * math.sqrt(128)
    assert stats.kstest(bias, "uniform", (-1, 2)).pvalue > 1e-4
    assert all(m.weight.eq(1).all() and m.bias.eq(0).all() for m in network.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("layer", "digest"),
    [
        ("stem.conv", "bfc8a1505ba1ef2de0bcfd33e35ef26e"),
        ("stages.1.2.layers.0.conv", "aa490caaf617c48593d0ad803a6ec042"),
        ("classifier", "1a3e1fc8dde261676c91353bcb73bed4"),
    ],
)
def test_weights_of_seed_0_match_the_stored_runs(layer: str, digest: str) -> None:
    """A change here makes every stored metric irreproducible: it needs a new engine version, not a new digest."""
    values = SPACE.network(CONV, classes=10, channels=16, cells=5, seed=0).get_submodule(layer).weight.detach().numpy()
    assert blake2b(values.astype("<f4").tobytes(), digest_size=16).hexdigest() == digest


def test_initialise_draws_weights_by_layer_name() -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 4), nn.Linear(4, 4))

    one, other = build(), build()
    assert initialise(one, 3) is one
    initialise(other, 3)
    assert same(weights(one), weights(other))
    assert not torch.equal(one[3].weight, one[4].weight)
    assert one[2].weight.abs().max() <= 1 / math.sqrt(12)
    assert not same(weights(initialise(build(), 4)), weights(one))


# Samples.


def test_a_sample_is_distinct_and_reproducible() -> None:
    sample = SPACE.sample(1000, seed=3)
    assert len(set(sample)) == 1000
    assert SPACE.sample(1000, seed=3) == sample
    assert SPACE.sample(1000, seed=4) != sample
    assert (
        SPACE.sample(3, seed=0)[0] == "|avg_pool_3x3~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|nor_conv_1x1~1|none~2|"
    )


def test_a_full_sample_is_the_whole_space(everything: list[str]) -> None:
    sample = SPACE.sample(15625, seed=1)
    assert sorted(sample) == sorted(everything)
    assert sample != everything


def test_samples_are_uniform_over_operations() -> None:
    sample = [parse_arch(arch) for arch in SPACE.sample(3000, seed=0)]
    for edge in EDGES:
        counts = Counter(operations[edge] for operations in sample)
        assert stats.chisquare([counts[name] for name in OPERATIONS]).pvalue > 1e-4


def test_first_draws_of_many_seeds_cover_the_space(everything: list[str]) -> None:
    place = {arch: k for k, arch in enumerate(everything)}
    draws = [place[SPACE.sample(1, seed=seed)[0]] / len(everything) for seed in range(40)]
    assert stats.kstest(draws, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("n", [0, -1, 15626])
def test_an_impossible_sample_is_refused(n: int) -> None:
    with pytest.raises(UsageError, match=f"{n} of the 15625"):
        SPACE.sample(n, seed=0)


def test_resnet_is_two_convolutions_plus_the_input():
    assert SPACE.canonical(SPACE.named()["ResNet"]) == "a=conv3x3(x);b=conv3x3(a);y=x+b"
