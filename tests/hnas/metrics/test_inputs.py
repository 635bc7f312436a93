"""`compute_metrics` converts its inputs or refuses them in one sentence; attention is measured."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hnas import compute_metrics
from hnas.errors import HnasError, UsageError
from tests.support.networks import CLASSES, Forward, batch
from tests.support.references import agrees, reference_exact, reference_scalars


def convolutional(dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, CLASSES)).to(dtype)


IMAGES, LABELS = batch((3, 8, 8), dtype=torch.float32)


# Attention.


def tokens(s: Forward, x: Tensor) -> Tensor:
    return s.patch(x).flatten(2).transpose(1, 2)  # type: ignore[operator, no-any-return]


def fused(s, x, **options):  # type: ignore[no-untyped-def]
    q, k, v = s.qkv(tokens(s, x)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
    return s.out(F.scaled_dot_product_attention(q, k, v, **options).transpose(1, 2).flatten(2).mean(1))


ATTENTION: dict[str, Callable[..., Tensor]] = {
    "fused": fused,
    "causal": lambda s, x: fused(s, x, is_causal=True, scale=0.3),
    "masked": lambda s, x: fused(s, x, attn_mask=torch.ones(4, 4).tril().bool()),
    "module": lambda s, x: s.out(s.mha(*[tokens(s, x)] * 3)[0].mean(1)),
    "module without weights": lambda s, x: s.out(s.mha(*[tokens(s, x)] * 3, need_weights=False)[0].mean(1)),
    "cross": lambda s, x: s.out(s.mha(tokens(s, x)[:, :2], *[tokens(s, x)] * 2, need_weights=False)[0].mean(1)),
    "sequence first": lambda s, x: s.out(s.first(*[tokens(s, x).transpose(0, 1)] * 3, need_weights=False)[0].mean(0)),
    "encoder layer": lambda s, x: s.out(s.layer(tokens(s, x)).mean(1)),
    "encoder": lambda s, x: s.out(s.encoder(tokens(s, x)).mean(1)),
}


@pytest.mark.parametrize("size", [8, 6])
@pytest.mark.parametrize("name", ATTENTION)
def test_columns_of_attention_match_double_backward(name: str, size: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True)
        network = Forward(
            ATTENTION[name],
            patch=nn.Conv2d(3, 8, 4, 4),
            qkv=nn.Linear(8, 24),
            mha=nn.MultiheadAttention(8, 2, batch_first=True),
            first=nn.MultiheadAttention(8, 2),
            layer=layer,
            encoder=nn.TransformerEncoder(layer, 2),
            out=nn.Linear(8, CLASSES),
        ).double()
    images, labels = batch((3, 8, 8), size=size)
    m = compute_metrics(network, images, labels)
    with sdpa_kernel(SDPBackend.MATH):
        expected = reference_scalars(network, images, labels), reference_exact(network, images, labels)
    agrees(m, *expected, 1e-8)


# Operations without a second derivative.


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * gy * x


@pytest.mark.parametrize(
    ("forward", "twin", "what"),
    [
        (
            lambda s, x: -torch.cdist(s.mix(x), s.points),
            lambda s, x: -((s.mix(x)[:, None] - s.points) ** 2).sum(2).sqrt(),
            "_cdist_backward",
        ),
        (lambda s, x: s.out(Once.apply(s.mix(x))), lambda s, x: s.out(s.mix(x) ** 2), "once_differentiable"),
    ],
)
def test_without_a_second_derivative_only_grasp_is_missing(forward: Any, twin: Any, what: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts, points = {"mix": nn.Linear(12, 8), "out": nn.Linear(8, CLASSES)}, torch.randn(CLASSES, 8)
        networks = [Forward(run, **parts).double() for run in (forward, twin)]
    for network in networks:
        network.points = points.double()  # type: ignore[assignment]
    images, labels = batch((12,))
    for mode in ("summed", "exact"):
        with pytest.warns(UserWarning, match=f"grasp and grasp_abs are NaN.*{what}"):
            m = compute_metrics(networks[0], images, labels, ntk=mode)
        assert m.status == "ok"
        assert math.isnan(m.grasp)
        assert math.isnan(m.grasp_abs)
        expected = compute_metrics(networks[1], images, labels, ntk=mode).columns()
        for name in set(expected) - {"grasp", "grasp_abs"}:
            assert getattr(m, name) == pytest.approx(expected[name], rel=1e-8), name


# Images and labels.


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_are_converted_to_the_precision_of_the_weights(dtype: torch.dtype) -> None:
    images = IMAGES.to(dtype)
    expected = compute_metrics(convolutional(), images.float(), LABELS)
    assert compute_metrics(convolutional(), images, LABELS).columns() == expected.columns()
    assert images.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_integer_type_are_accepted(dtype: torch.dtype) -> None:
    expected = compute_metrics(convolutional(), IMAGES, LABELS)
    assert compute_metrics(convolutional(), IMAGES, LABELS.to(dtype)).columns() == expected.columns()


def test_arrays_of_any_byte_order_and_layout_are_accepted() -> None:
    expected = compute_metrics(convolutional(), IMAGES, LABELS).columns()
    array = IMAGES.numpy()
    frozen = array.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for images in (array, frozen, array.astype("float64"), array.astype(">f4"), np.asfortranarray(array)):
            for labels in (LABELS.numpy(), LABELS.numpy().astype(">i2")):
                assert compute_metrics(convolutional(), images, labels).columns() == expected


def test_matrices_are_accepted() -> None:
    network = nn.Linear(12, CLASSES)
    images, labels = batch((12,), dtype=torch.float32)
    expected = compute_metrics(network, images, labels).columns()
    assert compute_metrics(network, np.matrix(images.numpy()), labels.numpy()).columns() == expected


def test_inference_mode_changes_no_value() -> None:
    network = convolutional()
    expected = compute_metrics(network, IMAGES, LABELS).columns()
    with torch.inference_mode():
        images, labels = IMAGES + 0, LABELS + 0
        assert compute_metrics(network, images, labels).columns() == expected
    assert compute_metrics(network, images, labels).columns() == expected


def test_a_part_under_inference_mode_is_a_constant() -> None:
    def network(mode: Any) -> nn.Module:
        def forward(s: Forward, x: Tensor) -> Tensor:
            with mode():
                y = s.base(x)  # type: ignore[operator]
                y = y.view(len(y), -1)
            return s.out(torch.tanh(s.mix(y.clone())))  # type: ignore[operator, no-any-return]

        with torch.random.fork_rng():
            torch.manual_seed(0)
            base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
            return Forward(forward, base=base, mix=nn.Linear(144, 6), out=nn.Linear(6, CLASSES))

    expected, found = (
        compute_metrics(network(mode), IMAGES, LABELS, scores="fisher,gradsign,naswot")
        for mode in (torch.no_grad, torch.inference_mode)
    )
    assert found.columns() == expected.columns()
    assert [found.scores[name] for name in ("fisher", "gradsign")] == [
        expected.scores[name] for name in ("fisher", "gradsign")
    ]
    assert math.isnan(found.scores["naswot"])  # its ReLUs do not say whether they were changed


@pytest.mark.parametrize(
    ("images", "labels", "what"),
    [
        (
            (IMAGES * 255).byte(),
            LABELS,
            "must read torch.float32 like its weights, got torch.uint8; .*floating",
        ),
        ((IMAGES * 255).byte().numpy(), LABELS, "layer 0 must read torch.float32 like its weights, got torch.uint8"),
        (IMAGES.to_sparse(), LABELS, "images must be a dense tensor of real numbers, got a sparse one"),
        (IMAGES.to(torch.complex64), LABELS, "images must be a dense tensor of real numbers, got a complex one"),
        (IMAGES.to("meta"), LABELS, "images are on meta, but the network is on cpu"),
        (IMAGES.tolist(), LABELS, "images must be a torch tensor or a NumPy array, got an object of type list"),
        (np.array([None] * 6), LABELS, "images must have a numeric type .* an array of object"),
        (np.array(["a"] * 6), LABELS, "images must have a numeric type .* an array of <U1"),
        (torch.tensor(1.0), LABELS, "images must be a batch .* a single number"),
        (IMAGES, None, "labels must be a torch tensor or a NumPy array, got an object of type NoneType"),
        (IMAGES, F.one_hot(LABELS, CLASSES), r"labels must have shape \(6,\), .* got \(6, 5\)"),
        (
            IMAGES,
            LABELS.numpy().astype("float64"),
            "labels must be class indices of an integer type .*float64",
        ),
    ],
)
def test_images_and_labels_that_cannot_be_measured_are_refused(images: Any, labels: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        compute_metrics(convolutional(), images, labels)
    assert "\n" not in str(error.value)


# Further images and labels, names of scores, and seeds.


FURTHER = batch((3, 8, 8), seed=7, dtype=torch.float32)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (FURTHER[0].numpy(), FURTHER[1].numpy()),
        (FURTHER[0].double(), FURTHER[1].int()),
        (np.asfortranarray(FURTHER[0].numpy().astype(">f4")), FURTHER[1].numpy().astype("u1")),
    ],
)
def test_further_images_and_labels_are_converted_like_those_of_the_batch(images: Any, labels: Any) -> None:
    expected = compute_metrics(convolutional(), IMAGES, LABELS, scores="zico", further=FURTHER).scores
    found = compute_metrics(convolutional(), IMAGES, LABELS, scores="zico", further=(images, labels)).scores
    assert found == expected
    assert math.isfinite(found["zico"])


def test_inference_mode_changes_no_score() -> None:
    network, names = convolutional(), "gradsign,synflow,zen,zico"
    expected = compute_metrics(network, IMAGES, LABELS, scores=names, further=FURTHER).scores
    with torch.inference_mode():
        further = FURTHER[0] + 0, FURTHER[1] + 0
        assert further[0].is_inference()
        found = compute_metrics(network, IMAGES + 0, LABELS + 0, scores=names, further=further)
    assert found.scores == expected


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_further_images_are_none(count: int) -> None:
    few = FURTHER[0][:count], FURTHER[1][:count]
    assert math.isnan(compute_metrics(convolutional(), IMAGES, LABELS, scores="zico", further=few).scores["zico"])


@pytest.mark.parametrize("scores", ["zico", "naswot", ""])
@pytest.mark.parametrize(
    ("further", "what"),
    [
        (FURTHER[0], "further must be a pair of images and labels, got an object of type Tensor"),
        ((FURTHER[0],), "further must be a pair of images and labels, got an object of type tuple"),
        ((FURTHER[0].tolist(), LABELS), "further images must be a torch tensor or a NumPy array, got .* list"),
        ((FURTHER[0].to("meta"), LABELS), "further images are on meta, but the network is on cpu"),
        ((FURTHER[0][:, :1], LABELS), r"further images must have .* \(n, 3, 8, 8\) .*float32, got \(6, 1, 8, 8\)"),
        (((FURTHER[0] * 9).byte(), LABELS), "further images must have .* type torch.float32, got .* torch.uint8"),
        ((FURTHER[0], LABELS[:3]), r"further labels must have shape \(6,\), .* got \(3,\)"),
        ((FURTHER[0], LABELS.float()), "further labels must be class indices .*float32"),
        ((FURTHER[0], LABELS + 9), f"further labels must lie between 0 and {CLASSES - 1}, got 9 to"),
        ((FURTHER[0], LABELS - 9), f"further labels must lie between 0 and {CLASSES - 1}, got -9 to"),
    ],
)
def test_further_images_and_labels_that_cannot_be_measured_are_refused(further: Any, what: str, scores: str) -> None:
    with pytest.raises(UsageError, match=what):
        compute_metrics(convolutional(), IMAGES, LABELS, scores=scores, further=further)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"scores": [1]}, "scores must be names such as 'naswot' or a list of them, got 1"),
        ({"scores": ["naswot", None]}, "scores must be names .* got None"),
        ({"scores": 5}, "scores must be names .* got 5"),
        ({"scores": ["naswot", ""]}, "an empty name"),
        ({"seed": None}, "seed must be a whole number between .* got None"),
        ({"seed": -1}, "seed must be a whole number between .* got -1"),
    ],
)
def test_scores_and_seeds_that_mean_nothing_are_refused(options: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        compute_metrics(convolutional(), IMAGES, LABELS, **options)


# Networks.


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(6, 3), nn.Flatten(), nn.LazyLinear(CLASSES))


def lazy_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.Linear(216, CLASSES))


def lazy_statistics() -> nn.Module:
    norm = nn.LazyBatchNorm2d(affine=False)
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.Flatten(), nn.Linear(216, CLASSES))


def of_a_buffer() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    weight = network[1].weight.detach()
    del network[1].weight
    network[1].register_buffer("weight", weight)
    return network


def of_integers() -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    network[1].weight = nn.Parameter(torch.ones(CLASSES, 192, dtype=torch.int8), requires_grad=False)
    return network


def of_two_precisions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(216, CLASSES).double())


def made_for_inference() -> nn.Module:
    with torch.inference_mode():
        return convolutional()


def autocast() -> nn.Module:
    def forward(s: Forward, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return s.out(x.flatten(1)).float()  # type: ignore[operator, no-any-return]

    return Forward(forward, out=nn.Linear(192, CLASSES))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lazy, r"the weight of 0 has no values yet.*lazy; call the network once"),
        (lazy_norm, r"the weight of 1 has no values yet.*lazy; call the network once"),
        (lazy_statistics, r"the running_mean of 1 has no values yet.*lazy; call the network once"),
        (of_a_buffer, "layer 1 has a weight or bias that is computed from other parameters or a buffer.*parameter"),
        (of_integers, "layer 1 must have a dense floating-point weight, got one that is torch.int8"),
        (
            lambda: convolutional(torch.complex64),
            "layer 0 must have a dense .* got one that is torch.complex64",
        ),
        (lambda: convolutional().to("meta"), "images are on cpu, but the network is on meta"),
        (of_two_precisions, "layer 2 has torch.float64 on cpu and another has torch.float32 on cpu"),
        (made_for_inference, "the weight of 0 was created under torch.inference_mode"),
        (autocast, "layer out is called under torch.autocast"),
        (lambda: F.relu, "the network must be a torch.nn.Module, got an object of type function"),
        (
            lambda: Forward(lambda s, x: {"logits": x}, out=nn.Linear(1, 1)),
            r"one row of logits per image, .* got dict",
        ),
    ],
)
def test_a_network_that_cannot_be_measured_is_refused(make: Callable[[], Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        compute_metrics(make(), IMAGES, LABELS)


@contextmanager
def named() -> Iterator[None]:
    with pytest.raises(HnasError, match=r"Sequential fails on images of shape \(6, .*\) and torch.float32: ") as error:
        yield
    assert "\n" not in str(error.value)


def test_errors_from_torch_become_one_sentence() -> None:
    with named():
        compute_metrics(convolutional(), torch.ones(6, 4, 8, 8), LABELS)
    with named():
        compute_metrics(convolutional(), torch.ones(6, 3, 9, 9), LABELS)
    with named():
        compute_metrics(nn.Sequential(nn.Flatten(), nn.BatchNorm2d(3), nn.Linear(3, 5)), IMAGES, LABELS)
    with named():
        compute_metrics(nn.Sequential(nn.Linear(8, 5), nn.Flatten(5)), IMAGES, LABELS)
    pooled = nn.AdaptiveMaxPool2d(1, return_indices=True)
    with named():  # a TypeError: the layer is called with a tuple
        compute_metrics(nn.Sequential(nn.Conv2d(3, 6, 3), pooled, nn.Linear(6, CLASSES)), IMAGES, LABELS)
    with named():  # an AssertionError
        compute_metrics(nn.Sequential(nn.TransformerEncoderLayer(4, 2), nn.Linear(4, CLASSES)), IMAGES[:, 0], LABELS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured(dtype: torch.dtype) -> None:
    exact = compute_metrics(convolutional(dtype).double(), IMAGES.to(dtype).double(), LABELS)
    half = compute_metrics(convolutional(dtype), IMAGES, LABELS)
    assert half.trace == pytest.approx(exact.trace, rel=0.02)
    assert half.grad_norm == pytest.approx(exact.grad_norm, rel=0.02)


def test_transposed_and_recurrent_layers_have_no_measured_weights() -> None:
    def forward(s: Forward, x: Tensor) -> Tensor:
        x = s.up(x).flatten(2).transpose(1, 2)  # type: ignore[operator]
        return s.out(s.run_over(x)[0][:, -1])  # type: ignore[operator, no-any-return]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {"up": nn.ConvTranspose2d(3, 4, 2), "run_over": nn.GRU(4, 6, batch_first=True), "out": nn.Linear(6, 5)}
        network = Forward(forward, **parts).double()
    images, labels = batch((3, 4, 4))
    m = compute_metrics(network, images, labels)
    agrees(m, reference_scalars(network, images, labels), reference_exact(network, images, labels), 1e-8)
