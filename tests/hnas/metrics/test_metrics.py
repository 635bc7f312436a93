"""The metric engine against the obvious computations: autograd, double backward, per-sample loops, `torch.func`."""

from __future__ import annotations

import copy
import gc
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas import compute_metrics, search_spaces
from hnas.errors import UsageError
from hnas.metrics import COLUMNS, condition_number, ntk
from hnas.metrics.ops import convolution
from tests.support.networks import CLASSES, NETWORKS, UNCOUPLED, Forward, batch, build, head, shake
from tests.support.references import (
    agrees,
    check_invariants,
    measured,
    reference_exact,
    reference_jacrev,
    reference_scalars,
    reference_summed,
    same_matrix,
    training_copy,
)

TEST_DATA = os.environ.get("HNAS_TEST_DATA")
CELLS = search_spaces["nasbench201"]
DEAD = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
MIXED = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
LIVE = [
    MIXED,
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|avg_pool_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|",
    "|skip_connect~0|+|skip_connect~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_1x1~1|skip_connect~2|",
    *CELLS.sample(6, seed=11),
]


def cell_network(arch: str, *, channels: int = 4, cells: int = 1, seed: int = 0) -> nn.Module:
    network = CELLS.network(arch, classes=CLASSES, channels=channels, cells=cells, seed=seed).double()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shake(network)
    return network


# All columns against the references.


@pytest.mark.parametrize("name", NETWORKS)
def test_columns_match_autograd_and_per_sample_loops(name: str) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    m = compute_metrics(network, images, labels)
    check_invariants(m)
    agrees(m, reference_scalars(network, images, labels), reference_summed(network, images, labels), 1e-8)


@pytest.mark.parametrize("arch", LIVE)
def test_columns_of_nasbench201_cells_match_autograd(arch: str) -> None:
    network = cell_network(arch)
    images, labels = batch((3, 8, 8), size=7)
    m = compute_metrics(network, images, labels)
    check_invariants(m)
    agrees(m, reference_scalars(network, images, labels), reference_summed(network, images, labels), 1e-8)


def test_two_cells_per_stage_and_larger_images_match_autograd() -> None:
    network = cell_network(MIXED, cells=2, seed=3)
    images, labels = batch((3, 16, 16), size=8)
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_summed(network, images, labels), 1e-8)


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_ntk_is_built_from_the_gradient_of_each_logit(name: str) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    m = compute_metrics(network, images, labels, ntk="exact")
    check_invariants(m)
    agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)


@pytest.mark.parametrize("arch", LIVE[:3])
def test_exact_ntk_of_nasbench201_cells_is_built_from_each_logit(arch: str) -> None:
    network = cell_network(arch)
    images, labels = batch((3, 8, 8))
    exact = compute_metrics(network, images, labels, ntk="exact")
    agrees(exact, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)


@pytest.mark.parametrize("name", UNCOUPLED)
def test_exact_matches_jacrev_and_summed_without_batch_coupling(name: str) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    exact = compute_metrics(network, images, labels, ntk="exact")
    same_matrix(exact.ntk, reference_jacrev(network, images, labels), 1e-8)
    same_matrix(exact.ntk, compute_metrics(network, images, labels, ntk="summed").ntk, 1e-8)


def test_exact_and_summed_differ_where_batch_norm_couples_the_batch() -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    summed = compute_metrics(network, images, labels).ntk
    exact = compute_metrics(network, images, labels, ntk="exact").ntk
    assert float((summed - exact).abs().max()) > 1e-2 * float(exact.abs().max())


def test_ntk_of_a_linear_model_matches_the_closed_form() -> None:
    # f(x) = W x + b: samples of one class share a row of W, so Θ₀[s, t] = [y_s = y_t] (x_s · x_t + 1).
    network = nn.Linear(12, CLASSES).double()
    images, labels = batch((12,), size=8)
    expected = (images @ images.t() + 1) * (labels[:, None] == labels)
    for mode in ("summed", "exact"):
        same_matrix(compute_metrics(network, images, labels, ntk=mode).ntk, expected, 1e-13)


def test_grasp_of_a_linear_model_matches_the_closed_form() -> None:
    # H g = (1/m) Σ_s (diag p_s − p_s p_sᵀ) g x_s x_sᵀ: L is convex in W, so this checks the sign of grasp too.
    network = nn.Linear(12, CLASSES, bias=False).double()
    images, labels = batch((12,), size=8)
    weight = network.weight.detach()
    p = torch.softmax(images @ weight.t(), 1)
    g = (p - F.one_hot(labels, CLASSES)).t() @ images / 8
    hg = sum(torch.outer((torch.diag(q) - torch.outer(q, q)) @ g @ x, x) for q, x in zip(p, images, strict=True)) / 8
    m = compute_metrics(network, images, labels)
    assert m.grasp == pytest.approx(-float((weight * hg).sum()), rel=1e-12)
    assert m.grad_norm == pytest.approx(float(g.norm()), rel=1e-12)


def test_grasp_of_scale_invariant_layers_is_their_squared_gradient() -> None:
    # An identity that needs no second derivative, for negligible ε.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, eps=1e-14), nn.Tanh()]
        second = [nn.Conv2d(6, CLASSES, 3, bias=False), nn.BatchNorm2d(CLASSES, eps=1e-14), nn.Tanh()]
    network = nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    images, labels = batch((3, 8, 8))
    m = compute_metrics(network, images, labels)
    assert m.grasp == pytest.approx(m.grad_norm_l2**2, rel=1e-6)
    assert m.snip_inner < 1e-8 * m.snip


# Float32 against float64.


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_agrees_with_float64(name: str) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    network, images = network.float(), images.float()
    double, double_images = copy.deepcopy(network).double(), images.double()
    scalars = reference_scalars(double, double_images, labels)
    agrees(compute_metrics(network, images, labels), scalars, reference_summed(double, double_images, labels), 1e-3)
    exact = compute_metrics(network, images, labels, ntk="exact")
    same_matrix(exact.ntk, reference_exact(double, double_images, labels), 1e-3)


@pytest.mark.parametrize("arch", LIVE[:4])
def test_float32_of_a_nasbench201_cell_agrees_with_float64(arch: str) -> None:
    network = cell_network(arch).float()
    images, labels = batch((3, 16, 16), size=8, dtype=torch.float32)
    double, double_images = copy.deepcopy(network).double(), images.double()
    scalars = reference_scalars(double, double_images, labels)
    agrees(compute_metrics(network, images, labels), scalars, reference_summed(double, double_images, labels), 1e-3)


def test_kappa_in_float32_is_accurate_for_many_pixels_per_channel() -> None:
    # With 32,768 values per channel, naive sums in batch norm move the smallest eigenvalue by several per cent.
    network = cell_network(LIVE[3]).float()
    images, labels = batch((3, 32, 32), size=32, dtype=torch.float32)
    images += 3
    double = compute_metrics(copy.deepcopy(network).double(), images.double(), labels)
    single = compute_metrics(network, images, labels)
    assert single.kappa == pytest.approx(double.kappa, rel=1e-3)
    assert single.grasp == pytest.approx(double.grasp, rel=1e-3)


@pytest.mark.skipif(not TEST_DATA, reason="HNAS_TEST_DATA is unset: real CIFAR-10 images in Parquet are needed")
def test_columns_on_real_images_match_autograd() -> None:
    from hnas.pipeline.images import open_dataset, training_batch

    data = training_batch(open_dataset(str(Path(TEST_DATA or "") / "cifar10")), 16, seed=0)
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    network = CELLS.network(MIXED, classes=10, channels=8, cells=1, seed=0)
    double = copy.deepcopy(network).double()
    scalars = reference_scalars(double, images.double(), labels)
    ntk = reference_summed(double, images.double(), labels)
    agrees(compute_metrics(double, images.double(), labels), scalars, ntk, 1e-8)
    agrees(compute_metrics(network, images, labels), scalars, ntk, 1e-3)


# Block sizes and memory layout do not matter.


@pytest.mark.parametrize("name", ["residual", "conv_called_twice", "weight_of_two_modules"])
def test_exact_ntk_is_the_same_one_layer_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    whole = compute_metrics(network, images, labels, ntk="exact")
    monkeypatch.setattr(ntk, "_EXACT_BYTES", 1)
    piecewise = compute_metrics(network, images, labels, ntk="exact")
    same_matrix(piecewise.ntk, whole.ntk, 1e-13)
    assert piecewise.columns() == pytest.approx(whole.columns(), rel=1e-10)


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("name", ["even_kernels_and_strides", "residual", "tokens"])
def test_ntk_is_the_same_in_small_blocks(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, shape = build(name)
    images, labels = batch(shape, size=size)
    whole = compute_metrics(network, images, labels).ntk
    monkeypatch.setattr(convolution, "_PATCHES", 2000)
    monkeypatch.setattr(ntk, "_COLUMNS", 7)
    same_matrix(compute_metrics(network, images, labels).ntk, whole, 1e-13)
    monkeypatch.setattr(convolution, "_PATCHES", 1)
    same_matrix(compute_metrics(network, images, labels).ntk, whole, 1e-13)


@pytest.mark.parametrize("name", ["residual", "even_kernels_and_strides"])
def test_the_memory_layout_of_images_does_not_matter(name: str) -> None:
    network, shape = build(name)
    images, labels = batch(shape)
    plain = compute_metrics(network, images, labels)
    backwards = images.flip(0).permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0).flip(0)
    for other in (images.contiguous(memory_format=torch.channels_last), backwards):
        m = compute_metrics(network, other, labels)
        assert m.columns() == pytest.approx(plain.columns(), rel=1e-10)
        same_matrix(m.ntk, plain.ntk, 1e-12)


def test_reordering_samples_permutes_the_ntk_and_keeps_the_columns() -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    m = compute_metrics(network, images, labels)
    permuted = compute_metrics(network, images[order], labels[order])
    same_matrix(permuted.ntk, m.ntk[order][:, order], 1e-10)
    assert permuted.columns() == pytest.approx(m.columns(), rel=1e-8)


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_repeated_computations_are_bit_identical(mode: str) -> None:
    network, shape = build("residual", dtype=torch.float32)
    images, labels = batch(shape, dtype=torch.float32)
    first, second = (compute_metrics(network, images, labels, ntk=mode) for _ in range(2))
    assert first.columns() == second.columns()
    assert torch.equal(first.ntk, second.ntk)


# Unusual layers and modes.


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_an_unused_layer_changes_no_value(mode: str) -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    plain = compute_metrics(network, images, labels, ntk=mode)
    network.unused = nn.Conv2d(3, 4, 3).double()
    m = compute_metrics(network, images, labels, ntk=mode)
    assert m.columns() == plain.columns()
    assert torch.equal(m.ntk, plain.ntk)


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_a_layer_with_discarded_or_detached_output_changes_no_value(mode: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        used, lost, cut = nn.Linear(12, 8), nn.Linear(12, 8), nn.Linear(12, 8)
        out = nn.Linear(8, CLASSES)

    def forward(s: Forward, x: Tensor) -> Tensor:
        if hasattr(s, "lost"):
            s.lost(x)
            x = x + 0 * s.cut(x).detach().sum()
        return s.out(torch.tanh(s.used(x)))

    images, labels = batch((12,))
    plain = compute_metrics(Forward(forward, used=used, out=out).double(), images, labels, ntk=mode)
    network = Forward(forward, used=used, lost=lost, cut=cut, out=out).double()
    m = compute_metrics(network, images, labels, ntk=mode)
    assert m.columns() == plain.columns()
    assert torch.equal(m.ntk, plain.ntk)


def test_logits_independent_of_all_weights_give_zero_gradients() -> None:
    network = Forward(lambda s, x: s.out(x).detach(), out=nn.Linear(12, CLASSES)).double()
    images, labels = batch((12,))
    for mode in ("summed", "exact"):
        m = compute_metrics(network, images, labels, ntk=mode)
        assert m.columns() == {**dict.fromkeys(COLUMNS, 0.0), "kappa": math.inf}


def test_a_network_may_have_the_name_of_its_child() -> None:
    class body(nn.Module):  # noqa: N801
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)), nn.Linear(CLASSES, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.body(x)))  # type: ignore[no-any-return]

    network = body().double()
    images, labels = batch((3, 8, 8))
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_summed(network, images, labels), 1e-8)


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_functions_of_a_module_s_weights_count_like_the_module(mode: str) -> None:
    # Keyword arguments, a bias that belongs to no layer, and a missing bias.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv, mix, out = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Linear(4, 6), nn.Linear(6, CLASSES)
    shift = nn.Parameter(torch.linspace(-1, 1, 6))

    def functions(s: Forward, x: Tensor) -> Tensor:
        x = F.conv2d(input=x, weight=s.conv.weight, bias=s.conv.bias, stride=(2,), padding=1)
        x = torch.tanh(F.batch_norm(x, None, None, training=True, eps=1e-3)).mean((2, 3))
        return F.linear(torch.tanh(F.linear(x, s.mix.weight, s.shift)), s.out.weight, bias=None)

    network = Forward(functions, conv=conv, mix=mix, out=out).double()
    network.shift = nn.Parameter(shift.double())
    images, labels = batch((3, 7, 7))
    m = compute_metrics(network, images, labels, ntk=mode)

    mix_alone, out_alone = nn.Linear(4, 6, bias=False).double(), nn.Linear(6, CLASSES, bias=False).double()
    mix_alone.weight, out_alone.weight = mix.weight, out.weight
    parts = {"conv": conv, "norm": nn.BatchNorm2d(4, eps=1e-3, affine=False).double(), "mix": mix_alone}

    def modules(s: Forward, x: Tensor) -> Tensor:
        x = torch.tanh(s.norm(s.conv(x))).mean((2, 3))
        return s.out(torch.tanh(s.mix(x) + shift.detach().double()))

    twin = Forward(modules, **parts, out=out_alone)
    ntk = (reference_summed if mode == "summed" else reference_exact)(twin, images, labels)
    agrees(m, reference_scalars(twin, images, labels), ntk, 1e-8)


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_frozen_parameters_and_eval_mode_do_not_matter(mode: str) -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    plain = compute_metrics(network, images, labels, ntk=mode)
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        m = compute_metrics(frozen, images, labels, ntk=mode)
    assert m.columns() == plain.columns()
    assert torch.equal(m.ntk, plain.ntk)


def with_dropout() -> nn.Module:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5), nn.Flatten(), nn.Dropout(0.5)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*layers, nn.Linear(144, CLASSES)).double()


def with_functional_dropout() -> nn.Module:
    def forward(s: Forward, x: Tensor) -> Tensor:
        x = F.dropout2d(torch.relu(s.norm(s.conv(x))), 0.5, s.training)
        return s.out(F.dropout(x.flatten(1), 0.5, training=s.training))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {"conv": nn.Conv2d(3, 4, 3), "norm": nn.BatchNorm2d(4), "out": nn.Linear(144, CLASSES)}
        return Forward(forward, **parts).double()


@pytest.mark.parametrize("make", [with_dropout, with_functional_dropout])
def test_dropout_is_off(make: Callable[[], nn.Module]) -> None:
    network = make()
    images, labels = batch((3, 8, 8))
    m = compute_metrics(network, images, labels)
    layers = list(measured(network))
    off = nn.Sequential(layers[0], nn.BatchNorm2d(4).double(), nn.ReLU(), nn.Flatten(), layers[1])
    agrees(m, reference_scalars(off, images, labels), reference_summed(off, images, labels), 1e-8)
    assert all(module.training for module in network.modules())


def parametrised() -> nn.Module:
    layers = [nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, CLASSES)]
    for layer in layers[:3:2]:
        nn.utils.parametrizations.weight_norm(layer)
    return nn.Sequential(*layers)


def test_refusing_spectral_norm_leaves_its_vectors_unchanged() -> None:
    network = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(12, CLASSES))).double()
    before = [buffer.clone() for buffer in network.buffers()]
    with pytest.raises(UsageError, match="computed from other parameters"):
        compute_metrics(network, *batch((12,)))
    assert before
    assert all(map(torch.equal, before, network.buffers()))


class Attention(nn.Module):
    """Its projection is a Linear module whose weight enters one fused function rather than a call of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))
        return out


def standardised() -> nn.Module:
    def forward(s: Forward, x: Tensor) -> Tensor:
        return s.out(F.linear(x, s.first.weight - s.first.weight.mean(), s.first.bias))

    return Forward(forward, first=nn.Linear(12, 9), out=nn.Linear(9, CLASSES))


def fused() -> nn.Module:
    """Two layers in one call, with their weights concatenated."""

    def forward(s: Forward, x: Tensor) -> Tensor:
        weight = torch.cat([s.first.weight, s.second.weight])  # type: ignore[list-item, union-attr]
        return s.out(torch.tanh(F.linear(x, weight)))  # type: ignore[operator, no-any-return]

    parts = {
        "first": nn.Linear(12, 4, bias=False),
        "second": nn.Linear(12, 5, bias=False),
        "out": nn.Linear(9, CLASSES),
    }
    return Forward(forward, **parts)


@pytest.mark.parametrize(
    ("make", "shape"),
    [(parametrised, (12,)), (Attention, (7, 6)), (standardised, (12,)), (fused, (12,))],
    ids=["parametrised", "attention", "standardised", "fused"],
)
def test_other_uses_of_a_weight_are_counted_or_refused(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().double()
    images, labels = batch(shape)
    try:
        m = compute_metrics(network, images, labels)
    except UsageError as error:
        assert "weight" in str(error)  # noqa: PT017 (either is right)
        return
    twin = training_copy(network)
    layers = measured(twin)
    with nn.utils.parametrize.cached():
        weights = [layer.weight for layer in layers]
        loss = F.cross_entropy(twin(images), labels)
    norms = [float(g.norm()) for g in torch.autograd.grad(loss, weights)]
    assert m.grad_norm == pytest.approx(sum(norms), rel=1e-8)


def test_integer_images_are_accepted() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {"embed": nn.Embedding(10, 6), "mix": nn.Linear(6, 6), "out": nn.Linear(6, CLASSES)}
    network = Forward(lambda s, x: s.out(torch.tanh(s.mix(s.embed(x))).mean(1)), **parts).double()
    _, labels = batch((1,))
    tokens = torch.randint(0, 10, (6, 7), generator=torch.Generator().manual_seed(0))
    m = compute_metrics(network, tokens, labels)
    agrees(m, reference_scalars(network, tokens, labels), reference_summed(network, tokens, labels), 1e-8)


# Degenerate networks.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_the_dead_cell_is_constant_with_an_infinite_kappa(mode: str, dtype: torch.dtype) -> None:
    assert CELLS.canonical(DEAD) == "y=0"
    network = CELLS.network(DEAD, classes=CLASSES, channels=4, cells=1, seed=0).to(dtype)
    images, labels = batch((3, 8, 8), dtype=dtype)
    m = compute_metrics(network, images, labels, ntk=mode)
    check_invariants(m)
    assert m.status == "constant"
    assert m.kappa == math.inf
    # Only the classifier's bias has a gradient, so Θ₀ is 1 for each pair of samples of the same class.
    same_matrix(m.ntk, (labels[:, None] == labels).double(), 1e-13)
    assert m.columns() == {**dict.fromkeys(COLUMNS, 0.0), "trace": 1.0, "kappa": math.inf}


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_kappa_of_the_dead_cell_is_infinite_even_if_its_ntk_is_the_identity(mode: str) -> None:
    # With one sample per class, λ_max / λ_min is 1, the best possible value, which would win every search.
    network = CELLS.network(DEAD, classes=CLASSES, channels=4, cells=1, seed=0)
    m = compute_metrics(network, *batch((3, 8, 8), size=CLASSES, dtype=torch.float32), ntk=mode)
    same_matrix(m.ntk, torch.eye(CLASSES, dtype=torch.float64), 1e-6)
    assert (m.status, m.kappa) == ("constant", math.inf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["summed", "exact"])
@pytest.mark.parametrize("name", ["mlp", "residual", "residual_without_norm", "tokens", "conv3d"])
def test_kappa_is_infinite_for_a_duplicated_sample(name: str, mode: str, dtype: torch.dtype) -> None:
    network, shape = build(name, dtype=dtype)
    images, labels = batch(shape, dtype=dtype)
    images[4], labels[4] = images[1], labels[1]
    m = compute_metrics(network, images, labels, ntk=mode)
    check_invariants(m)
    assert m.status == "ok"
    assert m.kappa == math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_kappa_is_infinite_for_more_samples_than_parameters(mode: str, dtype: torch.dtype) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).to(dtype)
    images, labels = batch((2,), size=16, dtype=dtype)
    m = compute_metrics(network, images, labels % 2, ntk=mode)
    check_invariants(m)
    assert m.status == "ok"
    assert m.kappa == math.inf


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_a_network_of_zero_weights_is_constant(mode: str) -> None:
    network, shape = build("residual_without_norm")
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    m = compute_metrics(network, *batch(shape), ntk=mode)
    check_invariants(m)
    assert (m.status, m.kappa) == ("constant", math.inf)


@pytest.mark.parametrize("mode", ["summed", "exact"])
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e20), (torch.float32, 1e9), (torch.float64, 1e160), (torch.float64, 1e70)]
)
def test_overflow_is_nonfinite_with_an_infinite_kappa(dtype: torch.dtype, scale: float, mode: str) -> None:
    # The larger scale overflows in the forward pass, the smaller one in a gradient or in the products of Θ₀.
    network, shape = build("residual_without_norm", dtype=dtype)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(scale)
    m = compute_metrics(network, *batch(shape, dtype=dtype), ntk=mode)
    check_invariants(m)
    assert (m.status, m.kappa) == ("nonfinite", math.inf)


def test_images_that_are_not_finite_do_not_raise() -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    images[2, 0, 0, 0] = math.nan
    m = compute_metrics(network, images, labels)
    check_invariants(m)
    assert m.status == "nonfinite"


@pytest.mark.parametrize(
    ("eigenvalues", "dtype", "expected"),
    [
        ([1.0, 2.0, 8.0], torch.float64, 8.0),
        ([5.0, 5.0], torch.float32, 1.0),
        ([0.0, 0.0], torch.float64, math.inf),
        ([0.0, 3.0], torch.float64, math.inf),
        ([-1e-18, 3.0], torch.float64, math.inf),
        ([-2.0, -1.0], torch.float64, math.inf),
        # 2 ε₆₄ is 4e-16, and (2 ε₃₂)² is 6e-14.
        ([1e-16, 1.0], torch.float64, math.inf),
        ([1e-15, 1.0], torch.float64, 1e15),
        ([1e-14, 1.0], torch.float32, math.inf),
        ([1e-13, 1.0], torch.float32, 1e13),
        ([1e-300, 1e-290], torch.float64, 1e10),
        ([math.nan, math.nan], torch.float64, math.inf),
        ([1.0, math.inf], torch.float64, math.inf),
    ],
)
def test_condition_number(eigenvalues: list[float], dtype: torch.dtype, expected: float) -> None:
    result = condition_number(torch.tensor(eigenvalues, dtype=torch.float64), dtype)
    assert type(result) is float
    assert result == pytest.approx(expected, rel=1e-12)


# The caller's network, images and random generators are restored.


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ArithmeticError("half way through")


def used_network() -> nn.Module:
    """A network with modes, gradients, statistics, frozen parameters, hooks and buffers of every kind."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=False), with_dropout()[3], head(4)
        )
        network.append(nn.Linear(CLASSES, CLASSES))
        shake(network)
        network(torch.randn(4, 3, 8, 8)).sum().backward()
        network[0].bias.grad = None
    network.register_buffer("hidden", torch.arange(3.0), persistent=False)
    network[1].eval()
    network[3].eval()
    network[5].weight.requires_grad_(False)
    return network


def state(network: nn.Module) -> dict[str, Any]:
    """Return all that a caller can see of a network: tensors by value and by identity."""
    return {
        "values": {name: t.detach().clone() for name, t in network.state_dict().items()},
        "buffers": {name: (id(b), b.clone()) for name, b in network.named_buffers()},
        "parameters": {name: (id(p), p.requires_grad, p.is_leaf) for name, p in network.named_parameters()},
        "gradients": {
            name: None if p.grad is None else (id(p.grad), p.grad.clone()) for name, p in network.named_parameters()
        },
        "training": {name: module.training for name, module in network.named_modules()},
        "hooks": {
            name: {key: dict(hooks) for key, hooks in vars(module).items() if "hooks" in key}
            for name, module in network.named_modules()
        },
        "attributes": {name: sorted(vars(module)) for name, module in network.named_modules()},
        "parameter_hooks": {name: len(p._backward_hooks or ()) for name, p in network.named_parameters()},
    }


def same_state(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return all(same_state(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def random_states() -> tuple[Any, ...]:
    numbers = np.random.get_state()
    return torch.get_rng_state(), tuple(torch.from_numpy(numbers[1].copy())[None]), numbers[2], random.getstate()


@pytest.mark.parametrize("mode", ["summed", "exact"])
def test_the_network_is_restored(mode: str) -> None:
    network = used_network()
    images, labels = batch((3, 8, 8), dtype=torch.float32)
    before, numbers, pixels, classes = state(network), random_states(), images.clone(), labels.clone()
    compute_metrics(network, images, labels, ntk=mode)
    after = state(network)
    for what, value in before.items():
        assert same_state(value, after[what]), what
    assert same_state(numbers, random_states())
    assert torch.equal(images, pixels)
    assert torch.equal(labels, classes)
    assert torch.is_grad_enabled()


def test_the_network_is_restored_when_its_forward_pass_raises() -> None:
    network = used_network()
    network.insert(3, Raises())
    images, labels = batch((3, 8, 8), dtype=torch.float32)
    before, pixels = state(network), images.clone()
    with pytest.raises(ArithmeticError, match="half way through"):
        compute_metrics(network, images, labels)
    after = state(network)
    for what, value in before.items():
        assert same_state(value, after[what]), what
    assert torch.equal(images, pixels)
    network[3] = nn.Identity()
    assert type(network(images)) is Tensor
    assert compute_metrics(network, images, labels).status == "ok"


def test_a_buffer_that_forward_replaces_is_restored() -> None:
    def forward(s: Forward, x: Tensor) -> Tensor:
        s.seen = s.seen + 1
        return s.out(x)

    network = Forward(forward, out=nn.Linear(12, CLASSES)).double()
    network.register_buffer("seen", torch.zeros(()))
    compute_metrics(network, *batch((12,)))
    assert float(network.seen) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(12,), (3, 8), (1, 4, 3), (3, 2, 2)])
def test_images_are_unchanged_by_a_network_that_changes_its_input(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(math.prod(shape), CLASSES)).to(dtype)
    images, labels = batch(shape, dtype=dtype)
    for layout in (images, images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images):
        before = layout.clone()
        compute_metrics(network, layout, labels)
        assert torch.equal(layout, before)


def test_images_that_require_gradients_accumulate_none() -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    plain = compute_metrics(network, images, labels)
    m = compute_metrics(network, images.requires_grad_(), labels)
    assert images.grad is None
    assert images.requires_grad
    assert m.columns() == pytest.approx(plain.columns(), rel=1e-10)


def test_the_caller_s_hooks_stay_and_change_no_value() -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    plain = compute_metrics(network, images, labels)
    fired: list[str] = []
    network.stem.register_forward_hook(lambda *_: fired.append("forward"))
    network.strided.register_forward_pre_hook(lambda *_: fired.append("pre"))
    network.dilated.register_full_backward_hook(lambda *_: fired.append("backward"))
    hooks = state(network)["hooks"]
    m = compute_metrics(network, images, labels)
    assert m.columns() == pytest.approx(plain.columns(), rel=1e-10)
    assert state(network)["hooks"] == hooks
    fired.clear()
    network(images).sum().backward()
    assert sorted(fired) == ["backward", "forward", "pre"]


def test_measuring_between_training_steps_does_not_affect_training() -> None:
    def trained(measure: bool) -> dict[str, Tensor]:
        network, shape = build("residual")
        images, labels = batch(shape)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimiser.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            if measure:
                compute_metrics(network, images, labels)
            loss.backward()
            optimiser.step()
        return network.state_dict()

    plain, with_metrics = trained(measure=False), trained(measure=True)
    assert all(torch.equal(value, with_metrics[name]) for name, value in plain.items())


def test_results_keep_no_graph_alive() -> None:
    network, shape = build("residual")
    images, labels = batch(shape)
    compute_metrics(network, images, labels)
    gc.collect()
    before = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
    kept = [compute_metrics(network, images, labels) for _ in range(3)]
    gc.collect()
    after = sum(issubclass(type(o), Tensor) for o in gc.get_objects())
    assert not any(m.ntk.requires_grad or m.eigenvalues.requires_grad for m in kept)
    assert after - before <= 2 * len(kept)


# Wrong usage.


def linear_and_batch() -> tuple[nn.Module, Tensor, Tensor]:
    return nn.Linear(12, CLASSES).double(), *batch((12,))


def test_an_unknown_ntk_mode_error_lists_the_modes() -> None:
    with pytest.raises(UsageError, match=r"'fancy'.*summed.*exact"):
        compute_metrics(*linear_and_batch(), ntk="fancy")


@pytest.mark.parametrize("size", [0, 1])
def test_a_batch_without_two_samples_is_refused(size: int) -> None:
    network, images, labels = linear_and_batch()
    with pytest.raises(UsageError, match=f"at least 2 samples for the condition number, got {size}"):
        compute_metrics(network, images[:size], labels[:size])


@pytest.mark.parametrize("labels", [torch.zeros(5), torch.zeros(6, 1), torch.zeros(())])
def test_labels_of_another_shape_are_refused(labels: Tensor) -> None:
    network, images, _ = linear_and_batch()
    with pytest.raises(UsageError, match=r"labels must have shape \(6,\), one class index per image, got"):
        compute_metrics(network, images, labels.long())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_that_are_not_class_indices_are_refused(dtype: torch.dtype) -> None:
    network, images, labels = linear_and_batch()
    with pytest.raises(UsageError, match=r"labels .*int64"):
        compute_metrics(network, images, labels.to(dtype))


@pytest.mark.parametrize(("label", "what"), [(CLASSES, "0 to 5"), (-1, "-1 to ")])
def test_labels_outside_the_logits_are_refused(label: int, what: str) -> None:
    network, images, labels = linear_and_batch()
    labels[2] = label
    with pytest.raises(UsageError, match=f"labels must lie between 0 and {CLASSES - 1}, got {what}"):
        compute_metrics(network, images, labels)


def test_a_network_without_layers_is_refused_by_its_name() -> None:
    _, images, labels = linear_and_batch()
    with pytest.raises(UsageError, match="Sequential must have a Conv or Linear layer"):
        compute_metrics(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12)), images, labels)


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (lambda s, x: s.out(x)[:, 0], r"\(6,\)"),
        (lambda s, x: s.out(x)[:, :, None], r"\(6, 5, 1\)"),
        (lambda s, x: s.out(x)[:3], r"\(3, 5\)"),
        (lambda s, x: (s.out(x), x), "tuple"),
    ],
)
def test_an_output_that_is_not_a_row_of_logits_per_image_is_refused(forward: Any, what: str) -> None:
    network = Forward(forward, out=nn.Linear(12, CLASSES)).double()
    images, labels = batch((12,))
    with pytest.raises(UsageError, match=f"the network must return one row of logits per image, .*, got {what}"):
        compute_metrics(network, images, labels)


def test_rows_of_samples_and_positions_in_one_dimension_count_for_their_samples() -> None:
    def forward(s: Forward, x: Tensor) -> Tensor:
        return s.out(torch.tanh(s.mix(x.flatten(0, 1))).view(6, 7, 6).mean(1))

    network = Forward(forward, mix=nn.Linear(6, 6), out=nn.Linear(6, CLASSES)).double()
    before = state(network)
    images, labels = batch((7, 6))
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)
    assert same_state(before, state(network))


def changed_view(s: Forward, x: Tensor) -> Tensor:
    """Changes the flattened view in place and reads the original."""
    y = s.conv(x)  # type: ignore[operator]
    y.view(6, -1).clamp_(min=0)
    return s.head(y)  # type: ignore[operator, no-any-return]


def changed_whole(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    rows = y.view(6, -1)
    y[:, 0] = 0.0
    return s.out(rows)  # type: ignore[operator, no-any-return]


def changed_view_alone(s: Forward, x: Tensor) -> Tensor:
    """Changes the flattened view in place, but does not read the original again, like many classifiers."""
    y = s.conv(x)  # type: ignore[operator]
    rows = torch.relu_(y.view(6, -1))
    return s.out(rows.contiguous() * 2)  # type: ignore[operator, no-any-return]


def changed_part_of_the_view(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    rows = y.view(6, -1)
    rows[:, :5].zero_()
    return s.head(y) + 0 * rows.sum()  # type: ignore[operator, no-any-return]


def unchanged_view(s: Forward, x: Tensor) -> Tensor:
    y = s.conv(x)  # type: ignore[operator]
    rows = y.view(6, -1).contiguous()
    return s.head(y) + s.out(rows)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize(
    "forward", [changed_view, changed_whole, changed_part_of_the_view, changed_view_alone, unchanged_view]
)
def test_in_place_changes_of_copied_views_are_refused(forward: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Forward(forward, conv=nn.Conv2d(3, 4, 3), head=head(4), out=nn.Linear(64, CLASSES)).double()
    images, labels = batch((3, 6, 6))
    if forward in (changed_view_alone, unchanged_view):
        metrics = compute_metrics(network, images, labels)
        assert metrics.grad_norm == pytest.approx(reference_scalars(network, images, labels)["grad_norm"], rel=1e-8)
    else:
        with pytest.raises(UsageError, match="changes a value in place through a view that had to be copied"):
            compute_metrics(network, images, labels)


@pytest.mark.parametrize("where", ["images", "map", "copy"])
def test_places_in_memory_are_read_only_of_contiguous_tensors(where: str) -> None:
    def forward(s: Forward, x: Tensor) -> Tensor:
        if where == "images":
            return s.head(s.conv(x.as_strided((6, 3, 4, 8), (192, 64, 16, 1))))  # type: ignore[operator, no-any-return]
        y = s.conv(x)  # type: ignore[operator]
        y = y.contiguous() if where == "copy" else y
        return s.head(torch.tanh(torch.as_strided(y, (6, 4, 3, 6), (144, 36, 12, 1))))  # type: ignore[operator, no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Forward(forward, conv=nn.Conv2d(3, 4, 3), head=head(4)).double()
    images, labels = batch((3, 8, 8))
    if where == "copy":
        m = compute_metrics(network, images, labels)
        agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)
    else:
        with pytest.raises(UsageError, match=r"as_strided reads places in memory.*contiguous\(\)"):
            compute_metrics(network, images, labels)
