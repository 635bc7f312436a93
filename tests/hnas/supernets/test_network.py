"""The supernet against its definition, and against the benchmark's network of one architecture."""

from __future__ import annotations

import pytest
import torch

from hnas import UsageError, search_spaces
from hnas.supernets.network import MixedCell, Mixture, SuperNetwork
from tests.support.written_out import batch, logits, tiny_network

SPACE = search_spaces["nasbench201"]


def mix(seed: int) -> torch.Tensor:
    return torch.rand(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("affine", [False, True])
def test_the_supernet_matches_its_definition(affine: bool) -> None:
    network, (images, _) = tiny_network(affine=affine), batch(1)
    weights = dict(network.named_parameters())
    expected = logits(weights, images, mix(2))
    torch.testing.assert_close(network(images, Mixture(mix(2))), expected, rtol=1e-11, atol=1e-11)


def test_one_operation_per_edge_is_the_benchmarks_network() -> None:
    arch = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|skip_connect~2|"
    network, (images, _) = tiny_network(), batch(1)
    plain = SPACE.network(arch, classes=3, channels=2, cells=1).double()
    own = dict(network.named_parameters())
    for name, p in plain.named_parameters():
        for layer, edge in ((0, "0.nor_conv_3x3"), (1, "2.nor_conv_1x1")):
            name = name.replace(f"0.layers.{layer}.conv", f"0.layers.{edge}.conv")
        if name in own:
            p.data.copy_(own[name])
    found = network(images, Mixture.single(SPACE.encode(arch)))
    torch.testing.assert_close(found, plain(images), rtol=1e-11, atol=1e-11)


def test_excluded_operations_contribute_nothing_and_get_no_gradient() -> None:
    network, (images, _) = tiny_network(), batch(1)
    kept = tuple((1, 3) for _ in range(6))
    weights = mix(3)
    masked = torch.zeros_like(weights)
    masked[:, [1, 3]] = weights[:, [1, 3]]
    found = network(images, Mixture(weights, kept))
    torch.testing.assert_close(found, network(images, Mixture(masked)), rtol=1e-11, atol=1e-11)
    torch.autograd.backward(found.sum())
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert len(without) == 18
    assert all("nor_conv_1x1" in name for name in without)


def test_unmixed_channels_pass_through_and_are_shuffled() -> None:
    cell, x = MixedCell(4, share=2).double(), torch.randn(2, 4, 8, 8, dtype=torch.float64)
    weights = torch.zeros(6, 5, dtype=torch.float64)
    weights[0, 1] = 2.0  # the edge 0 → 1 doubles the mixed channels
    first = cell.nodes(x, Mixture(weights))[1]
    torch.testing.assert_close(first, torch.stack([2 * x[:, 0], x[:, 2], 2 * x[:, 1], x[:, 3]], dim=1))


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="channels must be a multiple of 4"):
        SuperNetwork(classes=3, channels=6, share=4)
    with pytest.raises(UsageError, match="channels of a NAS-Bench-201 super network must be between 1 and 4096, got 0"):
        SuperNetwork(classes=3, channels=0)
    with pytest.raises(UsageError, match="multiple of 4"):
        tiny_network()(torch.zeros(2, 3, 6, 6, dtype=torch.float64), Mixture())
