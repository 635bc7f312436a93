"""TE-NAS and NASI: their measures against slow float64 computations, their rules against plainly written ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.func import jacrev

from hnas.spaces.nasbench201.cell import EDGES
from hnas.supernets.mixing import gumbel_softmax
from hnas.supernets.nasi import NASI, reward, squared_gradient
from hnas.supernets.network import MixedCell, Mixture
from hnas.supernets.te_nas import TENAS, Choice, even, kaiming, kappa, linear_regions, pruned
from tests.support.written_out import batch, cell, logits, loss, normed, tiny_images, tiny_network

LEFT = [[1, 2, 3, 4], [2, 3], [1, 4], [3], [1, 2, 3, 4], [2, 4]]
CPU = torch.device("cpu")


def test_kappa_matches_the_jacobian_of_the_summed_logits() -> None:
    network, (images, _) = tiny_network(affine=True), batch(3, 5)
    kaiming(network, "fan_out", torch.Generator().manual_seed(1))
    weights = {name: p.detach() for name, p in network.named_parameters() if "weight" in name}
    biases = {name: p.detach() for name, p in network.named_parameters() if "bias" in name}
    mix = even(LEFT).weights
    assert mix is not None
    rows = jacrev(lambda w: logits({**w, **biases}, images, mix.double()).sum(1))(weights)
    jacobian = torch.cat([rows[name].flatten(1) for name in weights], dim=1)
    eigenvalues = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    assert kappa(network, even(LEFT), images) == pytest.approx(float(eigenvalues[-1] / eigenvalues[0]), rel=1e-7)


def test_a_nan_kappa_counts_as_100_000() -> None:
    network, (images, _) = tiny_network(affine=True), batch(3, 5)
    for p in network.parameters():
        p.data.zero_()
    assert kappa(network, even(LEFT), images) == 1e5


def test_regions_are_the_distinct_signs_of_relu_inputs() -> None:
    network, generator = MixedCell(1, affine=True).double(), torch.Generator().manual_seed(2)
    kaiming(network, "fan_in", generator)
    batches = [torch.randn(30, 1, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    weights = {f"c.{name}": p.detach() for name, p in network.named_parameters()}
    for left in (LEFT, [[1], [4], [1], [3], [1], [2]]):
        mix, patterns = torch.zeros(6, 5, dtype=torch.float64), set()
        for edge, operations in enumerate(left):
            mix[edge, operations] = 1 / len(operations)
        for images in batches:
            nodes = cell(weights, "c", images, mix, None)
            read = [node for node in range(3) if any({2, 3} & set(left[e]) for e in range(6) if EDGES[e][0] == node)]
            seen = torch.cat([*(nodes[node].flatten(1) for node in read), normed(nodes[3]).flatten(1)], dim=1) > 0
            patterns |= {tuple(row) for row in seen.tolist()}
        mixture = Mixture(mix, even(left).operations)
        assert linear_regions(network, mixture, batches) == len(patterns)


def by_the_program(kappas: dict[Choice, float], regions: dict[Choice, float], number: int) -> list[Choice]:
    """The rule of prune_tenas.py, step by step."""

    def significant(x: float) -> float:
        return 0.0 if x == 0 else float(np.sign(x)) * float(f"{abs(x) + 1e-8:.2e}")

    ranks: dict[Choice, list[int]] = {choice: [] for choice in kappas}
    for changes, reverse in ((kappas, True), (regions, False)):
        order = sorted(changes.items(), key=lambda item: significant(item[1]), reverse=reverse)
        rank = 0
        for k, (choice, change) in enumerate(order):
            rank += k > 0 and change != order[k - 1][1]
            ranks[choice].append(rank)
    first = sorted(kappas, key=lambda c: significant(kappas[c]), reverse=True)
    gone: list[Choice] = []
    for choice in sorted(first, key=lambda c: sum(ranks[c])):
        if sum(other[0] == choice[0] for other in gone) < number:
            gone.append(choice)
    return gone


@pytest.mark.parametrize("number", [1, 2])
def test_operations_are_pruned_by_the_sum_of_two_ranks(number: int) -> None:
    random = np.random.default_rng(number)
    for _ in range(50):
        choices = [(edge, o) for edge in range(6) for o in (1, 2, 3, 4)]
        kappas = {c: float(np.mean(random.integers(-40, 40, 3) / 10**3)) for c in choices}
        regions = {c: float(np.mean(random.integers(-4, 4, 3) / 10**2)) for c in choices}
        assert sorted(pruned(kappas, regions, number)) == sorted(by_the_program(kappas, regions, number))


def test_te_nas_prunes_one_operation_per_edge_and_round() -> None:
    options = {"channels": 2, "batch_size": 4, "repeats": 1, "crops": 10, "crop_batches": 1}
    search = TENAS(tiny_images(), TENAS.recipe_class(**options), seed=0, device=CPU)
    assert search.left == [[1, 2, 3, 4]] * 6  # none was removed at the start
    search.left = [[1, 2, 3], [2], [1, 4, 3], [3], [1], [2]]
    for left in ([2, 1, 2, 1, 1, 1], [1] * 6):
        search.prune()
        assert [len(edge) for edge in search.left] == left


def test_crops_come_from_one_channel_of_the_images() -> None:
    images = tiny_images(12)
    search = TENAS(images, TENAS.recipe_class(crops=12), seed=0, device=CPU)
    whole = search.normalise(images.images)
    parts = {tuple(p.flatten().tolist()) for p in whole.unfold(2, 3, 1).unfold(3, 3, 1).reshape(-1, 9)}
    crops = search._crops()
    assert crops.shape == (12, 1, 3, 3)
    assert all(tuple(crop.flatten().tolist()) in parts for crop in crops)


def test_the_squared_gradient_and_its_derivative_match_a_plain_supernet() -> None:
    network, data = tiny_network(), batch(2)
    weights = dict(network.named_parameters())
    alphas = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    counted = [name for name in weights if name.endswith(("conv.weight", "shortcut.weight", "classifier.weight"))]

    def slow(mix: torch.Tensor) -> torch.Tensor:
        gradient = torch.autograd.grad(loss(weights, data, mix), [weights[name] for name in counted], create_graph=True)
        return torch.stack([(g**2).sum() for g in gradient]).sum()

    found = squared_gradient(network, Mixture(torch.softmax(alphas, 1)), data)
    expected = slow(torch.softmax(alphas, 1))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    (by_alpha,) = torch.autograd.grad(reward(found, 2.0, float(found.detach()) / 2), [alphas])
    (plain,) = torch.autograd.grad(expected, [alphas])
    torch.testing.assert_close(by_alpha, -plain, rtol=1e-7, atol=1e-10)  # above ν: 1 − μ = −1
    h = torch.zeros(6, 5, dtype=torch.float64)
    h[2, 3] = 1e-6
    at = alphas.detach()
    ends = [float(slow(torch.softmax(at + s * h, 1)).detach()) for s in (1, -1)]
    assert float(plain[2, 3]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def test_nasi_normalises_gradients_by_the_largest_norm_so_far() -> None:
    options = {"channels": 2, "cells": 1, "samples": 4, "batch_size": 6, "step": 3.0, "nu": 1e9}
    search = NASI(tiny_images(), NASI.recipe_class(**options), seed=0, device=CPU)
    twin = NASI(tiny_images(), NASI.recipe_class(**options), seed=0, device=CPU)
    total, largest = torch.zeros(6, 5), 0.0
    for _ in range(4):
        order = torch.randperm(40, generator=twin.generator)[:6]
        data = next(twin.images.batches(order, 6, twin.generator, twin.normalise))
        alphas = torch.zeros(6, 5, requires_grad=True)
        noise = -torch.empty(6, 5).exponential_(generator=twin.generator).log()
        mixture = Mixture(gumbel_softmax(alphas, noise, 1.0))
        (gradient,) = torch.autograd.grad(squared_gradient(twin.network, mixture, data), [alphas])
        largest = max(largest, float(gradient.norm()))
        total += 3.0 / 4 * gradient / largest
        search.sample()
    torch.testing.assert_close(search.total, total)
    assert search.run().decisions == tuple(total.argmax(1).tolist())
