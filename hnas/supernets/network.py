"""The supernet of NAS-Bench-201: every edge of every cell has all five operations with their own weights.

    node_j = Σ_{i<j} Σ_o w[(i,j), o] · o(node_i),     o one of none, skip, 1×1 conv, 3×3 conv, 3×3 average pooling

inside the benchmark's macro network (`hnas.spaces.nasbench201.network`). A `Mixture` defines w: soft for DARTS and
DrNAS, one operation per edge for GDAS and ENAS. Batch norms within cells have no parameters and always use batch
statistics; those of the stem and of the residual blocks have parameters and running statistics, as in the programs of
the searches (xautodl/models/cell_searchs/generic_model.py of AutoDL-Projects, 201-space/search_model.py of DrNAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d

from hnas.errors import UsageError
from hnas.spaces.initialise import Linear, initialise
from hnas.spaces.nasbench201.cell import EDGES, NODES, OPERATIONS, check_image_size
from hnas.spaces.nasbench201.network import ConvBN, Reduction
from hnas.spaces.sizes import check_sizes

NONE, SKIP, CONV1, CONV3, POOL = range(len(OPERATIONS))
_KERNELS = {CONV1: 1, CONV3: 3}
#: All operations of all edges.
EVERYTHING = (tuple(range(len(OPERATIONS))),) * len(EDGES)


@dataclass(frozen=True)
class Mixture:
    """How the operations of each edge are mixed.

    weights: (6, 5), edges in the order of an architecture string, operations in that of the space; None for weights 1.
    operations: the operations computed on each edge; the others count as zero maps.
    hard: whether each edge computes a single operation with weight 1, the others having weight 0. The weights of the
        others are then added to the map, as in GDAS' program. This does not change its value, but gives each of these
        weights the gradient of the map's sum without computing its operation.
    """

    weights: Tensor | None = None
    operations: Sequence[Sequence[int]] = EVERYTHING
    hard: bool = False

    @classmethod
    def single(cls, decisions: Sequence[int]) -> Mixture:
        """Return the mixture of one operation per edge."""
        return cls(None, tuple((decision,) for decision in decisions))


class MixedCell(nn.Module):
    """A cell with C channels in and out; the first 1/`share` of them are mixed and the others pass through (PC-DARTS).

    `affine` gives its batch norms parameters.
    """

    def __init__(self, channels: int, *, affine: bool = False, share: int = 1) -> None:
        super().__init__()
        self.share = share
        mixed = channels // share
        self.layers = nn.ModuleList(
            nn.ModuleDict({OPERATIONS[o]: _conv_bn(mixed, kernel, affine) for o, kernel in _KERNELS.items()})
            for _ in EDGES
        )

    def nodes(self, x: Tensor, mixture: Mixture) -> list[Tensor]:
        """Return the values of the four nodes, each (m, C, H, W); the first is x."""
        values = [x]
        into: list[list[Tensor]] = [[] for _ in range(NODES)]
        for i in range(NODES - 1):
            leaving = [edge for edge, (source, _) in enumerate(EDGES) if source == i]
            for edge, part in zip(leaving, self._leaving(leaving, values[i], mixture), strict=True):
                into[EDGES[edge][1]].append(part)
            values.append(sum(into[i + 1][1:], start=into[i + 1][0]))
        return values

    def forward(self, x: Tensor, mixture: Mixture) -> Tensor:
        """Return the value of the last node."""
        return self.nodes(x, mixture)[-1]

    def _leaving(self, edges: list[int], x: Tensor, mixture: Mixture) -> list[Tensor]:
        """Return the outputs of `edges`, all of which read x."""
        if self.share == 1:
            return self._mixed(edges, x, mixture)
        mixed, passed = x.tensor_split([x.shape[1] // self.share], dim=1)
        return [_shuffled(torch.cat([part, passed], dim=1), self.share) for part in self._mixed(edges, mixed, mixture)]

    def _mixed(self, edges: list[int], x: Tensor, mixture: Mixture) -> list[Tensor]:
        terms: dict[int, list[tuple[int, Tensor]]] = {edge: [] for edge in edges}
        for operation in (SKIP, CONV1, CONV3, POOL):
            having = [edge for edge in edges if operation in mixture.operations[edge]]
            for edge, out in zip(having, self._operation(operation, having, x), strict=True):
                terms[edge].append((operation, out))
        return [_sum(edge, terms[edge], x, mixture) for edge in edges]

    def _operation(self, operation: int, edges: list[int], x: Tensor) -> list[Tensor]:
        """Return the operation's output on each of `edges`; convolutions of x with one kernel size are done as one."""
        if not edges:
            return []
        if operation in (SKIP, POOL):
            return [x if operation == SKIP else avg_pool2d(x, 3, 1, 1, count_include_pad=False)] * len(edges)
        layers = [self.layers[edge][OPERATIONS[operation]] for edge in edges]  # type: ignore[index]
        out = conv2d(
            torch.relu(x), torch.cat([layer.conv.weight for layer in layers]), padding=_KERNELS[operation] // 2
        )
        scale, shift = (
            torch.cat([getattr(layer.norm, name) for layer in layers]) if layers[0].norm.affine else None
            for name in ("weight", "bias")
        )
        return list(batch_norm(out, None, None, scale, shift, training=True).chunk(len(edges), dim=1))


def _sum(edge: int, terms: list[tuple[int, Tensor]], x: Tensor, mixture: Mixture) -> Tensor:
    weights = mixture.weights
    parts = [out if weights is None else weights[edge, operation] * out for operation, out in terms]
    total = sum(parts[1:], start=parts[0]) if parts else torch.zeros_like(x)
    if mixture.hard and weights is not None:
        (drawn,) = mixture.operations[edge]
        total = total + (weights[edge].sum() - weights[edge, drawn])
    return total


def _shuffled(x: Tensor, groups: int) -> Tensor:
    """Shuffle the channels, so that the next cell mixes different ones."""
    m, c, h, w = x.shape
    return x.reshape(m, groups, c // groups, h, w).transpose(1, 2).reshape(m, c, h, w)


class SuperNetwork(nn.Module):
    """The macro network with N = `cells` mixed cells per stage, C = `channels` in the first, weights drawn from `seed`.

    Raises `UsageError` for an impossible size, and where `share` does not divide the channels.
    """

    def __init__(
        self, *, classes: int, channels: int = 16, cells: int = 5, seed: int = 0, affine: bool = False, share: int = 1
    ) -> None:
        super().__init__()
        check_sizes("NAS-Bench-201 super", {"classes": classes, "channels": channels, "cells per stage": cells})
        if channels % share:
            raise UsageError(f"channels must be a multiple of {share} to mix 1/{share} of them, got {channels}")
        self.size = {"classes": classes, "channels": channels, "cells": cells}
        self.stem = ConvBN(3, channels, 3)
        self.stages = nn.ModuleList(
            nn.ModuleList(MixedCell(channels * width, affine=affine, share=share) for _ in range(cells))
            for width in (1, 2, 4)
        )
        self.reductions = nn.ModuleList(Reduction(channels * width) for width in (1, 2))
        self.head = nn.BatchNorm2d(4 * channels, affine=affine, track_running_stats=affine)
        self.classifier = Linear(4 * channels, classes)
        initialise(self, seed)

    def forward(self, images: Tensor, mixture: Mixture) -> Tensor:
        """Return logits (m, classes) for images (m, 3, S, S), S a multiple of 4."""
        check_image_size(images.shape[-1])
        if mixture.weights is not None:
            mixture = replace(mixture, weights=mixture.weights.to(images))
        x = self.stem(images)
        for depth, stage in enumerate(self.stages):
            for cell in stage:  # type: ignore[attr-defined]
                x = cell(x, mixture)
            if depth < len(self.reductions):
                x = self.reductions[depth](x)
        out: Tensor = self.classifier(torch.relu(self.head(x)).mean((2, 3)))
        return out


def layout_on(device: torch.device) -> torch.memory_format:
    """Return the memory layout in which a supernet is faster: channels-last on a CPU, by up to 1.7 times."""
    return torch.channels_last if device.type == "cpu" else torch.contiguous_format


def _conv_bn(channels: int, kernel: int, affine: bool) -> nn.Module:
    layer = ConvBN(channels, channels, kernel)
    layer.norm = nn.BatchNorm2d(channels, affine=affine, track_running_stats=False)
    return layer
