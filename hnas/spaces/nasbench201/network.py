"""The macro network of NAS-Bench-201 (Dong and Yang, ICLR 2020) around a canonical cell.

    stem (3×3 conv, BN) → N cells, C channels → residual block, stride 2 → N cells, 2C → residual block, stride 2
    → N cells, 4C → BN, ReLU → global average pooling → linear

Every convolution in a cell or residual block is ReLU-Conv-BN. The shortcut of a block is 2×2 average pooling and a bare
1×1 convolution. Pooling in a cell is 3×3 averaging that excludes padding.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from hnas.spaces.dag.edge_cell import EdgeCell
from hnas.spaces.dag.expression_graph import Input, Pooling, Value
from hnas.spaces.dag.forward import Values
from hnas.spaces.initialise import Conv2d, Linear
from hnas.spaces.nasbench201.cell import KERNELS, check_image_size


class NASBench201Network(nn.Module):
    """The network of a canonical `cell` with only its live layers: images (m, 3, S, S) to logits (m, classes)."""

    #: Minimum channels and cells for a network that has all kinds of cells.
    smallest: ClassVar[tuple[int, int]] = (1, 1)

    def __init__(self, cell: EdgeCell, *, classes: int, channels: int, cells: int) -> None:
        super().__init__()
        self.stem = ConvBN(3, channels, 3)
        self.stages = nn.ModuleList(
            nn.ModuleList(_CellModule(cell, channels * width) for _ in range(cells)) for width in (1, 2, 4)
        )
        self.reductions = nn.ModuleList(Reduction(channels * width) for width in (1, 2))
        self.head = nn.BatchNorm2d(4 * channels)
        self.classifier = Linear(4 * channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (m, classes) for images (m, 3, S, S), S a multiple of 4."""
        for side in images.shape[-2:]:
            check_image_size(side)
        x = self.stem(images)
        for depth, stage in enumerate(self.stages):
            for cell in stage:  # type: ignore[attr-defined]
                x = cell(x)
            if depth < len(self.reductions):
                x = self.reductions[depth](x)
        x = torch.relu(self.head(x)).mean((2, 3))
        out: Tensor = self.classifier(x)
        return out

    def first_cell(self, x: Tensor) -> Tensor:
        """Return the first cell's output for the first C channels of x (m, channels, height, width)."""
        cell = self.stages[0][0]  # type: ignore[index]
        out: Tensor = cell(x[:, : self.stem.norm.num_features])
        return out


class ConvBN(nn.Module):
    """Conv-BN. The preceding ReLU belongs to the value read, so that layers that read the same value share it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class Reduction(nn.Module):
    """The residual block between two stages: C to 2C channels, half the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = ConvBN(channels, 2 * channels, 3, stride=2)
        self.conv_b = ConvBN(2 * channels, 2 * channels, 3)
        self.shortcut = Conv2d(channels, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv_b(torch.relu(self.conv_a(torch.relu(x))))
        shortcut: Tensor = self.shortcut(nn.functional.avg_pool2d(x, 2))
        return out + shortcut


class _CellModule(nn.Module):
    """A canonical cell with C channels in and out."""

    def __init__(self, cell: EdgeCell, channels: int) -> None:
        super().__init__()
        self.cell = cell
        self.layers = nn.ModuleList(ConvBN(channels, channels, KERNELS[layer.kind]) for layer in cell.layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.cell.dead:
            return torch.zeros_like(x)
        values = _Values(x)
        for layer, module in zip(self.cell.layers, self.layers, strict=True):
            values.outputs.append(module(values.rectified(layer.reads)))
        return values.of(self.cell.output)


class _Values(Values):
    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._x = x

    def given(self, key: Input) -> Tensor:
        return self._x

    def pooled(self, key: Pooling) -> Tensor:
        return nn.functional.avg_pool2d(self.of(key.reads), 3, 1, 1, count_include_pad=False)

    def sum(self, key: Value) -> Tensor:
        return self.added(None, key)
