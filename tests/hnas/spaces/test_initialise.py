"""The three initialisations: the moments in every kind of layer, the keys, and what they do not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hnas import UsageError, initialise, search_spaces
from hnas.spaces.initialise import INITIALISATIONS, redrawn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
FULL201 = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
FULL101 = "input,conv3x3-bn-relu,conv1x1-bn-relu,output:0110001100010000"
ARCHS = {"nasbench201": FULL201, "nasbench101": FULL101, "darts": "DARTS_V2"}


class Foreign(nn.Module):
    """A layer of each kind, with groups and biases, and batch norms as a residual network sets them."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(40, 80, 5)
        self.plane = nn.Conv2d(32, 96, 3, groups=4)
        self.depthwise = nn.Conv2d(512, 512, 5, groups=512)
        self.volume = nn.Conv3d(24, 48, (1, 2, 3))
        self.wide = nn.Linear(300, 200)
        self.norm, self.plain = nn.BatchNorm2d(96), nn.BatchNorm2d(96, affine=False)
        self.layer_norm, self.own = nn.LayerNorm(8), nn.Parameter(torch.full((4,), 3.0))
        with torch.no_grad():
            for parameter in (*self.norm.parameters(), *self.layer_norm.parameters()):
                parameter.fill_(0.25)


def foreign(init: str, seed: int = 0) -> nn.Module:
    return initialise(Foreign(), seed, init)


def space_network(space: str, init: str, seed: int = 0, **size: int) -> nn.Module:
    size = {"classes": 200, "channels": 32, "cells": 2 if space == "darts" else 1, **size}
    return redrawn(search_spaces[space].network(ARCHS[space], **size, seed=seed), seed, init)


def layers(network: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in network.named_modules() if isinstance(module, LAYERS)}


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def expected_deviation(layer: nn.Module, init: str) -> float:
    """The standard deviation by definition, from the layer's attributes."""
    if isinstance(layer, nn.Linear):
        fan_in = layer.in_features
        return {"torch": 1 / math.sqrt(3 * fan_in), "he": math.sqrt(2 / fan_in), "published": 0.01}[init]
    kernel = math.prod(layer.kernel_size)
    fan_in = kernel * layer.in_channels // layer.groups
    published = math.sqrt(2 / (kernel * layer.out_channels))
    return {"torch": 1 / math.sqrt(3 * fan_in), "he": math.sqrt(2 / fan_in), "published": published}[init]


NETWORKS = {"foreign": foreign, **{name: lambda init, name=name: space_network(name, init) for name in ARCHS}}


@pytest.mark.parametrize("init", INITIALISATIONS)
@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS.keys())
def test_weights_have_the_moments_and_distribution_of_their_kind(build, init):
    pooled: dict[str, list[np.ndarray]] = {}
    for name, layer in layers(build(init)).items():
        unit = layer.weight.detach().double().flatten().numpy() / expected_deviation(layer, init)
        kurtosis = 9 / 5 if init == "torch" else 3.0
        n = unit.size
        assert abs(unit.mean()) < 5 / math.sqrt(n), name
        assert abs((unit**2).mean() - 1) < 5 * math.sqrt((kurtosis - 1) / n), name
        kind = type(layer).__name__.removeprefix("_") + ("" if getattr(layer, "groups", 1) == 1 else " in groups")
        pooled.setdefault(kind, []).append(unit)
    for kind, units in pooled.items():
        together = np.concatenate(units)
        law = ("uniform", (-math.sqrt(3), 2 * math.sqrt(3))) if init == "torch" else ("norm", ())
        assert stats.kstest(together, *law).pvalue > 1e-4, kind
        fourth = 9 / 5 if init == "torch" else 3.0
        assert abs((together**4).mean() - fourth) < 0.1 * fourth, kind


@pytest.mark.parametrize("init", ["he", "published"])
def test_biases_are_zero_except_in_torch(init):
    assert all(not layer.bias.any() for layer in layers(foreign(init)).values())
    for name, layer in layers(foreign("torch")).items():
        bound = math.sqrt(3) * expected_deviation(layer, "torch")
        assert 0.8 * bound < layer.bias.abs().max() <= bound, name


def test_only_published_changes_batch_norms():
    before = Foreign()
    for init in INITIALISATIONS:
        network = foreign(init)
        expected = (1.0, 0.0) if init == "published" else (0.25, 0.25)
        assert (set(network.norm.weight.tolist()), set(network.norm.bias.tolist())) == ({expected[0]}, {expected[1]})
        assert torch.equal(network.own, before.own)
        assert torch.equal(network.layer_norm.weight, before.layer_norm.weight)
        assert torch.equal(network.norm.running_var, before.norm.running_var)


def test_he_and_published_scale_the_same_normal_numbers():
    for name, layer in layers(foreign("he")).items():
        other = layers(foreign("published"))[name]
        ratio = expected_deviation(other, "published") / expected_deviation(layer, "he")
        torch.testing.assert_close(other.weight, layer.weight * ratio, rtol=1e-6, atol=0)


@pytest.mark.parametrize("space", ARCHS)
def test_torch_keeps_the_weights_drawn_by_the_space(space):
    drawn = search_spaces[space].network(ARCHS[space], classes=10, channels=5, cells=2, seed=3)
    untouched = state(drawn)
    assert redrawn(drawn, 3, "torch") is drawn
    again = state(initialise(drawn, 3, "torch"))
    assert all(torch.equal(again[name], tensor) for name, tensor in untouched.items())


@pytest.mark.parametrize("init", ["he", "published"])
@pytest.mark.parametrize("space", ARCHS)
def test_weights_depend_only_on_the_seed(space, init):
    one = state(space_network(space, init, channels=6))
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    again = space_network(space, init, channels=6)
    assert torch.equal(torch.rand(3), before), "torch's own generator is left alone"
    assert all(torch.equal(tensor, one[name]) for name, tensor in state(again).items())
    convolutions = layers(space_network(space, init, channels=6, classes=3))
    del convolutions["classifier"]
    assert all(torch.equal(layer.weight, one[f"{name}.weight"]) for name, layer in convolutions.items())
    other = layers(space_network(space, init, seed=1, channels=6))
    assert not [name for name, layer in other.items() if torch.equal(layer.weight, one[f"{name}.weight"])]


def test_weights_ignore_torchs_default_dtype_and_meta_networks_are_kept():
    expected = state(space_network("nasbench101", "he", channels=6))
    torch.set_default_dtype(torch.float64)
    try:
        found = state(space_network("nasbench101", "he", channels=6))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(
        torch.equal(found[name].float(), tensor.float()) for name, tensor in expected.items() if "weight" in name
    )
    with torch.device("meta"):
        assert all(layer.weight.is_meta for layer in layers(foreign("he")).values())


@pytest.mark.parametrize(
    ("init", "hint"),
    [("xavier", ""), ("He", "; did you mean 'he'?"), ("", ""), ("publishd", "; did you mean 'published'?")],
)
def test_an_unknown_initialisation_is_refused_before_drawing(init, hint):
    network = Foreign()
    before = state(network)
    with pytest.raises(UsageError) as error:
        initialise(network, 0, init)
    assert str(error.value) == f"the initialisation {init!r} is unknown; choose from torch, he, published{hint}"
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(network).items())
