"""The networks of DARTS (Liu, Simonyan, Yang, ICLR 2019) around canonical cells; the layout is in `layout`.

Operations are those of DARTS' evaluation model: batch norm with scale and shift, but none after a pooling (unlike in
its search model), and average pooling that excludes padding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hnas.spaces.dag.expression_graph import Input, Pooling, Value
from hnas.spaces.dag.forward import Values, again
from hnas.spaces.darts.canonical import INPUTS, DARTSCell, additions
from hnas.spaces.darts.layout import STEM, Place, check_image_size, places, reductions
from hnas.spaces.initialise import Conv2d, Linear


class DARTSNetwork(nn.Module):
    """A network of `layers` canonical cells: images (m, 3, S, S) to logits (m, classes).

    With an auxiliary head it returns (logits, auxiliary logits) in training mode, and logits in evaluation mode.
    `drop_path` is the probability in [0, 1) with which an edge other than a skip is dropped per sample in training
    mode, with the others scaled up. It may be set at any time.
    """

    #: Minimum channels and cells for a network that has all kinds of cells.
    smallest: ClassVar[tuple[int, int]] = (1, 3)

    def __init__(
        self, normal: DARTSCell, reduction: DARTSCell, *, classes: int, channels: int, layers: int,
        auxiliary: bool = False, drop_path: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.drop_path = drop_path
        self.stem = _ConvBN(3, STEM * channels, 3)
        laid_out = list(places(normal, reduction, channels, layers))
        self.cells = nn.ModuleList(map(_CellModule, laid_out))
        self.auxiliary_after = reductions(layers)[1]
        self.auxiliary = _AuxiliaryHead(laid_out[self.auxiliary_after].outputs, classes) if auxiliary else None
        self.classifier = Linear(laid_out[-1].outputs, classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (m, classes) for images (m, 3, S, S); both logits in training mode with an auxiliary head."""
        auxiliary = self.auxiliary if self.training else None
        for side in images.shape[-2:]:
            check_image_size(side, len(self.cells), auxiliary=auxiliary is not None)
        drop_path = self.drop_path if self.training else 0.0
        extra = None
        # All readers of a stem's or cell's output start with a ReLU, so only its ReLU is kept.
        first = last = torch.relu(self.stem(images))
        for i, cell in enumerate(self.cells):
            blocks = cell(first, last, drop_path)
            head = auxiliary if i == self.auxiliary_after else None
            if i < len(self.cells) - 1 or head is not None:
                first, last = last, torch.cat([torch.relu(block) for block in blocks], 1)
            if head is not None:
                extra = head(last)
        out: Tensor = self.classifier(torch.cat([block.mean((2, 3)) for block in blocks], 1))
        return out if extra is None else (out, extra)

    def first_cell(self, x: Tensor) -> Tensor:
        """Return the first cell's output for the first channels of x (m, channels, height, width), without the stem."""
        x = torch.relu(x[:, : self.stem.norm.num_features])
        return torch.cat(self.cells[0](x, x, 0.0), 1)


class _ConvBN(nn.Module):
    """Conv-BN. The preceding ReLU belongs to the value read, so that layers that read the same value share it."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x))
        return out


class _FactorizedReduce(nn.Module):
    """Halve the side: one 1×1 conv on pixels of even rows and columns, one on those of odd rows and columns, BN."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = Conv2d(inputs, outputs // 2, 1, bias=False)
        self.odd = Conv2d(inputs, outputs // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        # Split with channels innermost, so that the gradient is assembled in that layout too; gradients of image slices
        # would have another one. Each part is copied, so that passes over the convolutions need not gather pixels.
        m, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(m, height // 2, 2, width // 2, 2, channels)
        even, odd = (row.unbind(3)[i].contiguous().permute(0, 3, 1, 2) for i, row in enumerate(rows.unbind(2)))
        out: Tensor = self.norm(torch.cat([self.even(even), self.odd(odd)], 1))
        return out


class _Separable(nn.Module):
    """Depthwise conv, pointwise conv, BN, once per stride, with a ReLU before the second."""

    def __init__(self, channels: int, kernel: int, dilation: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.depthwise = nn.ModuleList(
            Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)
            for stride in strides
        )
        self.pointwise = nn.ModuleList(_ConvBN(channels, channels) for _ in strides)

    def forward(self, x: Tensor) -> Tensor:
        for i, (depthwise, pointwise) in enumerate(zip(self.depthwise, self.pointwise, strict=True)):
            x = pointwise(depthwise(torch.relu(x) if i else x))
        return x


class _CrossConv(nn.Module):
    """1×7 conv, 7×1 conv, BN."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.row = Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False)
        self.column = Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.column(self.row(x)))
        return out


class _PoolingLayer(nn.Module):
    """A pooling as a layer of its own, for the canonical cells of the evaluation network."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return _pooled(self.kind, x)


def _pooled(kind: str, x: Tensor) -> Tensor:
    name, _, stride = kind.partition("/")
    if name == "max3":
        return F.max_pool2d(x, 3, int(stride or 1), 1)
    return F.avg_pool2d(x, 3, int(stride or 1), 1, count_include_pad=False)


def _layer(kind: str, channels: int) -> nn.Module:
    name, _, text = kind.partition("/")
    stride = int(text or 1)
    if name == "skip":
        return _FactorizedReduce(channels, channels)
    if name == "conv7":
        return _CrossConv(channels, stride)
    if name in ("max3", "avg3"):
        return _PoolingLayer(kind)
    if name.startswith("dil"):
        return _Separable(channels, int(name[-1]), 2, (stride,))
    return _Separable(channels, int(name[-1]), 1, (stride, 1))


class _CellModule(nn.Module):
    """A canonical cell in its place: from the ReLUs of its two inputs to the list of its blocks, C channels each."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.cell, self.channels = place.cell, place.channels
        self.sums = additions(place.cell)
        ways = (_FactorizedReduce if place.halves_first else _ConvBN, _ConvBN)
        self.inputs = nn.ModuleDict(
            {
                str(state): way(channels, place.channels)
                for state, (way, channels) in enumerate(zip(ways, place.inputs, strict=True))
                if place.cell.reads(state)
            }
        )
        self.layers = nn.ModuleList(_layer(layer.kind, place.channels) for layer in place.cell.layers)

    def forward(self, first: Tensor, last: Tensor, drop_path: float) -> list[Tensor]:
        given = {
            INPUTS[state]: self.inputs[str(state)](x if state else again(x))  # the previous cell read it as `last`
            for state, x in enumerate((first, last))
            if str(state) in self.inputs
        }
        values = _Values(given, self.sums, partial(self._zeros, last))
        for layer, module in zip(self.cell.layers, self.layers, strict=True):
            pooling = isinstance(module, _PoolingLayer)
            out = module(values.of(layer.reads) if pooling else values.rectified(layer.reads))
            values.outputs.append(_dropped(out, drop_path) if drop_path else out)
        return [values.of(block) for block in self.cell.outputs]

    def _zeros(self, last: Tensor) -> Tensor:
        height, width = (side // 2 if self.cell.reduction else side for side in last.shape[2:])
        return last.new_zeros(last.shape[0], self.channels, height, width)


class _Values(Values):
    def __init__(
        self, states: dict[Input, Tensor], sums: dict[Value, tuple[Value, Value]], zeros: Callable[[], Tensor]
    ) -> None:
        super().__init__()
        self._states, self._sums, self._zeros = states, sums, zeros

    def given(self, key: Input) -> Tensor:
        return self._states[key]

    def pooled(self, key: Pooling) -> Tensor:
        return _pooled(key.kind, self.of(key.reads))

    def sum(self, key: Value) -> Tensor:
        if key not in self._sums:
            return self.term(key[0][0]) if key else self._zeros()
        base, rest = self._sums[key]
        return self.added(self.of(base) if base else None, rest)


def _dropped(x: Tensor, drop_path: float) -> Tensor:
    """Drop each sample of x with this probability, and scale the others so that the mean is unchanged."""
    kept = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - drop_path)
    return x * (kept / (1 - drop_path))


class _AuxiliaryHead(nn.Module):
    """The second classifier of the evaluation network, after its second reduction cell; it reads a ReLU.

    On maps of 8 to 10 pixels its last map has one pixel, as in DARTS; larger ones are averaged.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.squeeze = _ConvBN(inputs, 128)
        self.conv = Conv2d(128, 768, 2, bias=False)
        self.norm = nn.BatchNorm2d(768)
        self.classifier = Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(F.avg_pool2d(x, 5, 3, count_include_pad=False)))
        x = torch.relu(self.norm(self.conv(x)))
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out
