"""The supernet of NAS-Bench-201 written out by its definition, one operation at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hnas.spaces.nasbench201.cell import EDGES, OPERATIONS
from hnas.supernets.images import TrainingImages
from hnas.supernets.network import SuperNetwork

Weights = Mapping[str, Tensor]


def tiny_images(n: int = 40, classes: int = 3, side: int = 8, seed: int = 0) -> TrainingImages:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = torch.randint(256, (n, 3, side, side), generator=generator)
    images = (images // 2 + 40 * labels[:, None, None, None]).to(torch.uint8)  # makes the classes separable
    return TrainingImages(images, labels, classes, (0.5, 0.4, 0.45), (0.25, 0.2, 0.3))


def tiny_network(seed: int = 0, **options: object) -> SuperNetwork:
    return SuperNetwork(classes=3, channels=2, cells=1, seed=seed, **options).double()  # type: ignore[arg-type]


def batch(seed: int, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def operation(weights: Weights, place: str, name: str, x: Tensor) -> Tensor:
    if name == "none":
        return torch.zeros_like(x)
    if name == "skip_connect":
        return x
    if name == "avg_pool_3x3":
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    kernel = weights[f"{place}.{name}.conv.weight"]
    scale, shift = (weights.get(f"{place}.{name}.norm.{which}") for which in ("weight", "bias"))
    return normed(F.conv2d(F.relu(x), kernel, padding=kernel.shape[-1] // 2), scale, shift)


def normed(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    x = (x - mean) / (variance + 1e-5).sqrt()
    return x if scale is None or shift is None else x * scale[:, None, None] + shift[:, None, None]


def conv_bn(weights: Weights, place: str, x: Tensor, stride: int = 1) -> Tensor:
    kernel = weights[f"{place}.conv.weight"]
    y = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    return normed(y, weights[f"{place}.norm.weight"], weights[f"{place}.norm.bias"])


def cell(weights: Weights, place: str, x: Tensor, mix: Tensor, drawn: list[int] | None) -> list[Tensor]:
    nodes = [x]
    for j in (1, 2, 3):
        total = torch.zeros_like(x)
        for i in range(j):
            edge = EDGES.index((i, j))
            for o, name in enumerate(OPERATIONS):
                if drawn is None or drawn[edge] == o:
                    total = total + mix[edge, o] * operation(weights, f"{place}.layers.{edge}", name, nodes[i])
                else:  # as in the GDAS program, a map of the weight alone
                    total = total + mix[edge, o]
        nodes.append(total)
    return nodes


def logits(weights: Weights, images: Tensor, mix: Tensor, drawn: list[int] | None = None) -> Tensor:
    """Logits of the supernet with one cell per stage; `drawn` are the operations that GDAS sampled."""
    x = conv_bn(weights, "stem", images)
    for stage in range(3):
        x = cell(weights, f"stages.{stage}.0", x, mix, drawn)[-1]
        if stage < 2:
            block = f"reductions.{stage}"
            y = conv_bn(weights, f"{block}.conv_b", F.relu(conv_bn(weights, f"{block}.conv_a", F.relu(x), stride=2)))
            x = y + F.conv2d(F.avg_pool2d(x, 2), weights[f"{block}.shortcut.weight"])
    x = normed(x, weights.get("head.weight"), weights.get("head.bias"))
    return F.linear(F.relu(x).mean((2, 3)), weights["classifier.weight"], weights["classifier.bias"])


def loss(weights: Weights, data: tuple[Tensor, Tensor], mix: Tensor, drawn: list[int] | None = None) -> Tensor:
    return F.cross_entropy(logits(weights, data[0], mix, drawn), data[1])
